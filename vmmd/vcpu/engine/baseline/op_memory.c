/*
 * Loads and stores: the host translates, inlined; which accesses share a translation, and what
 * becomes of the value, is decided here.
 */
#include "vmmd/vcpu/engine/baseline/host.h"

#if HAS_BASELINE

#include "vmmd/vcpu/engine/baseline/registers.h"

#define MEM_SPECIAL (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE)

bool compile_addressable(const struct ir_op *op)
{
    return op->imm >= INT32_MIN && op->imm <= INT32_MAX - 16;
}

/* --- groups ---------------------------------------------------------------------------------- */

/* The slot of a group, or a free one, or one whose register was lost; NULL: all are in use. */
static struct group_slot *find_slot(struct compiler *c, unsigned group)
{
    struct group_slot *free = NULL;
    for (unsigned i = 0; i < GROUP_SLOTS; i++) {
        bool lost = c->values[VALUE_GROUPS + i].reg == NO_REGISTER;
        if (c->slots[i].group == group && !lost) {
            return &c->slots[i];
        }
        if (lost) {
            free = &c->slots[i];
            free->group = GROUP_NONE;
        }
    }
    return free;
}

struct host_memory compile_access(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                                  bool is_write)
{
    const struct group_access *access = &c->groups.accesses[c->index];
    struct group_slot *slot =
        c->grouping && access->group != GROUP_NONE ? find_slot(c, access->group) : NULL;
    if (!slot || (slot->group == GROUP_NONE && access->next == UINT16_MAX)) {
        return compile_translate(c, op, size_log2, is_write, false);
    }
    unsigned value = VALUE_GROUPS + (unsigned)(slot - c->slots);
    unsigned reg;
    if (slot->group == GROUP_NONE) {
        const struct access_group *group = &c->groups.groups[access->group];
        unsigned base = registers_use(c, op->a);
        slot->group = access->group;
        slot->bias = access->address - op->imm;
        reg = compile_translate_group(c, base, (int32_t)(group->first - slot->bias),
                                      (int32_t)(group->end - slot->bias), group);
        registers_hold(c, value, reg, access->next);
    } else {
        reg = registers_held(c, value, access->next);
    }
    struct host_memory memory = host_at(reg, (int32_t)(access->address - slot->bias));
    if (access->next == UINT16_MAX) {
        registers_release(c, value);
        slot->group = GROUP_NONE;
    }
    return memory;
}

/* --- plain accesses --------------------------------------------------------------------------- */

bool compile_load(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (op->aux & (MEM_SPECIAL | IR_MEM_BOX) || size_log2 > 3 || !compile_addressable(op)) {
        return false;
    }
    struct host_memory memory = compile_access(c, op, size_log2, false);
    unsigned to =
        registers_is_free(c, memory.base) ? memory.base : registers_allocate(c, FILE_GENERAL);
    emit_load(c->hot, size_log2, op->aux & IR_MEM_SIGN, to, memory);
    registers_define(c, op->d, to);
    return true;
}

bool compile_store(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (op->aux & MEM_SPECIAL || size_log2 > 3 || !compile_addressable(op)) {
        return false;
    }
    unsigned value = registers_use(c, op->b);
    struct host_memory memory = compile_access(c, op, size_log2, true);
    emit_store(c->hot, size_log2, memory, value);
    return true;
}

bool compile_loadf(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    bool single = size_log2 == 2 && op->aux & IR_MEM_BOX;
    if (op->aux & MEM_SPECIAL || (size_log2 != 3 && !single) || !compile_addressable(op)) {
        return false;
    }
    struct host_memory memory = compile_access(c, op, size_log2, false);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_load(c->hot, !single, to, memory);
    if (single) {
        registers_define_single(c, op->d, to);
    } else {
        registers_define(c, op->d, to);
    }
    return true;
}

bool compile_storef(struct compiler *c, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (op->aux & MEM_SPECIAL || size_log2 < 2 || !compile_addressable(op)) {
        return false;
    }
    const struct value_state *state = registers_value(c, op->b);
    bool narrow = size_log2 == 2 && state->reg != NO_REGISTER; /* the low half is there */
    unsigned value = narrow ? state->reg : registers_use_double(c, op->b);
    struct host_memory memory = compile_access(c, op, size_log2, true);
    emit_float_store(c->hot, size_log2 == 3, memory, value);
    return true;
}

bool compile_loadv(struct compiler *c, const struct ir_op *op)
{
    (void)c;
    (void)op;
    return false;
}

bool compile_storev(struct compiler *c, const struct ir_op *op)
{
    (void)c;
    (void)op;
    return false;
}

#endif
