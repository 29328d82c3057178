/* Compiled regions as they are received: everything but the code is checked. */
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stddef.h>

static struct region region;
static uint8_t bytes[JIT_SAMPLE_BLOB + 64];
static struct blob blob;

static void setup(void)
{
    jit_sample_region(&region, 0);
    jit_sample_blob(&region, 0x90, bytes);
}

static bool check_now(size_t size)
{
    struct error err = {0};
    bool sound = blob_check(&blob, bytes, size, &region, &err);

    ck_assert_int_eq(err.code, sound ? ERROR_OK : ERROR_PROTOCOL);
    return sound;
}

START_TEST(a_sound_blob_is_described)
{
    setup();
    ck_assert(check_now(JIT_SAMPLE_BLOB));
    ck_assert_uint_eq(blob.header.code_bytes, JIT_SAMPLE_CODE);
    ck_assert_uint_eq(blob.exits[1].offset, 0xffe);
    ck_assert_uint_eq(blob.code[JIT_SAMPLE_CODE - 1], 0x90);
    ck_assert_uint_eq(blob_installed_size(&blob), JIT_SAMPLE_CODE + 2 * 8 + 2 * 8);
}
END_TEST

START_TEST(every_length_but_the_right_one_is_refused)
{
    setup();
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        ck_assert_int_eq(check_now(size), size == JIT_SAMPLE_BLOB);
    }
}
END_TEST

/* No bit of the header or of an exit may be flipped unseen, besides those that only say where the
 * code is entered and where the second exit leads. */
START_TEST(damaged_headers_are_refused)
{
    size_t exits = sizeof(struct blob_header), second = exits + sizeof(struct blob_exit);

    for (size_t at = 0; at < second + sizeof(struct blob_exit); at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            setup();
            bytes[at] ^= (uint8_t)(1u << bit);
            if (check_now(JIT_SAMPLE_BLOB)) {
                bool entry = at == offsetof(struct blob_header, entry);
                ck_assert_msg(entry || at >= second, "byte %zu bit %u", at, bit);
                ck_assert_uint_lt(blob.header.entry, blob.header.code_bytes);
                ck_assert_uint_lt(blob.exits[1].page, region.page_count);
                ck_assert_uint_lt(blob.exits[1].offset, 4096);
            }
        }
    }
}
END_TEST

START_TEST(limits_hold)
{
    static uint8_t
        large[sizeof(struct blob_header) + (BLOB_EXITS_MAX + 1) * 4 + BLOB_CODE_MAX + 16];
    struct blob_header header;
    struct error err;

    setup();
    memcpy(&header, bytes, sizeof(header));
    header.code_bytes = BLOB_CODE_MAX;
    header.exit_count = BLOB_EXITS_MAX;
    memcpy(large, &header, sizeof(header));
    memcpy(large + sizeof(header), bytes + sizeof(header), 8);
    ck_assert(blob_check(&blob, large, sizeof(large) - 4 - 16, &region, &err));
    header.exit_count++;
    memcpy(large, &header, sizeof(header));
    ck_assert(!blob_check(&blob, large, sizeof(large) - 16, &region, &err));
    header.exit_count--;
    header.code_bytes += BLOB_ALIGN;
    memcpy(large, &header, sizeof(header));
    ck_assert(!blob_check(&blob, large, sizeof(large) - 4, &region, &err));
}
END_TEST

START_TEST(a_blob_of_another_region_is_refused)
{
    setup();
    region.page_count = 1;
    ck_assert(!check_now(JIT_SAMPLE_BLOB));
    setup();
    region.blocks[0].start += 4;
    ck_assert(!check_now(JIT_SAMPLE_BLOB));
}
END_TEST

START_TEST(bytes_may_lie_anywhere)
{
    uint8_t moved[JIT_SAMPLE_BLOB + 1];

    setup();
    memcpy(moved + 1, bytes, JIT_SAMPLE_BLOB);
    ck_assert(blob_check(&blob, moved + 1, JIT_SAMPLE_BLOB, &region, NULL));
    ck_assert_uint_eq(blob.exits[1].offset, 0xffe);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jit blob");
    TCase *tests = tcase_create("blob");
    tcase_add_test(tests, a_sound_blob_is_described);
    tcase_add_test(tests, every_length_but_the_right_one_is_refused);
    tcase_add_test(tests, damaged_headers_are_refused);
    tcase_add_test(tests, limits_hold);
    tcase_add_test(tests, a_blob_of_another_region_is_refused);
    tcase_add_test(tests, bytes_may_lie_anywhere);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
