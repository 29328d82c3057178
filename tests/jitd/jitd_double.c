/* jitd with a test's compiler in LLVM's place (compiler_double.h). */
#include "tests/jitd/compiler_double.h"
