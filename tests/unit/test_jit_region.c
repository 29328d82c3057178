/* Regions: what is refused, and their form in messages and keys. */
#include "libshared/jit/region_message.h"
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include <check.h>

static struct region region;

static void setup(void)
{
    jit_sample_region(&region, 0);
    ck_assert_ptr_null(region_check(&region));
}

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        setup();                                                                                   \
        change;                                                                                    \
        ck_assert_msg(region_check(&region) != NULL, "accepted after %s", #change);                \
    } while (0)
#define ACCEPTED(change)                                                                           \
    do {                                                                                           \
        setup();                                                                                   \
        change;                                                                                    \
        const char *defect = region_check(&region);                                                \
        ck_assert_msg(defect == NULL, "%s after %s", defect, #change);                             \
    } while (0)

START_TEST(names_and_pages_are_checked)
{
    REFUSED(region.isa[0] = '\0');
    REFUSED(memset(region.isa, 'a', sizeof(region.isa)));
    REFUSED(strcpy(region.isa, "../x"));
    REFUSED(region.page_count = 0);
    REFUSED(region.page_count = REGION_PAGES_MAX + 1);
    REFUSED(region.page_count = UINT16_MAX);
    REFUSED(region.page_delta[0] = 1);
    REFUSED(region.page_delta[1] = 0);
    REFUSED(region.page_delta[1] = REGION_DELTA_MAX + 1);
    REFUSED(region.page_delta[1] = -REGION_DELTA_MAX - 1);
    REFUSED(region.page_delta[1] = INT32_MIN);
    REFUSED((region.page_count = 3, region.page_delta[2] = -7));
    ACCEPTED(region.page_delta[1] = -REGION_DELTA_MAX);
    ACCEPTED((region.page_count = 4, region.page_delta[2] = 1, region.page_delta[3] = 2));
}
END_TEST

START_TEST(blocks_are_checked)
{
    REFUSED(region.block_count = 0);
    REFUSED(region.block_count = REGION_BLOCKS_MAX + 1);
    REFUSED(region.block_count = UINT16_MAX);
    REFUSED(region.byte_count = REGION_BYTES_MAX + 1);
    REFUSED(region.byte_count = 39);
    REFUSED(region.blocks[0].page = 1);
    REFUSED(region.blocks[1].page = 2);
    REFUSED(region.blocks[1].start = 4096);
    REFUSED(region.blocks[2].length = 17);
    REFUSED(region.blocks[2].length = 0);
    REFUSED(region.blocks[1].length = UINT16_MAX);
    REFUSED(region.blocks[1].bytes = 33);
    REFUSED(region.blocks[1].bytes = UINT16_MAX);
    REFUSED(region.blocks[1].insns = 0);
    REFUSED(region.blocks[1].insns = 9);
    REFUSED((region.blocks[0].length = 80, region.byte_count = 120, region.blocks[0].insns = 65));
    REFUSED(region.blocks[1].start = region.blocks[0].start);
    ACCEPTED(region.blocks[1].start = 0x122);
    ACCEPTED(region.blocks[0].bytes = 24);
}
END_TEST

START_TEST(instructions_are_bounded_in_total)
{
    setup();
    region.edge_count = 0;
    region.page_count = 1;
    region.byte_count = 64;
    region.block_count = REGION_INSNS_MAX / 64;
    for (unsigned i = 0; i < REGION_INSNS_MAX / 64 + 1; i++) {
        region.blocks[i] = (struct region_block){0, (uint16_t)(i * 64), 64, 64, 0, 0};
    }
    ck_assert_ptr_null(region_check(&region));
    region.block_count++;
    ck_assert_ptr_nonnull(region_check(&region));
}
END_TEST

START_TEST(edges_are_checked)
{
    REFUSED(region.edge_count = REGION_EDGES_MAX + 1);
    REFUSED(region.edges[1].from = 3);
    REFUSED(region.edges[1].to = 3);
    REFUSED(region.edges[2].to = UINT16_MAX);
    ACCEPTED(region.edge_count = 0);
}
END_TEST

START_TEST(what_is_packed_comes_back)
{
    static uint8_t bytes[REGION_PACKED_MAX];
    struct region back;
    struct error err;

    setup();
    size_t size = region_pack(&region, true, bytes, sizeof(bytes));
    ck_assert_uint_gt(size, 40);
    memset(&back, 0xa5, sizeof(back));
    ck_assert(region_unpack(&back, bytes, size, &err));
    ck_assert_mem_eq(&back.blocks, &region.blocks, sizeof(region.blocks[0]) * 3);
    ck_assert_mem_eq(&back, &region, sizeof(back));
    ck_assert_uint_eq(region_pack(&region, true, bytes, size - 1), 0);
    ck_assert_uint_eq(region_pack(&region, true, bytes, size), size);
}
END_TEST

START_TEST(the_largest_region_fits)
{
    static uint8_t bytes[REGION_PACKED_MAX];
    struct region back;

    setup();
    strcpy(region.isa, "abcdefghijklmno");
    region.mode = UINT32_MAX;
    region.page_count = REGION_PAGES_MAX;
    for (unsigned i = 1; i < REGION_PAGES_MAX; i++) {
        region.page_delta[i] = -REGION_DELTA_MAX + (int32_t)i;
    }
    region.block_count = REGION_BLOCKS_MAX;
    region.byte_count = REGION_BYTES_MAX;
    for (unsigned i = 0; i < REGION_BLOCKS_MAX; i++) {
        region.blocks[i] = (struct region_block){(uint8_t)(i ? 3 : 0),
                                                 (uint16_t)(3000 + i),
                                                 800,
                                                 REGION_INSNS_MAX / 128,
                                                 3296,
                                                 UINT32_MAX};
    }
    region.edge_count = REGION_EDGES_MAX;
    for (unsigned i = 0; i < REGION_EDGES_MAX; i++) {
        region.edges[i] = (struct region_edge){127, 127, UINT32_MAX};
    }
    ck_assert_ptr_null(region_check(&region));
    size_t size = region_pack(&region, true, bytes, sizeof(bytes));
    ck_assert_uint_gt(size, 0);
    ck_assert(region_unpack(&back, bytes, size, NULL));
    ck_assert_mem_eq(&back, &region, sizeof(back));
}
END_TEST

START_TEST(keys_have_no_heat)
{
    static uint8_t a[REGION_PACKED_MAX], b[REGION_PACKED_MAX];

    setup();
    size_t size = region_pack(&region, false, a, sizeof(a));
    region.blocks[1].heat = 7;
    region.edges[2].heat = 9;
    ck_assert_uint_eq(region_pack(&region, false, b, sizeof(b)), size);
    ck_assert_mem_eq(a, b, size);
    region.bytes[39] ^= 1;
    ck_assert_uint_eq(region_pack(&region, false, b, sizeof(b)), size);
    ck_assert_mem_ne(a, b, size);
}
END_TEST

/* Numbers that would fit once cut to the struct's narrower fields. */
START_TEST(wide_numbers_are_refused)
{
    struct region_message message;
    struct region back;
    struct error err;

#define WIDE(change)                                                                               \
    do {                                                                                           \
        setup();                                                                                   \
        region_to_message(&region, true, &message);                                                \
        change;                                                                                    \
        ck_assert_msg(!region_from_message(&back, &message.region, &err), "%s", #change);          \
        ck_assert_int_eq(err.code, ERROR_PROTOCOL);                                                \
    } while (0)
    WIDE(message.blocks[1].page += 256);
    WIDE(message.blocks[1].start += 65536);
    WIDE(message.blocks[1].length += 65536);
    WIDE(message.blocks[1].insns += 65536);
    WIDE(message.blocks[1].bytes += 65536);
    WIDE(message.edges[1].from += 65536);
    WIDE(message.edges[1].to += 65536);
    WIDE(message.region.n_blocks = 0);
    WIDE(message.region.n_page_delta = 0);
    WIDE(message.region.bytes.len = 0);
    WIDE(message.region.isa = (char *)"a name that is too long");
    ck_assert(!region_from_message(&back, NULL, &err));
}
END_TEST

START_TEST(cut_and_damaged_messages_are_refused_or_sound)
{
    static uint8_t bytes[REGION_PACKED_MAX];
    struct region back;

    setup();
    size_t size = region_pack(&region, true, bytes, sizeof(bytes));
    for (size_t length = 0; length < size; length++) {
        if (region_unpack(&back, bytes, length, NULL)) {
            ck_assert_ptr_null(region_check(&back));
        }
    }
    for (size_t at = 0; at < size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1u << bit);
            if (region_unpack(&back, bytes, size, NULL)) {
                ck_assert_ptr_null(region_check(&back));
            }
            bytes[at] ^= (uint8_t)(1u << bit);
        }
    }
}
END_TEST

START_TEST(fingerprints_depend_on_everything)
{
    uint8_t bytes[20] = {1, 2, 3, 4};
    uint64_t print = region_fingerprint("riscv64", 3, 0x120, bytes, 16);

    ck_assert_uint_eq(region_fingerprint("riscv64", 3, 0x120, bytes, 16), print);
    ck_assert_uint_ne(region_fingerprint("riscv65", 3, 0x120, bytes, 16), print);
    ck_assert_uint_ne(region_fingerprint("riscv64", 2, 0x120, bytes, 16), print);
    ck_assert_uint_ne(region_fingerprint("riscv64", 3, 0x124, bytes, 16), print);
    ck_assert_uint_ne(region_fingerprint("riscv64", 3, 0x120, bytes, 20), print);
    bytes[19] = 1;
    ck_assert_uint_eq(region_fingerprint("riscv64", 3, 0x120, bytes, 16), print);
    bytes[15] = 1;
    ck_assert_uint_ne(region_fingerprint("riscv64", 3, 0x120, bytes, 16), print);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jit region");
    TCase *tests = tcase_create("region");
    tcase_add_test(tests, names_and_pages_are_checked);
    tcase_add_test(tests, blocks_are_checked);
    tcase_add_test(tests, instructions_are_bounded_in_total);
    tcase_add_test(tests, edges_are_checked);
    tcase_add_test(tests, what_is_packed_comes_back);
    tcase_add_test(tests, the_largest_region_fits);
    tcase_add_test(tests, keys_have_no_heat);
    tcase_add_test(tests, wide_numbers_are_refused);
    tcase_add_test(tests, cut_and_damaged_messages_are_refused_or_sound);
    tcase_add_test(tests, fingerprints_depend_on_everything);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
