/*
 * Host memory: may another machine have that much?
 *
 * The rule: RAM is promised in full. A machine is refused when its RAM, plus what running machines
 * were promised and have not touched yet, is more than the host has available (MemAvailable,
 * or what is left of this process's cgroup limit) less a reserve. So a guest is never killed later
 * for what it was told it has. Other users' machines are seen only by what they use.
 */
#ifndef POLYVISOR_VMMD_BUDGET_H
#define POLYVISOR_VMMD_BUDGET_H

#include "libshared/base/error.h"
#include <stdint.h>

#define BUDGET_RESERVE (64ull << 20) /* bytes kept free for the host */

/* 0, or -ERROR_MEMORY when `wanted` bytes do not fit beside `promised` bytes. */
int budget_check(uint64_t wanted, uint64_t promised, struct error *err);
/* Bytes that the host could give now. */
uint64_t budget_available(void);
/* Bytes of `size` promised through the memfd `fd` and not touched yet. */
uint64_t budget_untouched(int fd, uint64_t size);

#endif
