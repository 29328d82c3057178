/*
 * Loads and stores: the TLB's hit test inlined, a miss retreats (cpu.h has the rule).
 */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

#define MEM_SPECIAL (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE)

bool compile_addressable(const struct ir_op *op)
{
    return op->imm >= INT32_MIN && op->imm <= INT32_MAX - 16;
}

/* entry = where in the TLB's table the entry of base + offset is */
static void emit_entry_offset(struct compiler *c, unsigned entry, unsigned base, int32_t offset)
{
    struct emitter *e = c->hot;
    unsigned address = base;
    if (offset) {
        emit_address(e, true, entry, host_at(base, offset));
        address = entry;
    }
    if (c->features.bmi2) {
        emit_rotate_right_to(e, entry, address, MEMORY_PAGE_SHIFT - 5);
    } else {
        if (address != entry) {
            emit_move(e, true, entry, address);
        }
        emit_shift_constant(e, true, HOST_SHR, entry, MEMORY_PAGE_SHIFT - 5);
    }
    emit_arithmetic(e, true, HOST_AND, entry, REG_TLB_MASK);
}

struct host_memory compile_translate(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                                     bool is_write, bool aligned)
{
    struct emitter *e = c->hot;
    int32_t offset = (int32_t)op->imm;
    int32_t last = (1 << size_log2) - 1;
    unsigned base = registers_use(c, op->a);
    unsigned entry = registers_allocate(c, FILE_GENERAL);
    emit_entry_offset(c, entry, base, offset);
    /* Low bits that remain set differ from any tag. */
    emit_address(e, true, REG_SCRATCH, host_at(base, aligned ? offset : offset + last));
    emit_arithmetic_constant(e, true, HOST_AND, REG_SCRATCH,
                             -(int32_t)PAGE_BYTES | (aligned ? last : 0));
    int32_t tag =
        is_write ? offsetof(struct tlb_entry, tag_write) : offsetof(struct tlb_entry, tag_read);
    emit_arithmetic_load(e, true, HOST_CMP, REG_SCRATCH, host_indexed(REG_TLB, entry, 0, tag));
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_load64(e, entry, host_indexed(REG_TLB, entry, 0, offsetof(struct tlb_entry, addend)));
    return host_indexed(entry, base, 0, offset);
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

/* Check the whole group's range; the result is the host address of the base register's. */
static unsigned translate_group(struct compiler *c, unsigned base, int32_t first, int32_t end,
                                const struct access_group *group)
{
    struct emitter *e = c->hot;
    unsigned entry = registers_allocate(c, FILE_GENERAL);
    emit_entry_offset(c, entry, base, first);
    emit_address(e, true, REG_SCRATCH, host_at(base, end - 1));
    emit_arithmetic_constant(e, true, HOST_AND, REG_SCRATCH, -(int32_t)PAGE_BYTES);
    const int32_t tags[2] = {offsetof(struct tlb_entry, tag_read),
                             offsetof(struct tlb_entry, tag_write)};
    const bool wanted[2] = {group->reads, group->writes};
    for (unsigned i = 0; i < 2; i++) {
        if (wanted[i]) {
            emit_arithmetic_load(e, true, HOST_CMP, REG_SCRATCH,
                                 host_indexed(REG_TLB, entry, 0, tags[i]));
            compile_fixup(c, SECTION_HOT, emit_jump_if(e, HOST_NOT_EQUAL), SECTION_COLD,
                          c->cold->at);
        }
    }
    compile_group_failure(c, base, first, end);
    emit_load64(e, entry, host_indexed(REG_TLB, entry, 0, offsetof(struct tlb_entry, addend)));
    emit_arithmetic(e, true, HOST_ADD, entry, base);
    return entry;
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
        reg = translate_group(c, base, (int32_t)(group->first - slot->bias),
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
