/*
 * How long regions take to compile, and how large their code is: of those kept in a folder of the
 * code cache, or in files that `jitd --replay` would take.
 *
 *   region_speed [--rounds N] [--each] FILE|FOLDER...
 *
 * Each is compiled N times (3) in the same compiler, its shortest time counts. Prints processor
 * time (median, 99th percentile, sum) and bytes of host code; --each also a line a region. `sum` is
 * a checksum over all code, which tells whether a change of the compiler changed what it makes.
 */
#include "jitd/region_compiler.h"
#include "libshared/jit/cache_files.h"
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct sample {
    char name[CACHE_NAME_MAX];
    struct region region;
    uint64_t ns;
    uint32_t insns, bytes;
};

struct set {
    struct sample *samples;
    size_t count, room;
};

/* --- reading -------------------------------------------------------------------------------- */

static bool add_file(struct set *set, const char *path)
{
    struct cache_entry entry;
    struct error err;
    size_t size;
    uint8_t *bytes = cache_read_file(AT_FDCWD, path, &size);
    if (set->count == set->room) {
        size_t room = set->room ? 2 * set->room : 64;
        struct sample *samples = realloc(set->samples, room * sizeof(*samples));
        if (!samples) {
            free(bytes);
            return false;
        }
        set->samples = samples;
        set->room = room;
    }
    struct sample *sample = &set->samples[set->count];
    *sample = (struct sample){0};
    bool sound = bytes != NULL;
    if (sound && !cache_entry_read(&entry, bytes, size)) {
        sample->region = entry.region;
    } else if (sound) {
        sound = region_unpack(&sample->region, bytes, size, &err);
    }
    free(bytes);
    const char *name = strrchr(path, '/');
    snprintf(sample->name, sizeof(sample->name), "%.*s", CACHE_NAME_MAX - 1,
             name ? name + 1 : path);
    set->count += sound;
    return true;
}

static bool add_path(struct set *set, const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
        return add_file(set, path);
    }
    DIR *folder = opendir(path);
    if (!folder) {
        perror(path);
        return false;
    }
    bool good = true;
    for (struct dirent *entry; good && (entry = readdir(folder));) {
        char inner[4096];
        if (entry->d_name[0] != '.' &&
            snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name) < (int)sizeof(inner)) {
            good = add_path(set, inner);
        }
    }
    closedir(folder);
    return good;
}

/* --- measuring ------------------------------------------------------------------------------ */

static uint64_t processor_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t checksum(uint64_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

static void measure(struct region_compiler *compiler, struct sample *sample, unsigned rounds,
                    uint64_t *sum)
{
    for (unsigned round = 0; round < rounds; round++) {
        struct compiled_region compiled = {0};
        struct error err;
        uint64_t start = processor_ns();
        bool done = region_compile(compiler, &sample->region, &compiled, &err);
        uint64_t taken = processor_ns() - start;
        if (!done) {
            fprintf(stderr, "%s: %s\n", sample->name, err.message);
            return;
        }
        if (round == 0 || taken < sample->ns) {
            sample->ns = taken;
        }
        if (round == 0) {
            sample->insns = compiled.insns;
            sample->bytes = (uint32_t)compiled.size;
            *sum = checksum(*sum, compiled.bytes, compiled.size);
        }
        free(compiled.bytes);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct sample *)a)->name, ((const struct sample *)b)->name);
}

static int by_time(const void *a, const void *b)
{
    uint64_t first = ((const struct sample *)a)->ns, second = ((const struct sample *)b)->ns;
    return first < second ? -1 : first > second;
}

static double quantile_ms(const struct set *set, unsigned per_cent)
{
    return (double)set->samples[(set->count - 1) * per_cent / 100].ns / 1e6;
}

static void report(struct set *set, bool each, uint64_t sum)
{
    uint64_t ns = 0, insns = 0, bytes = 0;
    qsort(set->samples, set->count, sizeof(*set->samples), by_time);
    for (size_t i = 0; i < set->count; i++) {
        const struct sample *sample = &set->samples[i];
        ns += sample->ns;
        insns += sample->insns;
        bytes += sample->bytes;
        if (each) {
            printf("%8.2f ms %5u instructions %4u blocks %7u bytes  %s\n", (double)sample->ns / 1e6,
                   sample->insns, sample->region.block_count, sample->bytes, sample->name);
        }
    }
    printf("%zu regions, %llu instructions, %llu bytes of code: median %.2f ms, 99 %% %.2f ms, all "
           "%.0f ms, %.0f us and %.0f bytes an instruction; sum %016llx\n",
           set->count, (unsigned long long)insns, (unsigned long long)bytes, quantile_ms(set, 50),
           quantile_ms(set, 99), (double)ns / 1e6, (double)ns / 1e3 / (double)insns,
           (double)bytes / (double)insns, (unsigned long long)sum);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", required_argument, NULL, 'r'},
                                            {"each", no_argument, NULL, 'e'},
                                            {NULL, 0, NULL, 0}};
    struct set set = {0};
    struct error err;
    unsigned rounds = 3;
    bool each = false;
    for (int option; (option = getopt_long(argc, argv, "r:e", options, NULL)) != -1;) {
        if (option == 'r') {
            rounds = (unsigned)strtoul(optarg, NULL, 10);
        } else if (option == 'e') {
            each = true;
        } else {
            return 2;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (!add_path(&set, argv[i])) {
            return 1;
        }
    }
    struct region_compiler *compiler = NULL;
    if (set.count == 0 || rounds == 0 || !region_compiler_setup(&err) ||
        !(compiler = region_compiler_create(&err))) {
        fprintf(stderr, "nothing to compile, or nobody who can\n");
        free(set.samples);
        return 1;
    }
    uint64_t sum = 0;
    qsort(set.samples, set.count, sizeof(*set.samples), by_name);
    for (size_t i = 0; i < set.count; i++) {
        measure(compiler, &set.samples[i], rounds, &sum);
    }
    report(&set, each, sum);
    region_compiler_destroy(compiler);
    free(set.samples);
    return 0;
}
