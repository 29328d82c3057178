/* Text of a block, for logs, tests and `vmctl`. Tolerates defective blocks: it prints what is
 * there. */
#include "libshared/ir/opcode.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct printer {
    char *text;
    size_t size, length;
    const struct ir_global *globals;
    const struct ir_helper *helpers;
    unsigned global_count, helper_count;
};

__attribute__((format(printf, 2, 3))) static void put(struct printer *printer, const char *format,
                                                      ...)
{
    bool room = printer->length < printer->size;
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(room ? printer->text + printer->length : NULL,
                            room ? printer->size - printer->length : 0, format, arguments);
    va_end(arguments);
    printer->length += written > 0 ? (size_t)written : 0;
}

static void put_value(struct printer *printer, ir_value value, int64_t imm)
{
    if (value == IR_NONE) {
        put(printer, "_");
    } else if (value == IR_IMMEDIATE) {
        put(printer, "%" PRId64, imm);
    } else if (ir_is_temp(value)) {
        put(printer, "t%u", value - IR_TEMP_BASE);
    } else if (value < printer->global_count) {
        put(printer, "%s", printer->globals[value].name);
    } else {
        put(printer, "?%u", value);
    }
}

static void put_mem(struct printer *printer, unsigned aux)
{
    put(printer, ".%u%s%s%s%s%s%s", 8u << (aux & IR_MEM_SIZE), aux & IR_MEM_SIGN ? "s" : "",
        aux & IR_MEM_ALIGN ? ".align" : "", aux & IR_MEM_ACQUIRE ? ".acquire" : "",
        aux & IR_MEM_RELEASE ? ".release" : "", aux & IR_MEM_BOX ? ".box" : "",
        aux & IR_MEM_CONSTRAINED ? ".constrained" : "");
}

static void put_fp(struct printer *printer, unsigned aux)
{
    static const char *const rounds[] = {"rne", "rtz", "rdn", "rup", "rmm", "?", "?", "?"};
    put(printer, "%s.%s%s%s%s%s%s%s", aux & IR_FP_F32 ? ".f32" : ".f64", rounds[aux & IR_FP_ROUND],
        aux & IR_FP_BOX ? ".box" : "", aux & IR_FP_NEGATE_PRODUCT ? ".negate_product" : "",
        aux & IR_FP_NEGATE_ADDEND ? ".negate_addend" : "",
        aux & IR_FP_PROPAGATE ? ".propagate" : "", aux & IR_FP_QUIET ? ".quiet" : "",
        aux & IR_FP_EXACT ? ".exact" : "");
}

static void put_aux(struct printer *printer, unsigned kind, unsigned aux)
{
    switch (kind) {
    case IR_AUX_EXT:
        put(printer, "%s", aux == IR_EXTEND_SIGN ? ".sign" : ".zero");
        break;
    case IR_AUX_AMO:
        put(printer, ".%s", ir_amo_name(aux >> IR_MEM_AMO_SHIFT));
        put_mem(printer, aux);
        break;
    case IR_AUX_MEM:
        put_mem(printer, aux);
        break;
    case IR_AUX_FP:
        put_fp(printer, aux);
        break;
    case IR_AUX_HELPER:
        put(printer, ".%s", aux < printer->helper_count ? printer->helpers[aux].name : "?");
        break;
    case IR_AUX_CC:
        put(printer, ".%s", ir_condition_name(aux));
        break;
    default:
        break;
    }
}

/* The immediates an operand list does not show. */
static void put_immediates(struct printer *printer, const struct ir_op *op)
{
    bool shown = op->b == IR_IMMEDIATE;
    switch (op->opcode) {
    case IR_insn:
        put(printer, " 0x%" PRIx64 " +%d", (uint64_t)op->imm, op->imm2);
        break;
    case IR_call:
        put(printer, " %+" PRId64 " returns %+d", op->imm, op->imm2);
        break;
    case IR_branch:
    case IR_call_ind:
        put(printer, " -> %+d", op->imm2);
        break;
    case IR_jump:
    case IR_exit:
        put(printer, " %+" PRId64, op->imm);
        break;
    default:
        if (!shown && op->imm != 0) {
            put(printer, " %+" PRId64, op->imm);
        }
        break;
    }
}

static void put_op(struct printer *printer, const struct ir_op *op)
{
    if (op->opcode >= IR_OPCODE_COUNT) {
        put(printer, "    ?%u\n", op->opcode);
        return;
    }
    const struct ir_opcode_info *info = &ir_opcode_table[op->opcode];
    put(printer, op->opcode == IR_insn ? "  %s" : "    %s", info->name);
    put_aux(printer, info->aux, op->aux);
    const uint8_t kinds[4] = {info->d, info->a, info->b, info->c};
    const ir_value values[4] = {op->d, op->a, op->b, op->c};
    const char *separator = " ";
    for (unsigned i = 0; i < 4; i++) {
        if (kinds[i] != IR_OPERAND__) {
            put(printer, "%s", separator);
            put_value(printer, values[i], op->imm);
            separator = ", ";
        }
    }
    put_immediates(printer, op);
    put(printer, "\n");
}

size_t ir_print(const struct ir_block *block, const struct ir_global *globals,
                const struct ir_helper *helpers, char *text, size_t size)
{
    struct printer printer = {.text = text,
                              .size = size,
                              .globals = globals,
                              .helpers = helpers,
                              .global_count = ir_global_count(globals),
                              .helper_count = ir_helper_count(helpers)};
    put(&printer, "block mode 0x%x start 0x%x length %u insns %u%s\n", block->mode, block->start,
        block->length, block->insn_count, block->straddles ? " straddles" : "");
    for (unsigned i = 0; i < block->op_count && i < IR_OPS_MAX; i++) {
        put_op(&printer, &block->ops[i]);
    }
    return printer.length;
}
