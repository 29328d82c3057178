/*
 * The door between C and what runs guest code: interpreter handlers, compiled blocks, regions.
 *
 * They all pass control on to each other by tail calls; only here are they called. So here what
 * compiled blocks rely on is set up and taken down: on x86-64, rbp is the CPU's middle (CPU_MIDDLE)
 * all the while, since neither a preserve_none function nor an ordinary one loses it.
 */
#ifndef POLYVISOR_VCPU_ENGINE_ENTER_H
#define POLYVISOR_VCPU_ENGINE_ENTER_H

#include "libshared/jit/runtime.h"

/* Call `entry`, a code_function or an interp_handler (which knows the first four arguments only).
 */
CODE_CALL void enter_code(struct cpu *cpu, const void *step, char *tlb, uint64_t tlb_mask,
                          uint64_t unused_a, uint64_t unused_b, struct code_target *target,
                          void *entry);

#endif
