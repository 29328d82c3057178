/*
 * A guest instruction set for testing the engine: each instruction is one IR operation, written
 * out. So tests reach every operation and every corner without any real decoder.
 *
 * 16 bytes, 4-byte aligned (so one may cross a page). Targets count from the instruction's own
 * address. Registers 0 to 15 are integers, 16 to 23 floating point.
 */
#ifndef POLYVISOR_TESTS_ENGINE_TOY_H
#define POLYVISOR_TESTS_ENGINE_TOY_H

#include "libshared/ir/ir.h"
#include "libshared/isa/isa.h"
#include "vmmd/vcpu/engine/engine.h"
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct toy_insn {
    uint8_t opcode, pad;
    uint16_t aux;
    uint8_t d, a, b, c;
    int32_t imm, imm2;
};
_Static_assert(sizeof(struct toy_insn) == 16, "one length for all");

#define TOY_NONE 0xff
#define TOY_IMM  0xfe
#define TOY_F(n) (16 + (n))

enum toy_cause { TOY_PAGE_FAULT = 1, TOY_ACCESS_FAULT, TOY_MISALIGNED, TOY_TRAP };

struct toy_cpu {
    struct cpu cpu;
    uint64_t x[16];
    uint64_t f[8];
    uint64_t root;
    uint64_t trap_handler; /* 0: stop */
    uint64_t trap_pc, trap_cause, trap_value, trap_retired, traps;
    uint64_t irq_handler, irq_pc, irqs;
    _Atomic uint32_t line;
};

struct toy_mapping {
    uint64_t root, va;
    _Atomic uint64_t pa;
    uint64_t size;
    unsigned permissions; /* 1 read, 2 write, 4 execute, 8 global */
};

#define TOY_RAM_BASE 0x80000000u
#define TOY_DEVICE   0x10000000u

/* One machine; tests run one at a time. */
struct toy_machine {
    struct memory memory;
    struct engine *engine;
    struct cpu *cpus[8];
    unsigned cpu_count;
    _Atomic unsigned mapping_count;
    struct toy_mapping mappings[64];
    uint64_t device[8];
    _Atomic uint64_t device_accesses;
    uint64_t next_code; /* where toy_emit appends */
};
static struct toy_machine toy;

static inline struct toy_cpu *toy_of(struct cpu *cpu)
{
    return (struct toy_cpu *)cpu;
}

/* --- the instruction set --------------------------------------------------------------------- */

static const struct ir_global toy_globals[] = {
#define X(n)                                                                                       \
    {                                                                                              \
        "x" #n, offsetof(struct toy_cpu, x) + 8 * (n), IR_TYPE_I64                                 \
    }
#define F(n)                                                                                       \
    {                                                                                              \
        "f" #n, offsetof(struct toy_cpu, f) + 8 * (n), IR_TYPE_F64                                 \
    }
    X(0),  X(1),  X(2),  X(3), X(4), X(5), X(6), X(7), X(8), X(9), X(10), X(11), X(12),
    X(13), X(14), X(15), F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7),  {0},
#undef X
#undef F
};

enum toy_helper {
    TOY_STOP,
    TOY_SET_ROOT,
    TOY_FLUSH,
    TOY_REMOTE_FLUSH, /* a: CPU mask, b: va */
    TOY_BARRIER,
    TOY_REMOTE_BARRIER, /* a: CPU mask */
    TOY_WAIT,
    TOY_RETIRED,
    TOY_RAISE,
    TOY_FIRMWARE,
    TOY_SET_MODE,
    TOY_REMAP, /* mapping a now leads to b */
};

static uint64_t toy_stop(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b, (void)imm;
    cpu_attention(cpu, CPU_ATTENTION_STOP);
    return 0;
}

static void toy_switch(struct cpu *cpu)
{
    struct mmu_key key = {.root = toy_of(cpu)->root, .flags = 1};
    cpu->host->mmu_switch(cpu, key, key);
}

static uint64_t toy_set_root(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)b, (void)imm;
    toy_of(cpu)->root = a;
    toy_switch(cpu);
    return 0;
}

static uint64_t toy_flush(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)imm;
    cpu->host->tlb_flush(cpu, true, 0, 0, a == 0, b);
    return 0;
}

static uint64_t toy_remote_flush(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)imm;
    engine_remote_flush(cpu, a, true, 0, 0, b, b ? 4096 : UINT64_MAX);
    return 0;
}

static uint64_t toy_barrier(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b, (void)imm;
    cpu->host->fetch_barrier(cpu);
    return 0;
}

static uint64_t toy_remote_barrier(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)b, (void)imm;
    engine_remote_fetch_barrier(cpu, a);
    return 0;
}

static uint64_t toy_wait(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b, (void)imm;
    cpu->waiting = 1;
    return 0;
}

static uint64_t toy_retired(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b, (void)imm;
    return cpu->retired;
}

static uint64_t toy_raise(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b;
    cpu_raise(cpu, TOY_TRAP, imm);
    return 0xdead;
}

static uint64_t toy_firmware(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)a, (void)b, (void)imm;
    return cpu->host->firmware_call(cpu);
}

static uint64_t toy_set_mode(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)b, (void)imm;
    cpu->block_mode = (uint32_t)a;
    return 0;
}

static uint64_t toy_remap(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)cpu, (void)imm;
    atomic_store(&toy.mappings[a].pa, b);
    return 0;
}

#define ANY (IR_HELPER_READS | IR_HELPER_WRITES)
static const struct ir_helper toy_helpers[] = {
    [TOY_STOP] = {"stop", toy_stop, 0},
    [TOY_SET_ROOT] = {"set_root", toy_set_root, ANY | IR_HELPER_MODE},
    [TOY_FLUSH] = {"flush", toy_flush, ANY | IR_HELPER_MODE},
    [TOY_REMOTE_FLUSH] = {"remote_flush", toy_remote_flush, ANY | IR_HELPER_MODE},
    [TOY_BARRIER] = {"barrier", toy_barrier, ANY | IR_HELPER_MODE},
    [TOY_REMOTE_BARRIER] = {"remote_barrier", toy_remote_barrier, ANY | IR_HELPER_MODE},
    [TOY_WAIT] = {"wait", toy_wait, 0},
    [TOY_RETIRED] = {"retired", toy_retired, IR_HELPER_READS},
    [TOY_RAISE] = {"raise", toy_raise, IR_HELPER_FAULTS},
    [TOY_FIRMWARE] = {"firmware", toy_firmware, ANY},
    [TOY_SET_MODE] = {"set_mode", toy_set_mode, ANY | IR_HELPER_MODE},
    [TOY_REMAP] = {"remap", toy_remap, 0},
    {0},
};

static ir_value toy_operand(uint8_t number)
{
    return number == TOY_NONE ? IR_NONE : number == TOY_IMM ? IR_IMMEDIATE : number;
}

static bool toy_ends_block(const struct toy_insn *insn)
{
    if (insn->opcode == IR_helper) {
        return toy_helpers[insn->aux].effects & IR_HELPER_MODE || insn->aux == TOY_STOP ||
               insn->aux == TOY_WAIT;
    }
    return ir_is_terminator(insn->opcode);
}

/* False when the block is full. */
static bool toy_decode_one(struct ir_builder *builder, const struct toy_insn *insn, unsigned offset)
{
    if (!ir_builder_insn(builder, (uint16_t)offset, sizeof(*insn))) {
        return false;
    }
    int64_t imm = insn->imm;
    int32_t imm2 = insn->imm2;
    if (insn->opcode == IR_jump || insn->opcode == IR_call || insn->opcode == IR_exit) {
        imm += offset;
    }
    if (insn->opcode == IR_branch || insn->opcode == IR_call) {
        imm2 += (int32_t)offset;
    }
    bool known = insn->opcode < IR_OPCODE_COUNT && insn->opcode != IR_insn;
    if (known) {
        ir_emit(builder, insn->opcode, insn->aux, toy_operand(insn->d), toy_operand(insn->a),
                toy_operand(insn->b), toy_operand(insn->c), imm, imm2);
    } else {
        ir_emit(builder, IR_helper, TOY_RAISE, IR_NONE, IR_NONE, IR_NONE, IR_NONE, 0xbad, 0);
    }
    if (!known || (toy_ends_block(insn) && !ir_is_terminator(insn->opcode))) {
        ir_emit(builder, IR_exit, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE,
                (int64_t)(offset + sizeof(*insn)), 0);
    }
    return true;
}

static enum isa_decode_result toy_decode(struct ir_block *block, const struct isa_code *code)
{
    struct ir_builder builder;
    unsigned offset = code->start;
    ir_builder_begin(&builder, block, code->mode, code->start);
    for (unsigned count = 0;; count++) {
        struct toy_insn insn;
        bool fits = offset + sizeof(insn) <= 4096;
        if (!fits && count == 0) {
            if (!code->next_page) {
                return ISA_NEEDS_NEXT_PAGE;
            }
            memcpy(&insn, code->page + offset, 4096 - offset);
            memcpy((uint8_t *)&insn + (4096 - offset), code->next_page,
                   sizeof(insn) - (4096 - offset));
        } else if (fits) {
            memcpy(&insn, code->page + offset, sizeof(insn));
        }
        if ((!fits && count) || count == code->insn_limit ||
            !toy_decode_one(&builder, &insn, offset)) {
            break;
        }
        offset += sizeof(insn);
        bool ended = ir_is_terminator(block->ops[block->op_count - 1].opcode);
        if (ended) {
            return ISA_DECODED;
        }
        if (!fits) {
            break;
        }
    }
    ir_emit(&builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, offset, 0);
    return ISA_DECODED;
}

static void toy_reset(struct cpu *cpu)
{
    cpu->pc = TOY_RAM_BASE;
    toy_switch(cpu);
}

static bool toy_translate(struct cpu *cpu, struct mmu_key key, uint64_t va, enum cpu_access access,
                          struct mmu_translation *out)
{
    if (key.root == 0) {
        *out = (struct mmu_translation){
            .physical = va, .page_size = 4096, .read = true, .write = true, .execute = true};
        return true;
    }
    unsigned count = atomic_load(&toy.mapping_count);
    for (unsigned i = count; i-- > 0;) {
        struct toy_mapping *mapping = &toy.mappings[i];
        uint64_t offset = va - mapping->va;
        if (mapping->root == key.root && offset < mapping->size) {
            if (!(mapping->permissions >> access & 1)) {
                break;
            }
            *out =
                (struct mmu_translation){.physical = mapping->pa + offset,
                                         .page_size = mapping->size > 4096 ? mapping->size : 4096,
                                         .read = mapping->permissions & 1,
                                         .write = mapping->permissions & 2,
                                         .execute = mapping->permissions & 4,
                                         .global = mapping->permissions & 8};
            return true;
        }
    }
    cpu_raise(cpu, TOY_PAGE_FAULT, va);
    return false;
}

static bool toy_guess_translation(struct cpu *cpu, struct mmu_key key, uint64_t va,
                                  uint64_t *physical)
{
    (void)cpu;
    *physical = va;
    unsigned count = key.root ? atomic_load(&toy.mapping_count) : 0;
    for (unsigned i = count; i-- > 0;) {
        struct toy_mapping *mapping = &toy.mappings[i];
        if (mapping->root == key.root && va - mapping->va < mapping->size) {
            *physical = mapping->pa + (va - mapping->va);
            return true;
        }
    }
    return key.root == 0;
}

static void toy_access_fault(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    (void)access;
    cpu_raise(cpu, TOY_ACCESS_FAULT, va);
}

static void toy_misaligned(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    (void)access;
    cpu_raise(cpu, TOY_MISALIGNED, va);
}

static void toy_deliver_exception(struct cpu *cpu)
{
    struct toy_cpu *self = toy_of(cpu);
    self->trap_cause = cpu->exception - 1;
    self->trap_value = cpu->exception_value;
    self->trap_pc = cpu->pc;
    self->trap_retired = cpu->retired;
    self->traps++;
    cpu->exception = 0;
    if (self->trap_handler) {
        cpu->pc = self->trap_handler;
    } else {
        cpu_attention(cpu, CPU_ATTENTION_STOP);
    }
}

static bool toy_interrupt_pending(struct cpu *cpu, bool wake)
{
    (void)wake;
    return atomic_load(&toy_of(cpu)->line) != 0;
}

static void toy_deliver_interrupt(struct cpu *cpu)
{
    struct toy_cpu *self = toy_of(cpu);
    atomic_store(&self->line, 0);
    self->irqs++;
    self->irq_pc = cpu->pc;
    if (self->irq_handler) {
        cpu->pc = self->irq_handler;
    }
}

static struct isa toy_isa = {
    .name = "toy",
    .cpu_size = sizeof(struct toy_cpu),
    .globals = toy_globals,
    .helpers = toy_helpers,
    .reset = toy_reset,
    .decode = toy_decode,
    .translate = toy_translate,
    .raise_access_fault = toy_access_fault,
    .raise_misaligned = toy_misaligned,
    .deliver_exception = toy_deliver_exception,
    .interrupt_pending = toy_interrupt_pending,
    .deliver_interrupt = toy_deliver_interrupt,
    .guess_translation = toy_guess_translation,
};

/* --- the machine ----------------------------------------------------------------------------- */

static bool toy_mmio_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)cpu;
    if (address < TOY_DEVICE || address + size > TOY_DEVICE + sizeof(toy.device)) {
        return false;
    }
    atomic_fetch_add(&toy.device_accesses, 1);
    memcpy(value, (uint8_t *)toy.device + (address - TOY_DEVICE), size);
    return true;
}

static bool toy_mmio_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)cpu;
    if (address < TOY_DEVICE || address + size > TOY_DEVICE + sizeof(toy.device)) {
        return false;
    }
    atomic_fetch_add(&toy.device_accesses, 1);
    memcpy((uint8_t *)toy.device + (address - TOY_DEVICE), &value, size);
    return true;
}

static bool toy_firmware_call(struct cpu *cpu)
{
    engine_remote_flush(cpu, ~(uint64_t)0, true, 0, 0, 0, UINT64_MAX);
    return true;
}

static const struct cpu_host toy_host = {
    .mmio_read = toy_mmio_read, .mmio_write = toy_mmio_write, .firmware_call = toy_firmware_call};

/* `tier`: enum engine_tier; tests are added by toy_add, which runs them on each. */
static inline void toy_start(unsigned cpus, int tier)
{
    memset(&toy, 0, sizeof(toy));
    const uint64_t size = 1u << 20;
    int fd = memory_create_fd("toy-ram", size);
    int map = memory_create_fd("toy-codemap", memory_codemap_size(size));
    ck_assert_int_ge(fd, 0);
    ck_assert_int_ge(map, 0);
    ck_assert_int_eq(memory_add_region(&toy.memory, fd, TOY_RAM_BASE, size), 0);
    ck_assert_int_eq(memory_attach_codemap(&toy.memory, map), 0);
    close(fd);
    close(map);
    struct error err;
    toy.engine = engine_create(&toy_isa, &toy.memory, cpus, &err);
    ck_assert_ptr_nonnull(toy.engine);
    engine_set_tier(toy.engine, (enum engine_tier)tier);
    for (unsigned i = 0; i < cpus; i++) {
        toy.cpus[i] = engine_add_cpu(toy.engine, i, &toy_host, NULL);
        ck_assert_ptr_nonnull(toy.cpus[i]);
    }
    toy.cpu_count = cpus;
    toy.next_code = TOY_RAM_BASE;
}

static inline void toy_finish(void)
{
    engine_destroy(toy.engine);
    memory_close(&toy.memory);
}

static inline void *toy_ram(uint64_t address)
{
    return memory_pointer(&toy.memory, address, 16);
}

static inline void toy_map(uint64_t root, uint64_t va, uint64_t pa, uint64_t size,
                           unsigned permissions)
{
    unsigned count = atomic_load(&toy.mapping_count);
    struct toy_mapping *mapping = &toy.mappings[count];
    mapping->root = root;
    mapping->va = va;
    mapping->pa = pa;
    mapping->size = size;
    mapping->permissions = permissions;
    atomic_store(&toy.mapping_count, count + 1);
}

/* --- an assembler ---------------------------------------------------------------------------- */

static inline uint64_t toy_emit(struct toy_insn insn)
{
    uint64_t at = toy.next_code;
    memcpy(toy_ram(at), &insn, sizeof(insn));
    toy.next_code += sizeof(insn);
    return at;
}

static inline struct toy_insn toy_op(unsigned opcode, unsigned aux, unsigned d, unsigned a,
                                     unsigned b, int32_t imm)
{
    return (struct toy_insn){.opcode = (uint8_t)opcode,
                             .aux = (uint16_t)aux,
                             .d = (uint8_t)d,
                             .a = (uint8_t)a,
                             .b = (uint8_t)b,
                             .c = TOY_NONE,
                             .imm = imm};
}

static inline struct toy_insn toy_li(unsigned d, int32_t value)
{
    return toy_op(IR_mov, 0, d, TOY_NONE, TOY_IMM, value);
}

static inline struct toy_insn toy_addi(unsigned d, unsigned a, int32_t value)
{
    return toy_op(IR_add, 0, d, a, TOY_IMM, value);
}

static inline struct toy_insn toy_load(unsigned aux, unsigned d, unsigned a, int32_t offset)
{
    return toy_op(IR_load, aux, d, a, TOY_NONE, offset);
}

static inline struct toy_insn toy_store(unsigned aux, unsigned a, unsigned b, int32_t offset)
{
    return toy_op(IR_store, aux, TOY_NONE, a, b, offset);
}

static inline struct toy_insn toy_branch(unsigned condition, unsigned a, unsigned b, int32_t by)
{
    struct toy_insn insn = toy_op(IR_branch, condition, TOY_NONE, a, b, 0);
    insn.imm2 = by;
    return insn;
}

static inline struct toy_insn toy_branch_imm(unsigned condition, unsigned a, int32_t imm,
                                             int32_t by)
{
    struct toy_insn insn = toy_op(IR_branch, condition, TOY_NONE, a, TOY_IMM, imm);
    insn.imm2 = by;
    return insn;
}

static inline struct toy_insn toy_jump(int32_t by)
{
    return toy_op(IR_jump, 0, TOY_NONE, TOY_NONE, TOY_NONE, by);
}

static inline struct toy_insn toy_jump_register(unsigned a)
{
    return toy_op(IR_jump_ind, 0, TOY_NONE, a, TOY_NONE, 0);
}

static inline struct toy_insn toy_call_helper(unsigned helper, unsigned d, unsigned a, unsigned b,
                                              int32_t imm)
{
    return toy_op(IR_helper, helper, d, a, b, imm);
}

static inline struct toy_insn toy_halt(void)
{
    return toy_call_helper(TOY_STOP, TOY_NONE, TOY_NONE, TOY_NONE, 0);
}

/* Run CPU 0 from `pc` until it stops itself. */
static inline struct toy_cpu *toy_run(uint64_t pc)
{
    struct cpu *cpu = toy.cpus[0];
    atomic_store(&cpu->attention, 0);
    cpu->pc = pc;
    ck_assert_int_eq(engine_run(cpu), ENGINE_EXIT_STOP);
    return toy_of(cpu);
}

static void *toy_thread(void *argument)
{
    engine_run(argument);
    return NULL;
}

/* Run all CPUs, each on its own thread from its own pc, until all stopped themselves. */
static inline void toy_run_all(void)
{
    pthread_t threads[8];
    for (unsigned i = 0; i < toy.cpu_count; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, toy_thread, toy.cpus[i]), 0);
    }
    for (unsigned i = 0; i < toy.cpu_count; i++) {
        pthread_join(threads[i], NULL);
    }
}

#define toy_add(tests, function)                                                                   \
    tcase_add_loop_test(tests, function, 0, engine_tier_available(ENGINE_BASELINE) ? 2 : 1)

#endif
