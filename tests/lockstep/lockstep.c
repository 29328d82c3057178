/*
 * The differential test: random streams on the engine and under the distribution's user-mode
 * emulator, compared by all registers, flags and memory. A stream that differs is cut down to
 * its shortest differing prefix, whose last unit is shown.
 *
 * Emulator deviations are not masked here but never generated; the list, with the reason, is
 * at the head of generate.c.
 */
#include "tests/lockstep/generate.h"
#include "tests/lockstep/reference.h"
#include "tests/lockstep/subject.h"
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SUBJECTS = 5, ALL_UNITS = STREAM_UNITS_MAX, HANG_SECONDS = 60 };

static const struct {
    const char *name;
    enum riscv64_privilege privilege;
    bool single;
} modes[SUBJECTS] = {
    {"user", RISCV64_USER, false},
    {"supervisor", RISCV64_SUPERVISOR, false},
    {"user", RISCV64_USER, false},
    {"machine", RISCV64_MACHINE, false},
    {"user, blocks of one instruction,", RISCV64_USER, true},
};

struct options {
    uint64_t seed, instructions, first;
    bool single; /* only stream `first` */
    enum engine_tier tier;
    const char *emulator, *runner;
};

struct session {
    struct options options;
    struct reference reference;
    struct subject subjects[SUBJECTS];
    struct stream stream;
    struct stream_result expected, got;
    uint64_t executed;
};

/* --- differences ---------------------------------------------------------------------------- */
static bool same(const struct session *session)
{
    return memcmp(&session->expected, &session->got, sizeof(session->got)) == 0;
}

static void print_difference(const struct session *session)
{
    const struct stream_state *expected = &session->expected.state;
    const struct stream_state *got = &session->got.state;
    for (unsigned i = 1; i < 32; i++) {
        if (expected->x[i] != got->x[i]) {
            printf("  x%-2u  %016" PRIx64 "  reference %016" PRIx64 "\n", i, got->x[i],
                   expected->x[i]);
        }
    }
    for (unsigned i = 0; i < 32; i++) {
        if (expected->f[i] != got->f[i]) {
            printf("  f%-2u  %016" PRIx64 "  reference %016" PRIx64 "\n", i, got->f[i],
                   expected->f[i]);
        }
    }
    if (expected->fcsr != got->fcsr) {
        printf("  fcsr %03" PRIx64 "  reference %03" PRIx64 "\n", got->fcsr, expected->fcsr);
    }
    unsigned shown = 0;
    for (unsigned i = 0; i < STREAM_DATA_BYTES && shown < 16; i++) {
        if (session->expected.data[i] != session->got.data[i]) {
            printf("  data[%u]  %02x  reference %02x\n", i, session->got.data[i],
                   session->expected.data[i]);
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
/* False: the emulator died. */
static bool run_stream(struct session *session, uint64_t number, unsigned units)
{
    struct subject *subject = &session->subjects[number % SUBJECTS];
    stream_generate(&session->stream, session->options.seed, number, units);
    alarm(HANG_SECONDS);
    if (!reference_submit(&session->reference, &session->stream.request)) {
        return false;
    }
    uint64_t taken = subject_run(subject, &session->stream.request, &session->got);
    unsigned fixed = session->stream.fixed_instructions;
    session->executed += taken > fixed ? taken - fixed : 0;
    return reference_result(&session->reference, &session->expected);
}

/* The registers that the last unit could read, as they are before it. */
static void print_inputs(struct session *session, uint64_t number, unsigned units)
{
    if (!run_stream(session, number, units)) {
        return;
    }
    printf("after %u units, where both agree:\n", units);
    for (unsigned i = 0; i < 32; i++) {
        printf("  x%-2u %016" PRIx64 "  f%-2u %016" PRIx64 "\n", i, session->got.state.x[i], i,
               session->got.state.f[i]);
    }
    printf("  fcsr %03" PRIx64 "\n", session->got.state.fcsr);
}

/* Find the shortest prefix that differs and show what its last unit does. */
static void explain(struct session *session, uint64_t number)
{
    unsigned good = 0;
    unsigned bad = session->stream.unit_count;
    while (bad - good > 1) {
        unsigned middle = good + (bad - good) / 2;
        if (!run_stream(session, number, middle)) {
            printf("the emulator died while the stream was cut down\n");
            return;
        }
        if (same(session)) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    if (!run_stream(session, number, bad)) {
        return;
    }
    printf("seed %" PRIu64 ", stream %" PRIu64 " (%s mode) differs from unit %u on:\n",
           session->options.seed, number, modes[number % SUBJECTS].name, bad - 1);
    print_unit(&session->stream, bad - 1);
    print_difference(session);
    print_inputs(session, number, bad - 1);
}

static void hang(int signal_number)
{
    (void)signal_number;
    static const char message[] = "not ok - a stream does not end\n";
    ssize_t ignored = write(STDOUT_FILENO, message, sizeof(message) - 1);
    (void)ignored;
    _exit(1);
}

static int run_all(struct session *session)
{
    const struct options *options = &session->options;
    uint64_t number = options->first;
    do {
        if (!run_stream(session, number, ALL_UNITS)) {
            printf("the emulator died at seed %" PRIu64 ", stream %" PRIu64 "\n", options->seed,
                   number);
            return 1;
        }
        if (!same(session)) {
            explain(session, number);
            return 1;
        }
        number++;
    } while (!options->single && session->executed < options->instructions);
    printf("%" PRIu64 " instructions in %" PRIu64 " streams agree (seed %" PRIu64 ")\n",
           session->executed, number - options->first, options->seed);
    return 0;
}

static int parse(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},
        {"instructions", required_argument, NULL, 'i'},
        {"first", required_argument, NULL, 'f'},
        {"stream", required_argument, NULL, 'n'},
        {"emulator", required_argument, NULL, 'e'},
        {"engine", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    *options =
        (struct options){.seed = 1, .instructions = 1000000, .emulator = "qemu-riscv64-static"};
    int choice;
    while ((choice = getopt_long(argc, argv, "", names, NULL)) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (choice) {
        case 's':
            options->seed = value;
            break;
        case 'i':
            options->instructions = value;
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
        case 't':
            if (!engine_tier_find(optarg, &options->tier)) {
                return -1;
            }
            break;
        default:
            return -1;
        }
    }
    options->runner = optind == argc - 1 ? argv[optind] : NULL;
    return options->runner ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct session *session = calloc(1, sizeof(*session));
    if (!session) {
        return 1;
    }
    int status = 2;
    if (parse(&session->options, argc, argv) < 0) {
        fprintf(stderr, "usage: lockstep [--seed N] [--instructions N] [--first N | --stream N]\n"
                        "                [--emulator qemu-riscv64-static]\n"
                        "                [--engine interp|baseline] RUNNER\n");
        goto out;
    }
    status = 1;
    signal(SIGALRM, hang);
    for (unsigned i = 0; i < SUBJECTS; i++) {
        if (subject_open(&session->subjects[i], modes[i].privilege, modes[i].single,
                         session->options.tier) < 0) {
            goto out;
        }
    }
    int error =
        reference_start(&session->reference, session->options.emulator, session->options.runner);
    if (error < 0) {
        fprintf(stderr, "%s: %s\n", session->options.emulator, strerror(-error));
        goto out;
    }
    status = run_all(session);
    int ended = reference_stop(&session->reference);
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0) {
        fprintf(stderr, "the emulator ended with status %#x\n", (unsigned)ended);
        status = 1;
    }
out:
    for (unsigned i = 0; i < SUBJECTS; i++) {
        subject_close(&session->subjects[i]);
    }
    free(session);
    return status;
}
