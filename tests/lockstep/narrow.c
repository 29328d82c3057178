#include "tests/lockstep/narrow.h"
#include "libshared/jit/region.h"
#include "tests/lockstep/optimiser.h"
#include "tests/lockstep/state.h"
#include "vmmd/vcpu/engine/inspect.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Positions from one comparison of memory to the next, the first time and the last but one; then
 * every block. */
enum { FIRST_SPAN = 1 << 20, SPAN_SHRINKS = 16, LAST_SPAN = 1 << 8 };
enum { PRINTED_INSTRUCTIONS = 200, SLACK = 1 << 16, HANG_SECONDS = 300 };
/* How far behind a checkpoint a crash is looked for. */
enum { CRASH_RANGE = 1 << 26 };

enum outcome { NOT_NEEDED = 0, FOUND = 1, NOT_FOUND = 3 };

static bool make(struct checkpoint *checkpoint, struct pair *pair, uint64_t span);

/* For the handler of crashes: the checkpoint that this process would wake. */
static const struct checkpoint *latest;
/* And what it looks at block by block, when it has none any more. */
static const struct pair *examined;

/* --- printing ------------------------------------------------------------------------------- */

void narrow_print_defect(const struct pair *pair)
{
    printf("at position %" PRIu64 " (subject %" PRIu64 ") there differs %s\n",
           side_position(&pair->oracle), side_position(&pair->subject), pair->defect);
    state_print_difference(stdout, pair->subject.cpu, pair->oracle.cpu);
    if (pair->defect_address == 0) {
        return;
    }
    const struct memory_region *region = &pair->subject.memory.regions[0];
    uint64_t offset = (pair->defect_address - region->base) & ~UINT64_C(7);
    uint64_t ours, theirs;
    memcpy(&ours, side_ram(&pair->subject) + offset, sizeof(ours));
    memcpy(&theirs, side_ram(&pair->oracle) + offset, sizeof(theirs));
    printf("  physical %010" PRIx64 "  subject %016" PRIx64 "  oracle %016" PRIx64 "\n",
           region->base + offset, ours, theirs);
}

static void print_trace(const struct side *oracle, uint64_t from)
{
    uint64_t first = from;
    uint64_t kept = PRINTED_INSTRUCTIONS < SIDE_TRACE ? PRINTED_INSTRUCTIONS : SIDE_TRACE;
    if (oracle->traced - first > kept) {
        first = oracle->traced - kept;
        printf("  ... %" PRIu64 " before\n", first - from);
    }
    for (uint64_t i = first; i < oracle->traced; i++) {
        const struct traced *step = &oracle->trace[i % SIDE_TRACE];
        char text[128] = "";
        uint8_t bytes[4];
        memcpy(bytes, &step->bits, sizeof(bytes));
        isa_riscv64.disassemble(bytes, step->bytes, step->pc, text, sizeof(text));
        unsigned digits = step->bytes * 2u;
        uint32_t bits = step->bytes == 2 ? step->bits & 0xffffu : step->bits;
        char privilege = "US?M"[step->privilege & 3];
        uint64_t pc = step->pc;
        printf("  %c %016" PRIx64, privilege, pc);
        printf("  %*s%0*x  %s\n", 8 - (int)digits, "", (int)digits, bits, text);
    }
}

static void print_ir(const struct inspected_code *code)
{
    static char text[64 << 10];
    ir_print(&code->ir, isa_riscv64.globals, isa_riscv64.helpers, text, sizeof(text));
    printf("the subject's block (%u instructions, %s, %u bytes of host code):\n%s",
           code->ir.insn_count, code->cached ? "cached" : "not cached", code->host.size, text);
}

/* --- going over it again -------------------------------------------------------------------- */

static void finish(int status)
{
    fflush(stdout);
    _exit(status);
}

/* Both agree here, and the difference is near: look at everything after every block. */
static void examine(struct pair *pair, uint64_t until)
{
    static struct inspected_code code;
    struct error err;
    examined = pair;
    while (pair_position(pair) < until + SLACK && !pair->subject.ended) {
        struct riscv64_cpu agreed = *pair->oracle.cpu;
        uint64_t position = pair_position(pair), traced = pair->oracle.traced;
        bool known = inspect_code(&pair->subject.cpu->cpu, agreed.cpu.pc, &code, &err) == 0;
        if (pair_advance(pair, PAIR_STEP) && pair_compare_memory(pair)) {
            inspect_release(&code);
            continue;
        }
        printf("both agree at position %" PRIu64 ":\n", position);
        state_print(stdout, &agreed);
        printf("the oracle then executes:\n");
        print_trace(&pair->oracle, traced);
        narrow_print_defect(pair);
        if (known) {
            print_ir(&code);
        }
        finish(FOUND);
    }
    printf("looked at block by block the difference does not show\n");
    finish(NOT_FOUND);
}

static void narrow(struct pair *pair, uint64_t until, uint64_t span)
{
    struct checkpoint checkpoint = {0};
    uint64_t next = 0;
    if (span < LAST_SPAN) {
        examine(pair, until);
    }
    while (pair_position(pair) < until + SLACK && !pair->subject.ended) {
        if (pair_position(pair) >= next) {
            if (next != 0 && !pair_compare_memory(pair)) {
                break;
            }
            checkpoint_drop(&checkpoint);
            if (!make(&checkpoint, pair, span / SPAN_SHRINKS)) {
                finish(NOT_FOUND);
            }
            next = pair_position(pair) + span;
        }
        if (!pair_advance(pair, PAIR_STEP)) {
            break;
        }
    }
    if (pair->defect || !pair_compare_memory(pair)) {
        finish(checkpoint_explain(&checkpoint, pair_position(pair)) ? FOUND : NOT_FOUND);
    }
    printf("run block by block up to position %" PRIu64 " there is no difference\n",
           pair_position(pair));
    finish(NOT_FOUND);
}

static int wait_for(pid_t pid)
{
    int status;
    bool exited = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
    return exited ? WEXITSTATUS(status) : FOUND; /* it crashed */
}

/* --- regions -------------------------------------------------------------------------------- */

/* Run on with regions [first, end) only. Does not return. */
static void run_freely(struct pair *pair, uint64_t until, unsigned first, unsigned end)
{
    latest = NULL;
    alarm(HANG_SECONDS);
    pair_after_fork(pair);
    optimiser_replay(pair->optimiser, first, end);
    if (!pair_restart_kicker(pair, until)) {
        finish(NOT_FOUND);
    }
    while (pair_position(pair) < until + SLACK && !pair->subject.ended) {
        if (!pair_advance(pair, PAIR_FREE)) {
            finish(FOUND);
        }
    }
    finish(pair_compare_memory(pair) ? NOT_FOUND : FOUND);
}

/* As it depends on the moments at which the subject is stopped: more than once. */
static bool differs_with(struct pair *pair, uint64_t until, unsigned first, unsigned end)
{
    enum { TRIES = 3 };
    for (unsigned i = 0; i < TRIES && first < end; i++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            run_freely(pair, until, first, end);
        }
        if (wait_for(pid) == FOUND) {
            return true;
        }
    }
    return false;
}

static void print_region(const struct region *region, unsigned index)
{
    printf("region %u: mode %#x, %u pages, %u blocks\n", index, region->mode, region->page_count,
           region->block_count);
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        printf(" block %u, page %+d:\n", i, region->page_delta[block->page]);
        for (unsigned at = 0; at < block->length;) {
            char text[128] = "";
            const uint8_t *bytes = region->bytes + block->bytes + at;
            unsigned length = isa_riscv64.disassemble(bytes, block->length - at, block->start + at,
                                                      text, sizeof(text));
            printf("  %03x  %s\n", block->start + at, text);
            at += length ? length : 2;
        }
    }
}

/* Halve the set of regions while one half is enough. */
static void blame_regions(struct pair *pair, uint64_t until)
{
    unsigned first = 0, end = optimiser_kept(pair->optimiser);
    if (!differs_with(pair, until, first, end)) {
        printf("run again with its %u regions there is no difference\n", end);
        finish(NOT_FOUND);
    }
    while (end - first > 1) {
        unsigned middle = first + (end - first) / 2;
        if (differs_with(pair, until, first, middle)) {
            end = middle;
        } else if (differs_with(pair, until, middle, end)) {
            first = middle;
        } else {
            break;
        }
    }
    printf("it takes %u regions to make the difference:\n", end - first);
    for (unsigned i = first; i < end; i++) {
        print_region(optimiser_region(pair->optimiser, i), i);
    }
    finish(FOUND);
}

/* --- checkpoints ---------------------------------------------------------------------------- */

/* The copy: sleep, and at a word from the parent go over it again. */
static void sleep_and_narrow(int wake, struct pair *pair, uint64_t span)
{
    uint64_t until;
    latest = NULL;
    if (read(wake, &until, sizeof(until)) != (ssize_t)sizeof(until)) {
        _exit(NOT_NEEDED);
    }
    close(wake);
    pid_t pid = pair->optimiser && span == FIRST_SPAN ? fork() : 0;
    if (pid == 0) {
        pair_after_fork(pair);
        narrow(pair, until, span);
    }
    if (wait_for(pid) == NOT_FOUND) {
        blame_regions(pair, until);
    }
    finish(FOUND);
}

static bool make(struct checkpoint *checkpoint, struct pair *pair, uint64_t span)
{
    int ends[2];
    alarm(HANG_SECONDS);
    fflush(NULL);
    if (pipe(ends) != 0) {
        perror("a checkpoint");
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        sleep_and_narrow(ends[0], pair, span);
    }
    close(ends[0]);
    if (pid < 0) {
        perror("a checkpoint");
        close(ends[1]);
        return false;
    }
    *checkpoint = (struct checkpoint){
        .pid = pid, .wake = ends[1], .pair = pair, .position = pair_position(pair)};
    latest = checkpoint;
    return true;
}

bool checkpoint_make(struct checkpoint *checkpoint, struct pair *pair)
{
    return make(checkpoint, pair, FIRST_SPAN);
}

void checkpoint_drop(struct checkpoint *checkpoint)
{
    if (checkpoint->pid != 0) {
        latest = NULL;
        close(checkpoint->wake);
        waitpid(checkpoint->pid, NULL, 0);
        checkpoint->pid = 0;
    }
}

bool checkpoint_explain(const struct checkpoint *checkpoint, uint64_t until)
{
    fflush(stdout);
    return checkpoint->pid != 0 &&
           write(checkpoint->wake, &until, sizeof(until)) == (ssize_t)sizeof(until) &&
           wait_for(checkpoint->pid) == FOUND;
}

/* --- crashes -------------------------------------------------------------------------------- */

static void crashed(int number)
{
    const struct pair *pair = latest ? latest->pair : examined;
    if (pair) {
        dprintf(STDOUT_FILENO,
                "signal %d: the subject crashed or hangs, after position %lu, pc %#lx\n", number,
                side_position(&pair->oracle), pair->oracle.cpu->cpu.pc);
    }
    if (!latest) {
        _exit(FOUND);
    }
    uint64_t until = latest->position + CRASH_RANGE;
    if (write(latest->wake, &until, sizeof(until)) == (ssize_t)sizeof(until)) {
        waitpid(latest->pid, NULL, 0);
    }
    _exit(FOUND);
}

void narrow_watch_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        signal(signals[i], crashed);
    }
}
