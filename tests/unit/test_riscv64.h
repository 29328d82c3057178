/*
 * A machine for testing the riscv64 ISA alone: one CPU, 1 MiB of RAM, a host that records what it
 * is asked, and a plain evaluator of IR, written for obviousness. Included by test_riscv64_*.c.
 */
#ifndef POLYVISOR_TESTS_UNIT_TEST_RISCV64_H
#define POLYVISOR_TESTS_UNIT_TEST_RISCV64_H

#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/riscv64.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE UINT64_C(0x100000)
#define CODE     RAM_BASE

struct machine {
    struct riscv64_cpu cpu;
    struct memory memory;
    struct memory_codemap_head codemap;
    uint64_t time;
    /* What the host was asked. */
    unsigned switches, flushes, barriers, timer_changes, firmware_calls;
    struct mmu_key data, execute;
    bool flush_any_root, flush_any_page;
    uint64_t flush_root, flush_root_mask, flush_va;
    uint64_t deadline;
    uint64_t firmware_pc;
    bool firmware_answers;
    /* The evaluator's. */
    uint64_t temps[IR_TEMPS_MAX];
    bool reserved;
    uint64_t reservation;
    struct ir_block block;
};

static inline struct machine *machine_of(struct cpu *cpu)
{
    return cpu->host_data;
}

static void host_mmu_switch(struct cpu *cpu, struct mmu_key data, struct mmu_key execute)
{
    struct machine *m = machine_of(cpu);
    m->switches++;
    m->data = data;
    m->execute = execute;
}

static void host_tlb_flush(struct cpu *cpu, bool any_root, uint64_t root, uint64_t root_mask,
                           bool any_page, uint64_t va)
{
    struct machine *m = machine_of(cpu);
    m->flushes++;
    m->flush_any_root = any_root;
    m->flush_root = root;
    m->flush_root_mask = root_mask;
    m->flush_any_page = any_page;
    m->flush_va = va;
}

static void host_fetch_barrier(struct cpu *cpu)
{
    machine_of(cpu)->barriers++;
}

static uint64_t host_time(struct cpu *cpu)
{
    return machine_of(cpu)->time;
}

static void host_timer_changed(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    ck_assert_uint_eq(timer, RISCV64_TIMER_STIMECMP);
    machine_of(cpu)->timer_changes++;
    machine_of(cpu)->deadline = deadline;
}

static bool host_firmware_call(struct cpu *cpu)
{
    struct machine *m = machine_of(cpu);
    m->firmware_calls++;
    m->firmware_pc = cpu->pc;
    return m->firmware_answers;
}

static const struct cpu_host test_host = {
    .mmu_switch = host_mmu_switch,
    .tlb_flush = host_tlb_flush,
    .fetch_barrier = host_fetch_barrier,
    .time = host_time,
    .timer_changed = host_timer_changed,
    .firmware_call = host_firmware_call,
};

/* A reset machine in M mode at CODE. */
static struct machine *machine_new(void)
{
    struct machine *m = aligned_alloc(64, (sizeof(*m) + 63) & ~(size_t)63);
    ck_assert_ptr_nonnull(m);
    memset(m, 0, sizeof(*m));
    m->memory.region_count = 1;
    m->memory.regions[0] =
        (struct memory_region){.base = RAM_BASE, .size = RAM_SIZE, .host = calloc(1, RAM_SIZE)};
    m->memory.codemap = &m->codemap;
    m->memory.page_flags = calloc(1, RAM_SIZE >> MEMORY_PAGE_SHIFT);
    m->memory.page_count = RAM_SIZE >> MEMORY_PAGE_SHIFT;
    m->cpu.cpu.isa = &isa_riscv64;
    m->cpu.cpu.host = &test_host;
    m->cpu.cpu.host_data = m;
    m->cpu.cpu.memory = &m->memory;
    isa_riscv64.reset(&m->cpu.cpu);
    m->cpu.cpu.pc = CODE;
    return m;
}

static void machine_free(struct machine *m)
{
    free(m->memory.regions[0].host);
    free((void *)m->memory.page_flags);
    free(m);
}

static inline void *ram(struct machine *m, uint64_t address, uint64_t size)
{
    void *pointer = memory_pointer(&m->memory, address, size);
    ck_assert_ptr_nonnull(pointer);
    return pointer;
}

static inline void put64(struct machine *m, uint64_t address, uint64_t value)
{
    memcpy(ram(m, address, 8), &value, 8);
}

static inline uint64_t get64(struct machine *m, uint64_t address)
{
    uint64_t value;
    memcpy(&value, ram(m, address, 8), 8);
    return value;
}

static inline void put32(struct machine *m, uint64_t address, uint32_t value)
{
    memcpy(ram(m, address, 4), &value, 4);
}

/* --- the evaluator -------------------------------------------------------------------------- */
static inline uint64_t *slot(struct machine *m, ir_value value)
{
    if (ir_is_temp(value)) {
        return &m->temps[value - IR_TEMP_BASE];
    }
    return (uint64_t *)((char *)&m->cpu + riscv64_globals[value].offset);
}

static inline uint64_t operand(struct machine *m, const struct ir_op *op, ir_value value)
{
    if (value == IR_IMMEDIATE) {
        return (uint64_t)op->imm;
    }
    return value == IR_NONE ? 0 : *slot(m, value);
}

static inline bool condition_holds(unsigned condition, uint64_t a, uint64_t b)
{
    switch (condition) {
    case IR_EQ:
        return a == b;
    case IR_NE:
        return a != b;
    case IR_LT:
        return (int64_t)a < (int64_t)b;
    case IR_GE:
        return (int64_t)a >= (int64_t)b;
    case IR_LTU:
        return a < b;
    case IR_GEU:
        return a >= b;
    case IR_LE:
        return (int64_t)a <= (int64_t)b;
    case IR_GT:
        return (int64_t)a > (int64_t)b;
    case IR_LEU:
        return a <= b;
    default:
        return a > b;
    }
}

static inline uint64_t orcb(uint64_t a)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < 64; i += 8) {
        result |= a >> i & 0xff ? UINT64_C(0xff) << i : 0;
    }
    return result;
}

static inline uint64_t divs(int64_t a, int64_t b)
{
    return b == 0 ? UINT64_MAX : b == -1 ? -(uint64_t)a : (uint64_t)(a / b);
}

static inline uint64_t rems(int64_t a, int64_t b)
{
    return b == 0 ? (uint64_t)a : b == -1 ? 0 : (uint64_t)(a % b);
}

/* 64-bit computation; false when it is not one of these. */
static inline bool evaluate64(unsigned opcode, uint64_t a, uint64_t b, int64_t imm, uint64_t *d)
{
    switch (opcode) {
#define CASE(name, expression)                                                                     \
    case IR_##name:                                                                                \
        *d = (uint64_t)(expression);                                                               \
        return true;
        CASE(mov, b)
        CASE(add, a + b)
        CASE(sub, a - b)
        CASE(rsub, b - a)
        CASE(and, a & b)
        CASE(or, a | b)
        CASE(xor, a ^ b)
        CASE(andn, a & ~b)
        CASE(orn, a | ~b)
        CASE(xnor, ~(a ^ b))
        CASE(shl, a << (b & 63))
        CASE(shr, a >> (b & 63))
        CASE(sar, (int64_t)a >> (b & 63))
        CASE(rotl, a << (b & 63) | a >> (-b & 63))
        CASE(rotr, a >> (b & 63) | a << (-b & 63))
        CASE(mul, a * b)
        CASE(mulhs, (__int128)(int64_t)a * (int64_t)b >> 64)
        CASE(mulhu, (unsigned __int128)a * b >> 64)
        CASE(mulhsu, (__int128)(int64_t)a * (__int128)b >> 64)
        CASE(divs, divs((int64_t)a, (int64_t)b))
        CASE(divu, b ? a / b : UINT64_MAX)
        CASE(rems, rems((int64_t)a, (int64_t)b))
        CASE(remu, b ? a % b : a)
        CASE(mins, (int64_t)a < (int64_t)b ? a : b)
        CASE(maxs, (int64_t)a > (int64_t)b ? a : b)
        CASE(minu, a < b ? a : b)
        CASE(maxu, a > b ? a : b)
        CASE(clz, a ? __builtin_clzll(a) : 64)
        CASE(ctz, a ? __builtin_ctzll(a) : 64)
        CASE(popcnt, __builtin_popcountll(a))
        CASE(bswap, __builtin_bswap64(a))
        CASE(orcb, orcb(a))
        CASE(sext8, (int8_t)a)
        CASE(sext16, (int16_t)a)
        CASE(sext32, (int32_t)a)
        CASE(zext8, (uint8_t)a)
        CASE(zext16, (uint16_t)a)
        CASE(zext32, (uint32_t)a)
        CASE(shladd, (a << imm) + b)
        CASE(shladduw, ((uint64_t)(uint32_t)a << imm) + b)
    default:
        return false;
    }
}

static inline bool evaluate32(unsigned opcode, uint64_t wide_a, uint64_t wide_b, uint64_t *d)
{
    uint32_t a = (uint32_t)wide_a, b = (uint32_t)wide_b, result;
    switch (opcode) {
#undef CASE
#define CASE(name, expression)                                                                     \
    case IR_##name##32:                                                                            \
        result = (uint32_t)(expression);                                                           \
        break;
        CASE(add, a + b)
        CASE(sub, a - b)
        CASE(shl, a << (b & 31))
        CASE(shr, a >> (b & 31))
        CASE(sar, (int32_t)a >> (b & 31))
        CASE(rotl, a << (b & 31) | a >> (-b & 31))
        CASE(rotr, a >> (b & 31) | a << (-b & 31))
        CASE(mul, a * b)
        CASE(divs, divs((int32_t)a, (int32_t)b))
        CASE(divu, b ? a / b : UINT32_MAX)
        CASE(rems, rems((int32_t)a, (int32_t)b))
        CASE(remu, b ? a % b : a)
        CASE(clz, a ? __builtin_clz(a) : 32)
        CASE(ctz, a ? __builtin_ctz(a) : 32)
        CASE(popcnt, __builtin_popcount(a))
#undef CASE
    default:
        return false;
    }
    *d = (uint64_t)(int32_t)result;
    return true;
}

/* Host address of a guest access, or NULL with an exception pending. */
static inline uint8_t *guest(struct machine *m, uint64_t va, unsigned aux, enum cpu_access access)
{
    struct mmu_translation translation;
    uint64_t size = UINT64_C(1) << (aux & IR_MEM_SIZE);
    uint8_t *host;
    if ((aux & IR_MEM_ALIGN) && va % size) {
        isa_riscv64.raise_misaligned(&m->cpu.cpu, va, access);
        return NULL;
    }
    if (!isa_riscv64.translate(&m->cpu.cpu, m->cpu.data_key, va, access, &translation)) {
        return NULL;
    }
    host = memory_pointer(&m->memory, translation.physical, size);
    if (!host) {
        isa_riscv64.raise_access_fault(&m->cpu.cpu, va, access);
    }
    return host;
}

static inline uint64_t load_value(const uint8_t *host, unsigned aux)
{
    unsigned bits = 8u << (aux & IR_MEM_SIZE);
    uint64_t value = 0;
    memcpy(&value, host, bits / 8);
    if ((aux & IR_MEM_SIGN) && bits < 64) {
        value = (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
    }
    if (aux & IR_MEM_BOX) {
        value |= UINT64_C(0xffffffff00000000);
    }
    return value;
}

static inline uint64_t atomic_result(unsigned kind, unsigned aux, uint64_t old, uint64_t b)
{
    bool narrow = (aux & IR_MEM_SIZE) == 2;
    int64_t x = narrow ? (int32_t)old : (int64_t)old, y = narrow ? (int32_t)b : (int64_t)b;
    uint64_t ux = narrow ? (uint32_t)old : old, uy = narrow ? (uint32_t)b : b;
    switch (kind) {
    case IR_AMO_SWAP:
        return b;
    case IR_AMO_ADD:
        return old + b;
    case IR_AMO_AND:
        return old & b;
    case IR_AMO_OR:
        return old | b;
    case IR_AMO_XOR:
        return old ^ b;
    case IR_AMO_MINS:
        return x < y ? old : b;
    case IR_AMO_MAXS:
        return x > y ? old : b;
    case IR_AMO_MINU:
        return ux < uy ? old : b;
    default:
        return ux > uy ? old : b;
    }
}

/* A memory operation; false when it is none. Check cpu.exception afterwards. */
static inline bool evaluate_memory(struct machine *m, const struct ir_op *op, uint64_t a,
                                   uint64_t b)
{
    uint64_t va = a + (uint64_t)op->imm;
    size_t size = (size_t)1 << (op->aux & IR_MEM_SIZE);
    uint8_t *host;
    uint64_t old, stored;
    switch (op->opcode) {
    case IR_load:
    case IR_loadf:
    case IR_lr:
        host = guest(m, va, op->aux, CPU_ACCESS_READ);
        if (host) {
            *slot(m, op->d) = load_value(host, op->aux);
            m->reserved = op->opcode == IR_lr;
            m->reservation = va;
        }
        return true;
    case IR_store:
    case IR_storef:
        host = guest(m, va, op->aux, CPU_ACCESS_WRITE);
        if (host) {
            memcpy(host, &b, size);
        }
        return true;
    case IR_sc:
        host = guest(m, va, op->aux, CPU_ACCESS_WRITE);
        if (host) {
            bool stores = m->reserved && m->reservation == va;
            if (stores) {
                memcpy(host, &b, size);
            }
            *slot(m, op->d) = !stores;
            m->reserved = false;
        }
        return true;
    case IR_amo:
        host = guest(m, va, op->aux, CPU_ACCESS_WRITE);
        if (host) {
            old = load_value(host, op->aux);
            stored = atomic_result(op->aux >> IR_MEM_AMO_SHIFT, op->aux, old, b);
            memcpy(host, &stored, size);
            *slot(m, op->d) = old;
        }
        return true;
    case IR_fence:
        return true;
    default:
        return false;
    }
}

/* The address that a terminator leads to. */
static inline uint64_t evaluate_terminator(struct machine *m, const struct ir_op *op, uint64_t base)
{
    uint64_t a = operand(m, op, op->a), b = operand(m, op, op->b);
    switch (op->opcode) {
    case IR_jump:
    case IR_call:
    case IR_exit:
        return base + (uint64_t)op->imm;
    case IR_branch:
        return base + (condition_holds(op->aux, a, b) ? (uint64_t)(int64_t)op->imm2
                                                      : (uint64_t)m->block.start + m->block.length);
    case IR_jump_ind:
    case IR_call_ind:
    case IR_ret:
        return a;
    default:
        ck_assert_uint_eq(op->opcode, IR_exit_pc);
        return m->cpu.cpu.pc;
    }
}

/* Whatever is neither memory access nor terminator. */
static inline void evaluate_other(struct machine *m, const struct ir_op *op, uint64_t base)
{
    uint64_t a = operand(m, op, op->a), b = operand(m, op, op->b), d = 0;
    if (evaluate64(op->opcode, a, b, op->imm, &d) || evaluate32(op->opcode, a, b, &d)) {
        *slot(m, op->d) = d;
        return;
    }
    switch (op->opcode) {
    case IR_pcrel:
        d = base + (uint64_t)op->imm;
        break;
    case IR_select:
        d = a ? b : operand(m, op, op->c);
        break;
    case IR_setcc:
        d = condition_holds(op->aux, a, b);
        break;
    case IR_fmov:
    case IR_fmv_to_int:
    case IR_fmv_from_int:
        d = a;
        break;
    case IR_helper:
        d = isa_riscv64.helpers[op->aux].function(&m->cpu.cpu, a, b, (uint64_t)op->imm);
        break;
    default:
        ck_abort_msg("operation %s is not evaluated", ir_opcode_name(op->opcode));
    }
    if (op->d != IR_NONE && !m->cpu.cpu.exception) {
        *slot(m, op->d) = d;
    }
}

static inline void verify_block(const struct ir_block *block)
{
    unsigned where = 0;
    const char *defect = ir_verify(block, riscv64_globals, isa_riscv64.helpers, &where);
    ck_assert_msg(!defect, "operation %u: %s", where, defect);
}

/* Run m->block from cpu.pc; delivers an exception that it raises. */
static inline void run_block(struct machine *m)
{
    struct cpu *cpu = &m->cpu.cpu;
    uint64_t base = cpu->pc & ~UINT64_C(0xfff);
    uint64_t start_retired = cpu->retired, count = 0;
    verify_block(&m->block);
    for (unsigned i = 0; i < m->block.op_count; i++) {
        const struct ir_op *op = &m->block.ops[i];
        if (op->opcode == IR_insn) {
            cpu->pc = base + (uint64_t)op->imm;
            cpu->retired = start_retired + count++;
            continue;
        }
        if (ir_is_terminator(op->opcode)) {
            cpu->pc = evaluate_terminator(m, op, base);
            cpu->retired = start_retired + count;
            return;
        }
        if (!evaluate_memory(m, op, operand(m, op, op->a), operand(m, op, op->b))) {
            evaluate_other(m, op, base);
        }
        if (cpu->exception) {
            isa_riscv64.deliver_exception(cpu);
            return;
        }
    }
}

/* Fetch and run one block at cpu.pc, at most `limit` instructions. An interrupt that is due is
 * taken first, in its place. */
static inline void step(struct machine *m, unsigned limit)
{
    struct cpu *cpu = &m->cpu.cpu;
    struct mmu_translation translation;
    struct isa_code code = {
        .start = cpu->pc & 0xfff, .insn_limit = (uint16_t)limit, .mode = cpu->block_mode};
    if (isa_riscv64.interrupt_pending(cpu, false)) {
        isa_riscv64.deliver_interrupt(cpu);
        return;
    }
    if (!isa_riscv64.translate(cpu, m->cpu.execute_key, cpu->pc, CPU_ACCESS_EXECUTE,
                               &translation)) {
        isa_riscv64.deliver_exception(cpu);
        return;
    }
    code.page = ram(m, translation.physical & ~UINT64_C(0xfff), 4096);
    if (isa_riscv64.decode(&m->block, &code) == ISA_NEEDS_NEXT_PAGE) {
        uint64_t next = (cpu->pc | 0xfff) + 1;
        if (!isa_riscv64.translate(cpu, m->cpu.execute_key, next, CPU_ACCESS_EXECUTE,
                                   &translation)) {
            isa_riscv64.deliver_exception(cpu);
            return;
        }
        code.next_page = ram(m, translation.physical, 4096);
        ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    }
    run_block(m);
}

/* Put one instruction word at pc and run it. */
static inline void execute(struct machine *m, uint32_t word)
{
    put32(m, m->cpu.cpu.pc, word);
    step(m, 1);
}

/* Decode words placed at `offset` of an otherwise zero page, into m->block. */
static inline void decode_words(struct machine *m, unsigned offset, const uint32_t *words,
                                unsigned count, uint32_t mode)
{
    uint8_t page[4096] = {0};
    struct isa_code code = {
        .page = page, .start = (uint16_t)offset, .insn_limit = IR_INSNS_MAX, .mode = mode};
    memcpy(page + offset, words, count * 4);
    ck_assert_int_eq(isa_riscv64.decode(&m->block, &code), ISA_DECODED);
    verify_block(&m->block);
}

/* --- instruction words ---------------------------------------------------------------------- */
enum { CSRRW = 1, CSRRS = 2, CSRRC = 3, CSRRWI = 5, CSRRSI = 6, CSRRCI = 7 };

static inline uint32_t csr_word(unsigned operation, unsigned csr, unsigned rd, unsigned rs1)
{
    return csr << 20 | rs1 << 15 | operation << 12 | rd << 7 | 0x73;
}

#define ECALL  0x00000073u
#define EBREAK 0x00100073u
#define SRET   0x10200073u
#define MRET   0x30200073u
#define WFI    0x10500073u

/* Write and read a CSR by instruction; ck_assert that it is legal. */
static inline void csr_put(struct machine *m, unsigned csr, uint64_t value)
{
    m->cpu.cpu.pc = CODE;
    m->cpu.x[5] = value;
    execute(m, csr_word(CSRRW, csr, 0, 5));
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
}

static inline uint64_t csr_get(struct machine *m, unsigned csr)
{
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRS, csr, 6, 0));
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
    return m->cpu.x[6];
}

/* Enter a privilege as MRET does, translation and status otherwise as they are. */
static inline void enter_privilege(struct machine *m, unsigned privilege)
{
    uint64_t status = m->cpu.csr.mstatus & ~STATUS_MPP;
    m->cpu.privilege = RISCV64_MACHINE;
    m->cpu.csr.mstatus = status | (uint64_t)privilege << STATUS_MPP_SHIFT;
    m->cpu.csr.mepc = CODE;
    m->cpu.cpu.pc = CODE;
    execute(m, MRET);
    ck_assert_uint_eq(m->cpu.privilege, privilege);
}

/* All memory open to S and U. */
static inline void open_pmp(struct machine *m)
{
    csr_put(m, 0x3b0, UINT64_MAX);
    csr_put(m, 0x3a0, PMP_MODE_NAPOT | PMP_ALL);
}

#endif
