/* The whole state of a riscv64 hart, compared and printed field by field. */
#ifndef POLYVISOR_TESTS_LOCKSTEP_STATE_H
#define POLYVISOR_TESTS_LOCKSTEP_STATE_H

#include "libshared/isa/riscv64/riscv64.h"
#include <stdio.h>

/* Everything that the guest can ever see of it. Neither hart runs. */
bool state_same(const struct riscv64_cpu *a, const struct riscv64_cpu *b);
/* A line for each field that differs. */
void state_print_difference(FILE *out, const struct riscv64_cpu *subject,
                            const struct riscv64_cpu *oracle);
/* All fields that are not zero, several a line. */
void state_print(FILE *out, const struct riscv64_cpu *cpu);

#endif
