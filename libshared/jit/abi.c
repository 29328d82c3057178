#include "libshared/jit/abi.h"

#include "source_digest.h"

const char *region_abi(void)
{
    return "shared " SOURCE_DIGEST_SHARED;
}
