/* The TLB's hit test (cpu.h has the rule): a miss retreats. */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

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

unsigned compile_translate_group(struct compiler *c, unsigned base, int32_t first, int32_t end,
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

#endif
