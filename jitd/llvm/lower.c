/* A region's blocks, operation by operation, as one LLVM function. */
#include "jitd/llvm/op_memory.h"
#include "libshared/ir/opcode.h"
#include <string.h>

static lower_operation *const operations[IR_OPCODE_COUNT] = {
#define OP(name, d, a, b, c, aux, effects) op_##name,
#include "libshared/ir/ops.def"
#undef OP
};

/* --- the module ----------------------------------------------------------------------------- */

static void find_types(struct lowering *l)
{
    l->i1 = LLVMInt1TypeInContext(l->context);
    l->i8 = LLVMInt8TypeInContext(l->context);
    l->i16 = LLVMInt16TypeInContext(l->context);
    l->i32 = LLVMInt32TypeInContext(l->context);
    l->i64 = LLVMInt64TypeInContext(l->context);
    l->i128 = LLVMInt128TypeInContext(l->context);
    l->f32 = LLVMFloatTypeInContext(l->context);
    l->f64 = LLVMDoubleTypeInContext(l->context);
    l->ptr = LLVMPointerTypeInContext(l->context, 0);
    l->void_type = LLVMVoidTypeInContext(l->context);
    LLVMTypeRef parameters[7] = {l->ptr, l->ptr, l->ptr, l->i64, l->i64, l->i64, l->ptr};
    l->code_function = LLVMFunctionType(l->void_type, parameters, 7, false);
}

static unsigned metadata_kind(struct lowering *l, const char *name)
{
    return LLVMGetMDKindIDInContext(l->context, name, (unsigned)strlen(name));
}

static unsigned attribute_kind(const char *name)
{
    return LLVMGetEnumAttributeKindForName(name, strlen(name));
}

/* Alias scopes: guest memory, TLB and CPU state never overlap. */
static void make_scopes(struct lowering *l)
{
    static const char *const names[MEMORY_KINDS] = {"guest", "tlb", "cpu"};
    LLVMMetadataRef domain_name = LLVMMDStringInContext2(l->context, "polyvisor", 9);
    LLVMMetadataRef domain = LLVMMDNodeInContext2(l->context, &domain_name, 1);
    LLVMMetadataRef scopes[MEMORY_KINDS];
    for (unsigned i = 0; i < MEMORY_KINDS; i++) {
        LLVMMetadataRef parts[2] = {LLVMMDStringInContext2(l->context, names[i], strlen(names[i])),
                                    domain};
        scopes[i] = LLVMMDNodeInContext2(l->context, parts, 2);
    }
    for (unsigned i = 0; i < MEMORY_KINDS; i++) {
        LLVMMetadataRef others[MEMORY_KINDS];
        unsigned count = 0;
        for (unsigned j = 0; j < MEMORY_KINDS; j++) {
            if (j != i) {
                others[count++] = scopes[j];
            }
        }
        l->scopes[i] = LLVMMDNodeInContext2(l->context, &scopes[i], 1);
        l->others[i] = LLVMMDNodeInContext2(l->context, others, count);
    }
    l->prof_kind = metadata_kind(l, "prof");
    l->scope_kind = metadata_kind(l, "alias.scope");
    l->noalias_kind = metadata_kind(l, "noalias");
    l->strictfp = attribute_kind("strictfp");
}

static void add_flag(struct lowering *l, const char *name)
{
    LLVMAddAttributeAtIndex(l->function, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(l->context, attribute_kind(name), 0));
}

static void add_text(struct lowering *l, const char *name, const char *value)
{
    LLVMAddAttributeAtIndex(l->function, LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(l->context, name, (unsigned)strlen(name),
                                                      value, (unsigned)strlen(value)));
}

static LLVMValueRef add_table(struct lowering *l, const char *name)
{
    LLVMValueRef table = LLVMAddGlobal(l->module, LLVMArrayType2(l->ptr, 0), name);
    LLVMSetVisibility(table, LLVMHiddenVisibility);
    LLVMSetAlignment(table, 8);
    return table;
}

static void make_function(struct lowering *l)
{
    l->function = LLVMAddFunction(l->module, SYMBOL_ENTRY, l->code_function);
    LLVMSetFunctionCallConv(l->function, CALL_PRESERVE_NONE);
    LLVMSetVisibility(l->function, LLVMHiddenVisibility);
    add_flag(l, "nounwind");
    add_text(l, "no-jump-tables", "true");
    add_text(l, "no-builtins", "");
    if (l->code->has_float) {
        add_flag(l, "strictfp");
    }
    l->cpu = LLVMGetParam(l->function, 0);
    const char *const promised[] = {"noalias", "nonnull", "noundef"};
    for (unsigned i = 0; i < 3; i++) {
        LLVMAddAttributeAtIndex(
            l->function, 1, LLVMCreateEnumAttribute(l->context, attribute_kind(promised[i]), 0));
    }
    l->exits = add_table(l, SYMBOL_EXITS);
    l->pages = add_table(l, SYMBOL_PAGES);
}

/* --- blocks --------------------------------------------------------------------------------- */

static void begin_block(struct lowering *l, unsigned index)
{
    l->index = index;
    l->block = &l->code->blocks[index];
    l->insns = 0;
    l->offset = l->block->ir.start;
    l->dirty = l->block->dirty;
    l->pending = l->roots = (struct global_set){{0}};
    l->left = false;
    l->leave.at = NULL;
}

void lower_operations(struct lowering *l, unsigned index)
{
    begin_block(l, index);
    share_begin(l);
    for (unsigned i = 0, insns = 0; i < l->block->ir.op_count && !l->left; i++) {
        const struct ir_op *op = &l->block->ir.ops[i];
        if (op->opcode == IR_insn) {
            l->offset = (unsigned)op->imm;
            l->insns = insns++;
            continue;
        }
        l->op = op;
        l->op_index = i;
        settle_before(l, op);
        if (!operations[op->opcode](l, op)) {
            settle(l);
            lower_give_up(l);
        }
        settle_after(l, op);
    }
    lower_finish_leave(l);
}

static void lower_block(struct lowering *l, unsigned index)
{
    lower_at(l, l->blocks[index]);
    begin_block(l, index);
    if (l->block->head) {
        lower_poll(l, l->block);
        lower_rounds(l, index);
    }
    lower_operations(l, index);
}

bool lower_region(struct lowering *l, struct error *err)
{
    unsigned count = l->code->region->block_count;
    find_types(l);
    make_scopes(l);
    make_function(l);
    l->leaves_first = false;
    l->float_control = NULL;
    l->rounds = NULL;
    l->insns = 0;
    l->index = 0;
    l->block = &l->code->blocks[0];
    l->dirty = (struct global_set){{0}};
    lower_at(l, lower_new_block(l, "entry"));
    for (unsigned i = 0; i < count; i++) {
        l->blocks[i] = l->code->blocks[i].reached ? lower_new_block(l, "block") : NULL;
    }
    lower_entry(l);
    for (unsigned i = 0; i < count; i++) {
        if (l->code->blocks[i].reached) {
            lower_block(l, i);
        }
    }
    if (l->leaves_first) {
        error_set(err, ERROR_UNSUPPORTED, 0,
                  "the region begins with an instruction that is not compiled");
        return false;
    }
    return true;
}
