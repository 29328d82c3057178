/* Operand values at which arithmetic tends to go wrong. */
#ifndef POLYVISOR_TESTS_LOCKSTEP_VALUES_H
#define POLYVISOR_TESTS_LOCKSTEP_VALUES_H

#include "tests/lockstep/random.h"

/* A register's worth: an integer, a double, or a single, boxed or not. */
uint64_t random_value(struct random *random);
uint64_t random_integer(struct random *random);
uint64_t random_double(struct random *random);
uint32_t random_single(struct random *random);

#endif
