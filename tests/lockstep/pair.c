#include "tests/lockstep/pair.h"
#include "libshared/isa/riscv64/registers.h"
#include "tests/lockstep/kicker.h"
#include "tests/lockstep/optimiser.h"
#include "tests/lockstep/state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORTEST_SLICE_US = 20, LONGEST_SLICE_US = 800 };

/* --- life ----------------------------------------------------------------------------------- */
bool pair_open(struct pair *pair, const struct side_images *images, enum engine_tier tier,
               uint64_t seed)
{
    if (!side_open_subject(&pair->subject, images, &pair->log, tier) ||
        !side_open_oracle(&pair->oracle, images, &pair->log)) {
        return false;
    }
    side_set_seed(&pair->subject, seed);
    if (!side_copy_start(&pair->oracle, &pair->subject)) {
        fprintf(stderr, "the two machines do not start alike\n");
        return false;
    }
    if (tier == ENGINE_OPTIMISED) {
        pair->optimiser = optimiser_create(pair->subject.machine->engine, true);
        if (!pair->optimiser) {
            return false;
        }
        optimiser_keep(pair->optimiser);
    }
    pair->kicker = kicker_start(SHORTEST_SLICE_US, LONGEST_SLICE_US, seed);
    return pair->kicker != NULL;
}

void pair_close(struct pair *pair)
{
    kicker_stop(pair->kicker);
    optimiser_destroy(pair->optimiser);
    side_close(&pair->subject);
    side_close(&pair->oracle);
}

void pair_after_fork(struct pair *pair)
{
    free(pair->kicker);
    pair->kicker = NULL;
    engine_drop_code(pair->subject.machine->engine);
}

/* --- a slice -------------------------------------------------------------------------------- */
static bool differs(struct pair *pair, const char *defect)
{
    if (!pair->defect) {
        pair->defect = defect;
    }
    return false;
}

bool pair_restart_kicker(struct pair *pair, uint64_t seed)
{
    pair->kicker = kicker_start(SHORTEST_SLICE_US, LONGEST_SLICE_US, seed);
    return pair->kicker != NULL;
}

static void run_subject(struct pair *pair, enum pair_pace pace)
{
    struct cpu *cpu = &pair->subject.cpu->cpu;
    if (pace == PAIR_STEP) {
        cpu_attention(cpu, CPU_ATTENTION_STEP);
        engine_run(cpu);
        atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_STEP);
        return;
    }
    kicker_set(pair->kicker, pair->subject.machine->engine);
    engine_run(cpu);
    kicker_set(pair->kicker, NULL);
    if (pair->optimiser) {
        optimiser_serve(pair->optimiser);
    }
}

/* Both stand at the same border: fire timers; when the hart sleeps, at its next deadline. */
static bool pass_time(struct pair *pair)
{
    uint64_t next = side_poll_timers(&pair->subject);
    if (side_poll_timers(&pair->oracle) != next) {
        return differs(pair, "the next deadline");
    }
    while (side_asleep(&pair->subject)) {
        if (next == UINT64_MAX) {
            return differs(pair, "nothing: the guest waits for ever");
        }
        pair->subject.skipped += next;
        pair->oracle.skipped += next;
        next = side_poll_timers(&pair->subject);
        side_poll_timers(&pair->oracle);
    }
    return true;
}

static bool compare(struct pair *pair)
{
    const struct side *subject = &pair->subject, *oracle = &pair->oracle;
    if (oracle->objection) {
        return differs(pair, oracle->objection);
    }
    if (pair->log.taken != pair->log.count) {
        return differs(pair, "the number of interrupts");
    }
    if (subject->exceptions != oracle->exceptions) {
        return differs(pair, "the number of exceptions");
    }
    if (!state_same(subject->cpu, oracle->cpu)) {
        return differs(pair, "the CPU's state");
    }
    if (!serial_port_same(&subject->serial, &oracle->serial)) {
        return differs(pair, "the serial port's state");
    }
    if (subject->ended != oracle->ended || subject->event != oracle->event) {
        return differs(pair, "how the guest ended");
    }
    return true;
}

bool pair_advance(struct pair *pair, enum pair_pace pace)
{
    if (!pass_time(pair)) {
        return false;
    }
    pair->log.count = 0;
    pair->log.taken = 0;
    run_subject(pair, pace);
    bool arrived = side_run_oracle(&pair->oracle, side_position(&pair->subject));
    pair->slices++;
    pair->interrupts += pair->log.count;
    return compare(pair) && (arrived || differs(pair, "where the oracle stops to wait"));
}

/* An entry in which only the subject has the accessed bit. */
static bool is_speculation(const struct pair *pair, uint64_t ours, uint64_t theirs)
{
    return pair->optimiser && ours == (theirs | PTE_A) && ours & PTE_V;
}

/* [at, at + size) differs somewhere. True: by speculation only, and not any more. */
static bool forgive(struct pair *pair, uint64_t at, uint64_t size)
{
    for (uint64_t end = at + size; at < end; at += sizeof(uint64_t)) {
        uint64_t ours, theirs;
        memcpy(&ours, side_ram(&pair->subject) + at, sizeof(ours));
        memcpy(&theirs, side_ram(&pair->oracle) + at, sizeof(theirs));
        if (ours == theirs) {
            continue;
        }
        if (!is_speculation(pair, ours, theirs)) {
            pair->defect_address = pair->subject.memory.regions[0].base + at;
            return differs(pair, "memory");
        }
        memcpy(side_ram(&pair->oracle) + at, &ours, sizeof(ours));
        pair->speculated++;
    }
    return true;
}

bool pair_compare_memory(struct pair *pair)
{
    enum { STRIDE = 1 << 20 };
    const struct memory_region *region = &pair->subject.memory.regions[0];
    const uint8_t *a = side_ram(&pair->subject), *b = side_ram(&pair->oracle);
    pair->comparisons++;
    for (uint64_t at = 0; at < region->size; at += STRIDE) {
        uint64_t size = region->size - at < STRIDE ? region->size - at : STRIDE;
        if (memcmp(a + at, b + at, size) != 0 && !forgive(pair, at, size)) {
            return false;
        }
    }
    return true;
}
