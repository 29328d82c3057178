/*
 * Block-local register allocation: which host register holds which value, and when to store it.
 *
 * A value is loaded when first read and stored late: when its register is needed for another, when
 * the block ends, or before C code sees the state. Code in COLD that needs the state in memory
 * stores what is out of date there and then, so that the hot path does not. A register whose value
 * is read last, or read again farthest ahead, is given up first.
 *
 * Within one operation: use operands, allocate, then define the result. Registers got so are locked
 * until registers_end_operation.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_REGISTERS_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_REGISTERS_H

#include "vmmd/vcpu/engine/baseline/compile.h"

enum register_file { FILE_GENERAL, FILE_FLOAT };

void registers_begin(struct compiler *c);
/* At the head of a loop: this value is in this register. */
void registers_carry(struct compiler *c, const struct carried *carried);
/* After each operation. */
void registers_end_operation(struct compiler *c, const struct ir_op *op);

struct value_state *registers_value(struct compiler *c, ir_value value);
bool registers_is_constant(struct compiler *c, ir_value value, int64_t *constant);
/* Whether the operation that reads it now is the last: its register may be overwritten. */
bool registers_dies(struct compiler *c, ir_value value, uint16_t next_use);

/* The register that holds an integer value, loading it as needed. */
unsigned registers_use(struct compiler *c, ir_value value);
unsigned registers_use_page_base(struct compiler *c);
/* A floating-point register that holds the slot's 64 bits in its low half. */
unsigned registers_use_double(struct compiler *c, ir_value value);
/* One that holds a boxed f32; retreats when the slot holds no such. */
unsigned registers_use_single(struct compiler *c, ir_value value);

/* A value that lives in a register only, and is forgotten when that is needed for another. */
void registers_hold(struct compiler *c, unsigned value_index, unsigned reg, uint16_t next_use);
void registers_release(struct compiler *c, unsigned value_index);
/* Its register, locked; NO_REGISTER when it was lost. */
unsigned registers_held(struct compiler *c, unsigned value_index, uint16_t next_use);

/* A free register. */
unsigned registers_allocate(struct compiler *c, enum register_file file);
/* Whether no value is in this general register. */
bool registers_is_free(const struct compiler *c, unsigned reg);
/* Make this general register free; its value, if it had one, goes elsewhere. Its bits stay. */
void registers_vacate(struct compiler *c, unsigned reg);

/* `value` is now what `reg` holds. `reg` was allocated, or held an operand that may be lost. */
void registers_define(struct compiler *c, ir_value value, unsigned reg);
void registers_define_single(struct compiler *c, ir_value value, unsigned reg);
void registers_define_constant(struct compiler *c, ir_value value, int64_t constant);

/* Store what is out of date, from where `e` is; the bookkeeping does not change. Keeps flags;
 * may change REG_SCRATCH. `temporaries`: also those that are read later. */
void registers_store_dirty(struct compiler *c, struct emitter *e, bool temporaries);
/* The same in HOT, remembering that it was done. */
void registers_clean(struct compiler *c, bool temporaries);
/* The same for one global. */
void registers_clean_value(struct compiler *c, unsigned global);
/* Forget all registers; everything must be clean. */
void registers_forget(struct compiler *c);
/* The value was written in its slot by other code. */
void registers_overwritten(struct compiler *c, ir_value value);

#endif
