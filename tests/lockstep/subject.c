#include "tests/lockstep/subject.h"
#include "libshared/isa/riscv64/registers.h"
#include "tests/lockstep/encode.h"
#include "tests/lockstep/kicker.h"
#include "tests/lockstep/optimiser.h"
#include "vmmd/vcpu/engine/region.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { X0 = 0, RA = 1, T0 = 5, T1 = 6, AREA = 30 };
enum { LUI = 0x37, ADDI = 0x13, LD = 0x3003, SD = 0x3023, JALR = 0x67 };
enum { CSRRW = 1, CSRRS = 2, CSRRC = 3 };
enum { FENCE_I = 0x0000100f, SFENCE_VMA = 0x12000073, SRET = 0x10200073, MRET = 0x30200073 };
enum {
    ENTRY = STREAM_SCRATCH,
    /* The store that ends the run is the last word of its page, so a block ends there on every
     * tier, and all of them stop after the same instruction. */
    EXIT_PAGE = STREAM_SCRATCH + 0x1000,
    EXIT = EXIT_PAGE + 0xff8,
    HANDLER = STREAM_SCRATCH + 0x4000,
    TRAP_AREA = STREAM_SCRATCH + 0x5000,
    TABLES = STREAM_SCRATCH + 0x10000,
};

/* --- short code ----------------------------------------------------------------------------- */
struct code {
    uint32_t words[64];
    unsigned count;
};

static void add(struct code *code, uint32_t word)
{
    code->words[code->count++] = word;
}

static void add_csr(struct code *code, uint32_t function, unsigned rd, unsigned csr, unsigned rs1)
{
    add(code, encode_i(0x73 | function << 12, rd, rs1, (int)csr));
}

/* Numbers of the supervisor's registers, or machine mode's of the same names. */
static unsigned trap_csr(const struct subject *subject, unsigned number)
{
    return subject->privilege == RISCV64_MACHINE ? number + 0x200 : number;
}
enum { CSR_STATUS = 0x100, CSR_TVEC = 0x105, CSR_SCRATCH = 0x140, CSR_EPC, CSR_CAUSE, CSR_TVAL };
enum { CSR_SATP = 0x180 };

static void write_code(struct subject *subject, uint64_t address, const struct code *code)
{
    bare_machine_write(subject->machine, address, code->words, code->count * 4u);
}

static void set_csr(struct code *code, unsigned csr, uint32_t value)
{
    add(code, encode_u(LUI, T0, value >> 12));
    add_csr(code, CSRRW, X0, csr, T0);
}

static void switch_translation_on(struct code *code)
{
    add(code, encode_u(LUI, T0, TABLES >> 12));
    add(code, encode_i(0x5013, T0, T0, 12)); /* srli */
    add(code, encode_i(ADDI, T1, X0, 1));
    add(code, encode_i(0x1013, T1, T1, 63)); /* slli: mode 8, Sv39 */
    add(code, encode_r(0x6033, T0, T0, T1)); /* or */
    add_csr(code, CSRRW, X0, CSR_SATP, T0);
    add(code, SFENCE_VMA);
}

/* Switch floating point on, fetch the new code, and go there; for user mode by a return from a
 * trap that never was. */
static void write_entry(struct subject *subject)
{
    bool machine = subject->privilege == RISCV64_MACHINE;
    struct code code = {.count = 0};
    add(&code, encode_u(LUI, T0, 6)); /* FS */
    add_csr(&code, CSRRS, X0, trap_csr(subject, CSR_STATUS), T0);
    if (subject->trapping) {
        set_csr(&code, trap_csr(subject, CSR_TVEC), HANDLER);
        set_csr(&code, trap_csr(subject, CSR_SCRATCH), TRAP_AREA);
    }
    if (subject->trapping && !machine) {
        switch_translation_on(&code);
    }
    if (subject->privilege == RISCV64_USER) {
        add(&code, encode_i(ADDI, T0, X0, 0x100)); /* SPP */
        add_csr(&code, CSRRC, X0, CSR_STATUS, T0);
    }
    add(&code, FENCE_I);
    add(&code, encode_u(LUI, T0, STREAM_CODE >> 12));
    if (subject->privilege == RISCV64_USER) {
        add_csr(&code, CSRRW, X0, CSR_EPC, T0);
        add(&code, SRET);
    } else {
        add(&code, encode_i(JALR, X0, T0, 0));
    }
    write_code(subject, ENTRY, &code);
}

static void write_exit(struct subject *subject)
{
    struct code code = {.count = 0};
    add(&code, encode_u(LUI, T0, BARE_EXIT >> 12));
    add(&code, encode_s(SD, T0, X0, 0));
    write_code(subject, EXIT, &code);
}

/* --- the trap handler ----------------------------------------------------------------------- */

/* At TRAP_AREA: what the handler saves, and what it notes. */
enum { SAVED_T0 = 0, SAVED_T1 = 8, NOTED = 16, COUNT = 24 };

static void add_noted(struct code *code, unsigned csr)
{
    add_csr(code, CSRRS, T0, csr, X0);
    add(code, encode_i(0x60005013, T1, T1, 7)); /* rori */
    add(code, encode_r(0x33, T1, T1, T0));
}

/* epc + 4; ra after a fetch that failed. */
static void add_resumption(const struct subject *subject, struct code *code)
{
    add_csr(code, CSRRS, T0, trap_csr(subject, CSR_CAUSE), X0);
    add(code, encode_i(ADDI, T1, X0, CAUSE_FETCH_PAGE));
    add(code, encode_r(0x63, 0, T0, T1) | encode_b_offset(24)); /* beq */
    add(code, encode_i(ADDI, T1, X0, CAUSE_FETCH_ACCESS));
    add(code, encode_r(0x63, 0, T0, T1) | encode_b_offset(16));
    add_csr(code, CSRRS, T1, trap_csr(subject, CSR_EPC), X0);
    add(code, encode_i(ADDI, T1, T1, 4));
    add(code, 0x6f | encode_j_offset(8));
    add(code, encode_i(ADDI, T1, RA, 0));
    add_csr(code, CSRRW, X0, trap_csr(subject, CSR_EPC), T1);
}

static void write_handler(struct subject *subject)
{
    static const unsigned noted[] = {CSR_CAUSE, CSR_TVAL, CSR_EPC, CSR_STATUS};
    unsigned scratch = trap_csr(subject, CSR_SCRATCH);
    struct code code = {.count = 0};
    add_csr(&code, CSRRW, AREA, scratch, AREA);
    add(&code, encode_s(SD, AREA, T0, SAVED_T0));
    add(&code, encode_s(SD, AREA, T1, SAVED_T1));
    add(&code, encode_i(LD, T1, AREA, NOTED));
    for (unsigned i = 0; i < sizeof(noted) / sizeof(noted[0]); i++) {
        add_noted(&code, trap_csr(subject, noted[i]));
    }
    add(&code, encode_s(SD, AREA, T1, NOTED));
    add(&code, encode_i(LD, T1, AREA, COUNT));
    add(&code, encode_i(ADDI, T1, T1, 1));
    add(&code, encode_s(SD, AREA, T1, COUNT));
    add_resumption(subject, &code);
    add(&code, encode_i(LD, T0, AREA, SAVED_T0));
    add(&code, encode_i(LD, T1, AREA, SAVED_T1));
    add_csr(&code, CSRRW, AREA, scratch, AREA);
    add(&code, subject->privilege == RISCV64_MACHINE ? MRET : SRET);
    write_code(subject, HANDLER, &code);
}

/* --- translation ---------------------------------------------------------------------------- */

/* Tables, a page each: the root, and two levels for each of RAM and registers. */
enum { ROOT, RAM_MIDDLE, RAM_LEAVES, REGISTERS_MIDDLE, TABLE_COUNT };
enum { ENTRIES = 512 };
_Static_assert(STREAM_ALIAS_PTE == TABLES + RAM_LEAVES * 4096 + (STREAM_ALIAS >> 12 & 511) * 8,
               "where streams find it");

static uint64_t table_entry(uint64_t address, uint64_t flags)
{
    return address >> 12 << PTE_PPN_SHIFT | flags | PTE_V;
}

static uint64_t leaf_flags(const struct subject *subject, uint64_t address)
{
    static const struct {
        uint64_t first, last, flags;
        bool supervisor; /* only; otherwise of the stream's mode */
    } ranges[] = {
        {STREAM_CODE, STREAM_CODE + STREAM_CODE_BYTES - 1, PTE_R | PTE_W | PTE_X, false},
        {STREAM_READ_ONLY, STREAM_READ_ONLY + 4095, PTE_R, false},
        {STREAM_READ_ONLY + 4096, STREAM_UNMAPPED - 1, PTE_R | PTE_W, false},
        {STREAM_ALIAS, STREAM_ALIAS + 8191, PTE_R | PTE_X, false},
        {STREAM_STATE, STREAM_STATE + 4095, PTE_R | PTE_W, false},
        {EXIT_PAGE, EXIT_PAGE + 4095, PTE_X, false},
        {ENTRY, ENTRY + 4095, PTE_R | PTE_X, true},
        {HANDLER, HANDLER + 4095, PTE_R | PTE_X, true},
        {TRAP_AREA, TRAP_AREA + 4095, PTE_R | PTE_W, true},
        {TABLES + RAM_LEAVES * 4096, TABLES + RAM_LEAVES * 4096 + 4095, PTE_R | PTE_W, true},
    };
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (address >= ranges[i].first && address <= ranges[i].last) {
            bool user = subject->privilege == RISCV64_USER && !ranges[i].supervisor;
            return ranges[i].flags | (user ? PTE_U : 0);
        }
    }
    return 0;
}

/* All identical. Dirty bits, and accessed bits of data, are left to the hardware. Those of code may
 * be set speculatively (volume II, "Addressing and Memory Protection"), and a region does so when
 * it looks whether all its pages are there. */
static void write_tables(struct subject *subject)
{
    static uint64_t tables[TABLE_COUNT][ENTRIES];
    memset(tables, 0, sizeof(tables));
    tables[ROOT][STREAM_BASE >> 30] = table_entry(TABLES + RAM_MIDDLE * 4096, 0);
    tables[ROOT][0] = table_entry(TABLES + REGISTERS_MIDDLE * 4096, 0);
    tables[RAM_MIDDLE][0] = table_entry(TABLES + RAM_LEAVES * 4096, 0);
    tables[REGISTERS_MIDDLE][BARE_EXIT >> 21 & 511] =
        table_entry(BARE_EXIT & ~UINT64_C(0x1fffff),
                    PTE_R | PTE_W | (subject->privilege == RISCV64_USER ? PTE_U : 0));
    for (uint64_t i = 0; i < STREAM_SIZE >> 12; i++) {
        uint64_t address = STREAM_BASE + (i << 12);
        uint64_t flags = leaf_flags(subject, address);
        flags |= flags & PTE_X ? PTE_A : 0;
        tables[RAM_LEAVES][i] = flags ? table_entry(address, flags) : 0;
    }
    bare_machine_write(subject->machine, TABLES, tables, sizeof(tables));
}

/* Routines that tell by x5 which of them ran. */
static void write_routines(struct subject *subject)
{
    for (uint64_t at = 0; at < 8192; at += STREAM_ROUTINE_BYTES) {
        struct code code = {.count = 0};
        int number = (int)(at / STREAM_ROUTINE_BYTES);
        add(&code, encode_i(ADDI, T0, T0, number + 1));
        add(&code, encode_i(0x60005013, T0, T0, 1 + number % 63)); /* rori */
        add(&code, encode_i(JALR, X0, RA, 0));
        write_code(subject, STREAM_ALIAS + at, &code);
    }
}

/* --- life and runs -------------------------------------------------------------------------- */
int subject_open(struct subject *subject, enum riscv64_privilege privilege, bool trapping,
                 bool single, enum engine_tier tier)
{
    subject->privilege = privilege;
    subject->trapping = trapping;
    subject->machine = bare_machine_create(STREAM_BASE, STREAM_SIZE, 1, single, tier);
    if (!subject->machine) {
        return -1;
    }
    write_entry(subject);
    write_exit(subject);
    if (trapping) {
        write_handler(subject);
        write_routines(subject);
    }
    return 0;
}

bool subject_optimise(struct subject *subject, struct kicker *kicker)
{
    subject->kicker = kicker;
    subject->optimiser = optimiser_create(subject->machine->engine, true);
    return subject->optimiser != NULL;
}

void subject_close(struct subject *subject)
{
    optimiser_destroy(subject->optimiser);
    subject->optimiser = NULL;
    if (subject->machine) {
        bare_machine_destroy(subject->machine);
        subject->machine = NULL;
    }
}

uint8_t *subject_ram(const struct subject *subject)
{
    return memory_pointer(&subject->machine->memory, STREAM_BASE, STREAM_SIZE);
}

uint64_t subject_traps(const struct subject *subject)
{
    uint64_t count;
    memcpy(&count, memory_pointer(&subject->machine->memory, TRAP_AREA + COUNT, 8), sizeof(count));
    return count;
}

/* The same start, whatever ran before. */
static void prepare(struct subject *subject, const struct stream_request *request)
{
    static const uint8_t zero[3 * 4096];
    struct bare_machine *machine = subject->machine;
    struct stream_state state = request->state;
    state.exit = EXIT;
    bare_machine_write(machine, STREAM_CODE, request->code, sizeof(request->code));
    bare_machine_write(machine, STREAM_STATE, &state, sizeof(state));
    bare_machine_write(machine, STREAM_READ_ONLY, zero, sizeof(zero));
    bare_machine_write(machine, STREAM_UNMAPPED, zero, 4096);
    bare_machine_write(machine, STREAM_DATA, request->data, sizeof(request->data));
    bare_machine_write(machine, TRAP_AREA, zero, 4096);
    if (subject->trapping && subject->privilege != RISCV64_MACHINE) {
        write_tables(subject);
    }
}

/* A sample at the start of each part, regions at its end. */
static void run_optimised(struct subject *subject)
{
    struct engine *engine = subject->machine->engine;
    struct cpu *cpu = &subject->machine->cpus[0].cpu->cpu;
    while (!atomic_load(&subject->machine->cpus[0].exited)) {
        cpu_attention(cpu, CPU_ATTENTION_PROFILE);
        kicker_set(subject->kicker, engine);
        engine_run(cpu);
        kicker_set(subject->kicker, NULL);
        engine_profile_tick(engine);
        optimiser_serve(subject->optimiser);
    }
}

uint64_t subject_run(struct subject *subject, const struct stream_request *request,
                     struct stream_result *result)
{
    struct bare_machine *machine = subject->machine;
    bool is_machine = subject->privilege == RISCV64_MACHINE;
    struct cpu *cpu = &machine->cpus[0].cpu->cpu;
    prepare(subject, request);
    cpu->retired = 0; /* counters and time start anew */
    bare_machine_boot(machine, 0, is_machine ? RISCV64_MACHINE : RISCV64_SUPERVISOR, ENTRY, 0);
    if (subject->optimiser) {
        run_optimised(subject);
    } else {
        bare_machine_run(machine, 0);
    }
    const uint8_t *ram = subject_ram(subject);
    memcpy(&result->state, ram + (STREAM_STATE - STREAM_BASE), sizeof(result->state));
    memcpy(result->data, ram + (STREAM_DATA - STREAM_BASE), sizeof(result->data));
    result->state.exit = 0;
    return cpu->retired;
}
