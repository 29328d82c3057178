/*
 * Random streams on the tier under test, compared with the interpreter that does one instruction a
 * block (all registers, CSRs, memory), and some of them with the distribution's user-mode emulator
 * (what the stream itself stores: all registers, flags and data). A stream that differs is cut down
 * to its shortest differing prefix, whose last unit is shown.
 *
 * Emulator deviations are not masked here but never generated; the list, with the reason, is
 * at the head of generate.c.
 */
#include "tests/lockstep/generate.h"
#include "tests/lockstep/kicker.h"
#include "tests/lockstep/optimiser.h"
#include "tests/lockstep/reference.h"
#include "tests/lockstep/state.h"
#include "tests/lockstep/subject.h"
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KICK_SHORTEST_US = 10, KICK_LONGEST_US = 200 };
enum { MODES = 7, ALL_UNITS = STREAM_UNITS_MAX, HANG_SECONDS = 60 };

static const struct {
    const char *name;
    enum riscv64_privilege privilege;
    enum stream_kind kind;
    bool single;
} modes[MODES] = {
    {"user", RISCV64_USER, STREAM_PORTABLE, false},
    {"user with traps", RISCV64_USER, STREAM_TRAPS_USER, false},
    {"supervisor", RISCV64_SUPERVISOR, STREAM_PORTABLE, false},
    {"supervisor with traps", RISCV64_SUPERVISOR, STREAM_TRAPS_SUPERVISOR, false},
    {"machine", RISCV64_MACHINE, STREAM_PORTABLE, false},
    {"machine with traps", RISCV64_MACHINE, STREAM_TRAPS_MACHINE, false},
    {"user, blocks of one instruction,", RISCV64_USER, STREAM_PORTABLE, true},
};

struct options {
    uint64_t seed, blocks, first;
    uint64_t share; /* one in so many streams also goes to the emulator; 0: none */
    bool single;    /* only stream `first` */
    enum engine_tier tier;
    const char *emulator, *runner;
};

/* Who disagrees with the subject. */
enum verdict { AGREE, ORACLE_DIFFERS, EMULATOR_DIFFERS, EMULATOR_DIED };

struct session {
    struct options options;
    struct reference reference;
    struct subject subjects[MODES], oracles[MODES];
    struct stream stream;
    struct stream_result expected, got; /* the other's, the subject's */
    struct kicker *kicker;              /* of the optimised tier */
    uint64_t executed, traps, emulated;
};

/* --- differences ---------------------------------------------------------------------------- */
static void print_result_difference(const struct session *session)
{
    const struct stream_state *expected = &session->expected.state;
    const struct stream_state *got = &session->got.state;
    for (unsigned i = 1; i < 32; i++) {
        if (expected->x[i] != got->x[i]) {
            printf("  x%-2u  %016" PRIx64 "  expected %016" PRIx64 "\n", i, got->x[i],
                   expected->x[i]);
        }
    }
    for (unsigned i = 0; i < 32; i++) {
        if (expected->f[i] != got->f[i]) {
            printf("  f%-2u  %016" PRIx64 "  expected %016" PRIx64 "\n", i, got->f[i],
                   expected->f[i]);
        }
    }
    if (expected->fcsr != got->fcsr) {
        printf("  fcsr %03" PRIx64 "  expected %03" PRIx64 "\n", got->fcsr, expected->fcsr);
    }
    unsigned shown = 0;
    for (unsigned i = 0; i < STREAM_DATA_BYTES && shown < 16; i++) {
        if (session->expected.data[i] != session->got.data[i]) {
            printf("  data[%u]  %02x  expected %02x\n", i, session->got.data[i],
                   session->expected.data[i]);
            shown++;
        }
    }
}

/* What no stream stores itself: CSRs, and memory that it must not change. */
static void print_rest(const struct session *session, uint64_t number)
{
    const struct subject *subject = &session->subjects[number % MODES];
    const struct subject *oracle = &session->oracles[number % MODES];
    const uint8_t *a = subject_ram(subject), *b = subject_ram(oracle);
    state_print_difference(stdout, subject->machine->cpus[0].cpu, oracle->machine->cpus[0].cpu);
    unsigned shown = 0;
    for (uint64_t i = 0; i < STREAM_SIZE && shown < 16; i += 8) {
        uint64_t ours, theirs;
        memcpy(&ours, a + i, 8);
        memcpy(&theirs, b + i, 8);
        if (ours != theirs) {
            printf("  memory %08" PRIx64 "  %016" PRIx64 "  expected %016" PRIx64 "\n",
                   STREAM_BASE + i, ours, theirs);
            shown++;
        }
    }
}

static void print_instruction(const struct stream *stream, uint32_t offset, unsigned bytes)
{
    uint32_t word = 0;
    memcpy(&word, stream->request.code + offset, bytes);
    char text[128] = "";
    if (isa_riscv64.disassemble) {
        isa_riscv64.disassemble(stream->request.code + offset, bytes, STREAM_CODE + offset, text,
                                sizeof(text));
    }
    printf("  %08lx:  %0*x  %s\n", STREAM_CODE + offset, (int)bytes * 2, word, text);
}

static void print_unit(const struct stream *stream, unsigned unit)
{
    uint32_t offset = stream->unit_start[unit];
    while (offset < stream->unit_start[unit + 1]) {
        unsigned bytes = (stream->request.code[offset] & 3) == 3 ? 4 : 2;
        print_instruction(stream, offset, bytes);
        offset += bytes;
    }
}

/* --- running -------------------------------------------------------------------------------- */

static bool for_emulator(const struct session *session, uint64_t number)
{
    const struct options *options = &session->options;
    return options->share != 0 && modes[number % MODES].kind == STREAM_PORTABLE &&
           (options->single || number / MODES % options->share == 0);
}

static bool oracle_agrees(struct session *session, uint64_t number)
{
    struct subject *subject = &session->subjects[number % MODES];
    struct subject *oracle = &session->oracles[number % MODES];
    subject_run(oracle, &session->stream.request, &session->expected);
    return memcmp(&session->expected, &session->got, sizeof(session->got)) == 0 &&
           state_same(subject->machine->cpus[0].cpu, oracle->machine->cpus[0].cpu) &&
           memcmp(subject_ram(subject), subject_ram(oracle), STREAM_SIZE) == 0;
}

/* For the message of the alarm. */
static volatile struct {
    uint64_t seed, stream;
} running;

static enum verdict run_stream(struct session *session, uint64_t number, unsigned units)
{
    struct subject *subject = &session->subjects[number % MODES];
    bool emulate = for_emulator(session, number);
    stream_generate(&session->stream, modes[number % MODES].kind, session->kicker != NULL,
                    session->options.seed, number, units);
    running.seed = session->options.seed;
    running.stream = number;
    alarm(HANG_SECONDS);
    if (emulate && !reference_submit(&session->reference, &session->stream.request)) {
        return EMULATOR_DIED;
    }
    session->executed += subject_run(subject, &session->stream.request, &session->got);
    session->traps += subject_traps(subject);
    bool agrees = oracle_agrees(session, number);
    if (!emulate || !agrees) {
        /* The emulator's answer is waited for, or its pipe fills. */
        struct stream_result ignored;
        if (emulate && !reference_result(&session->reference, &ignored)) {
            return EMULATOR_DIED;
        }
        return agrees ? AGREE : ORACLE_DIFFERS;
    }
    session->emulated++;
    if (!reference_result(&session->reference, &session->expected)) {
        return EMULATOR_DIED;
    }
    bool same = memcmp(&session->expected, &session->got, sizeof(session->got)) == 0;
    return same ? AGREE : EMULATOR_DIFFERS;
}

/* The registers that the last unit could read, as they are before it. */
static void print_inputs(struct session *session, uint64_t number, unsigned units)
{
    if (run_stream(session, number, units) != AGREE) {
        return;
    }
    printf("after %u units, where both agree:\n", units);
    for (unsigned i = 0; i < 32; i++) {
        printf("  x%-2u %016" PRIx64 "  f%-2u %016" PRIx64 "\n", i, session->got.state.x[i], i,
               session->got.state.f[i]);
    }
    printf("  fcsr %03" PRIx64 "\n", session->got.state.fcsr);
}

static void print_difference(const struct session *session, uint64_t number, enum verdict verdict)
{
    printf("%s expects something else:\n",
           verdict == ORACLE_DIFFERS ? "the interpreter" : "the emulator");
    print_result_difference(session);
    if (verdict == ORACLE_DIFFERS) {
        print_rest(session, number);
    }
}

/* Find the shortest prefix that differs and show what its last unit does. */
static void explain(struct session *session, uint64_t number, enum verdict verdict)
{
    unsigned good = 0;
    unsigned bad = session->stream.unit_count;
    printf("seed %" PRIu64 ", stream %" PRIu64 " (%s mode): ", session->options.seed, number,
           modes[number % MODES].name);
    print_difference(session, number, verdict);
    while (bad - good > 1) {
        unsigned middle = good + (bad - good) / 2;
        if (run_stream(session, number, middle) == AGREE) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    verdict = run_stream(session, number, bad);
    if (verdict == AGREE) {
        printf("not when it is run again: what ran before on this engine matters (--first)\n");
        return;
    }
    printf("cut down, from unit %u on:\n", bad - 1);
    print_unit(&session->stream, bad - 1);
    print_difference(session, number, verdict);
    print_inputs(session, number, bad - 1);
}

static void hang(int signal_number)
{
    (void)signal_number;
    dprintf(STDOUT_FILENO, "not ok - stream %" PRIu64 " of seed %" PRIu64 " does not end\n",
            running.stream, running.seed);
    _exit(1);
}

static void print_regions(const struct session *session)
{
    uint64_t installed = 0, inside = 0;
    for (unsigned i = 0; i < MODES; i++) {
        struct engine_stats stats;
        engine_stats(session->subjects[i].machine->engine, &stats);
        installed += stats.regions_installed;
        inside += stats.retired_optimised;
    }
    printf("%" PRIu64 " regions, %" PRIu64 " instructions in them\n", installed, inside);
}

/* Blocks that the tier made code of: of the optimised tier, those in regions. */
static uint64_t count_blocks(const struct session *session)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < MODES; i++) {
        const struct subject *subject = &session->subjects[i];
        struct engine_stats stats;
        engine_stats(subject->machine->engine, &stats);
        count +=
            subject->optimiser ? optimiser_counts(subject->optimiser).blocks : stats.blocks_decoded;
    }
    return count;
}

static int run_all(struct session *session)
{
    const struct options *options = &session->options;
    uint64_t number = options->first;
    do {
        enum verdict verdict = run_stream(session, number, ALL_UNITS);
        if (verdict == EMULATOR_DIED) {
            printf("the emulator died at seed %" PRIu64 ", stream %" PRIu64 "\n", options->seed,
                   number);
            return 1;
        }
        if (verdict != AGREE) {
            explain(session, number, verdict);
            return 1;
        }
        number++;
    } while (!options->single && count_blocks(session) < options->blocks);
    printf("%" PRIu64 " blocks, %" PRIu64 " instructions, %" PRIu64 " traps in %" PRIu64
           " streams agree, %" PRIu64 " of them with the emulator (seed %" PRIu64 ")\n",
           count_blocks(session), session->executed, session->traps, number - options->first,
           session->emulated, options->seed);
    if (session->kicker) {
        print_regions(session);
    }
    return 0;
}

static int parse(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},     {"blocks", required_argument, NULL, 'b'},
        {"first", required_argument, NULL, 'f'},    {"stream", required_argument, NULL, 'n'},
        {"emulator", required_argument, NULL, 'e'}, {"share", required_argument, NULL, 'h'},
        {"tier", required_argument, NULL, 't'},     {NULL, 0, NULL, 0},
    };
    *options =
        (struct options){.seed = 1, .blocks = 50000, .share = 1, .emulator = "qemu-riscv64-static"};
    int choice;
    while ((choice = getopt_long(argc, argv, "", names, NULL)) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (choice) {
        case 's':
            options->seed = value;
            break;
        case 'b':
            options->blocks = value;
            break;
        case 'n':
            options->single = true;
            options->first = value;
            break;
        case 'f':
            options->first = value;
            break;
        case 'e':
            options->emulator = optarg;
            break;
        case 'h':
            options->share = value;
            break;
        case 't':
            if (!engine_tier_find(optarg, &options->tier)) {
                fprintf(stderr, "no tier '%s' on this host\n", optarg);
                return -1;
            }
            break;
        default:
            return -1;
        }
    }
    options->runner = optind == argc - 1 ? argv[optind] : NULL;
    return options->runner || (options->share == 0 && optind == argc) ? 0 : -1;
}

static bool open_engines(struct session *session)
{
    for (unsigned i = 0; i < MODES; i++) {
        bool trapping = modes[i].kind != STREAM_PORTABLE;
        if (subject_open(&session->subjects[i], modes[i].privilege, trapping, modes[i].single,
                         session->options.tier) < 0 ||
            subject_open(&session->oracles[i], modes[i].privilege, trapping, true, ENGINE_INTERP) <
                0) {
            return false;
        }
    }
    if (session->options.tier != ENGINE_OPTIMISED) {
        return true;
    }
    session->kicker = kicker_start(KICK_SHORTEST_US, KICK_LONGEST_US, session->options.seed);
    bool optimised = session->kicker != NULL;
    for (unsigned i = 0; i < MODES && optimised; i++) {
        optimised = subject_optimise(&session->subjects[i], session->kicker);
    }
    return optimised;
}

static int run_session(struct session *session)
{
    const struct options *options = &session->options;
    if (!open_engines(session)) {
        return 1;
    }
    if (options->share != 0) {
        int error = reference_start(&session->reference, options->emulator, options->runner);
        if (error < 0) {
            fprintf(stderr, "%s: %s\n", options->emulator, strerror(-error));
            return 1;
        }
    }
    int status = run_all(session);
    if (options->share != 0) {
        int ended = reference_stop(&session->reference);
        if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0) {
            fprintf(stderr, "the emulator ended with status %#x\n", (unsigned)ended);
            status = 1;
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    struct session *session = calloc(1, sizeof(*session));
    if (!session) {
        return 1;
    }
    int status = 2;
    if (parse(&session->options, argc, argv) == 0) {
        signal(SIGALRM, hang);
        status = run_session(session);
    } else {
        fprintf(stderr,
                "usage: lockstep [--tier NAME] [--seed N] [--blocks N] [--first N | --stream N]\n"
                "                [--share N] [--emulator qemu-riscv64-static] RUNNER\n"
                "       lockstep --share 0 ... (without the emulator)\n");
    }
    for (unsigned i = 0; i < MODES; i++) {
        subject_close(&session->subjects[i]);
        subject_close(&session->oracles[i]);
    }
    kicker_stop(session->kicker);
    free(session);
    return status;
}
