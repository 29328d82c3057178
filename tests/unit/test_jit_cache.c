/* The code cache: whatever is not exactly what was asked for is a miss, and nothing harms it. */
#include "libshared/jit/cache.h"
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDENTITY "lowering 1; LLVM 19.1.7; znver4 +avx2"
#define BOUND    (UINT64_C(64) << 20)

static char directory[64];
static struct cache *cache;
static struct error err;

static struct cache *open_cache(const char *identity, uint64_t bytes_max)
{
    struct cache *opened = cache_open(directory, bytes_max, identity, &err);
    ck_assert_msg(opened != NULL, "%s", err.message);
    return opened;
}

static void setup(void)
{
    strcpy(directory, "/tmp/pv-cache.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    cache = open_cache(IDENTITY, BOUND);
}

static void teardown(void)
{
    char command[128];

    cache_close(cache);
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

static bool store(struct cache *to, const char *identity, uint32_t seed, uint8_t fill)
{
    struct cache_subject subject;
    struct region region;
    uint8_t blob[JIT_SAMPLE_BLOB];

    jit_sample_region(&region, seed);
    jit_sample_blob(&region, fill, blob);
    cache_subject_of(&region, identity, &subject);
    return cache_store(to, &subject, blob, sizeof(blob), &err);
}

/* Whether the region is found, with the blob that `store` made of it. */
static bool find_region(struct cache *in, const char *identity, const struct region *region,
                        uint8_t fill)
{
    struct cache_subject subject;
    uint8_t blob[JIT_SAMPLE_BLOB];
    size_t size = 0;

    cache_subject_of(region, identity, &subject);
    uint8_t *found = cache_find(in, &subject, &size);
    if (!found) {
        return false;
    }
    jit_sample_blob(region, fill, blob);
    ck_assert_uint_eq(size, sizeof(blob));
    ck_assert_mem_eq(found, blob, size);
    free(found);
    return true;
}

static bool find_in(struct cache *in, uint32_t seed, uint8_t fill)
{
    struct region region;

    jit_sample_region(&region, seed);
    return find_region(in, IDENTITY, &region, fill);
}

static uint64_t fetched; /* its shape */

/* `tried`: NULL for none. */
static bool fetch(uint32_t seed, const struct cache_shapes *tried, uint8_t *fill)
{
    static const struct cache_shapes none = {NULL, 0};
    struct region region, wanted;
    size_t size;

    jit_sample_region(&wanted, seed);
    uint8_t *blob = cache_fetch(cache, cache_head_fingerprint(&wanted), tried ? tried : &none,
                                &region, &fetched, &size);
    if (!blob) {
        return false;
    }
    ck_assert_ptr_null(region_check(&region));
    ck_assert_mem_eq(region.bytes, wanted.bytes, 16);
    *fill = blob[size - 1];
    free(blob);
    return true;
}

/* The path of the only entry. */
static bool note_path(const struct cache_file *file, void *context)
{
    if (file->is_entry) {
        snprintf(context, 256, "%s/%s/%s", directory, file->folder, file->name);
    }
    return true;
}

static void entry_path(char path[256])
{
    int fd = cache_open_directory(directory, false, &err);

    path[0] = '\0';
    cache_walk(fd, NULL, note_path, path);
    close(fd);
    ck_assert_uint_gt(strlen(path), 0);
}

static size_t read_path(const char *path, uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size = fread(bytes, 1, size, file);
    fclose(file);
    return size;
}

static void write_path(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

START_TEST(what_is_stored_is_found_again)
{
    uint8_t fill = 0;
    uint64_t entries, bytes;

    ck_assert(!find_in(cache, 1, 7));
    ck_assert(!fetch(1, NULL, &fill));
    ck_assert(store(cache, IDENTITY, 1, 7));
    ck_assert(find_in(cache, 1, 7));
    ck_assert(!find_in(cache, 2, 7));
    ck_assert(fetch(1, NULL, &fill));
    ck_assert_uint_eq(fill, 7);
    ck_assert(!fetch(1, &(struct cache_shapes){&fetched, 1}, &fill));
    cache_close(cache);
    cache = open_cache(IDENTITY, BOUND);
    ck_assert(find_in(cache, 1, 7));
    ck_assert(fetch(1, NULL, &fill));
    ck_assert(store(cache, IDENTITY, 1, 8)); /* replaced */
    ck_assert(find_in(cache, 1, 8));
    cache_usage(cache, &entries, &bytes);
    ck_assert_uint_eq(entries, 1);
    ck_assert_uint_ge(bytes, 4096);
}
END_TEST

START_TEST(heat_is_not_part_of_the_key)
{
    struct region region;

    ck_assert(store(cache, IDENTITY, 1, 7));
    jit_sample_region(&region, 1);
    region.blocks[1].heat = 1;
    region.edges[0].heat = 1;
    ck_assert(find_region(cache, IDENTITY, &region, 7));
}
END_TEST

#define MISSES(change)                                                                             \
    do {                                                                                           \
        jit_sample_region(&region, 1);                                                             \
        change;                                                                                    \
        ck_assert_msg(!find_region(cache, IDENTITY, &region, 7), "found after %s", #change);       \
    } while (0)

START_TEST(every_field_of_the_key_counts)
{
    struct region region;
    char identity[] = IDENTITY;

    ck_assert(store(cache, IDENTITY, 1, 7));
    MISSES(strcpy(region.isa, "riscv32"));
    MISSES(region.mode ^= 1);
    MISSES(region.mode ^= 1u << 31);
    MISSES(region.page_delta[1]++);
    MISSES((region.page_count++, region.page_delta[2] = 5));
    MISSES((region.block_count--, region.edge_count = 1));
    MISSES(region.edge_count--);
    for (unsigned i = 0; i < 3; i++) {
        MISSES(region.blocks[i].page ^= 1);
        MISSES(region.blocks[i].start ^= 4);
        MISSES(region.blocks[i].length--);
        MISSES(region.blocks[i].insns--);
        MISSES(region.blocks[i].bytes ^= 1);
        MISSES(region.edges[i].from ^= 1);
        MISSES(region.edges[i].to ^= 1);
    }
    for (unsigned i = 0; i < 40 * 8; i++) {
        MISSES(region.bytes[i / 8] ^= (uint8_t)(1u << i % 8));
    }
    /* Everything that the identity says: compiler, host, options. */
    jit_sample_region(&region, 1);
    for (size_t i = 0; identity[i]; i++) {
        identity[i] ^= 1;
        struct cache *other = open_cache(identity, BOUND);
        ck_assert(!find_region(other, identity, &region, 7));
        cache_close(other);
        identity[i] ^= 1;
    }
    ck_assert(find_in(cache, 1, 7));
}
END_TEST

START_TEST(every_byte_of_an_entry_is_guarded)
{
    static uint8_t bytes[CACHE_ENTRY_MAX];
    char path[256];

    ck_assert(store(cache, IDENTITY, 1, 7));
    entry_path(path);
    size_t size = read_path(path, bytes, sizeof(bytes));
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= (uint8_t)(1u << at % 8);
        write_path(path, bytes, size);
        ck_assert_msg(!find_in(cache, 1, 7), "byte %zu", at);
        ck_assert_int_ne(access(path, F_OK), 0); /* and it is gone */
        bytes[at] ^= (uint8_t)(1u << at % 8);
    }
    for (size_t length = 0; length < size; length++) {
        write_path(path, bytes, length);
        ck_assert_msg(!find_in(cache, 1, 7), "cut to %zu", length);
    }
    memset(bytes + size, 0, 64);
    write_path(path, bytes, size + 1);
    ck_assert(!find_in(cache, 1, 7));
    write_path(path, bytes, sizeof(bytes));
    ck_assert_int_eq(truncate(path, 1 << 30), 0);
    ck_assert(!find_in(cache, 1, 7));
    ck_assert(store(cache, IDENTITY, 1, 9));
    ck_assert(find_in(cache, 1, 9));
}
END_TEST

START_TEST(an_entry_counts_only_under_its_own_name)
{
    static uint8_t bytes[CACHE_ENTRY_MAX];
    char first[256], second[256], folder[17];
    struct cache *other = open_cache("another host", BOUND);

    ck_assert(store(cache, IDENTITY, 1, 7));
    entry_path(first);
    size_t size = read_path(first, bytes, sizeof(bytes));
    ck_assert_int_eq(unlink(first), 0);
    ck_assert(store(cache, IDENTITY, 2, 7));
    entry_path(second);
    write_path(second, bytes, size);
    ck_assert(!find_in(cache, 2, 7));
    /* In the folder of another identity. */
    ck_assert(store(other, "another host", 1, 3));
    cache_folder_name("another host", 12, folder);
    entry_path(second);
    ck_assert_ptr_nonnull(strstr(second, folder));
    write_path(second, bytes, size);
    struct region region;
    jit_sample_region(&region, 1);
    ck_assert(!find_region(other, "another host", &region, 7));
    cache_close(other);
}
END_TEST

START_TEST(what_is_no_file_is_a_miss)
{
    char path[256];

    ck_assert(store(cache, IDENTITY, 1, 7));
    entry_path(path);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("/etc/passwd", path), 0);
    ck_assert(!find_in(cache, 1, 7));
    unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert(!find_in(cache, 1, 7)); /* and does not hang */
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert(!find_in(cache, 1, 7));
    ck_assert(!store(cache, IDENTITY, 1, 7));
    ck_assert_int_eq(err.code, ERROR_IO);
    rmdir(path);
    ck_assert(store(cache, IDENTITY, 1, 7));
}
END_TEST

START_TEST(several_regions_may_begin_alike)
{
    struct cache_subject subject;
    struct region region;
    uint8_t blob[JIT_SAMPLE_BLOB], fill;

    for (uint8_t i = 0; i < 3; i++) { /* the bytes of the second block differ */
        jit_sample_region(&region, 1);
        region.bytes[20] = i;
        jit_sample_blob(&region, (uint8_t)(10 + i), blob);
        cache_subject_of(&region, IDENTITY, &subject);
        ck_assert(cache_store(cache, &subject, blob, sizeof(blob), &err));
        usleep(10000);
    }
    uint64_t shapes[3];
    for (unsigned i = 0; i < 3; i++) { /* the one used last of those not tried */
        ck_assert(fetch(1, &(struct cache_shapes){shapes, i}, &fill));
        ck_assert_uint_eq(fill, 12 - i);
        shapes[i] = fetched;
        usleep(10000);
    }
    ck_assert(!fetch(1, &(struct cache_shapes){shapes, 3}, &fill));
    ck_assert(fetch(1, NULL, &fill)); /* a fetch is a use */
    ck_assert_uint_eq(fill, 10);
}
END_TEST

static unsigned taken, taken_heat;

static void note_taken(const struct region *region, void *context)
{
    (void)context;
    ck_assert_ptr_null(region_check(region));
    taken++;
    taken_heat += region->blocks[0].heat;
}

START_TEST(wanted_regions_are_kept_until_taken)
{
    uint8_t packed[REGION_PACKED_MAX];
    struct cache_subject subject;
    struct region region;

    taken = taken_heat = 0;
    cache_take_wanted(cache, 10, note_taken, NULL); /* there is not even a folder */
    ck_assert_uint_eq(taken, 0);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 1; i <= 5; i++) {
            jit_sample_region(&region, i);
            cache_subject_of(&region, IDENTITY, &subject);
            size_t size = region_pack(&region, true, packed, sizeof(packed));
            packed[size - 1] ^= i == 5; /* one is damaged, perhaps beyond use */
            cache_store_wanted(cache, &subject.key, packed, i == 4 ? 0 : size);
            if (i == 3) {
                cache_forget_wanted(cache, &subject.key);
            }
        }
        taken = taken_heat = 0;
        cache_take_wanted(cache, round ? 1 : 10, note_taken, NULL);
        ck_assert_uint_ge(taken, round ? 1 : 2);
        ck_assert_uint_le(taken, round ? 1 : 3);
        ck_assert_uint_eq(taken_heat, taken * region.blocks[0].heat);
        taken = 0;
        cache_take_wanted(cache, 10, note_taken,
                          NULL); /* each once, and what was too much is gone */
        ck_assert_uint_eq(taken, 0);
    }
}
END_TEST

START_TEST(the_catalog_begins_with_what_was_used_last)
{
    uint64_t *list;
    struct region region;
    uint8_t fill;

    for (uint32_t i = 1; i <= 5; i++) {
        ck_assert(store(cache, IDENTITY, i, 1));
        usleep(10000);
    }
    ck_assert(fetch(2, NULL, &fill));
    for (int life = 0; life < 2; life++) {
        static const uint32_t order[] = {2, 5, 4, 3, 1};
        ck_assert_uint_eq(cache_catalog(cache, 100, &list), 5);
        for (unsigned i = 0; i < 5; i++) {
            jit_sample_region(&region, order[i]);
            ck_assert_uint_eq(list[i], cache_head_fingerprint(&region));
        }
        free(list);
        cache_close(cache);
        cache = open_cache(IDENTITY, BOUND);
    }
    ck_assert_uint_eq(cache_catalog(cache, 2, &list), 2);
    free(list);
    struct cache *other = open_cache("another host", BOUND);
    ck_assert_uint_eq(cache_catalog(other, 100, &list), 0);
    free(list);
    cache_close(other);
}
END_TEST

START_TEST(others_entries_are_found)
{
    struct cache *other = open_cache(IDENTITY, BOUND);
    uint8_t fill;

    ck_assert(store(other, IDENTITY, 4, 2));
    ck_assert(find_in(cache, 4, 2));
    ck_assert(store(other, IDENTITY, 5, 3));
    cache_refresh(cache);
    ck_assert(fetch(5, NULL, &fill));
    ck_assert(store(other, IDENTITY, 6, 4)); /* and without being told, after a while */
    while (!fetch(6, NULL, &fill)) {
        usleep(10000);
    }
    ck_assert_uint_eq(fill, 4);
    cache_close(other);
}
END_TEST

static uint64_t count_bytes(uint64_t *entries)
{
    struct cache_totals totals;
    int fd = cache_open_directory(directory, false, &err);

    cache_evict(fd, UINT64_MAX, &totals);
    close(fd);
    *entries = totals.entries;
    return totals.bytes;
}

START_TEST(the_bound_holds_and_the_least_used_goes)
{
    uint64_t entries, bound = 64 * 4096;
    uint8_t fill;

    cache_close(cache);
    cache = open_cache(IDENTITY, bound);
    for (uint32_t i = 1; i <= 300; i++) {
        ck_assert(store(cache, IDENTITY, i, 1));
        ck_assert(fetch(1, NULL, &fill)); /* in use all the time */
        ck_assert_uint_le(count_bytes(&entries), bound);
    }
    ck_assert_uint_gt(entries, 30);
    ck_assert(find_in(cache, 1, 1));
    ck_assert(find_in(cache, 300, 1));
    ck_assert(!find_in(cache, 2, 1));
    /* What other identities left goes like the rest. */
    struct cache *other = open_cache("a newer compiler", bound);
    for (uint32_t i = 1; i <= 300; i++) {
        ck_assert(store(other, "a newer compiler", i, 1));
    }
    ck_assert(!find_in(cache, 300, 1));
    ck_assert_uint_le(count_bytes(&entries), bound);
    cache_close(other);
}
END_TEST

#define WRITERS 20u

START_TEST(the_bound_holds_for_many_writers)
{
    struct cache *writers[WRITERS];
    uint64_t entries, bound = 64 * 4096;

    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = open_cache(IDENTITY, bound);
    }
    for (uint32_t i = 0; i < 40 * WRITERS; i++) {
        ck_assert(store(writers[i % WRITERS], IDENTITY, i + 1, 1));
        ck_assert_uint_le(count_bytes(&entries), bound + WRITERS * bound / 64);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        cache_close(writers[i]);
    }
}
END_TEST

/* In a process of its own, because the limit would hold for Check's files, too. */
static int find_without_descriptors(void)
{
    const struct rlimit none = {3, 64}, enough = {64, 64};

    if (setrlimit(RLIMIT_NOFILE, &none) < 0 || find_in(cache, 1, 7)) {
        return 1;
    }
    return setrlimit(RLIMIT_NOFILE, &enough) < 0 || !find_in(cache, 1, 7) ? 2 : 0;
}

START_TEST(what_cannot_be_read_now_is_kept)
{
    int status;

    ck_assert(store(cache, IDENTITY, 1, 7));
    pid_t child = fork();
    if (child == 0) {
        _exit(find_without_descriptors());
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* In a process of its own, because the limit would hold for Check's files, too. */
static int store_on_a_full_disk(void)
{
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t most = 0; most < 200; most += 7) {
        const struct rlimit limit = {most, RLIM_INFINITY};
        if (setrlimit(RLIMIT_FSIZE, &limit) < 0 || store(cache, IDENTITY, 1, 7) ||
            err.code != ERROR_IO || find_in(cache, 1, 7)) {
            return 1;
        }
    }
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &none);
    return store(cache, IDENTITY, 1, 7) && find_in(cache, 1, 7) ? 0 : 2;
}

START_TEST(a_full_disk_is_only_a_miss)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(store_on_a_full_disk());
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(find_in(cache, 1, 7));
    char command[160];
    snprintf(command, sizeof(command), "test -z \"$(find %s -name '.[0-9]*')\"", directory);
    ck_assert_int_eq(system(command), 0); /* what was begun is not left */
}
END_TEST

/* A process that stores until it is killed. */
static pid_t start_writer(uint32_t first)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct cache *mine = cache_open(directory, 200 * 4096, IDENTITY, NULL);
        if (!mine) {
            _exit(1);
        }
        for (uint32_t i = first;; i += 3) {
            store(mine, IDENTITY, 1 + i % 500, (uint8_t)(1 + i % 500));
        }
    }
    ck_assert_int_gt(pid, 0);
    return pid;
}

START_TEST(writers_may_be_killed_at_any_time)
{
    unsigned found = 0;
    uint64_t entries;
    uint32_t random = 12345;

    cache_close(cache);
    cache = open_cache(IDENTITY, 200 * 4096);
    for (int round = 0; round < 40; round++) {
        pid_t writers[2] = {start_writer((uint32_t)round), start_writer((uint32_t)round * 7)};
        random = random * 1664525 + 1013904223;
        usleep(2000 + random % 15000);
        for (uint32_t i = 1; i <= 500; i += 5) { /* what is there is whole */
            found += find_in(cache, i, (uint8_t)i);
        }
        for (int i = 0; i < 2; i++) {
            kill(writers[i], SIGKILL);
            ck_assert_int_eq(waitpid(writers[i], NULL, 0), writers[i]);
        }
    }
    ck_assert_uint_gt(found, 0);
    int fd = cache_open_directory(directory, false, &err);
    struct cache_totals totals;
    cache_verify(fd, &totals, NULL, NULL);
    close(fd);
    ck_assert_uint_eq(totals.removed, 0);
    ck_assert_uint_gt(totals.entries, 0);
    /* Two writers may go beyond the bound by what each may add before it counts. */
    ck_assert_uint_le(count_bytes(&entries), 200 * 4096 + 2 * 200 * 4096 / 8);
    ck_assert(store(cache, IDENTITY, 1, 1));
}
END_TEST

START_TEST(clear_and_verify)
{
    struct cache_totals totals;
    char path[256];
    uint8_t fill;
    int fd = cache_open_directory(directory, false, &err);

    for (uint32_t i = 1; i <= 10; i++) {
        ck_assert(store(cache, IDENTITY, i, 1));
    }
    entry_path(path);
    ck_assert_int_eq(truncate(path, 100), 0);
    cache_verify(fd, &totals, NULL, NULL);
    ck_assert_uint_eq(totals.entries, 9);
    ck_assert_uint_eq(totals.removed, 1);
    cache_verify(fd, &totals, NULL, NULL);
    ck_assert_uint_eq(totals.removed, 0);
    cache_clear(fd, &totals);
    ck_assert_uint_eq(totals.removed, 9);
    for (uint32_t i = 1; i <= 10; i++) {
        ck_assert(!fetch(i, NULL, &fill));
    }
    ck_assert(store(cache, IDENTITY, 1, 1)); /* who uses it meanwhile goes on */
    ck_assert(find_in(cache, 1, 1));
    close(fd);
}
END_TEST

START_TEST(poisoned_regions_are_kept)
{
    struct cache_subject subject;
    struct cache_key keys[4];
    struct region region;
    struct cache_totals totals;
    char path[256];

    jit_sample_region(&region, 3);
    cache_subject_of(&region, IDENTITY, &subject);
    ck_assert_uint_eq(cache_list_poisoned(cache, keys, 4), 0);
    ck_assert(cache_store_poisoned(cache, &subject.key, subject.packed, subject.packed_size, path,
                                   sizeof(path)));
    ck_assert_int_eq(access(path, R_OK), 0);
    ck_assert_uint_eq(cache_list_poisoned(cache, keys, 4), 1);
    ck_assert_mem_eq(&keys[0], &subject.key, sizeof(keys[0]));
    cache_store_wanted(cache, &subject.key, subject.packed, subject.packed_size);
    int fd = cache_open_directory(directory, false, &err);
    cache_clear(fd, &totals);
    close(fd);
    ck_assert_uint_eq(cache_list_poisoned(cache, keys, 4), 0);
    taken = 0;
    cache_take_wanted(cache, 10, note_taken, NULL);
    ck_assert_uint_eq(taken, 0);
}
END_TEST

START_TEST(poisoned_regions_are_bounded)
{
    struct cache_key keys[CACHE_POISONED_MAX + 10];
    struct cache_subject subject;
    struct region region;
    char path[256], first[256];

    for (unsigned i = 0; i < CACHE_POISONED_MAX + 5; i++) {
        jit_sample_region(&region, i);
        cache_subject_of(&region, IDENTITY, &subject);
        ck_assert(cache_store_poisoned(cache, &subject.key, subject.packed, subject.packed_size,
                                       i ? path : first, sizeof(path)));
        const struct timespec times[2] = {{(time_t)i + 1, 0}, {(time_t)i + 1, 0}};
        ck_assert_int_eq(utimensat(AT_FDCWD, i ? path : first, times, 0), 0);
    }
    ck_assert_uint_eq(cache_list_poisoned(cache, keys, CACHE_POISONED_MAX + 10),
                      CACHE_POISONED_MAX);
    ck_assert_int_eq(access(path, R_OK), 0);
    ck_assert_int_ne(access(first, R_OK), 0);
}
END_TEST

START_TEST(directories_of_others_are_refused)
{
    char path[CACHE_DIRECTORY_MAX];

    ck_assert_int_eq(chmod(directory, 0777), 0);
    ck_assert_ptr_null(cache_open(directory, BOUND, IDENTITY, &err));
    ck_assert_int_eq(err.code, ERROR_PERMISSION);
    ck_assert_uint_gt(strlen(err.hint), 0);
    ck_assert_int_eq(chmod(directory, 0700), 0);
    ck_assert_int_eq(cache_open_directory("/nowhere/at/all", false, &err), -1);
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);

    setenv("POLYVISOR_CACHE_DIR", "/a/b", 1);
    setenv("XDG_CACHE_HOME", "/c", 1);
    ck_assert(cache_default_directory(path, &err));
    ck_assert_str_eq(path, "/a/b");
    unsetenv("POLYVISOR_CACHE_DIR");
    ck_assert(cache_default_directory(path, &err));
    ck_assert_str_eq(path, "/c/polyvisor");
    setenv("XDG_CACHE_HOME", "relative", 1);
    ck_assert(!cache_default_directory(path, &err));
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    unsetenv("XDG_CACHE_HOME");
    ck_assert(cache_default_directory(path, &err));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jit cache");
    TCase *tests = tcase_create("cache");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, what_is_stored_is_found_again);
    tcase_add_test(tests, heat_is_not_part_of_the_key);
    tcase_add_test(tests, every_field_of_the_key_counts);
    tcase_add_test(tests, every_byte_of_an_entry_is_guarded);
    tcase_add_test(tests, an_entry_counts_only_under_its_own_name);
    tcase_add_test(tests, what_is_no_file_is_a_miss);
    tcase_add_test(tests, several_regions_may_begin_alike);
    tcase_add_test(tests, wanted_regions_are_kept_until_taken);
    tcase_add_test(tests, the_catalog_begins_with_what_was_used_last);
    tcase_add_test(tests, others_entries_are_found);
    tcase_add_test(tests, the_bound_holds_and_the_least_used_goes);
    tcase_add_test(tests, the_bound_holds_for_many_writers);
    tcase_add_test(tests, what_cannot_be_read_now_is_kept);
    tcase_add_test(tests, a_full_disk_is_only_a_miss);
    tcase_add_test(tests, writers_may_be_killed_at_any_time);
    tcase_add_test(tests, clear_and_verify);
    tcase_add_test(tests, poisoned_regions_are_kept);
    tcase_add_test(tests, poisoned_regions_are_bounded);
    tcase_add_test(tests, directories_of_others_are_refused);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
