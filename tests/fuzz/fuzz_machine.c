/*
 * A hostile guest of the built-in firmware and of the machine's own registers: environment calls
 * with any arguments, and accesses of any size to the interrupt controllers, the timers, the
 * power-off register and the places where nothing is.
 */
#include "libshared/base/log.h"
#include "tests/fuzz/fuzz_input.h"
#include "vmmd/vcpu/machine/riscv64/sbi.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"
#include <sys/mman.h>
#include <unistd.h>

#define CPUS     3
#define RAM_SIZE (UINT64_C(16) << 20)

static struct memory memory;
static struct machine *machines[2]; /* with a PLIC, with an APLIC and IMSICs */
static struct machine *machine;     /* one of them */
static struct irq_line serial_irq[2];
static uint8_t serial_next;
static bool serial_dead;

static void event(void *context, enum machine_event what, unsigned code)
{
    (void)context, (void)code;
    fuzz_require(what <= MACHINE_FAILURE, "a known event");
}

static bool serial_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)device;
    fuzz_require(offset + size <= LAYOUT_SERIAL_SIZE, "an access lies in its window");
    *value = offset == 5 ? serial_next & 1 : serial_next;
    serial_next += 85;
    return !serial_dead;
}

static bool serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)value;
    fuzz_require(offset + size <= LAYOUT_SERIAL_SIZE, "an access lies in its window");
    return !serial_dead;
}

static const struct bus_ops serial_ops = {.read = serial_read, .write = serial_write};

static uint64_t ticks;

static uint64_t guest_time(void *context)
{
    (void)context;
    return ticks;
}

/* No hart runs it. */
static int make_kernel(void)
{
    static const uint8_t head[64] = {0x6f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 64};
    uint8_t image[64];
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    memcpy(image, head, sizeof(image));
    image[32] = 2;
    memcpy(image + 48, "RISCV\0\0\0RSC\5", 12);
    fuzz_require(write(fd, image, sizeof(image)) == sizeof(image), "a kernel");
    return fd;
}

static void open_machines(void)
{
    struct guest_clock clock = {.source = guest_time};
    struct error err = {0};
    struct machine_config config = {
        .cpu_count = CPUS,
        .memory_size = RAM_SIZE,
        .kernel_fd = make_kernel(),
        .initrd_fd = -1,
        .firmware_fd = -1,
        .append = "",
        .event = event,
        .clock = &clock,
    };
    int ram = memory_create_fd("ram", config.memory_size);
    int codemap = memory_create_fd("codemap", memory_codemap_size(config.memory_size));

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    fuzz_require(memory_add_region(&memory, ram, LAYOUT_RAM_BASE, config.memory_size) == 0 &&
                     memory_attach_codemap(&memory, codemap) == 0,
                 "memory");
    for (unsigned i = 0; i < 2; i++) {
        config.irqchip = i ? MACHINE_IRQCHIP_AIA : MACHINE_IRQCHIP_PLIC;
        machines[i] = machine_model_find("riscv64")->create(&config, &memory, &err);
        fuzz_require(machines[i] != NULL, err.message);
        fuzz_require(machines[i]->model->attach_mmio_device(machines[i], "serial", &serial_ops,
                                                            NULL, &serial_irq[i]) == 0,
                     "a serial port");
    }
}

/* A hart mask, an address, a size, ...: what calls take. */
static uint64_t take_argument(struct fuzz_input *input)
{
    static const uint64_t known[] = {0,
                                     1,
                                     CPUS,
                                     UINT64_MAX,
                                     LAYOUT_RAM_BASE,
                                     LAYOUT_RAM_BASE + RAM_SIZE - 1,
                                     LAYOUT_SERIAL_BASE,
                                     4096};
    unsigned how = (unsigned)fuzz_take(input, 1);

    return how & 0x80 ? fuzz_number(input)
                      : known[how & 7] + (how & 0x40 ? fuzz_take(input, 1) : 0);
}

static struct riscv64_cpu *take_cpu(struct fuzz_input *input)
{
    return (struct riscv64_cpu *)engine_cpu(machine->engine, fuzz_pick(input, CPUS));
}

static void op_call(struct fuzz_input *input)
{
    static const uint64_t extensions[] = {
        0x10, 0x54494d45, 0x735049, 0x52464e43, 0x48534d, 0x53525354, 0x4442434e, 0,
        1,    2,          3,        8,          4,        5,          6,          7};
    struct riscv64_cpu *cpu = take_cpu(input);
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    cpu->x[17] = how < 240 ? extensions[how & 15] : fuzz_number(input);
    cpu->x[16] = how & 0x10 ? fuzz_number(input) : fuzz_take(input, 1) & 3;
    for (unsigned i = 0; i < 6; i++) {
        cpu->x[10 + i] = take_argument(input);
    }
    uint64_t before[32];
    memcpy(before, cpu->x, sizeof(before));
    fuzz_require(cpu->cpu.host->firmware_call(&cpu->cpu), "the firmware takes every call");
    for (unsigned i = 0; i < 32; i++) {
        fuzz_require(i == 10 || i == 11 || cpu->x[i] == before[i], "a call keeps registers");
    }
    fuzz_require(cpu->cpu.exception == 0, "a call raises nothing");
}

static uint64_t take_address(struct fuzz_input *input)
{
    static const uint64_t bases[] = {
        LAYOUT_ROM_BASE,    LAYOUT_SYSCON_BASE,          LAYOUT_ACLINT_BASE,
        LAYOUT_PLIC_BASE,   LAYOUT_PLIC_BASE + 0x2000,   LAYOUT_PLIC_BASE + 0x200000,
        LAYOUT_SERIAL_BASE, LAYOUT_ACLINT_BASE + 0x4000, LAYOUT_PLIC_BASE + 0x1000,
        LAYOUT_APLIC_BASE,  LAYOUT_APLIC_BASE + 0x1c00,  LAYOUT_APLIC_BASE + 0x3000,
        LAYOUT_IMSIC_BASE,
    };
    unsigned how = (unsigned)fuzz_take(input, 1);

    if (how >= 240) {
        return fuzz_take(input, 8);
    }
    return bases[how % (sizeof(bases) / sizeof(bases[0]))] +
           (how & 0x80 ? fuzz_number(input) : fuzz_take(input, 1) * 4);
}

static void op_read(struct fuzz_input *input)
{
    uint64_t address = take_address(input), value = 0;
    bus_read(machine->bus, address, 1u << fuzz_pick(input, 4), &value);
}

static void op_write(struct fuzz_input *input)
{
    uint64_t address = take_address(input);
    unsigned size = 1u << fuzz_pick(input, 4);
    bus_write(machine->bus, address, size, fuzz_number(input));
}

static void op_line(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    const struct irq_line *line =
        how & 2 ? &serial_irq[machine == machines[1]] : &machine->pci.intx[how >> 2 & 3];
    irq_line_set(line, how & 1);
}

static void op_time(struct fuzz_input *input)
{
    ticks += fuzz_number(input) >> 16; /* never back */
    timers_poll(((struct riscv64_machine *)machine)->timers);
}

static void op_serial(struct fuzz_input *input)
{
    serial_dead = fuzz_take(input, 1) & 1;
}

static void (*const operations[])(struct fuzz_input *) = {
    op_call, op_call, op_read, op_write, op_write, op_line, op_time, op_serial,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct error err = {0};

    if (!machine) {
        open_machines();
    }
    machine = machines[fuzz_take(&input, 1) & 1];
    serial_next = 0;
    serial_dead = false;
    ticks = 0;
    fuzz_require(machine->model->load(machine, &err) == 0, err.message);
    for (unsigned i = 0; i < CPUS; i++) {
        atomic_store(&engine_cpu(machine->engine, i)->attention, 0);
    }
    while (input.size) {
        operations[fuzz_pick(&input, sizeof(operations) / sizeof(operations[0]))](&input);
    }
    return 0;
}
