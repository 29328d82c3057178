/*
 * Any intermediate code: the verifier finds what is wrong with it, and what it finds sound prints,
 * and runs to the same end on the interpreter and as compiled code.
 */
#include "libshared/base/log.h"
#include "libshared/ir/opcode.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/lockstep/state.h"
#include "vmmd/vcpu/engine/engine.h"

#define RAM     UINT64_C(0x80000000)
#define SIZE    UINT64_C(0x8000)
#define CODE    (RAM + 0x1000)
#define GLOBALS 64u /* those that are taken: integer and floating-point registers */

/* As in fuzz_engine.c. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static struct ir_block block; /* what the decoder makes of everything */
static struct isa isa;
static struct side {
    struct memory memory;
    struct engine *engine;
    struct riscv64_cpu *cpu;
} sides[2]; /* interpreted, compiled */

/* ---- the instruction set: registers of riscv64, and code that is always `block` ---- */

static enum isa_decode_result decode(struct ir_block *out, const struct isa_code *code)
{
    *out = block;
    out->mode = code->mode;
    return ISA_DECODED;
}

static uint64_t helper_mix(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    return a * 3 + b * 5 + imm + ((struct riscv64_cpu *)cpu)->x[5];
}

static uint64_t helper_write(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    ((struct riscv64_cpu *)cpu)->x[6 + (b & 7)] = a ^ imm;
    return imm;
}

static uint64_t helper_raise(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm)
{
    (void)b;
    if (a & 1) {
        cpu_raise(cpu, 2, imm);
    }
    return a;
}

static const struct ir_helper helpers[] = {
    {"mix", helper_mix, IR_HELPER_READS},
    {"write", helper_write, IR_HELPER_READS | IR_HELPER_WRITES},
    {"raise", helper_raise, IR_HELPER_FAULTS},
    {"mode", helper_mix, IR_HELPER_READS | IR_HELPER_WRITES | IR_HELPER_MODE},
    {0},
};

static uint64_t guest_time(struct cpu *cpu)
{
    return cpu->retired;
}

static void timer_changed(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    (void)cpu, (void)timer, (void)deadline;
}

static bool firmware_call(struct cpu *cpu)
{
    (void)cpu;
    return true;
}

static bool mmio_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)cpu, (void)size;
    *value = address * 7;
    return address < 0x10000;
}

static bool mmio_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)cpu, (void)size, (void)value;
    return address < 0x10000;
}

static const struct cpu_host cpu_host = {.time = guest_time,
                                         .timer_changed = timer_changed,
                                         .firmware_call = firmware_call,
                                         .mmio_read = mmio_read,
                                         .mmio_write = mmio_write};

static void open_sides(void)
{
    struct error err = {0};

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    isa = isa_riscv64;
    isa.decode = decode;
    isa.helpers = helpers;
    for (unsigned i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        fuzz_require(
            memory_add_region(&side->memory, memory_create_fd("ram", SIZE), RAM, SIZE) == 0 &&
                memory_attach_codemap(&side->memory, memory_create_fd("codemap", 4096)) == 0,
            "memory");
        side->engine = engine_create(&isa, &side->memory, 1, &err);
        fuzz_require(side->engine != NULL, err.message);
        engine_set_tier(side->engine, i ? ENGINE_BASELINE : ENGINE_INTERP);
        side->cpu = (struct riscv64_cpu *)engine_add_cpu(side->engine, 0, &cpu_host, NULL);
        fuzz_require(side->cpu != NULL, "memory");
    }
}

/* ---- code from bytes ---- */

/* A value of that kind; temporaries that are, and are not, assigned. */
static ir_value take_value(struct fuzz_input *input, unsigned kind)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (how >= 252) {
        return (ir_value)fuzz_take(input, 2);
    }
    switch (kind) {
    case IR_OPERAND__:
        return IR_NONE;
    case IR_OPERAND_X:
        if (how < 96) {
            return IR_IMMEDIATE;
        }
        /* fall through */
    case IR_OPERAND_I:
        return (ir_value)(how & 1 ? IR_TEMP_BASE + (how >> 1 & 7) : how >> 1 & 31);
    case IR_OPERAND_F:
        return (ir_value)(how & 1 ? IR_TEMP_BASE + 8 + (how >> 1 & 3) : 32 + (how >> 1 & 31));
    default:
        return (ir_value)(IR_TEMP_BASE + 12 + (how & 3));
    }
}

/* Nothing but registers is taken as a result: the state's other fields have rules of their own. */
static ir_value take_result(struct fuzz_input *input, unsigned kind)
{
    ir_value value = take_value(input, kind);
    return value == 0 || (value >= GLOBALS && value < IR_TEMP_BASE) ? IR_TEMP_BASE : value;
}

static uint16_t take_aux(struct fuzz_input *input, unsigned kind)
{
    uint16_t word = (uint16_t)fuzz_take(input, 2);

    switch (word >= 0xfff0 ? 0xff : kind) {
    case IR_AUX_NONE:
        return 0;
    case IR_AUX_EXT:
        return word & 1;
    case IR_AUX_MEM:
        return word & 0x3f & ~4u;
    case IR_AUX_AMO:
        return (uint16_t)((word & 0x73 & ~1u) | (word >> 8) % 9 << IR_MEM_AMO_SHIFT);
    case IR_AUX_FP:
        return (uint16_t)((word & 0x3f8) | (word & 7) % 5);
    case IR_AUX_HELPER:
        return word & 3;
    case IR_AUX_CC:
        return word % 10;
    default:
        return word;
    }
}

static int64_t take_immediate(struct fuzz_input *input, unsigned opcode)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (opcode == IR_jump || opcode == IR_branch || opcode == IR_call || opcode == IR_exit) {
        return how * 16;
    }
    if (opcode == IR_shladd || opcode == IR_shladduw) {
        return how & 3;
    }
    return how < 128 ? (int8_t)(how << 1) : (int64_t)fuzz_number(input);
}

static void take_block(struct fuzz_input *input)
{
    unsigned count = 1 + fuzz_pick(input, 40), offset = 0;

    memset(&block, 0, sizeof(block));
    block.temp_count = 16;
    for (unsigned i = 0; i < 16; i++) {
        block.temp_types[i] = i < 8 ? IR_TYPE_I64 : i < 12 ? IR_TYPE_F64 : IR_TYPE_V128;
    }
    for (unsigned i = 0; i < count && input->size; i++) {
        struct ir_op *op = &block.ops[block.op_count++];
        unsigned opcode = (unsigned)fuzz_take(input, 1);
        if (i == 0 || opcode >= 224) {
            *op = (struct ir_op){IR_insn, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, 4, offset};
            offset += 4;
            block.insn_count++;
            continue;
        }
        opcode %= IR_jump; /* terminators come last */
        const struct ir_opcode_info *info = &ir_opcode_table[opcode];
        op->opcode = (uint16_t)opcode;
        op->aux = take_aux(input, info->aux);
        op->a = take_value(input, info->a);
        op->b = take_value(input, info->b);
        op->c = take_value(input, info->c);
        op->d = take_result(input, info->d);
        op->imm = take_immediate(input, opcode);
    }
    unsigned opcode = IR_jump + fuzz_pick(input, IR_OPCODE_COUNT - IR_jump);
    const struct ir_opcode_info *info = &ir_opcode_table[opcode];
    block.ops[block.op_count++] = (struct ir_op){.opcode = (uint16_t)opcode,
                                                 .aux = take_aux(input, info->aux),
                                                 .d = IR_NONE,
                                                 .a = take_value(input, info->a),
                                                 .b = take_value(input, info->b),
                                                 .c = IR_NONE,
                                                 .imm = take_immediate(input, opcode),
                                                 .imm2 = (int32_t)fuzz_take(input, 1) * 16};
    block.length = (uint16_t)offset;
    for (unsigned patches = fuzz_pick(input, 16) == 1 ? 4 : 0; patches > 0; patches--) {
        ((uint8_t *)&block)[fuzz_take(input, 2) % sizeof(block)] = (uint8_t)fuzz_take(input, 1);
    }
    /* Anything but a value that C does not have. */
    ((uint8_t *)&block)[offsetof(struct ir_block, straddles)] &= 1;
}

/* Globals beyond the registers, and V temporaries that have no place in this state, are sound but
 * not for running here. */
static bool runs(void)
{
    for (unsigned i = 0; i < block.op_count; i++) {
        const struct ir_op *op = &block.ops[i];
        const ir_value values[] = {op->d, op->a, op->b, op->c};
        for (unsigned k = 0; k < 4; k++) {
            if (values[k] >= GLOBALS && values[k] < IR_TEMP_BASE) {
                return false;
            }
        }
        if (op->d == 0 || op->opcode == IR_exit_pc) {
            return false;
        }
    }
    return block.start == 0;
}

/* ---- running ---- */

static void apply(unsigned index, const uint8_t *seed)
{
    struct side *side = &sides[index];
    struct riscv64_cpu *cpu = side->cpu;

    isa.reset(&cpu->cpu);
    riscv64_boot(cpu, RISCV64_MACHINE, CODE, 0, 0);
    for (unsigned i = 1; i < 32; i++) {
        uint8_t byte = seed[i & 7];
        cpu->x[i] = byte & 0x80 ? RAM + byte * 64u + i * 8 : byte * UINT64_C(0x0123456789abcdf);
        cpu->f[i] =
            byte & 0x40 ? UINT64_C(0xffffffff3f800000) + byte : byte * UINT64_C(0x9e3779b97f4a7c15);
    }
    cpu->csr.mtvec = CODE;
    cpu->cpu.retired = 0;
    cpu->cpu.fp_flags = 0;
    cpu->cpu.waiting = 0;
    cpu->cpu.exception = 0;
    memset(cpu->cpu.temps, 0, sizeof(cpu->cpu.temps));
    riscv64_update_modes(cpu);
    memory_device_wrote(&side->memory, RAM, SIZE);
    engine_device_wrote(side->engine);
    cpu->cpu.host->tlb_flush(&cpu->cpu, true, 0, 0, true, 0);
    atomic_store(&cpu->cpu.attention, CPU_ATTENTION_STEP);
}

static void run(const uint8_t *seed)
{
    for (unsigned i = 0; i < 2; i++) {
        memset(sides[i].memory.regions[0].host, seed[0], SIZE);
        apply(i, seed);
    }
    engine_run(&sides[0].cpu->cpu);
    engine_run(&sides[1].cpu->cpu);
    if (!state_same(sides[1].cpu, sides[0].cpu)) {
        static char text[64 << 10];
        ir_print(&block, isa.globals, isa.helpers, text, sizeof(text));
        fprintf(stderr, "%s", text);
        state_print_difference(stderr, sides[1].cpu, sides[0].cpu);
        fuzz_require(false, "compiled code does what the interpreter does");
    }
    fuzz_require(!memcmp(sides[0].memory.regions[0].host, sides[1].memory.regions[0].host, SIZE),
                 "compiled code writes what the interpreter does");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char text[64 << 10];
    struct fuzz_input input = {bytes, size};
    uint8_t seed[8] = {0};
    unsigned where = 0;

    if (!sides[0].engine) {
        open_sides();
    }
    for (unsigned i = 0; i < sizeof(seed); i++) {
        seed[i] = (uint8_t)fuzz_take(&input, 1);
    }
    take_block(&input);
    if (ir_verify(&block, isa.globals, isa.helpers, &where)) {
        fuzz_require(where <= IR_OPS_MAX, "a defect is somewhere");
        return 0;
    }
    fuzz_require(ir_print(&block, isa.globals, isa.helpers, text, sizeof(text)) > 0,
                 "sound code prints");
    if (runs()) {
        run(seed);
    }
    return 0;
}
