/* The verifier. Its input may come from another process: nothing is indexed before it is checked.
 */
#include "libshared/ir/opcode.h"

#define PAGE_SIZE 4096u

struct verifier {
    const struct ir_block *block;
    const struct ir_global *globals;
    const struct ir_helper *helpers;
    unsigned global_count, helper_count;
    uint64_t assigned; /* a bit a temporary */
    unsigned insns;
    uint32_t next_offset; /* where the next guest instruction must begin */
    bool mode_changes;    /* a helper with IR_HELPER_MODE was seen */
};
_Static_assert(IR_TEMPS_MAX <= 64, "the assigned set is one word");

static const char *check_type(const struct verifier *verifier, unsigned kind, ir_value value)
{
    unsigned type;
    if (ir_is_temp(value)) {
        if (value - IR_TEMP_BASE >= verifier->block->temp_count) {
            return "temporary out of range";
        }
        type = verifier->block->temp_types[value - IR_TEMP_BASE];
    } else if (value < verifier->global_count) {
        type = verifier->globals[value].type;
    } else {
        return "operand names nothing";
    }
    return type == (unsigned)ir_operand_type(kind) ? NULL : "operand of the wrong type";
}

static const char *check_source(const struct verifier *verifier, unsigned kind, ir_value value,
                                bool optional)
{
    if (kind == IR_OPERAND__) {
        return value == IR_NONE ? NULL : "operand where none belongs";
    }
    if (value == IR_NONE) {
        return optional ? NULL : "operand missing";
    }
    if (value == IR_IMMEDIATE) {
        return kind == IR_OPERAND_X ? NULL : "immediate where a value belongs";
    }
    const char *defect = check_type(verifier, kind, value);
    if (!defect && ir_is_temp(value) && !(verifier->assigned >> (value - IR_TEMP_BASE) & 1)) {
        defect = "temporary read before it is assigned";
    }
    return defect;
}

static const char *check_destination(struct verifier *verifier, unsigned kind, ir_value value,
                                     bool optional)
{
    if (kind == IR_OPERAND__) {
        return value == IR_NONE ? NULL : "result where none belongs";
    }
    if (value == IR_NONE) {
        return optional ? NULL : "result missing";
    }
    const char *defect = check_type(verifier, kind, value);
    if (!defect && ir_is_temp(value)) {
        uint64_t bit = (uint64_t)1 << (value - IR_TEMP_BASE);
        if (verifier->assigned & bit) {
            return "temporary assigned twice";
        }
        verifier->assigned |= bit;
    }
    return defect;
}

/* Which access sizes (bit = log2 of the bytes) an operation has. */
static unsigned allowed_sizes(unsigned opcode)
{
    switch (opcode) {
    case IR_loadf:
    case IR_storef:
        return 1u << 1 | 1u << 2 | 1u << 3;
    case IR_loadv:
    case IR_storev:
        return 1u << 4;
    default:
        return 0xf;
    }
}

static const char *check_mem(const struct ir_op *op, unsigned known)
{
    known |= IR_MEM_SIZE | IR_MEM_SIGN | IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE |
             IR_MEM_BOX | IR_MEM_CONSTRAINED;
    if (op->aux & ~known) {
        return "unknown bits in the access";
    }
    if (op->opcode != IR_fence && !(allowed_sizes(op->opcode) >> (op->aux & IR_MEM_SIZE) & 1)) {
        return "access of a size this operation lacks";
    }
    return NULL;
}

static const char *check_aux(struct verifier *verifier, const struct ir_op *op)
{
    switch (ir_opcode_table[op->opcode].aux) {
    case IR_AUX_EXT:
        return op->aux <= IR_EXTEND_ZERO ? NULL : "unknown extension";
    case IR_AUX_MEM:
        return check_mem(op, 0);
    case IR_AUX_AMO:
        if (op->aux >> IR_MEM_AMO_SHIFT > IR_AMO_MAXU) {
            return "unknown atomic operation";
        }
        return check_mem(op, 0xfu << IR_MEM_AMO_SHIFT);
    case IR_AUX_FP:
        if ((op->aux & IR_FP_ROUND) > IR_ROUND_RMM || op->aux >= IR_FP_EXACT << 1) {
            return "unknown floating-point attribute";
        }
        return NULL;
    case IR_AUX_HELPER:
        if (op->aux >= verifier->helper_count) {
            return "no such helper";
        }
        verifier->mode_changes |= (verifier->helpers[op->aux].effects & IR_HELPER_MODE) != 0;
        return NULL;
    case IR_AUX_CC:
        return op->aux <= IR_GTU ? NULL : "unknown condition";
    default:
        return op->aux == 0 ? NULL : "attributes where none belong";
    }
}

static const char *check_insn(struct verifier *verifier, const struct ir_op *op)
{
    if (op->imm2 < 1 || op->imm2 > 16) {
        return "guest instruction of impossible length";
    }
    if (op->imm != (int64_t)verifier->next_offset || op->imm >= PAGE_SIZE) {
        return "guest instruction does not follow its predecessor";
    }
    verifier->next_offset += (uint32_t)op->imm2;
    verifier->insns++;
    return NULL;
}

static const char *check_terminator(const struct verifier *verifier, const struct ir_op *op)
{
    bool direct = op->opcode == IR_jump || op->opcode == IR_call || op->opcode == IR_exit;
    if (direct && op->imm != (int32_t)op->imm) {
        return "target out of range";
    }
    if (verifier->mode_changes && op->opcode != IR_exit && op->opcode != IR_exit_pc) {
        return "a helper may change the mode, but no exit follows";
    }
    return NULL;
}

static const char *check_op(struct verifier *verifier, unsigned index)
{
    const struct ir_block *block = verifier->block;
    const struct ir_op *op = &block->ops[index];
    if (op->opcode >= IR_OPCODE_COUNT) {
        return "unknown operation";
    }
    const struct ir_opcode_info *info = &ir_opcode_table[op->opcode];
    bool last = index + 1u == block->op_count;
    if ((info->effect == IR_EFFECT_END) != last) {
        return last ? "no terminator at the end" : "terminator before the end";
    }
    if (op->opcode == IR_insn) {
        const char *defect = check_insn(verifier, op);
        if (defect) {
            return defect;
        }
    } else if (index == 0) {
        return "operation outside any guest instruction";
    }
    bool optional = info->aux == IR_AUX_HELPER;
    const char *defect = check_source(verifier, info->a, op->a, optional);
    defect = defect ? defect : check_source(verifier, info->b, op->b, optional);
    defect = defect ? defect : check_source(verifier, info->c, op->c, false);
    defect = defect ? defect : check_destination(verifier, info->d, op->d, optional);
    defect = defect ? defect : check_aux(verifier, op);
    return defect || !last ? defect : check_terminator(verifier, op);
}

static const char *check_shape(const struct ir_block *block)
{
    if (block->op_count < 2 || block->op_count > IR_OPS_MAX) {
        return "impossible number of operations";
    }
    if (block->temp_count > IR_TEMPS_MAX) {
        return "too many temporaries";
    }
    if (block->insn_count < 1 || block->insn_count > IR_INSNS_MAX) {
        return "impossible number of guest instructions";
    }
    if (block->start >= PAGE_SIZE) {
        return "start outside the page";
    }
    bool crosses = block->start + (uint32_t)block->length > PAGE_SIZE;
    if (block->straddles != crosses || (crosses && block->insn_count != 1)) {
        return "page border crossed by more than a lone instruction";
    }
    for (unsigned i = 0; i < block->temp_count; i++) {
        if (block->temp_types[i] < IR_TYPE_I64 || block->temp_types[i] > IR_TYPE_V128) {
            return "temporary of unknown type";
        }
    }
    return NULL;
}

const char *ir_verify(const struct ir_block *block, const struct ir_global *globals,
                      const struct ir_helper *helpers, unsigned *where)
{
    struct verifier verifier = {.block = block,
                                .globals = globals,
                                .helpers = helpers,
                                .global_count = ir_global_count(globals),
                                .helper_count = ir_helper_count(helpers),
                                .next_offset = block->start};
    *where = 0;
    const char *defect = check_shape(block);
    for (unsigned i = 0; !defect && i < block->op_count; i++) {
        *where = i;
        defect = check_op(&verifier, i);
    }
    if (!defect && verifier.insns != block->insn_count) {
        defect = "instruction count differs from the markers";
    }
    if (!defect && verifier.next_offset != block->start + (uint32_t)block->length) {
        defect = "length differs from the markers";
    }
    return defect;
}
