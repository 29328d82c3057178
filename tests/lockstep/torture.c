/*
 * Runs the torture guests (tests/guests/lockstep/torture) on the engine, each with the harts it is
 * meant for, and prints a line for each.
 */
#include "tests/lockstep/bare_machine.h"
#include "tests/lockstep/optimiser.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RAM_BASE    0x80000000ul
#define RAM_SIZE    0x1000000ul
#define DETAILS     (RAM_BASE + 0xfff000ul)
#define MACHINE_BIT 256u

enum disturbance {
    CALM,
    EVERY_BLOCK,       /* an interrupt before every block */
    EVERY_INSTRUCTION, /* a block being one instruction */
    ANY_TIME,          /* interrupts from another thread */
};

static const struct {
    const char *name, *proves;
    enum riscv64_privilege privilege;
    unsigned harts;
    enum disturbance disturbance;
} guests[] = {
    {"access", "accesses across pages, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"access", "accesses across pages, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"faults", "exact faults, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"faults", "exact faults, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"border", "accesses about a border, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"border", "accesses about a border, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"mapping", "changing page tables, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"mapping", "changing page tables, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"shootdown", "changing page tables of others, 2 harts", RISCV64_SUPERVISOR, 2, CALM},
    {"shootdown", "changing page tables of others, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"rounds", "translations that change within a loop, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"rounds", "translations that change within a loop, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"code", "self-modifying code, 1 hart", RISCV64_SUPERVISOR, 1, CALM},
    {"code", "self-modifying code, 4 harts", RISCV64_SUPERVISOR, 4, CALM},
    {"interrupts", "interrupts at every block, 1 hart", RISCV64_MACHINE, 1, EVERY_BLOCK},
    {"interrupts", "interrupts at every block, 4 harts", RISCV64_SUPERVISOR, 4, EVERY_BLOCK},
    {"interrupts", "interrupts at every instruction, 1 hart", RISCV64_MACHINE, 1,
     EVERY_INSTRUCTION},
    {"interrupts", "interrupts at every instruction, translated, 1 hart", RISCV64_SUPERVISOR, 1,
     EVERY_INSTRUCTION},
    {"interrupts", "interrupts at every instruction, 4 harts", RISCV64_MACHINE, 4,
     EVERY_INSTRUCTION},
    {"interrupts", "interrupts at any time, 1 hart", RISCV64_SUPERVISOR, 1, ANY_TIME},
    {"interrupts", "interrupts at any time, 4 harts", RISCV64_MACHINE, 4, ANY_TIME},
    {"interrupts", "interrupts at any time, translated, 4 harts", RISCV64_SUPERVISOR, 4, ANY_TIME},
    {"atomics", "atomics, 1 hart", RISCV64_MACHINE, 1, CALM},
    {"atomics", "atomics, 4 harts", RISCV64_MACHINE, 4, CALM},
};
enum { GUESTS = sizeof(guests) / sizeof(guests[0]), HANG_SECONDS = 240, TICK_US = 200 };

/* For the message of the alarm. */
static const char *volatile running = "";

static void hang(int number)
{
    (void)number;
    dprintf(STDOUT_FILENO, "not ok - torture: %s (does not end)\n", running);
    _exit(1);
}

struct hart {
    struct bare_machine *machine;
    unsigned index;
    enum disturbance disturbance;
    enum riscv64_privilege privilege;
    uint64_t result;
};

/* One hart that fails ends the run of all: the others would wait for it. */
static void stop_others(struct bare_machine *machine, unsigned index, uint64_t result)
{
    for (unsigned i = 0; i < machine->cpu_count && result != 0; i++) {
        if (i != index) {
            bare_machine_stop(machine, i, 0);
        }
    }
}

/* The interrupt of the "interrupts" guest. */
static enum riscv64_interrupt line_of(enum riscv64_privilege privilege)
{
    return privilege == RISCV64_MACHINE ? RISCV64_IRQ_MSOFT : RISCV64_IRQ_SEXT;
}

/* An interrupt before every block of the computation. Not before those of the handler, nor right
 * after its return: the computation would not get on. */
static uint64_t run_disturbed(struct hart *hart)
{
    const uint64_t mstatus_enable = hart->privilege == RISCV64_MACHINE ? 8 : 2;
    struct bare_machine *machine = hart->machine;
    struct riscv64_cpu *riscv64 = machine->cpus[hart->index].cpu;
    struct cpu *cpu = &riscv64->cpu;
    bool was_enabled = false;
    cpu_attention(cpu, CPU_ATTENTION_STEP);
    while (!atomic_load(&machine->cpus[hart->index].exited)) {
        engine_run(cpu);
        bool enabled = riscv64->csr.mstatus & mstatus_enable;
        if (atomic_load(&machine->count) && enabled && was_enabled) {
            riscv64_set_line(riscv64, line_of(hart->privilege), true);
            enabled = false;
        }
        was_enabled = enabled;
    }
    return machine->cpus[hart->index].exit_code;
}

static void *hart_thread(void *argument)
{
    struct hart *hart = argument;
    bool stepped = hart->disturbance == EVERY_BLOCK || hart->disturbance == EVERY_INSTRUCTION;
    hart->result = stepped ? run_disturbed(hart) : bare_machine_run(hart->machine, hart->index);
    stop_others(hart->machine, hart->index, hart->result);
    return NULL;
}

struct disturber {
    struct bare_machine *machine;
    enum riscv64_privilege privilege;
    _Atomic bool end;
};

static void *disturber_thread(void *argument)
{
    struct disturber *disturber = argument;
    while (!atomic_load(&disturber->end)) {
        struct bare_machine *machine = disturber->machine;
        for (unsigned i = 0; i < machine->cpu_count && atomic_load(&machine->count); i++) {
            struct riscv64_cpu *cpu = machine->cpus[i].cpu;
            riscv64_set_line(cpu, line_of(disturber->privilege), true);
            engine_kick(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
        }
        usleep(10); /* the computation has to get on */
    }
    return NULL;
}

/* The image's size, or 0 with a message. */
static size_t load(struct bare_machine *machine, const char *directory, const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 0;
    }
    uint8_t *ram = memory_pointer(&machine->memory, RAM_BASE, RAM_SIZE);
    size_t size = fread(ram, 1, RAM_SIZE, file);
    fclose(file);
    return size;
}

static uint64_t run_harts(struct bare_machine *machine, enum disturbance disturbance,
                          enum riscv64_privilege privilege)
{
    pthread_t threads[BARE_CPUS_MAX], disturber_id;
    struct hart harts[BARE_CPUS_MAX];
    struct disturber disturber = {.machine = machine, .privilege = privilege};
    if (disturbance == ANY_TIME) {
        pthread_create(&disturber_id, NULL, disturber_thread, &disturber);
    }
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        harts[i] = (struct hart){
            .machine = machine, .index = i, .disturbance = disturbance, .privilege = privilege};
        pthread_create(&threads[i], NULL, hart_thread, &harts[i]);
    }
    uint64_t result = 0;
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        pthread_join(threads[i], NULL);
        result = result ? result : harts[i].result;
    }
    if (disturbance == ANY_TIME) {
        atomic_store(&disturber.end, true);
        pthread_join(disturber_id, NULL);
    }
    return result;
}

static bool run_guest(unsigned which, enum engine_tier tier, const char *directory)
{
    static const char *const names[] = {"interpreter", "baseline", "optimised"};
    unsigned count = guests[which].harts;
    bool single = guests[which].disturbance == EVERY_INSTRUCTION;
    struct bare_machine *machine = bare_machine_create(RAM_BASE, RAM_SIZE, count, single, tier);
    if (!machine || load(machine, directory, guests[which].name) == 0) {
        printf("not ok - torture, %s: %s\n", names[tier], guests[which].proves);
        return false;
    }
    enum riscv64_privilege privilege = guests[which].privilege;
    for (unsigned i = 0; i < count; i++) {
        bare_machine_boot(machine, i, privilege, RAM_BASE,
                          count | (privilege == RISCV64_MACHINE ? MACHINE_BIT : 0));
    }
    struct optimiser *optimiser =
        tier == ENGINE_OPTIMISED ? optimiser_start(machine->engine, TICK_US, true) : NULL;
    uint64_t line = run_harts(machine, guests[which].disturbance, privilege);
    struct optimiser_counts counts = optimiser_stop(optimiser);
    uint64_t details[3];
    memcpy(details, memory_pointer(&machine->memory, DETAILS, sizeof(details)), sizeof(details));
    printf("%s - torture, %s: %s\n", line ? "not ok" : "ok", names[tier], guests[which].proves);
    if (line) {
        printf("# %s.c, line %lu, hart %lu: %#lx, %#lx\n", guests[which].name, line, details[2],
               details[0], details[1]);
    }
    if (tier == ENGINE_OPTIMISED) {
        printf("# %u regions compiled, %u of them installed, %u refused\n", counts.compiled,
               counts.installed, counts.refused);
    }
    fflush(stdout);
    bare_machine_destroy(machine);
    return line == 0;
}

int main(int argc, char **argv)
{
    enum engine_tier tier;
    if (argc < 3 || argc > 4 || !engine_tier_find(argv[1], &tier)) {
        fprintf(stderr, "usage: torture interp|baseline|optimised DIRECTORY [GUEST]\n");
        return 2;
    }
    signal(SIGALRM, hang);
    bool good = true;
    for (unsigned i = 0; i < GUESTS; i++) {
        if (argc == 3 || strcmp(argv[3], guests[i].name) == 0) {
            running = guests[i].proves;
            alarm(HANG_SECONDS);
            good = run_guest(i, tier, argv[2]) && good;
        }
    }
    return good ? 0 : 1;
}
