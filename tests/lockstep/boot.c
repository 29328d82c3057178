/*
 * The boot test: a stock kernel on two engines in one process, the tier under test and the
 * interpreter that does one instruction at a time, compared wherever the first one was stopped.
 * See side.h and pair.h for how, narrow.h for what is printed when they differ.
 */
#include "tests/lockstep/narrow.h"
#include "tests/lockstep/optimiser.h"
#include "tests/lockstep/random.h"
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct options {
    enum engine_tier tier;
    uint64_t seed, memory;
    uint64_t instructions; /* after address translation was switched on; 0: to the end */
    uint64_t interval;     /* positions between comparisons of memory */
    const char *kernel, *initrd, *append;
    uint32_t spoiled;
    bool console;
};

struct boot {
    struct options options;
    struct pair pair;
    struct checkpoint checkpoint;
    struct random random;
    uint64_t printed;    /* of the console */
    uint64_t translated; /* instructions when translation was first on; 0: not yet */
};

static void show_console(struct boot *boot)
{
    char bytes[512];
    size_t count;
    while (boot->options.console &&
           (count = serial_port_take(&boot->pair.oracle.serial, &boot->printed, bytes,
                                     sizeof(bytes))) > 0) {
        fwrite(bytes, 1, count, stderr);
    }
}

/* Now and then blocks one by one, as different code runs then. */
static bool advance(struct boot *boot)
{
    enum { STEPS_IN = 8, STEPS_MAX = 32 };
    if (!random_one_in(&boot->random, STEPS_IN)) {
        return pair_advance(&boot->pair, PAIR_FREE);
    }
    for (unsigned i = random_below(&boot->random, STEPS_MAX); i > 0; i--) {
        if (!pair_advance(&boot->pair, PAIR_STEP)) {
            return false;
        }
        if (boot->pair.subject.ended) {
            break;
        }
    }
    return true;
}

static bool finished(struct boot *boot)
{
    const struct riscv64_cpu *cpu = boot->pair.oracle.cpu;
    uint64_t retired = cpu->cpu.retired;
    if (boot->translated == 0 && cpu->csr.satp != 0) {
        boot->translated = retired;
    }
    return boot->pair.subject.ended || (boot->options.instructions != 0 && boot->translated != 0 &&
                                        retired - boot->translated >= boot->options.instructions);
}

static bool run(struct boot *boot)
{
    struct pair *pair = &boot->pair;
    uint64_t next = 0;
    while (!finished(boot)) {
        if (pair_position(pair) >= next) {
            if (!pair_compare_memory(pair)) {
                return false;
            }
            checkpoint_drop(&boot->checkpoint);
            if (!checkpoint_make(&boot->checkpoint, pair)) {
                return false;
            }
            next = pair_position(pair) + boot->options.interval;
        }
        if (!advance(boot)) {
            return false;
        }
        show_console(boot);
    }
    return pair_compare_memory(pair);
}

static int report(struct boot *boot, bool agree, double seconds)
{
    struct pair *pair = &boot->pair;
    struct engine_stats stats;
    if (!agree) {
        printf("seed %" PRIu64 ", subject %s:\n", boot->options.seed,
               engine_tier_name(boot->options.tier));
        if (pair->defect) {
            narrow_print_defect(pair);
            (void)checkpoint_explain(&boot->checkpoint, side_position(&pair->subject));
        }
        return 1;
    }
    engine_stats(pair->subject.machine->engine, &stats);
    printf("%" PRIu64 " instructions agree%s (seed %" PRIu64 "): %" PRIu64 " slices, %" PRIu64
           " exceptions, %" PRIu64 " interrupts, %" PRIu64 " blocks, memory %" PRIu64
           " times, %.0f s\n",
           pair->oracle.cpu->cpu.retired, pair->subject.ended ? " to the guest's power-off" : "",
           boot->options.seed, pair->slices, pair->oracle.exceptions, pair->interrupts,
           (uint64_t)stats.blocks_decoded, pair->comparisons, seconds);
    if (boot->options.tier == ENGINE_OPTIMISED) {
        printf("%" PRIu64 " regions, %" PRIu64 " of 1000 instructions in them\n",
               (uint64_t)stats.regions_installed, stats.retired_optimised * 1000 / stats.retired);
    }
    return 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare_boot(struct boot *boot)
{
    const struct options *options = &boot->options;
    struct side_images images = {
        .kernel_fd = open(options->kernel, O_RDONLY | O_CLOEXEC),
        .initrd_fd = open(options->initrd, O_RDONLY | O_CLOEXEC),
        .append = options->append,
        .memory_size = options->memory,
        .spoiled = options->tier == ENGINE_OPTIMISED ? 0 : options->spoiled,
    };
    int status = 2;
    if (images.kernel_fd < 0 || images.initrd_fd < 0) {
        perror(images.kernel_fd < 0 ? options->kernel : options->initrd);
    } else if (pair_open(&boot->pair, &images, options->tier, options->seed)) {
        double start = now();
        boot->random.state = options->seed;
        if (boot->pair.optimiser) {
            optimiser_spoil(boot->pair.optimiser, (uint16_t)options->spoiled);
        }
        narrow_watch_crashes();
        bool agree = run(boot);
        status = report(boot, agree, now() - start);
        checkpoint_drop(&boot->checkpoint);
    }
    pair_close(&boot->pair);
    if (images.kernel_fd >= 0) {
        close(images.kernel_fd);
    }
    if (images.initrd_fd >= 0) {
        close(images.initrd_fd);
    }
    return status;
}

static int parse(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"tier", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},
        {"memory", required_argument, NULL, 'm'},
        {"append", required_argument, NULL, 'a'},
        {"instructions", required_argument, NULL, 'i'},
        {"interval", required_argument, NULL, 'e'},
        {"spoil", required_argument, NULL, 'w'},
        {"console", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    *options = (struct options){.tier = engine_tier_best(),
                                .seed = 1,
                                .memory = UINT64_C(256) << 20,
                                .interval = UINT64_C(20) << 20,
                                .append = ""};
    int choice;
    while ((choice = getopt_long(argc, argv, "", names, NULL)) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (choice) {
        case 't':
            if (!engine_tier_find(optarg, &options->tier)) {
                fprintf(stderr, "no tier '%s' on this host\n", optarg);
                return -1;
            }
            break;
        case 's':
            options->seed = value;
            break;
        case 'm':
            options->memory = value << 20;
            break;
        case 'a':
            options->append = optarg;
            break;
        case 'i':
            options->instructions = value;
            break;
        case 'e':
            options->interval = value;
            break;
        case 'w':
            options->spoiled = (uint32_t)value;
            break;
        case 'c':
            options->console = true;
            break;
        default:
            return -1;
        }
    }
    if (optind != argc - 2) {
        return -1;
    }
    options->kernel = argv[optind];
    options->initrd = argv[optind + 1];
    return 0;
}

int main(int argc, char **argv)
{
    struct boot *boot = calloc(1, sizeof(*boot));
    if (!boot) {
        return 1;
    }
    int status = 2;
    if (parse(&boot->options, argc, argv) == 0) {
        status = compare_boot(boot);
    } else {
        fprintf(stderr, "usage: boot [--tier NAME] [--seed N] [--instructions N] [--interval N]\n"
                        "            [--memory MIB] [--append TEXT] [--console]\n"
                        "            [--spoil INSTRUCTION-BITS] KERNEL INITRD\n");
    }
    free(boot);
    return status;
}
