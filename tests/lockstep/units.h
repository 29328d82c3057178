/*
 * Units: one or a few instructions that belong together. Each function appends one with random
 * operands, or nothing when the stream cannot take it now.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_UNITS_H
#define POLYVISOR_TESTS_LOCKSTEP_UNITS_H

#include "tests/lockstep/generator.h"

/* units_integer.c */
void integer_register(struct generator *generator);
void integer_unary(struct generator *generator);
void integer_immediate(struct generator *generator);
void integer_shift(struct generator *generator);
void upper_immediate(struct generator *generator);
void compressed_immediate(struct generator *generator);
void compressed_compact(struct generator *generator);
void compressed_move(struct generator *generator);

/* units_memory.c */
void memory_access(struct generator *generator);
void pool_load(struct generator *generator);
void compressed_memory(struct generator *generator);
void compressed_stack(struct generator *generator);
void atomic(struct generator *generator);
void reserve_and_store(struct generator *generator);
void fence(struct generator *generator);

/* units_float.c */
void float_arithmetic(struct generator *generator);
void float_square_root(struct generator *generator);
void float_fused(struct generator *generator);
void float_select(struct generator *generator);
void float_compare(struct generator *generator);
void float_inspect(struct generator *generator);
void float_from_bits(struct generator *generator);
void float_to_integer(struct generator *generator);
void float_from_integer(struct generator *generator);
void float_convert(struct generator *generator);
void float_status(struct generator *generator);
void float_compare_silently(struct generator *generator);

/* units_control.c */
void branch(struct generator *generator);
void jump_and_link(struct generator *generator);
void call_and_return(struct generator *generator);
void compressed_call(struct generator *generator);
void loop(struct generator *generator);
void swap_instructions(struct generator *generator);

/* units_call.c */
void add_functions(struct generator *generator, uint32_t limit); /* up to that code offset */
void call_function(struct generator *generator);
void patch_function(struct generator *generator);
void choose_target(struct generator *generator);

/* units_trap.c; for trapping streams */
void trap_access(struct generator *generator);
void trap_atomic(struct generator *generator);
void trap_instruction(struct generator *generator);
void trap_fetch(struct generator *generator);
void read_counter(struct generator *generator);
void change_status(struct generator *generator);
void change_float_state(struct generator *generator);
void flush_translations(struct generator *generator);
void call_alias(struct generator *generator);
void swap_aliases(struct generator *generator);

#endif
