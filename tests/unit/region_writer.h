/*
 * The least compiler of regions: toy code to x86-64, one instruction after the other, with all
 * state in memory and every access by the runtime's functions. It keeps the contract of
 * libshared/jit/runtime.h to the letter and is good for nothing else than to test the engine's side
 * of it. Of the toy's operations it knows those that test programs need.
 */
#ifndef POLYVISOR_TESTS_REGION_WRITER_H
#define POLYVISOR_TESTS_REGION_WRITER_H

#include "libshared/jit/runtime.h"
#include "tests/unit/engine_toy.h"
#include "vmmd/vcpu/engine/baseline/emit_x86_64.h"
#include "vmmd/vcpu/engine/region.h"
#include <stdio.h>

#define WRITER_CODE   65536u
#define WRITER_FIXUPS 1024u

struct writer_fixup {
    uint32_t at;   /* the displacement */
    int block;     /* that it leads to; or -1: */
    uint32_t word; /* of the tables behind the code */
};

struct region_writer {
    const struct region *region;
    struct emitter e;
    struct blob_exit exits[BLOB_EXITS_MAX];
    unsigned exit_count;
    uint32_t labels[REGION_BLOCKS_MAX];
    struct writer_fixup fixups[WRITER_FIXUPS];
    unsigned fixup_count;
    unsigned page; /* of the block being written */
    bool failed;
    uint8_t code[WRITER_CODE];
};

#define WRITER_CPU(field) host_at(R12, (int32_t)offsetof(struct cpu, field))

static inline struct host_memory writer_register(unsigned value)
{
    return host_at(R12, toy_globals[value].offset);
}

static inline void writer_fix(struct region_writer *w, uint32_t at, int block, uint32_t word)
{
    w->fixups[w->fixup_count++] = (struct writer_fixup){at, block, word};
}

/* rax = word `word` of the tables: the exits, then, from BLOB_EXITS_MAX on, the pages. */
static inline void writer_load_word(struct region_writer *w, unsigned to, uint32_t word)
{
    writer_fix(w, emit_address_of(&w->e, to), -1, word);
    emit_load64(&w->e, to, host_at(to, 0));
}

static inline unsigned writer_exit(struct region_writer *w, unsigned page, unsigned offset)
{
    for (unsigned i = 1; i < w->exit_count; i++) {
        if (w->exits[i].page == page && w->exits[i].offset == offset) {
            return i;
        }
    }
    w->exits[w->exit_count] = (struct blob_exit){.page = (uint8_t)page, .offset = (uint16_t)offset};
    return w->exit_count++;
}

static inline void writer_leave_by(struct region_writer *w, unsigned exit)
{
    writer_load_word(w, RDX, exit);
    emit_jump_memory(&w->e, host_at(RDX, 0));
}

/* pc = page_base + offset */
static inline void writer_set_pc(struct region_writer *w, int32_t offset)
{
    emit_load64(&w->e, RAX, WRITER_CPU(page_base));
    emit_arithmetic_constant(&w->e, true, HOST_ADD, RAX, offset);
    emit_store(&w->e, 3, WRITER_CPU(pc), RAX);
}

static inline void writer_poll(struct region_writer *w, unsigned offset)
{
    emit_arithmetic_memory_constant(&w->e, false, HOST_CMP, WRITER_CPU(attention), 0);
    uint32_t none = emit_jump_if(&w->e, HOST_EQUAL);
    writer_set_pc(w, (int32_t)offset);
    emit_return(&w->e);
    emit_land(&w->e, none);
}

/* Go on at `target`, from the virtual base of the present block's page. */
static inline void writer_go(struct region_writer *w, int64_t target)
{
    const struct region *region = w->region;
    int64_t delta = region->page_delta[w->page] + (target >> 12);
    unsigned offset = (unsigned)(target & 4095);
    for (unsigned page = 0; page < region->page_count; page++) {
        if (region->page_delta[page] != delta) {
            continue;
        }
        emit_arithmetic_memory_constant(&w->e, true, HOST_ADD, WRITER_CPU(page_base),
                                        (int32_t)(target >> 12) * 4096);
        for (unsigned i = 0; i < region->block_count; i++) {
            if (region->blocks[i].page == page && region->blocks[i].start == offset) {
                writer_poll(w, offset);
                writer_fix(w, emit_jump(&w->e), (int)i, 0);
                return;
            }
        }
        writer_leave_by(w, writer_exit(w, page, offset));
        return;
    }
    writer_set_pc(w, (int32_t)target);
    emit_load64(&w->e, RAX, WRITER_CPU(runtime));
    emit_jump_memory(&w->e, host_at(RAX, (int32_t)offsetof(struct region_runtime, jump)));
}

/* rdi is set here, the others are. */
static inline void writer_call(struct region_writer *w, size_t function)
{
    emit_move(&w->e, true, RDI, R12);
    emit_load64(&w->e, RAX, WRITER_CPU(runtime));
    emit_load64(&w->e, RAX, host_at(RAX, (int32_t)function));
    emit_arithmetic_constant(&w->e, true, HOST_SUB, RSP, 8);
    emit_call_register(&w->e, RAX);
    emit_arithmetic_constant(&w->e, true, HOST_ADD, RSP, 8);
    emit_load64(&w->e, R14, WRITER_CPU(tlb_data));
    emit_load64(&w->e, R15, WRITER_CPU(tlb_data_mask));
    emit_shift_constant(&w->e, true, HOST_SHL, R15, 5);
}

static inline void writer_leave_on_exception(struct region_writer *w)
{
    emit_arithmetic_memory_constant(&w->e, false, HOST_CMP, WRITER_CPU(exception), 0);
    uint32_t none = emit_jump_if(&w->e, HOST_EQUAL);
    emit_return(&w->e);
    emit_land(&w->e, none);
}

static inline void writer_count(struct region_writer *w)
{
    emit_arithmetic_memory_constant(&w->e, true, HOST_ADD, WRITER_CPU(retired), 1);
    emit_arithmetic_memory_constant(&w->e, true, HOST_ADD, WRITER_CPU(retired_optimised), 1);
}

/* rax = a op b */
static inline void writer_operands(struct region_writer *w, const struct toy_insn *insn,
                                   enum host_arithmetic operation)
{
    emit_load64(&w->e, RAX, writer_register(insn->a));
    if (insn->b == TOY_IMM) {
        emit_arithmetic_constant(&w->e, true, operation, RAX, insn->imm);
    } else {
        emit_arithmetic_load(&w->e, true, operation, RAX, writer_register(insn->b));
    }
}

static inline void writer_address(struct region_writer *w, const struct toy_insn *insn)
{
    emit_load64(&w->e, RSI, writer_register(insn->a));
    emit_arithmetic_constant(&w->e, true, HOST_ADD, RSI, insn->imm);
}

static inline void writer_helper(struct region_writer *w, const struct toy_insn *insn,
                                 unsigned offset)
{
    writer_set_pc(w, (int32_t)offset);
    emit_constant(&w->e, RSI, 0);
    emit_constant(&w->e, RDX, 0);
    if (insn->a != TOY_NONE) {
        emit_load64(&w->e, RSI, writer_register(insn->a));
    }
    if (insn->b != TOY_NONE) {
        emit_load64(&w->e, RDX, writer_register(insn->b));
    }
    emit_constant(&w->e, RCX, (uint64_t)(int64_t)insn->imm);
    emit_constant(&w->e, R8, insn->aux);
    writer_call(w, offsetof(struct region_runtime, helper));
    writer_leave_on_exception(w);
    if (insn->d != TOY_NONE) {
        emit_store(&w->e, 3, writer_register(insn->d), RAX);
    }
    writer_count(w);
    if (toy_ends_block(insn)) {
        writer_set_pc(w, (int32_t)(offset + sizeof(*insn)));
        emit_return(&w->e);
    }
}

static inline void writer_plain(struct region_writer *w, const struct toy_insn *insn,
                                unsigned offset)
{
    switch (insn->opcode) {
    case IR_mov:
        emit_constant(&w->e, RAX, (uint64_t)(int64_t)insn->imm);
        break;
    case IR_add:
        writer_operands(w, insn, HOST_ADD);
        break;
    case IR_pcrel:
        emit_load64(&w->e, RAX, WRITER_CPU(page_base));
        emit_arithmetic_constant(&w->e, true, HOST_ADD, RAX, insn->imm);
        break;
    case IR_load:
        writer_set_pc(w, (int32_t)offset);
        writer_address(w, insn);
        emit_constant(&w->e, RDX, insn->aux);
        writer_call(w, offsetof(struct region_runtime, load));
        writer_leave_on_exception(w);
        break;
    case IR_store:
        writer_set_pc(w, (int32_t)offset);
        writer_address(w, insn);
        emit_load64(&w->e, RDX, writer_register(insn->b));
        emit_constant(&w->e, RCX, insn->aux);
        writer_call(w, offsetof(struct region_runtime, store));
        writer_leave_on_exception(w);
        writer_count(w);
        return;
    default:
        w->failed = true;
        return;
    }
    emit_store(&w->e, 3, writer_register(insn->d), RAX);
    writer_count(w);
}

/* Indirect jumps stay inside where the region's edges say that they went. */
static inline void writer_indirect(struct region_writer *w, const struct toy_insn *insn,
                                   unsigned block)
{
    const struct region *region = w->region;
    for (unsigned i = 0; i < region->edge_count; i++) {
        if (region->edges[i].from != block) {
            continue;
        }
        const struct region_block *to = &region->blocks[region->edges[i].to];
        int32_t target =
            (region->page_delta[to->page] - region->page_delta[w->page]) * 4096 + to->start;
        emit_load64(&w->e, RAX, WRITER_CPU(page_base));
        emit_arithmetic_constant(&w->e, true, HOST_ADD, RAX, target);
        emit_arithmetic_load(&w->e, true, HOST_CMP, RAX, writer_register(insn->a));
        uint32_t other = emit_jump_if(&w->e, HOST_NOT_EQUAL);
        writer_go(w, target);
        emit_land(&w->e, other);
    }
    emit_load64(&w->e, RAX, writer_register(insn->a));
    emit_store(&w->e, 3, WRITER_CPU(pc), RAX);
    emit_load64(&w->e, RAX, WRITER_CPU(runtime));
    emit_jump_memory(&w->e, host_at(RAX, (int32_t)offsetof(struct region_runtime, jump)));
}

static inline void writer_branch(struct region_writer *w, const struct toy_insn *insn,
                                 unsigned offset)
{
    static const enum host_condition conditions[] = {
        [IR_EQ] = HOST_EQUAL,         [IR_NE] = HOST_NOT_EQUAL, [IR_LT] = HOST_LESS,
        [IR_GE] = HOST_GREATER_EQUAL, [IR_LTU] = HOST_BELOW,    [IR_GEU] = HOST_ABOVE_EQUAL};
    writer_count(w);
    writer_operands(w, insn, HOST_CMP);
    uint32_t taken = emit_jump_if(&w->e, conditions[insn->aux]);
    writer_go(w, (int64_t)offset + (int64_t)sizeof(*insn));
    emit_land(&w->e, taken);
    writer_go(w, (int64_t)offset + insn->imm2);
}

static inline void writer_block(struct region_writer *w, unsigned index)
{
    const struct region_block *block = &w->region->blocks[index];
    w->labels[index] = w->e.at;
    w->page = block->page;
    unsigned offset = block->start;
    for (unsigned i = 0; i < block->insns; i++, offset += sizeof(struct toy_insn)) {
        struct toy_insn insn;
        memcpy(&insn, w->region->bytes + block->bytes + i * sizeof(insn), sizeof(insn));
        switch (insn.opcode) {
        case IR_helper:
            writer_helper(w, &insn, offset);
            break;
        case IR_branch:
            writer_branch(w, &insn, offset);
            return;
        case IR_jump:
        case IR_call:
            writer_count(w);
            writer_go(w, (int64_t)offset + insn.imm);
            return;
        case IR_jump_ind:
        case IR_call_ind:
        case IR_ret:
            writer_count(w);
            writer_indirect(w, &insn, index);
            return;
        default:
            writer_plain(w, &insn, offset);
        }
    }
    writer_go(w, offset); /* the block was full */
}

static inline void writer_entry(struct region_writer *w)
{
    const struct region *region = w->region;
    writer_poll(w, region->blocks[0].start);
    for (unsigned i = 1; i < region->page_count; i++) {
        emit_load64(&w->e, RSI, WRITER_CPU(page_base));
        emit_arithmetic_constant(&w->e, true, HOST_ADD, RSI, region->page_delta[i] * 4096);
        writer_load_word(w, RDX, BLOB_EXITS_MAX + i);
        writer_call(w, offsetof(struct region_runtime, page_is));
        emit_test(&w->e, true, RAX, RAX);
        uint32_t good = emit_jump_if(&w->e, HOST_NOT_EQUAL);
        writer_leave_by(w, 0);
        emit_land(&w->e, good);
    }
}

static inline void writer_resolve(struct region_writer *w, uint32_t code_bytes)
{
    for (unsigned i = 0; i < w->fixup_count; i++) {
        const struct writer_fixup *fixup = &w->fixups[i];
        uint32_t word = fixup->word >= BLOB_EXITS_MAX ? fixup->word - BLOB_EXITS_MAX + w->exit_count
                                                      : fixup->word;
        uint32_t target = fixup->block >= 0 ? w->labels[fixup->block] : code_bytes + 8 * word;
        emit_land_at(&w->e, fixup->at, target);
    }
}

/* The blob, free() it; NULL: the region has what this writer does not know. */
static inline uint8_t *region_write(const struct region *region, size_t *size)
{
    struct region_writer *w = calloc(1, sizeof(*w));
    w->region = region;
    w->e = (struct emitter){.bytes = w->code, .size = sizeof(w->code)};
    w->exits[0] = (struct blob_exit){.page = 0, .offset = region->blocks[0].start};
    w->exit_count = 1;
    writer_entry(w);
    writer_fix(w, emit_jump(&w->e), 0, 0);
    for (unsigned i = 0; i < region->block_count; i++) {
        writer_block(w, i);
    }
    uint32_t code_bytes = (w->e.at + BLOB_ALIGN - 1) & ~(BLOB_ALIGN - 1);
    writer_resolve(w, code_bytes);
    struct blob_header header = {.magic = BLOB_MAGIC,
                                 .version = BLOB_VERSION,
                                 .code_bytes = code_bytes,
                                 .exit_count = (uint16_t)w->exit_count,
                                 .page_count = region->page_count};
    size_t exit_bytes = w->exit_count * sizeof(struct blob_exit);
    *size = sizeof(header) + exit_bytes + code_bytes;
    uint8_t *bytes = w->failed || w->e.overflow ? NULL : calloc(1, *size);
    if (bytes) {
        memcpy(bytes, &header, sizeof(header));
        memcpy(bytes + sizeof(header), w->exits, exit_bytes);
        memcpy(bytes + sizeof(header) + exit_bytes, w->code, w->e.at);
    }
    free(w);
    return bytes;
}

#endif
