/*
 * The operation table as data: one record an opcode, made from ops.def. For the builder, printer,
 * verifier and every back end's lowering. Constant; any thread.
 */
#ifndef POLYVISOR_IR_OPCODE_H
#define POLYVISOR_IR_OPCODE_H

#include "libshared/ir/ir.h"

/* Letters as in ops.def. */
enum ir_operand_kind { IR_OPERAND__, IR_OPERAND_I, IR_OPERAND_X, IR_OPERAND_F, IR_OPERAND_V };

enum ir_aux_kind {
    IR_AUX_NONE,
    IR_AUX_EXT,
    IR_AUX_MEM,
    IR_AUX_AMO,
    IR_AUX_FP,
    IR_AUX_HELPER,
    IR_AUX_CC,
    IR_AUX_KIND_COUNT
};

enum ir_effect {
    IR_EFFECT_PURE,
    IR_EFFECT_LOAD,
    IR_EFFECT_STORE,
    IR_EFFECT_FPFLAGS,
    IR_EFFECT_CALL,
    IR_EFFECT_END,
    IR_EFFECT_MARK
};

struct ir_opcode_info {
    const char *name;
    uint8_t d, a, b, c; /* enum ir_operand_kind */
    uint8_t aux;        /* enum ir_aux_kind */
    uint8_t effect;     /* enum ir_effect */
};

extern const struct ir_opcode_info ir_opcode_table[IR_OPCODE_COUNT];

/* Names of conditions ("eq") and atomic operations ("add"); "?" when out of range. */
const char *ir_condition_name(unsigned condition);
const char *ir_amo_name(unsigned amo);

/* Number of entries before the NULL name; 0 for a NULL table. */
unsigned ir_global_count(const struct ir_global *globals);
unsigned ir_helper_count(const struct ir_helper *helpers);

/* The enum ir_type an operand kind asks for. */
enum ir_type ir_operand_type(unsigned kind);

#endif
