/* The TLB's hit test (cpu.h has the rule): a miss retreats. */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

/* entry = where in the TLB's table the entry of `address` is */
static void emit_entry(struct compiler *c, unsigned entry, unsigned address)
{
    _Static_assert(sizeof(struct tlb_entry) == 32, "an entry's offset is its page number * 32");
    emit_arithmetic_shifted(c->hot, true, HOST_AND, entry, REG_TLB_MASK, address, HOST_SHR,
                            MEMORY_PAGE_SHIFT - 5);
    emit_arithmetic(c->hot, true, HOST_ADD, entry, REG_TLB, entry);
}

/* base + offset, in x17 if need be */
static unsigned emit_sum(struct compiler *c, unsigned base, int32_t offset)
{
    if (offset == 0) {
        return base;
    }
    emit_address(c->hot, true, HOST_X17, host_at(base, offset));
    return HOST_X17;
}

static int32_t tag_offset(bool is_write)
{
    return is_write ? offsetof(struct tlb_entry, tag_write) : offsetof(struct tlb_entry, tag_read);
}

/* The allocation of a load's result may spill a register, which leaves x17 alone. */
struct host_memory compile_translate(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                                     bool is_write, bool aligned)
{
    struct emitter *e = c->hot;
    int32_t last = (1 << size_log2) - 1;
    unsigned base = registers_use(c, op->a);
    unsigned entry = registers_allocate(c, FILE_GENERAL);
    unsigned address = emit_sum(c, base, (int32_t)op->imm);
    emit_entry(c, entry, address);
    emit_load64(e, REG_SCRATCH, host_at(entry, tag_offset(is_write)));
    if (aligned) {
        /* Low bits that remain set differ from any tag. */
        emit_arithmetic_constant(e, true, HOST_AND, HOST_X16, address, (int64_t)PAGE_MASK | last);
    } else {
        emit_address(e, true, HOST_X16, host_at(address, last));
        emit_arithmetic_constant(e, true, HOST_AND, HOST_X16, HOST_X16, (int64_t)PAGE_MASK);
    }
    emit_compare(e, true, REG_SCRATCH, HOST_X16);
    compile_retreat_if(c, HOST_NOT_EQUAL);
    emit_load64(e, entry, host_at(entry, offsetof(struct tlb_entry, addend)));
    return host_indexed(entry, address);
}

unsigned compile_translate_group(struct compiler *c, unsigned base, int32_t first, int32_t end,
                                 const struct access_group *group)
{
    struct emitter *e = c->hot;
    unsigned entry = registers_allocate(c, FILE_GENERAL);
    emit_entry(c, entry, emit_sum(c, base, first));
    emit_address(e, true, HOST_X17, host_at(base, end - 1));
    emit_arithmetic_constant(e, true, HOST_AND, HOST_X17, HOST_X17, (int64_t)PAGE_MASK);
    const bool wanted[2] = {group->reads, group->writes};
    for (unsigned i = 0; i < 2; i++) {
        if (wanted[i]) {
            emit_load64(e, REG_SCRATCH, host_at(entry, tag_offset(i == 1)));
            emit_compare(e, true, REG_SCRATCH, HOST_X17);
            compile_fixup(c, SECTION_HOT, emit_jump_if(e, HOST_NOT_EQUAL), SECTION_COLD,
                          c->cold->at);
        }
    }
    compile_group_failure(c, base, first, end);
    emit_load64(e, entry, host_at(entry, offsetof(struct tlb_entry, addend)));
    emit_arithmetic(e, true, HOST_ADD, entry, entry, base);
    return entry;
}

#endif
