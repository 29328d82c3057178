/* Memory for compiled code: its bound, its fragmentation, its two views. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * 1024)

static struct code_memory *create(uint64_t limit)
{
    struct error err = {0};
    struct code_memory *memory = code_memory_create(limit, &err);
    ck_assert_msg(memory != NULL, "%s", err.message);
    return memory;
}

static struct code_span allocate(struct code_memory *memory, uint32_t bytes)
{
    struct code_span span;
    ck_assert(code_memory_allocate(memory, bytes, &span));
    ck_assert_uint_ge(span.size, bytes);
    ck_assert_uint_eq((uintptr_t)span.execute % CODE_MEMORY_ALIGN, 0);
    ck_assert_uint_eq((uintptr_t)span.write % CODE_MEMORY_ALIGN, 0);
    ck_assert(code_memory_contains(memory, span.execute));
    ck_assert(code_memory_contains(memory, span.execute + span.size - 1));
    ck_assert_ptr_eq(code_memory_write_view(memory, span.execute), span.write);
    return span;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* --- limits --------------------------------------------------------------------------------- */

START_TEST(test_impossible_limits_are_refused)
{
    const uint64_t limits[] = {0, 4096, 2048 * MIB, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct error err = {0};
        ck_assert_ptr_null(code_memory_create(limits[i], &err));
        ck_assert_int_eq(err.code, ERROR_CONFIG);
    }
    code_memory_destroy(NULL);
}
END_TEST

START_TEST(test_the_whole_memory_can_be_one_span)
{
    struct code_memory *memory = create(MIB);
    struct code_span span, more;
    ck_assert_uint_eq(code_memory_limit(memory), MIB);
    ck_assert(!code_memory_allocate(memory, 0, &span));
    ck_assert(!code_memory_allocate(memory, MIB + 1, &span));
    ck_assert(!code_memory_allocate(memory, UINT32_MAX, &span));
    ck_assert_uint_eq(code_memory_largest(memory), MIB);
    span = allocate(memory, MIB);
    ck_assert_uint_eq(code_memory_used(memory), MIB);
    ck_assert_uint_eq(code_memory_largest(memory), 0);
    ck_assert(!code_memory_allocate(memory, 1, &more));
    code_memory_free(memory, span.execute, span.size);
    ck_assert_uint_eq(code_memory_used(memory), 0);
    allocate(memory, MIB);
    code_memory_destroy(memory);
}
END_TEST

/* --- joining -------------------------------------------------------------------------------- */

START_TEST(test_neighbours_join_in_every_order)
{
    static const unsigned orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                          {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    struct code_memory *memory = create(64 * KIB);
    for (unsigned i = 0; i < 6; i++) {
        struct code_span spans[3] = {allocate(memory, 1000), allocate(memory, 40 * KIB),
                                     allocate(memory, 20 * KIB)};
        for (unsigned k = 0; k < 3; k++) {
            const struct code_span *span = &spans[orders[i][k]];
            code_memory_free(memory, span->execute, span->size);
        }
        ck_assert_uint_eq(code_memory_used(memory), 0);
        ck_assert_uint_eq(code_memory_largest(memory), 64 * KIB);
    }
    code_memory_destroy(memory);
}
END_TEST

START_TEST(test_spans_are_aligned_as_asked)
{
    struct code_memory *memory = create(64 * KIB);
    struct code_span spans[32], all;
    for (unsigned i = 0; i < 32; i += 2) {
        spans[i] = allocate(memory, 16 + i);
        uint32_t alignment = CODE_MEMORY_ALIGN << i / 2 % 5;
        ck_assert(code_memory_allocate_aligned(memory, 100, alignment, &spans[i + 1]));
        ck_assert_uint_eq((uintptr_t)spans[i + 1].execute % alignment, 0);
        memset(spans[i + 1].write, 0xff, spans[i + 1].size);
    }
    for (unsigned i = 0; i < 32; i++) {
        code_memory_free(memory, spans[i].execute, spans[i].size);
    }
    ck_assert_uint_eq(code_memory_refused(memory), 0);
    ck_assert_uint_eq(code_memory_used(memory), 0);
    all = allocate(memory, 64 * KIB); /* all gaps have been joined */
    ck_assert(!code_memory_allocate_aligned(memory, 16, 64, &spans[0]));
    code_memory_free(memory, all.execute, all.size);
    code_memory_destroy(memory);
}
END_TEST

START_TEST(test_trim_gives_the_rest_back)
{
    struct code_memory *memory = create(64 * KIB);
    struct code_span first = allocate(memory, 64 * KIB);
    code_memory_trim(memory, &first, 130);
    ck_assert_uint_eq(first.size, 144);
    ck_assert_uint_eq(code_memory_used(memory), 144);
    struct code_span second = allocate(memory, 32 * KIB);
    ck_assert_ptr_eq(second.execute, first.execute + 144);
    code_memory_trim(memory, &second, second.size); /* nothing to give back */
    ck_assert_uint_eq(second.size, 32 * KIB);
    code_memory_trim(memory, &first, 0);
    ck_assert_uint_eq(first.size, 0);
    ck_assert_uint_eq(code_memory_used(memory), 32 * KIB);
    code_memory_free(memory, second.execute, second.size - 3); /* rounded as it was */
    ck_assert_uint_eq(code_memory_used(memory), 0);
    ck_assert_uint_eq(code_memory_refused(memory), 0);
    code_memory_destroy(memory);
}
END_TEST

START_TEST(test_what_was_not_allocated_is_not_freed)
{
    struct code_memory *memory = create(64 * KIB);
    struct code_span before = allocate(memory, 64);
    struct code_span span = allocate(memory, 4096);
    struct code_span behind = allocate(memory, 64);
    uint64_t used = code_memory_used(memory);
    code_memory_free(memory, span.execute, 64);                 /* another size */
    code_memory_free(memory, span.execute, 0);                  /* none */
    code_memory_free(memory, span.execute + 64, 4096 - 64);     /* inside */
    code_memory_free(memory, span.execute + 1, 4096);           /* misaligned */
    code_memory_free(memory, span.write, 4096);                 /* the other view */
    code_memory_free(memory, span.execute + 64 * KIB, 64);      /* beyond */
    code_memory_free(memory, behind.execute + behind.size, 64); /* free already */
    ck_assert_uint_eq(code_memory_used(memory), used);
    ck_assert_uint_eq(code_memory_refused(memory), 7);
    code_memory_free(memory, span.execute, 4096);
    code_memory_free(memory, span.execute, 4096); /* twice */
    ck_assert_uint_eq(code_memory_refused(memory), 8);
    code_memory_free(memory, before.execute, 64); /* joins: the span's start is inside now */
    code_memory_free(memory, span.execute, 4096);
    ck_assert_uint_eq(code_memory_refused(memory), 9);
    code_memory_free(memory, behind.execute, 64);
    ck_assert_uint_eq(code_memory_used(memory), 0);
    ck_assert_uint_eq(code_memory_largest(memory), 64 * KIB);
    code_memory_destroy(memory);
}
END_TEST

/* --- storms --------------------------------------------------------------------------------- */

#define STORM_SPANS 4096u

/* Sizes as blocks have them: many of a few hundred bytes, few of several KiB. */
static uint32_t storm_size(uint64_t *random)
{
    uint64_t bits = next_random(random);
    uint32_t ceiling = bits & 15 ? 1024 : 16 * 1024;
    return 1 + (uint32_t)(bits >> 8) % ceiling;
}

static void fill(const struct code_span *span, uint8_t value)
{
    span->write[0] = value;
    span->write[span->size - 1] = value;
}

static void check_filled(const struct code_span *span, uint8_t value)
{
    ck_assert_uint_eq(span->execute[0], value);
    ck_assert_uint_eq(span->execute[span->size - 1], value);
}

/* Allocate until it is full, free at random; no two spans overlap (each holds its own number), the
 * bound holds, and at the end everything is one stretch again. */
START_TEST(test_storms_stay_within_the_bound)
{
    static struct code_span spans[STORM_SPANS];
    const uint64_t limit = MIB;
    struct code_memory *memory = create(limit);
    uint64_t random = 88172645463325252u + (uint64_t)_i;
    uint64_t live = 0, produced = 0, full = 0;
    memset(spans, 0, sizeof(spans));
    while (produced < 32 * limit) {
        unsigned slot = (unsigned)(next_random(&random) % STORM_SPANS);
        if (spans[slot].size) {
            check_filled(&spans[slot], (uint8_t)slot);
            live -= spans[slot].size;
            code_memory_free(memory, spans[slot].execute, spans[slot].size);
            spans[slot].size = 0;
        } else {
            uint32_t bytes = storm_size(&random);
            struct code_span span;
            if (!code_memory_allocate(memory, bytes + (uint32_t)(random % 3) * 512, &span)) {
                full++;
                /* Half is free at least when even a small one does not fit: no, then it is full. */
                ck_assert(bytes > 4096 || code_memory_used(memory) > limit / 2);
                continue;
            }
            code_memory_trim(memory, &span, bytes);
            fill(&span, (uint8_t)slot);
            spans[slot] = span;
            live += span.size;
            produced += span.size;
        }
        ck_assert_uint_eq(code_memory_used(memory), live);
        ck_assert_uint_le(live, limit);
    }
    for (unsigned i = 0; i < STORM_SPANS; i++) {
        if (spans[i].size) {
            check_filled(&spans[i], (uint8_t)i);
            code_memory_free(memory, spans[i].execute, spans[i].size);
        }
    }
    ck_assert_uint_gt(full, 0);
    ck_assert_uint_eq(code_memory_used(memory), 0);
    ck_assert_uint_eq(code_memory_largest(memory), limit);
    ck_assert_uint_eq(code_memory_refused(memory), 0);
    code_memory_destroy(memory);
}
END_TEST

/* How full it can get when all spans are small and live for random times: fragmentation. */
START_TEST(test_fragmentation_is_bounded)
{
    static struct code_span spans[8 * STORM_SPANS];
    struct code_memory *memory = create(2 * MIB);
    uint64_t random = 362436069;
    unsigned count = 0;
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t bytes = 64 + (uint32_t)(next_random(&random) % 960);
        while (!code_memory_allocate(memory, bytes, &spans[count])) {
            uint64_t used = code_memory_used(memory);
            least = used < least ? used : least;
            unsigned victim = (unsigned)(next_random(&random) % count);
            code_memory_free(memory, spans[victim].execute, spans[victim].size);
            spans[victim] = spans[--count];
        }
        count++;
    }
    ck_assert_uint_gt(least, 2 * MIB * 85 / 100);
    code_memory_destroy(memory);
}
END_TEST

struct storm {
    struct code_memory *memory;
    uint64_t random;
    bool failed;
};

static void *storm_thread(void *context)
{
    struct storm *storm = context;
    struct code_span spans[64] = {{0}};
    uint8_t tag = (uint8_t)storm->random;
    for (unsigned i = 0; i < 4000; i++) {
        struct code_span *span = &spans[next_random(&storm->random) % 64];
        if (span->size) {
            storm->failed |= span->execute[0] != tag || span->execute[span->size - 1] != tag;
            code_memory_free(storm->memory, span->execute, span->size);
            span->size = 0;
        } else if (code_memory_allocate(storm->memory, 1 + (uint32_t)(storm->random % 700), span)) {
            fill(span, tag);
        } else {
            span->size = 0;
        }
    }
    for (unsigned i = 0; i < 64; i++) {
        if (spans[i].size) {
            code_memory_free(storm->memory, spans[i].execute, spans[i].size);
        }
    }
    return NULL;
}

START_TEST(test_threads_share_it)
{
    struct code_memory *memory = create(64 * KIB);
    struct storm storms[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        storms[i] = (struct storm){.memory = memory, .random = 17 + i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, storm_thread, &storms[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        ck_assert(!storms[i].failed);
    }
    ck_assert_uint_eq(code_memory_used(memory), 0);
    ck_assert_uint_eq(code_memory_largest(memory), 64 * KIB);
    code_memory_destroy(memory);
}
END_TEST

/* --- pages ---------------------------------------------------------------------------------- */

static uint64_t resident_bytes(const uint8_t *start, uint64_t size)
{
    static unsigned char pages[64 * 1024];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), count = 0;
    ck_assert_uint_le(size / page, sizeof(pages));
    ck_assert_int_eq(mincore((void *)(uintptr_t)start, size, pages), 0);
    for (uint64_t i = 0; i < size / page; i++) {
        count += pages[i] & 1;
    }
    return count * page;
}

START_TEST(test_pages_are_taken_late_and_given_back)
{
    const uint64_t limit = 16 * MIB;
    struct code_memory *memory = create(limit);
    struct code_span all = allocate(memory, (uint32_t)limit);
    ck_assert_uint_eq(resident_bytes(all.execute, limit), 0);
    memset(all.write, 0x5a, limit);
    ck_assert_uint_eq(resident_bytes(all.execute, limit), limit);
    code_memory_free(memory, all.execute, all.size);
    ck_assert_uint_le(resident_bytes(all.execute, limit), limit / 8);

    /* In small pieces, with one that stays in the middle. */
    static struct code_span spans[16 * 1024];
    for (unsigned i = 0; i < 16 * 1024; i++) {
        spans[i] = allocate(memory, 1024);
        memset(spans[i].write, 0x5b, 1024);
    }
    ck_assert_uint_eq(resident_bytes(all.execute, limit), limit);
    for (unsigned i = 0; i < 16 * 1024; i++) {
        if (i != 8000) {
            code_memory_free(memory, spans[i].execute, spans[i].size);
        }
    }
    ck_assert_uint_le(resident_bytes(all.execute, limit), limit / 8);
    ck_assert_uint_eq(spans[8000].execute[1023], 0x5b);
    code_memory_destroy(memory);
}
END_TEST

START_TEST(test_code_that_comes_and_goes_keeps_its_page)
{
    struct code_memory *memory = create(16 * MIB);
    struct code_span span = allocate(memory, 512);
    span.write[0] = 0x77;
    code_memory_free(memory, span.execute, span.size);
    ck_assert_uint_ge(resident_bytes(span.execute, 4096), 4096);
    code_memory_destroy(memory);
}
END_TEST

/* --- the two views -------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* lea eax, [rdi + rsi]; ret */
static const uint8_t ADD[] = {0x8d, 0x04, 0x37, 0xc3};
/* lea eax, [rdi + 1]; ret */
static const uint8_t INCREMENT[] = {0x8d, 0x47, 0x01, 0xc3};
#elif defined(__aarch64__)
static const uint8_t ADD[] = {0x00, 0x00, 0x01, 0x0b, 0xc0, 0x03, 0x5f, 0xd6};
static const uint8_t INCREMENT[] = {0x00, 0x04, 0x00, 0x11, 0xc0, 0x03, 0x5f, 0xd6};
#endif

typedef int function(int first, int second);

START_TEST(test_what_was_written_runs)
{
    struct code_memory *memory = create(MIB);
    struct code_span span = allocate(memory, 64);
    ck_assert_ptr_ne(span.write, span.execute);
    memcpy(span.write, ADD, sizeof(ADD));
    code_memory_publish(&span, sizeof(ADD));
    ck_assert_int_eq(((function *)(void *)span.execute)(40, 2), 42);
    memcpy(span.write, INCREMENT, sizeof(INCREMENT));
    code_memory_publish(&span, sizeof(INCREMENT));
    ck_assert_int_eq(((function *)(void *)span.execute)(40, 2), 41);
    code_memory_destroy(memory);
}
END_TEST

/* Permissions of the mapping at an address, as the host has them; fills the whole mapping's ends.
 */
static void permissions_of(const void *address, char text[5])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    ck_assert_ptr_nonnull(maps);
    text[0] = '\0';
    while (fgets(line, sizeof(line), maps)) {
        uintptr_t start, end;
        char permissions[5];
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, permissions) == 3 &&
            start <= (uintptr_t)address && (uintptr_t)address < end) {
            memcpy(text, permissions, 5);
        }
    }
    fclose(maps);
}

START_TEST(test_no_address_is_writable_and_executable)
{
    struct code_memory *memory = create(MIB);
    struct code_span span = allocate(memory, MIB);
    char permissions[5];
    const uint64_t places[] = {0, MIB / 2, MIB - 1};
    for (unsigned i = 0; i < 3; i++) {
        permissions_of(span.write + places[i], permissions);
        ck_assert_str_eq(permissions, "rw-s");
        permissions_of(span.execute + places[i], permissions);
        ck_assert_str_eq(permissions, "r-xs");
    }
    code_memory_destroy(memory);
}
END_TEST

/* Nobody can map it a third time. */
START_TEST(test_no_descriptor_stays)
{
    int before = dup(0);
    ck_assert_int_ge(before, 0);
    close(before);
    struct code_memory *memory = create(MIB);
    int after = dup(0);
    ck_assert_int_eq(after, before);
    close(after);
    code_memory_destroy(memory);
}
END_TEST

/* Linux 6.3: what services run with that may never turn data into code. */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

START_TEST(test_hardened_hosts_allow_it)
{
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0) {
        return; /* this host does not know it */
    }
    struct code_memory *memory = create(MIB);
    struct code_span span = allocate(memory, 64);
    memcpy(span.write, ADD, sizeof(ADD));
    code_memory_publish(&span, sizeof(ADD));
    ck_assert_int_eq(((function *)(void *)span.execute)(40, 2), 42);
    code_memory_destroy(memory);
}
END_TEST

START_TEST(test_forbidding_hosts_are_named)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    struct error err = {0};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        return; /* this host does not know it */
    }
    ck_assert_ptr_null(code_memory_create(MIB, &err));
    ck_assert_int_eq(err.code, ERROR_PERMISSION);
    ck_assert_int_eq(err.cause, EACCES);
    ck_assert_ptr_nonnull(strstr(err.hint, "--engine interp"));
}
END_TEST

START_TEST(test_writing_the_execute_view_kills)
{
    signal(SIGSEGV, SIG_DFL); /* sanitizers catch it */
    struct code_memory *memory = create(MIB);
    struct code_span span = allocate(memory, 64);
    *(volatile uint8_t *)span.execute = 0;
}
END_TEST

START_TEST(test_running_the_write_view_kills)
{
    signal(SIGSEGV, SIG_DFL);
    struct code_memory *memory = create(MIB);
    struct code_span span = allocate(memory, 64);
    memcpy(span.write, ADD, sizeof(ADD));
    code_memory_publish(&span, sizeof(ADD));
    ((function *)(void *)span.write)(1, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("code_memory");
    TCase *space = tcase_create("space");
    tcase_set_timeout(space, 120);
    tcase_add_test(space, test_impossible_limits_are_refused);
    tcase_add_test(space, test_the_whole_memory_can_be_one_span);
    tcase_add_test(space, test_neighbours_join_in_every_order);
    tcase_add_test(space, test_trim_gives_the_rest_back);
    tcase_add_test(space, test_spans_are_aligned_as_asked);
    tcase_add_test(space, test_what_was_not_allocated_is_not_freed);
    tcase_add_loop_test(space, test_storms_stay_within_the_bound, 0, 3);
    tcase_add_test(space, test_fragmentation_is_bounded);
    tcase_add_test(space, test_threads_share_it);
    tcase_add_test(space, test_pages_are_taken_late_and_given_back);
    tcase_add_test(space, test_code_that_comes_and_goes_keeps_its_page);
    suite_add_tcase(suite, space);

    TCase *views = tcase_create("views");
    tcase_add_test(views, test_what_was_written_runs);
    tcase_add_test(views, test_no_address_is_writable_and_executable);
    tcase_add_test(views, test_no_descriptor_stays);
    tcase_add_test(views, test_hardened_hosts_allow_it);
    tcase_add_test(views, test_forbidding_hosts_are_named);
    tcase_add_test_raise_signal(views, test_writing_the_execute_view_kills, SIGSEGV);
    tcase_add_test_raise_signal(views, test_running_the_write_view_kills, SIGSEGV);
    suite_add_tcase(suite, views);

    return suite_run(suite);
}
