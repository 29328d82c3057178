/*
 * What operations of all hosts do with their operands; operands.c also has those that only move.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_OPERANDS_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_OPERANDS_H

#include "vmmd/vcpu/engine/baseline/registers.h"

/* --- integers ------------------------------------------------------------------------------- */
/* The second operand when it is known: the immediate, or a constant's value. */
bool operand_known_b(struct compiler *c, const struct ir_op *op, int64_t *value);
/* The second operand in a register; an immediate in the scratch one. */
unsigned operand_use_b(struct compiler *c, const struct ir_op *op);
/* Fill the slot from a 32-bit result, whose upper half is clear; from one of either width. */
void operand_define32(struct compiler *c, const struct ir_op *op, unsigned reg);
void operand_define_width(struct compiler *c, const struct ir_op *op, bool wide, unsigned reg);

/* --- floating point ------------------------------------------------------------------------- */
bool operand_is_double(const struct ir_op *op);
/* Whether the slots have a form that the host's unit can work on. */
bool operand_host_form(const struct ir_op *op);
/* And it rounds as wanted: to nearest. */
bool operand_host_rounds(const struct ir_op *op);
/* A register that holds the value in the operation's own format. */
unsigned operand_use_float(struct compiler *c, const struct ir_op *op, ir_value value);
void operand_define_float(struct compiler *c, ir_value value, unsigned reg, bool as_double);

#endif
