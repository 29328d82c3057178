#include "tests/lockstep/bare_machine.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t guest_time(struct cpu *cpu)
{
    return cpu->retired;
}

static void timer_changed(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    (void)cpu;
    (void)timer;
    (void)deadline;
}

/* The remote fences of the RISC-V Supervisor Binary Interface 2.0, chapter 8: a0 = harts, a1 = 0,
 * a2 = start, a3 = size, a4 = address space. */
static bool firmware_call(struct cpu *cpu)
{
    enum { A0 = 10, A2 = 12, A3 = 13, A4 = 14, A6 = 16, A7 = 17 };
    const uint64_t rfence = 0x52464e43, asid_mask = UINT64_C(0xffff) << 44;
    uint64_t *x = ((struct riscv64_cpu *)cpu)->x;
    if (x[A7] != rfence || x[A6] > 2) {
        return false;
    }
    if (x[A6] == 0) {
        engine_remote_fetch_barrier(cpu, x[A0]);
    } else {
        uint64_t mask = x[A6] == 1 ? 0 : asid_mask;
        engine_remote_flush(cpu, x[A0], mask == 0, x[A4] << 44 & mask, mask, x[A2], x[A3]);
    }
    x[A0] = 0;
    return true;
}

static bool mmio_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)size;
    struct bare_machine *machine = cpu->host_data;
    if (address < BARE_EXIT || address >= BARE_REGION) {
        return false;
    }
    if (address == BARE_YIELD) {
        sched_yield();
    }
    *value = address == BARE_COUNT ? atomic_fetch_add(&machine->count, 1) + 1 : 0;
    return true;
}

/* A register of each hart that is one of its interrupt lines. */
static void line_write(struct bare_machine *machine, uint64_t offset, enum riscv64_interrupt line,
                       uint64_t value)
{
    uint64_t hart = offset / 8;
    if (hart < machine->cpu_count) {
        riscv64_set_line(machine->cpus[hart].cpu, line, value & 1);
        engine_kick(&machine->cpus[hart].cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
}

static bool mmio_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)size;
    struct bare_machine *machine = cpu->host_data;
    if (address < BARE_EXIT || address >= BARE_REGION) {
        return false;
    }
    if (address == BARE_EXIT) {
        bare_machine_stop(machine, cpu->index, value);
    }
    if (address >= BARE_EXTERNAL) {
        line_write(machine, address - BARE_EXTERNAL, RISCV64_IRQ_SEXT, value);
    } else if (address >= BARE_SOFTWARE) {
        line_write(machine, address - BARE_SOFTWARE, RISCV64_IRQ_MSOFT, value);
    }
    if (address == BARE_COUNT) {
        atomic_store(&machine->count, value);
    }
    return true;
}

/* The engine fills in the translation functions itself. */
static const struct cpu_host bare_host = {
    .time = guest_time,
    .timer_changed = timer_changed,
    .firmware_call = firmware_call,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
};

static int add_memory(struct memory *memory, uint64_t base, uint64_t size)
{
    int fd = memory_create_fd("bare-ram", size);
    if (fd < 0) {
        return fd;
    }
    int result = memory_add_region(memory, fd, base, size);
    close(fd);
    if (result < 0) {
        return result;
    }
    fd = memory_create_fd("bare-codemap", memory_codemap_size(size));
    if (fd < 0) {
        return fd;
    }
    result = memory_attach_codemap(memory, fd);
    close(fd);
    return result;
}

struct bare_machine *bare_machine_create(uint64_t base, uint64_t size, unsigned cpu_count,
                                         bool single, enum engine_tier tier)
{
    struct bare_machine *machine = calloc(1, sizeof(*machine));
    if (!machine) {
        return NULL;
    }
    int result = add_memory(&machine->memory, base, size);
    if (result < 0) {
        fprintf(stderr, "guest memory: %s\n", strerror(-result));
        goto failed;
    }
    struct error err = {0};
    machine->engine = engine_create(&isa_riscv64, &machine->memory, cpu_count, &err);
    if (!machine->engine) {
        fprintf(stderr, "engine: %s\n", err.message);
        goto failed;
    }
    if (single) {
        engine_set_block_limit(machine->engine, 1);
    }
    engine_set_tier(machine->engine, tier);
    machine->cpu_count = cpu_count;
    for (unsigned i = 0; i < cpu_count; i++) {
        struct cpu *cpu = engine_add_cpu(machine->engine, i, &bare_host, machine);
        if (!cpu) {
            fprintf(stderr, "no memory for CPU %u\n", i);
            goto failed;
        }
        machine->cpus[i].cpu = (struct riscv64_cpu *)cpu;
    }
    return machine;
failed:
    bare_machine_destroy(machine);
    return NULL;
}

void bare_machine_destroy(struct bare_machine *machine)
{
    if (machine->engine) {
        engine_destroy(machine->engine);
    }
    memory_close(&machine->memory);
    free(machine);
}

void bare_machine_boot(struct bare_machine *machine, unsigned index,
                       enum riscv64_privilege privilege, uint64_t pc, uint64_t a1)
{
    struct riscv64_cpu *cpu = machine->cpus[index].cpu;
    atomic_store(&machine->cpus[index].exited, false);
    atomic_fetch_and(&cpu->cpu.attention, ~(uint32_t)CPU_ATTENTION_STOP);
    isa_riscv64.reset(&cpu->cpu);
    riscv64_boot(cpu, privilege, pc, index, a1);
}

void bare_machine_write(struct bare_machine *machine, uint64_t address, const void *bytes,
                        uint64_t size)
{
    void *host = memory_pointer(&machine->memory, address, size);
    memcpy(host, bytes, size);
    memory_device_wrote(&machine->memory, address, size);
    engine_device_wrote(machine->engine);
}

void bare_machine_stop(struct bare_machine *machine, unsigned index, uint64_t exit_code)
{
    machine->cpus[index].exit_code = exit_code;
    atomic_store(&machine->cpus[index].exited, true);
    engine_kick(&machine->cpus[index].cpu->cpu, CPU_ATTENTION_STOP);
}

uint64_t bare_machine_run(struct bare_machine *machine, unsigned index)
{
    struct cpu *cpu = &machine->cpus[index].cpu->cpu;
    while (!atomic_load(&machine->cpus[index].exited)) {
        engine_run(cpu);
    }
    return machine->cpus[index].exit_code;
}
