/* jitd --replay FILE: compile one region that was kept, and show what becomes of it. */
#ifndef POLYVISOR_JITD_REPLAY_H
#define POLYVISOR_JITD_REPLAY_H

#include "libshared/base/error.h"
#include <stdbool.h>

/* FILE is a packed region (poisoned/ of the cache) or an entry of the cache. Prints the listing on
 * standard output, then compiles it as a worker would. False with *err set. */
bool replay_file(const char *path, struct error *err);

#endif
