/* What people see of the engine: durations, the map for perf, the code at an address. */
#include "libshared/isa/riscv64/riscv64.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/code_listing.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "vmmd/vcpu/engine/inspect.h"
#include "vmmd/vcpu/engine/stats.h"
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- durations ------------------------------------------------------------------------------ */

static void expect_near(uint64_t value, uint64_t wanted)
{
    ck_assert_msg(value * 100 >= wanted * 87 && value * 100 <= wanted * 113,
                  "%" PRIu64 " is not near %" PRIu64, value, wanted);
}

START_TEST(durations_have_quantiles)
{
    struct duration_histogram one = {0}, other = {0};
    ck_assert_uint_eq(duration_quantile(&one, 500), 0);
    for (unsigned i = 0; i < 98; i++) {
        duration_count(&one, 3000 + i);
    }
    duration_count(&other, 1000000);
    duration_count(&other, UINT64_MAX);
    expect_near(duration_quantile(&one, 500), 3050);
    expect_near(duration_quantile(&one, 990), 3050);
    duration_add(&one, &other);
    expect_near(duration_quantile(&one, 500), 3050);
    expect_near(duration_quantile(&one, 990), 1000000);
    ck_assert_uint_gt(duration_quantile(&one, 1000), UINT64_C(10) << 30);
}
END_TEST

START_TEST(every_duration_falls_near_itself)
{
    for (uint64_t ns = 64; ns < UINT64_C(16) << 30; ns += ns / 7 + 1) {
        struct duration_histogram histogram = {0};
        duration_count(&histogram, ns);
        expect_near(duration_quantile(&histogram, 500), ns);
    }
    struct duration_histogram shortest = {0};
    duration_count(&shortest, 0);
    ck_assert_uint_le(duration_quantile(&shortest, 500), 80);
}
END_TEST

/* --- the map for perf ----------------------------------------------------------------------- */

static size_t read_all(int fd, char *text, size_t size)
{
    ssize_t got = pread(fd, text, size - 1, 0);
    ck_assert_int_ge(got, 0);
    text[got] = '\0';
    return (size_t)got;
}

START_TEST(perf_gets_a_line_a_block)
{
    char text[256];
    int fd = memfd_create("map", MFD_CLOEXEC);
    struct perf_map *map = perf_map_create(dup(fd));
    ck_assert_ptr_nonnull(map);
    perf_map_add(map, (const uint8_t *)(uintptr_t)0x7f0012345640, 0x1c0, 0xffffffff80a6944c);
    perf_map_add(map, (const uint8_t *)(uintptr_t)0x7f0012345800, 64, 0);
    read_all(fd, text, sizeof(text));
    ck_assert_str_eq(text, "7f0012345640 1c0 guest_0xffffffff80a6944c\n"
                           "7f0012345800 40 guest_0x0\n");
    perf_map_destroy(map);
    close(fd);
}
END_TEST

START_TEST(a_map_that_cannot_be_written_is_given_up)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    struct perf_map *map = perf_map_create(fds[0]); /* the end for reading */
    perf_map_add(map, (const uint8_t *)(uintptr_t)4096, 64, 0);
    perf_map_add(map, (const uint8_t *)(uintptr_t)4096, 64, 0);
    perf_map_destroy(map);
    close(fds[1]);
    perf_map_add(NULL, (const uint8_t *)(uintptr_t)4096, 64, 0);
    perf_map_destroy(NULL);
}
END_TEST

/* --- code ----------------------------------------------------------------------------------- */

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(1) << 20)

static struct memory memory;
static struct engine *engine;
static struct cpu *cpu;
static const struct cpu_host no_machine;

static void setup(void)
{
    struct error err = {0};
    int fd = memory_create_fd("ram", RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(RAM_SIZE));
    memset(&memory, 0, sizeof(memory));
    ck_assert_int_eq(memory_add_region(&memory, fd, RAM_BASE, RAM_SIZE), 0);
    ck_assert_int_eq(memory_attach_codemap(&memory, codemap), 0);
    close(fd);
    close(codemap);
    engine = engine_create(&isa_riscv64, &memory, 1, &err);
    ck_assert_msg(engine != NULL, "%s", err.message);
    cpu = engine_add_cpu(engine, 0, &no_machine, NULL);
    ck_assert_ptr_nonnull(cpu);
}

static void teardown(void)
{
    engine_destroy(engine);
    memory_close(&memory);
}

static void put(uint64_t address, const uint32_t *words, unsigned count)
{
    memcpy(memory_pointer(&memory, address, count * sizeof(*words)), words, count * sizeof(*words));
}

/* addi a0, a0, 1; ld a1, 0(a0); jal zero, 0 */
static const uint32_t PROGRAM[] = {0x00150513, 0x00053583, 0x0000006f};

static struct inspected_code code;

START_TEST(code_is_decoded_to_be_seen)
{
    struct error err = {0};
    put(RAM_BASE + 0x1000, PROGRAM, 3);
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE + 0x1000, &code, &err), 0);
    ck_assert(!code.cached);
    ck_assert_uint_eq(code.physical, RAM_BASE + 0x1000);
    ck_assert_uint_eq(code.ir.insn_count, 3);
    ck_assert_uint_eq(code.ir.length, 12);
    ck_assert_mem_eq(code.guest, PROGRAM, 12);
    ck_assert_ptr_null(code.host.bytes);
    inspect_release(&code);

    struct engine_stats stats;
    engine_stats(engine, &stats);
    ck_assert_uint_eq(stats.blocks_decoded, 0);
    ck_assert_uint_eq(stats.tlb_misses, 0);
}
END_TEST

START_TEST(blocks_in_use_are_told_apart)
{
    struct error err = {0};
    put(RAM_BASE + 0x1000, PROGRAM, 3);
    cpu->pc = RAM_BASE + 0x1000;
    cpu->attention = CPU_ATTENTION_STEP;
    ck_assert_int_eq((int)engine_run(cpu), ENGINE_EXIT_STEP);
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE + 0x1000, &code, &err), 0);
    ck_assert(code.cached);
    inspect_release(&code);
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE + 0x1004, &code, &err), 0);
    ck_assert(!code.cached);
    inspect_release(&code);
}
END_TEST

START_TEST(compiled_blocks_show_host_code)
{
    Polyvisor__CodeRequest request = POLYVISOR__CODE_REQUEST__INIT;
    struct error err = {0};
    if (!engine_tier_available(ENGINE_BASELINE)) {
        return;
    }
    int fd = memfd_create("map", MFD_CLOEXEC);
    struct perf_map *map = perf_map_create(dup(fd));
    engine_set_perf_map(engine, map);
    engine_set_tier(engine, ENGINE_BASELINE);
    put(RAM_BASE + 0x1000, PROGRAM, 3);
    request.address = cpu->pc = RAM_BASE + 0x1000;
    cpu->attention = CPU_ATTENTION_STEP;
    ck_assert_int_eq((int)engine_run(cpu), ENGINE_EXIT_STEP);

    Polyvisor__CodeListing *listing = code_listing_create(cpu, &request, &err);
    ck_assert_msg(listing != NULL, "%s", err.message);
    const Polyvisor__CodeBlock *block = listing->blocks[0];
    ck_assert(block->cached);
    ck_assert_uint_gt(block->n_host, 3);
    ck_assert_uint_gt(block->host_bytes, 12);

    struct engine_stats stats;
    char line[64], text[256];
    engine_stats(engine, &stats);
    ck_assert_uint_eq(stats.blocks_compiled, 1);
    ck_assert_uint_eq(stats.compiled_guest_bytes, 12);
    ck_assert_uint_eq(stats.compiled_host_bytes, block->host_bytes + CODE_HEADER_BYTES);
    /* Memory is given out in size classes, and some code is shared by all blocks. */
    ck_assert_uint_ge(stats.code_bytes, block->host_bytes);
    ck_assert_uint_le(stats.code_bytes, block->host_bytes + block->host_bytes / 4 + 64 + 512);
    ck_assert_uint_gt(stats.compile_median_ns, 0);
    snprintf(line, sizeof(line), "%" PRIx64 " %x guest_0x80001000\n", block->host[0]->address,
             block->host_bytes);
    read_all(fd, text, sizeof(text));
    ck_assert_str_eq(text, line);
    polyvisor__code_listing__free_unpacked(listing, NULL);
    engine_set_perf_map(engine, NULL);
    perf_map_destroy(map);
    close(fd);
}
END_TEST

/* An instruction in two pages, and one whose second page is no memory. */
START_TEST(instructions_across_pages)
{
    struct error err = {0};
    put(RAM_BASE + 0x1ffe, PROGRAM, 3);
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE + 0x1ffe, &code, &err), 0);
    ck_assert_uint_eq(code.ir.length, 4);
    ck_assert(code.ir.straddles);
    ck_assert_mem_eq(code.guest, PROGRAM, 4);
    inspect_release(&code);

    memset(memory_pointer(&memory, RAM_BASE + RAM_SIZE - 2, 2), 0xff, 2);
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE + RAM_SIZE - 2, &code, &err), -ERROR_NOT_FOUND);
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
}
END_TEST

START_TEST(nothing_is_mapped_there)
{
    const uint64_t places[] = {0, RAM_BASE - 1, RAM_BASE + RAM_SIZE, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct error err = {0};
        ck_assert_int_eq(inspect_code(cpu, places[i], &code, &err), -ERROR_NOT_FOUND);
        ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
        ck_assert_str_ne(err.hint, "");
    }
    ck_assert_uint_eq(cpu->exception, 0);
}
END_TEST

START_TEST(guests_that_cannot_be_looked_at)
{
    struct isa blind = isa_riscv64;
    struct error err = {0};
    blind.debug_translate = NULL;
    cpu->isa = &blind;
    ck_assert_int_eq(inspect_code(cpu, RAM_BASE, &code, &err), -ERROR_UNSUPPORTED);
}
END_TEST

/* --- listings ------------------------------------------------------------------------------- */

START_TEST(listings_show_instructions_and_ir)
{
    Polyvisor__CodeRequest request = POLYVISOR__CODE_REQUEST__INIT;
    struct error err = {0};
    put(RAM_BASE + 0x1000, PROGRAM, 3);
    put(RAM_BASE + 0x100c, PROGRAM, 3);
    cpu->pc = RAM_BASE + 0x1000;
    request.at_pc = true;
    request.count = 2;
    Polyvisor__CodeListing *listing = code_listing_create(cpu, &request, &err);
    ck_assert_msg(listing != NULL, "%s", err.message);
    ck_assert_uint_eq(listing->n_blocks, 2);
    ck_assert_uint_eq(listing->pc, cpu->pc);
    ck_assert_str_eq(listing->guest_arch, "riscv64");
    for (unsigned i = 0; i < 2; i++) {
        const Polyvisor__CodeBlock *block = listing->blocks[i];
        ck_assert_uint_eq(block->address, RAM_BASE + 0x1000 + 12 * i);
        ck_assert_uint_eq(block->n_guest, 3);
        ck_assert_str_eq(block->guest[1]->text, "ld a1, 0(a0)");
        ck_assert_uint_eq(block->guest[1]->address, block->address + 4);
        ck_assert_uint_eq(block->guest[1]->code.len, 4);
        ck_assert_ptr_nonnull(strstr(block->ir, "load.64 x11, x10"));
        ck_assert(!block->cut);
    }
    polyvisor__code_listing__free_unpacked(listing, NULL);
}
END_TEST

/* Memory full of one-instruction blocks, of endless straight code, and of nonsense. */
START_TEST(listings_fit_in_a_message)
{
    static const uint32_t patterns[] = {0x0000006f, 0x00150513, 0xffffffff, 0, 0x02a58533};
    uint32_t *ram = memory_pointer(&memory, RAM_BASE, RAM_SIZE);
    for (unsigned k = 0; k < sizeof(patterns) / sizeof(patterns[0]); k++) {
        Polyvisor__CodeRequest request = POLYVISOR__CODE_REQUEST__INIT;
        struct error err = {0};
        for (unsigned i = 0; i < RAM_SIZE / 4; i++) {
            ram[i] = patterns[k];
        }
        request.address = RAM_BASE;
        request.count = UINT32_MAX;
        Polyvisor__CodeListing *listing = code_listing_create(cpu, &request, &err);
        ck_assert_msg(listing != NULL, "%s", err.message);
        ck_assert_uint_ge(listing->n_blocks, 1);
        ck_assert_uint_le(listing->n_blocks, 64);
        ck_assert_uint_lt(polyvisor__code_listing__get_packed_size(listing), 1000000);
        polyvisor__code_listing__free_unpacked(listing, NULL);
    }
}
END_TEST

START_TEST(a_list_ends_where_memory_ends)
{
    Polyvisor__CodeRequest request = POLYVISOR__CODE_REQUEST__INIT;
    struct error err = {0};
    put(RAM_BASE + RAM_SIZE - 12, PROGRAM, 3);
    request.address = RAM_BASE + RAM_SIZE - 12;
    request.count = 5;
    Polyvisor__CodeListing *listing = code_listing_create(cpu, &request, &err);
    ck_assert_msg(listing != NULL, "%s", err.message);
    ck_assert_uint_eq(listing->n_blocks, 1);
    polyvisor__code_listing__free_unpacked(listing, NULL);
    request.address = RAM_BASE + RAM_SIZE;
    ck_assert_ptr_null(code_listing_create(cpu, &request, &err));
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: looking at it");
    TCase *numbers = tcase_create("numbers");
    tcase_add_test(numbers, durations_have_quantiles);
    tcase_add_test(numbers, every_duration_falls_near_itself);
    tcase_add_test(numbers, perf_gets_a_line_a_block);
    tcase_add_test(numbers, a_map_that_cannot_be_written_is_given_up);
    suite_add_tcase(suite, numbers);

    TCase *looks = tcase_create("code");
    tcase_add_checked_fixture(looks, setup, teardown);
    tcase_set_timeout(looks, 60);
    tcase_add_test(looks, code_is_decoded_to_be_seen);
    tcase_add_test(looks, blocks_in_use_are_told_apart);
    tcase_add_test(looks, compiled_blocks_show_host_code);
    tcase_add_test(looks, instructions_across_pages);
    tcase_add_test(looks, nothing_is_mapped_there);
    tcase_add_test(looks, guests_that_cannot_be_looked_at);
    tcase_add_test(looks, listings_show_instructions_and_ir);
    tcase_add_test(looks, listings_fit_in_a_message);
    tcase_add_test(looks, a_list_ends_where_memory_ends);
    suite_add_tcase(suite, looks);

    return suite_run(suite);
}
