/*
 * A hostile guest of the message-signalled interrupts: the APLIC's registers and the harts' pages,
 * any Ssaia CSR by any instruction, wires that go up and down, and messages of devices to any
 * address.
 */
#include "libshared/base/log.h"
#include "libshared/isa/riscv64/csr.h"
#include "tests/fuzz/fuzz_input.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"

#define CPUS     3u
#define RAM_SIZE (UINT64_C(4) << 20)

static struct memory memory;
static struct machine *machine;

static void ignore_event(void *context, enum machine_event what, unsigned code)
{
    (void)context, (void)what, (void)code;
}

static uint64_t guest_time(void *context)
{
    (void)context;
    return 0;
}

static void open_machine(void)
{
    struct guest_clock clock = {.source = guest_time};
    struct error err = {0};
    const struct machine_config config = {
        .cpu_count = CPUS,
        .memory_size = RAM_SIZE,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .append = "",
        .irqchip = MACHINE_IRQCHIP_AIA,
        .event = ignore_event,
        .clock = &clock,
    };
    int ram = memory_create_fd("ram", RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(RAM_SIZE));

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    fuzz_require(memory_add_region(&memory, ram, LAYOUT_RAM_BASE, RAM_SIZE) == 0 &&
                     memory_attach_codemap(&memory, codemap) == 0,
                 "memory");
    machine = machine_model_find("riscv64")->create(&config, &memory, &err);
    fuzz_require(machine != NULL, err.message);
}

static struct riscv64_cpu *hart(unsigned index)
{
    return (struct riscv64_cpu *)engine_cpu(machine->engine, index);
}

/* As after power-on. */
static void start(void)
{
    aplic_reset(((struct riscv64_machine *)machine)->aplic);
    for (unsigned i = 0; i < CPUS; i++) {
        struct riscv64_cpu *cpu = hart(i);
        cpu->cpu.isa->reset(&cpu->cpu);
        cpu->has_aia = true;
        riscv64_boot(cpu, RISCV64_SUPERVISOR, LAYOUT_RAM_BASE, i, 0);
        atomic_store(&cpu->cpu.attention, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        irq_line_set(&machine->pci.intx[i], false);
    }
}

static void access_any(struct fuzz_input *input, uint64_t address)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned size = how & 0x80 ? 1u << (how & 3) : 4;
    uint64_t value = 0;

    if (how & 4) {
        bus_write(machine->bus, address, size, how & 8 ? fuzz_take(input, 1) : fuzz_number(input));
    } else if (bus_read(machine->bus, address, size, &value)) {
        fuzz_require(size == 4 && value >> 32 == 0, "only words are read");
    }
}

static void op_wired(struct fuzz_input *input)
{
    static const uint16_t groups[] = {0x0000, 0x0080, 0x1c00, 0x1cdc, 0x1d00, 0x1ddc, 0x1e00,
                                      0x1edc, 0x1f00, 0x1fdc, 0x2000, 0x3000, 0x3080};
    uint64_t offset = groups[fuzz_pick(input, sizeof(groups) / sizeof(groups[0]))];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    access_any(input, LAYOUT_APLIC_BASE + offset + (how < 200 ? how % 32 * 4 : how));
}

static void op_far(struct fuzz_input *input)
{
    access_any(input, LAYOUT_APLIC_BASE + fuzz_number(input) % (APLIC_SIZE + 8));
}

static void op_page(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    access_any(input, LAYOUT_IMSIC_BASE + (how & 7) * 0x1000 + (how < 200 ? 0 : how & 0x3c));
}

static void op_message(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint64_t address = how < 200 ? LAYOUT_IMSIC_BASE + (how & 7) * 0x1000 : fuzz_number(input);
    const struct pci_msi_target *target = &machine->pci.msi;
    target->notify(target->controller, address,
                   (uint32_t)(how & 8 ? fuzz_number(input) : fuzz_take(input, 1)));
}

static void op_wire(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    irq_line_set(&machine->pci.intx[how >> 1 & 3], how & 1);
}

static bool run_csr(struct riscv64_cpu *cpu, unsigned number, unsigned function, uint64_t source,
                    uint64_t *old)
{
    uint32_t word = (uint32_t)number << 20 | 5u << 15 | function << 12 | 6u << 7 | 0x73;
    return riscv64_csr_execute(cpu, word, source, old);
}

static void op_csr(struct fuzz_input *input)
{
    static const uint16_t numbers[] = {0x150, 0x151, 0x15c, 0xdb0, 0x104, 0x144, 0x100};
    unsigned number = numbers[fuzz_pick(input, sizeof(numbers) / sizeof(numbers[0]))];
    struct riscv64_cpu *cpu = hart(fuzz_pick(input, CPUS));
    uint64_t old = 0;
    run_csr(cpu, number, 1 + fuzz_pick(input, 3), fuzz_number(input), &old);
}

/* Registers of the file by their numbers, which siselect would rarely hold otherwise. */
static void op_file(struct fuzz_input *input)
{
    struct riscv64_cpu *cpu = hart(fuzz_pick(input, CPUS));
    uint64_t old = 0, select = fuzz_take(input, 1);
    run_csr(cpu, 0x150, 1, select, &old);
    bool done = run_csr(cpu, 0x151, 1 + fuzz_pick(input, 3), fuzz_number(input), &old);
    bool exists = (select >= 0x30 && select < 0x40 && select % 2 == 0) ||
                  (select >= 0x70 && (select < 0x80 || select % 2 == 0));
    fuzz_require(done == exists, "sireg exists where the specification has it");
}

static void op_claim(struct fuzz_input *input)
{
    struct riscv64_cpu *cpu = hart(fuzz_pick(input, CPUS));
    unsigned top = riscv64_imsic_top(&cpu->imsic);
    uint64_t old = 0;
    fuzz_require(run_csr(cpu, 0x15c, 1, 0, &old) && old == ((uint64_t)top << 16 | top),
                 "a claim returns the top one");
    fuzz_require(top == 0 || !(cpu->imsic.pending[top / 64] >> (top % 64) & 1),
                 "what was claimed is not pending");
}

static void check(void)
{
    for (unsigned i = 0; i < CPUS; i++) {
        const struct riscv64_cpu *cpu = hart(i);
        const struct riscv64_imsic *file = &cpu->imsic;
        fuzz_require(((file->pending[0] | file->enabled[0]) & 1) == 0, "there is no identity 0");
        fuzz_require(file->delivery <= 1 && file->threshold <= RISCV64_IMSIC_IDENTITIES,
                     "registers hold what they can");
        unsigned top = riscv64_imsic_top(file);
        fuzz_require(top == 0 || (file->pending[top / 64] & file->enabled[top / 64] &
                                  UINT64_C(1) << (top % 64)) != 0,
                     "the top one is pending and enabled");
        fuzz_require(top == 0 || file->threshold == 0 || top < file->threshold,
                     "the top one is under the threshold");
        bool asked = atomic_load(&cpu->cpu.attention) & CPU_ATTENTION_INTERRUPT;
        bool due = cpu->cpu.isa->interrupt_pending((struct cpu *)&cpu->cpu, false);
        fuzz_require(asked || !due, "a hart knows of what it is to take");
    }
}

static void (*const operations[])(struct fuzz_input *) = {
    op_wired, op_wired, op_far,  op_page, op_message, op_wire,
    op_csr,   op_csr,   op_file, op_file, op_claim,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (!machine) {
        open_machine();
    }
    start();
    while (input.size) {
        operations[fuzz_pick(&input, sizeof(operations) / sizeof(operations[0]))](&input);
        check();
    }
    return 0;
}
