#include "tests/lockstep/side.h"
#include "tests/lockstep/random.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"
#include "vmmd/vcpu/pci/pci_host.h"
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct side *side_of(struct cpu *cpu)
{
    return riscv64_machine_of(cpu)->machine.config.event_context;
}

static uint64_t ticks(void *context)
{
    const struct side *side = context;
    uint64_t retired = side->cpu ? side->cpu->cpu.retired : 0;
    return side->skipped + retired / SIDE_INSNS_PER_TICK;
}

static void machine_event(void *context, enum machine_event event, unsigned guest_code)
{
    struct side *side = context;
    (void)guest_code;
    side->ended = true;
    side->event = event;
}

/* --- the subject's eyes and ears ------------------------------------------------------------ */

static void count_trap(struct side *side)
{
    side->traps++;
}

static void subject_exception(struct cpu *cpu)
{
    struct side *side = side_of(cpu);
    isa_riscv64.deliver_exception(cpu);
    side->exceptions++;
    count_trap(side);
}

/* A hart that goes to sleep ends the slice: nothing happens until time is moved. */
static bool subject_pending(struct cpu *cpu, bool wake)
{
    bool pending = isa_riscv64.interrupt_pending(cpu, wake);
    if (wake && !pending) {
        cpu_attention(cpu, CPU_ATTENTION_PAUSE);
    }
    return pending;
}

static void subject_interrupt(struct cpu *cpu)
{
    struct side *side = side_of(cpu);
    struct interrupt_log *log = side->log;
    if (!isa_riscv64.interrupt_pending(cpu, false)) {
        return;
    }
    log->at[log->count++] = side_position(side);
    if (log->count >= SIDE_LOG / 2) {
        cpu_attention(cpu, CPU_ATTENTION_PAUSE);
    }
    isa_riscv64.deliver_interrupt(cpu);
    count_trap(side);
}

/* A decoder is told nothing of its machine. Set once, before threads start. */
static uint32_t spoiled;

/* The first operation of the spoiled instruction has another immediate. */
static enum isa_decode_result subject_decode(struct ir_block *block, const struct isa_code *code)
{
    enum isa_decode_result result = isa_riscv64.decode(block, code);
    for (unsigned i = 0; result == ISA_DECODED && i + 1 < block->op_count; i++) {
        uint32_t bits = 0;
        int64_t offset = block->ops[i].imm;
        if (block->ops[i].opcode == IR_insn && offset + 4 <= MEMORY_PAGE_SIZE) {
            memcpy(&bits, code->page + offset, (code->page[offset] & 3) == 3 ? 4 : 2);
        }
        if (bits != 0 && bits == spoiled) {
            block->ops[i + 1].imm += 8;
        }
    }
    return result;
}

/* --- the oracle's --------------------------------------------------------------------------- */

static void object(struct side *side, const char *objection)
{
    if (!side->objection) {
        side->objection = objection;
    }
}

static void oracle_exception(struct cpu *cpu)
{
    struct side *side = side_of(cpu);
    if (side->halting) {
        side->halting = false;
        cpu->exception = 0;
        return;
    }
    subject_exception(cpu);
    if (side_position(side) >= side->stop) {
        cpu_attention(cpu, CPU_ATTENTION_PAUSE);
    }
}

static bool logged_here(const struct side *side)
{
    const struct interrupt_log *log = side->log;
    return log->taken < log->count && log->at[log->taken] == side_position(side);
}

static bool oracle_pending(struct cpu *cpu, bool wake)
{
    struct side *side = side_of(cpu);
    if (wake) {
        return subject_pending(cpu, wake);
    }
    if (!logged_here(side)) {
        return false;
    }
    bool pending = isa_riscv64.interrupt_pending(cpu, false);
    if (!pending) {
        object(side, "the subject took an interrupt that was not pending");
    }
    return pending;
}

static void oracle_interrupt(struct cpu *cpu)
{
    struct side *side = side_of(cpu);
    side->log->taken++;
    isa_riscv64.deliver_interrupt(cpu);
    count_trap(side);
}

static void watch_pending(struct side *side, struct cpu *cpu)
{
    bool pending = isa_riscv64.interrupt_pending(cpu, false);
    if (pending && !side->pending) {
        side->pending_since = side_position(side);
    }
    side->pending = pending;
    if (pending && side_position(side) - side->pending_since > SIDE_LATE_MAX) {
        object(side, "the subject did not take a pending interrupt");
    }
}

/* Called before each instruction of the oracle; `instruction` is its bits, and its length above. */
static uint64_t oracle_step(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t instruction)
{
    struct side *side = side_of(cpu);
    uint64_t position = side_position(side);
    (void)a;
    (void)b;
    if (position >= side->stop) {
        /* Not this one any more: leave by an exception that is never delivered. */
        side->halting = true;
        cpu->exception = 1;
        cpu_attention(cpu, CPU_ATTENTION_PAUSE);
        return 0;
    }
    if (position + 1 == side->stop) {
        cpu_attention(cpu, CPU_ATTENTION_PAUSE); /* and before a sleep ends */
    }
    watch_pending(side, cpu);
    side->trace[side->traced++ % SIDE_TRACE] = (struct traced){
        .pc = cpu->pc,
        .bits = (uint32_t)instruction,
        .bytes = (uint8_t)(instruction >> 32),
        .privilege = side->cpu->privilege,
    };
    return 0;
}

static unsigned step_helper(void)
{
    unsigned count = 0;
    while (isa_riscv64.helpers[count].name) {
        count++;
    }
    return count;
}

/* As the ISA decodes, with oracle_step before the instruction. */
static enum isa_decode_result oracle_decode(struct ir_block *block, const struct isa_code *code)
{
    enum isa_decode_result result = isa_riscv64.decode(block, code);
    if (result != ISA_DECODED) {
        return result;
    }
    uint8_t bytes[4] = {0};
    for (unsigned i = 0; i < block->length && i < sizeof(bytes); i++) {
        unsigned offset = code->start + i;
        bytes[i] = offset < MEMORY_PAGE_SIZE ? code->page[offset]
                                             : code->next_page[offset - MEMORY_PAGE_SIZE];
    }
    uint32_t bits;
    memcpy(&bits, bytes, sizeof(bits));
    memmove(&block->ops[2], &block->ops[1], (block->op_count - 1u) * sizeof(block->ops[0]));
    block->ops[1] = (struct ir_op){
        .opcode = IR_helper,
        .aux = (uint16_t)step_helper(),
        .d = IR_NONE,
        .a = IR_NONE,
        .b = IR_NONE,
        .c = IR_NONE,
        .imm = (int64_t)((uint64_t)block->length << 32 | bits),
    };
    block->op_count++;
    return result;
}

static bool add_step_helper(struct side *side)
{
    unsigned count = step_helper();
    side->helpers = calloc(count + 2, sizeof(*side->helpers));
    if (!side->helpers) {
        return false;
    }
    memcpy(side->helpers, isa_riscv64.helpers, count * sizeof(*side->helpers));
    side->helpers[count] = (struct ir_helper){
        .name = "oracle_step", .function = oracle_step, .effects = IR_HELPER_FAULTS};
    side->isa.helpers = side->helpers;
    return true;
}

bool side_run_oracle(struct side *side, uint64_t goal)
{
    struct interrupt_log *log = side->log;
    unsigned fruitless = 0;
    while (side_position(side) < goal && fruitless < 3) {
        uint64_t position = side_position(side);
        unsigned next = log->taken + logged_here(side);
        side->stop = next < log->count && log->at[next] < goal ? log->at[next] : goal;
        engine_run(&side->cpu->cpu);
        fruitless = side_position(side) == position ? fruitless + 1 : 0;
    }
    return side_position(side) == goal;
}

/* --- life ----------------------------------------------------------------------------------- */

/* Instead of a shared mapping: a child process that is forked gets a copy. */
static bool make_private(void *address, uint64_t size)
{
    return mmap(address, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == address;
}

static bool add_memory(struct memory *memory, uint64_t size)
{
    uint64_t map_size = memory_codemap_size(size);
    int ram = memory_create_fd("lockstep-ram", size);
    int map = memory_create_fd("lockstep-codemap", map_size);
    bool done = ram >= 0 && map >= 0 &&
                memory_add_region(memory, ram, machine_model_riscv64.ram_base, size) == 0 &&
                memory_attach_codemap(memory, map) == 0 &&
                make_private(memory->regions[0].host, size) &&
                make_private(memory->codemap, map_size);
    if (ram >= 0) {
        close(ram);
    }
    if (map >= 0) {
        close(map);
    }
    if (!done) {
        perror("guest memory");
    }
    return done;
}

static bool add_devices(struct side *side, struct error *err)
{
    struct machine *machine = side->machine;
    side->pci = pci_host_create(machine->bus, &machine->pci, err);
    return side->pci && machine->model->attach_mmio_device(machine, "serial", &serial_port_ops,
                                                           &side->serial, &side->serial.irq) == 0;
}

static bool side_open(struct side *side, const struct side_images *images)
{
    struct error err = {0};
    side->clock = (struct guest_clock){.source = ticks, .source_context = side};
    const struct machine_config config = {
        .cpu_count = 1,
        .memory_size = images->memory_size,
        .kernel_fd = images->kernel_fd,
        .initrd_fd = images->initrd_fd,
        .firmware_fd = -1,
        .append = images->append,
        .event = machine_event,
        .event_context = side,
        .clock = &side->clock,
        .isa = &side->isa,
    };
    if (!add_memory(&side->memory, images->memory_size)) {
        return false;
    }
    side->machine = machine_model_riscv64.create(&config, &side->memory, &err);
    if (!side->machine || !add_devices(side, &err) ||
        side->machine->model->load(side->machine, &err) != 0) {
        fprintf(stderr, "the machine cannot be built: %s\n", err.message);
        return false;
    }
    side->cpu = (struct riscv64_cpu *)engine_cpu(side->machine->engine, 0);
    return true;
}

bool side_open_subject(struct side *side, const struct side_images *images,
                       struct interrupt_log *log, enum engine_tier tier)
{
    side->log = log;
    side->isa = isa_riscv64;
    if (images->spoiled != 0) {
        spoiled = images->spoiled;
        side->isa.decode = subject_decode;
    }
    side->isa.deliver_exception = subject_exception;
    side->isa.interrupt_pending = subject_pending;
    side->isa.deliver_interrupt = subject_interrupt;
    if (!side_open(side, images)) {
        return false;
    }
    engine_set_tier(side->machine->engine, tier);
    struct engine_stats stats;
    engine_stats(side->machine->engine, &stats);
    if (tier != ENGINE_INTERP && stats.code_bytes_max == 0) {
        fprintf(stderr, "the tier cannot be had\n"); /* the log says why */
        return false;
    }
    return true;
}

bool side_open_oracle(struct side *side, const struct side_images *images,
                      struct interrupt_log *log)
{
    side->log = log;
    side->isa = isa_riscv64;
    side->isa.decode = oracle_decode;
    side->isa.deliver_exception = oracle_exception;
    side->isa.interrupt_pending = oracle_pending;
    side->isa.deliver_interrupt = oracle_interrupt;
    if (!add_step_helper(side) || !side_open(side, images)) {
        return false;
    }
    engine_set_block_limit(side->machine->engine, 1);
    return true;
}

void side_close(struct side *side)
{
    if (side->pci) {
        pci_host_destroy(side->pci);
    }
    if (side->machine) {
        side->machine->model->destroy(side->machine);
    }
    memory_close(&side->memory);
    free(side->helpers);
}

uint8_t *side_ram(const struct side *side)
{
    return side->memory.regions[0].host;
}

bool side_copy_start(struct side *to, const struct side *from)
{
    if (to->memory.regions[0].size != from->memory.regions[0].size) {
        return false;
    }
    memcpy(side_ram(to), side_ram(from), to->memory.regions[0].size);
    return memcmp(to->cpu->x, from->cpu->x, sizeof(to->cpu->x)) == 0 &&
           to->cpu->cpu.pc == from->cpu->cpu.pc;
}

void side_set_seed(struct side *side, uint64_t seed)
{
    static const char *const names[] = {"rng-seed", "kaslr-seed"};
    struct random random = {seed};
    void *tree = memory_pointer(&side->memory, side->cpu->x[11], sizeof(struct fdt_header));
    int chosen = tree ? fdt_path_offset(tree, "/chosen") : -1;
    for (unsigned i = 0; i < 2 && chosen >= 0; i++) {
        int length;
        uint8_t *value = fdt_getprop_w(tree, chosen, names[i], &length);
        for (int j = 0; value && j < length; j++) {
            value[j] = (uint8_t)random_next(&random);
        }
    }
}

/* --- time ----------------------------------------------------------------------------------- */

bool side_asleep(const struct side *side)
{
    return side->cpu->cpu.waiting && !isa_riscv64.interrupt_pending(&side->cpu->cpu, true);
}

uint64_t side_poll_timers(struct side *side)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)side->machine;
    uint64_t next = timers_poll(machine->timers);
    return next == TIMER_NEVER ? UINT64_MAX : next - guest_clock_ticks(&machine->clock);
}
