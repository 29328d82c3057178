/*
 * Any bytes as guest code: what the decoder makes of them passes the verifier, and runs on the
 * interpreter and as compiled code, to the same end, from any registers and in any mode.
 */
#include "libshared/base/log.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/lockstep/bare_machine.h"
#include "tests/lockstep/state.h"

#define RAM    UINT64_C(0x80000000)
#define SIZE   UINT64_C(0x8000)
#define CODE   (RAM + 0x1000)
#define TABLES (RAM + 0x4000)
#define BLOCKS 48

/* Code stays in the engine's caches from one input to the next: looking for leaks after each takes
 * longer than all the rest. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static struct bare_machine *machines[2]; /* interpreted, compiled */
static struct ir_block block;

static void open_machines(void)
{
    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    for (unsigned i = 0; i < 2; i++) {
        machines[i] = bare_machine_create(RAM, SIZE, 1, false, i ? ENGINE_BASELINE : ENGINE_INTERP);
        fuzz_require(machines[i] != NULL, "a machine");
    }
}

static uint8_t *ram(unsigned machine)
{
    return machines[machine]->memory.regions[0].host;
}

/* The decoder alone, at any place and with any mode. */
static void decode(const uint8_t *page, uint16_t start, uint32_t mode, uint16_t limit,
                   bool has_next)
{
    static char text[64 << 10];
    struct isa_code code = {.page = page,
                            .next_page = has_next ? page + 0x1000 : NULL,
                            .start = start,
                            .insn_limit = limit,
                            .mode = mode};
    unsigned where = 0;

    enum isa_decode_result result = isa_riscv64.decode(&block, &code);
    if (result == ISA_NEEDS_NEXT_PAGE) {
        fuzz_require(!has_next, "the next page is asked for once");
        return;
    }
    const char *defect = ir_verify(&block, isa_riscv64.globals, isa_riscv64.helpers, &where);
    if (defect) {
        ir_print(&block, isa_riscv64.globals, isa_riscv64.helpers, text, sizeof(text));
        fprintf(stderr, "%s at %u of\n%s", defect, where, text);
        fuzz_require(false, "a decoded block is sound");
    }
    fuzz_require(block.insn_count <= limit, "no more instructions than asked for");
    size_t length = ir_print(&block, isa_riscv64.globals, isa_riscv64.helpers, text, sizeof(text));
    fuzz_require(length > 0, "a block prints");
    isa_riscv64.disassemble(page + start, 0x1000u - start, CODE + start, text, sizeof(text));
}

static uint64_t take_register(struct fuzz_input *input)
{
    unsigned how = (unsigned)fuzz_take(input, 1);

    if (how < 128) {
        return RAM + how * 256u;
    }
    return how < 160 ? BARE_EXIT + 0x100 + how : fuzz_number(input);
}

/* What a run begins with. */
static struct start {
    enum riscv64_privilege privilege;
    uint64_t pc, x[32], f[32], status, vector, epc, satp;
} begin;

static void take_start(struct fuzz_input *input, uint16_t offset)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    memset(&begin, 0, sizeof(begin));
    begin.privilege = how & 1 ? RISCV64_SUPERVISOR : RISCV64_MACHINE;
    begin.pc = CODE + offset;
    for (unsigned i = 0; i < 8; i++) {
        begin.x[5 + i] = begin.x[24 + i] = take_register(input);
        begin.f[i] = how & 2 ? UINT64_C(0xffffffff00000000) | fuzz_take(input, 4)
                             : fuzz_number(input) * UINT64_C(0x9e3779b97f4a7c15);
    }
    begin.status = how & 4 ? 0 : STATUS_FS_DIRTY | STATUS_SD;
    begin.status |= how & 8 ? fuzz_take(input, 4) & (STATUS_MPRV | STATUS_SUM | STATUS_MXR) : 0;
    begin.vector = CODE + fuzz_take(input, 1) * 8;
    begin.epc = CODE + fuzz_take(input, 1) * 8;
    begin.satp = how & 16 && how & 1 ? UINT64_C(8) << 60 | TABLES >> 12 : 0;
}

static void apply(unsigned index)
{
    struct riscv64_cpu *cpu = machines[index]->cpus[0].cpu;

    bare_machine_boot(machines[index], 0, begin.privilege, begin.pc, 0);
    memcpy(cpu->x, begin.x, sizeof(cpu->x));
    memcpy(cpu->f, begin.f, sizeof(cpu->f));
    cpu->csr.mstatus |= begin.status;
    cpu->csr.mtvec = cpu->csr.stvec = begin.vector;
    cpu->csr.mepc = cpu->csr.sepc = begin.epc;
    cpu->csr.satp = begin.satp;
    cpu->cpu.retired = 0;
    cpu->csr.cycle_offset = cpu->csr.instret_offset = 0;
    cpu->cpu.fp_flags = 0;
    cpu->cpu.waiting = 0;
    cpu->cpu.exception = 0;
    atomic_store(&cpu->lines, 0);
    memset(cpu->cpu.temps, 0, sizeof(cpu->cpu.temps));
    atomic_store(&machines[index]->count, 0);
    riscv64_update_modes(cpu);
    memory_device_wrote(&machines[index]->memory, RAM, SIZE); /* new code: a device brought it */
    engine_device_wrote(machines[index]->engine);
    cpu->cpu.host->tlb_flush(&cpu->cpu, true, 0, 0, true, 0);
    atomic_store(&cpu->cpu.attention, CPU_ATTENTION_STEP);
}

/* Rows of the instruction table, and the numbers of CSRs: bytes alone hardly hit them. */
static const struct {
    uint32_t mask, match;
} rows[] = {
#define MAJOR(opcode)
#define INSTRUCTION(name, mask, match, ...) {mask, match},
#include "libshared/isa/riscv64/instructions.def"
#undef MAJOR
#undef INSTRUCTION
};
static const uint16_t csrs[] = {
#define CSR_FIELD(number, ...)     number,
#define CSR_CODE(first, last, ...) first, last,
#include "libshared/isa/riscv64/csrs.def"
#undef CSR_FIELD
#undef CSR_CODE
};

/* The guest's code from the rest of the input. */
static void write_code(struct fuzz_input *input, uint8_t *to, size_t room)
{
    for (size_t at = 0; input->size && at + 4 <= room;) {
        unsigned kind = (unsigned)fuzz_take(input, 1), size = 4;
        uint32_t word;
        if (kind < 200) {
            unsigned row = (unsigned)fuzz_take(input, 1) % 256 + (kind & 1 ? 256 : 0);
            row %= sizeof(rows) / sizeof(rows[0]);
            word = rows[row].match | ((uint32_t)fuzz_take(input, 4) & ~rows[row].mask);
            if ((word & 0x7f) == 0x73 && word & 0x3000 && kind & 6) {
                word = (word & 0xfffff) |
                       (uint32_t)csrs[(word >> 20) % (sizeof(csrs) / sizeof(csrs[0]))] << 20;
            }
        } else if (kind < 240) {
            word = (uint32_t)fuzz_take(input, 2);
            size = 2;
        } else {
            word = (uint32_t)fuzz_take(input, 4);
        }
        memcpy(to + at, &word, size);
        at += size;
    }
}

/* Page tables that map RAM to itself, if the code turns them on: gigabytes, and pages of theirs. */
static void make_tables(struct fuzz_input *input)
{
    uint64_t *root = (uint64_t *)(ram(0) + (TABLES - RAM));
    uint64_t *middle = root + 512, *leaf = middle + 512;

    for (unsigned i = 0; i < 4; i++) {
        root[i] = (uint64_t)i << 28 | 0xcf;
    }
    root[2] = (TABLES + 0x1000) >> 12 << 10 | 1;
    middle[0] = (TABLES + 0x2000) >> 12 << 10 | 1;
    for (unsigned i = 0; i < 8; i++) {
        leaf[i] = (RAM + i * 0x1000) >> 12 << 10 | (fuzz_take(input, 1) ^ 0xcf);
    }
}

/* One block. False: the guest ended itself or waits. */
static bool step(unsigned index)
{
    struct cpu *cpu = &machines[index]->cpus[0].cpu->cpu;
    enum engine_exit why = engine_run(cpu);

    return why == ENGINE_EXIT_STEP && !cpu->waiting;
}

static void run(void)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        bool going[2] = {step(0), step(1)};
        if (!state_same(machines[1]->cpus[0].cpu, machines[0]->cpus[0].cpu) ||
            going[0] != going[1]) {
            fprintf(stderr, "after block %u:\n", i);
            state_print_difference(stderr, machines[1]->cpus[0].cpu, machines[0]->cpus[0].cpu);
            fuzz_require(false, "compiled code does what the interpreter does");
        }
        if (!going[0]) {
            break;
        }
    }
    fuzz_require(!memcmp(ram(0), ram(1), SIZE), "compiled code writes what the interpreter does");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (!machines[0]) {
        open_machines();
    }
    uint16_t start =
        (uint16_t)(fuzz_take(&input, 1) & 1 ? 0x1000 - 2 * (fuzz_take(&input, 1) % 64) : 0);
    start &= 0xffe;
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    uint32_t mode = (uint32_t)fuzz_take(&input, 1);
    memset(ram(0), 0, SIZE);
    take_start(&input, start);
    if (begin.satp) {
        make_tables(&input);
    }
    write_code(&input, ram(0) + 0x1000 + start, 0x1800);
    decode(ram(0) + 0x1000, start, mode, (uint16_t)(1 + how % IR_INSNS_MAX), how & 0x80);
    memcpy(ram(1), ram(0), SIZE);
    apply(0);
    apply(1);
    run();
    return 0;
}
