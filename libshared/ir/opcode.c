#include "libshared/ir/opcode.h"

const struct ir_opcode_info ir_opcode_table[IR_OPCODE_COUNT] = {
#define OP(name, d, a, b, c, aux, effect)                                                          \
    [IR_##name] = {#name,          IR_OPERAND_##d, IR_OPERAND_##a,    IR_OPERAND_##b,              \
                   IR_OPERAND_##c, IR_AUX_##aux,   IR_EFFECT_##effect},
#include "libshared/ir/ops.def"
#undef OP
};

const char *ir_opcode_name(unsigned opcode)
{
    return opcode < IR_OPCODE_COUNT ? ir_opcode_table[opcode].name : "?";
}

bool ir_is_terminator(unsigned opcode)
{
    return opcode < IR_OPCODE_COUNT && ir_opcode_table[opcode].effect == IR_EFFECT_END;
}

const char *ir_condition_name(unsigned condition)
{
    static const char *const names[] = {
        [IR_EQ] = "eq",   [IR_NE] = "ne", [IR_LT] = "lt", [IR_GE] = "ge",   [IR_LTU] = "ltu",
        [IR_GEU] = "geu", [IR_LE] = "le", [IR_GT] = "gt", [IR_LEU] = "leu", [IR_GTU] = "gtu",
    };
    return condition < sizeof(names) / sizeof(names[0]) ? names[condition] : "?";
}

const char *ir_amo_name(unsigned amo)
{
    static const char *const names[] = {
        [IR_AMO_SWAP] = "swap", [IR_AMO_ADD] = "add",   [IR_AMO_AND] = "and",
        [IR_AMO_OR] = "or",     [IR_AMO_XOR] = "xor",   [IR_AMO_MINS] = "mins",
        [IR_AMO_MAXS] = "maxs", [IR_AMO_MINU] = "minu", [IR_AMO_MAXU] = "maxu",
    };
    return amo < sizeof(names) / sizeof(names[0]) ? names[amo] : "?";
}

unsigned ir_global_count(const struct ir_global *globals)
{
    unsigned count = 0;
    while (globals && globals[count].name) {
        count++;
    }
    return count;
}

unsigned ir_helper_count(const struct ir_helper *helpers)
{
    unsigned count = 0;
    while (helpers && helpers[count].name) {
        count++;
    }
    return count;
}

enum ir_type ir_operand_type(unsigned kind)
{
    switch (kind) {
    case IR_OPERAND_I:
    case IR_OPERAND_X:
        return IR_TYPE_I64;
    case IR_OPERAND_F:
        return IR_TYPE_F64;
    case IR_OPERAND_V:
        return IR_TYPE_V128;
    default:
        return IR_TYPE_NONE;
    }
}
