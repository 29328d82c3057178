/* Guest memory: regions, hostile ranges, the code map. */
#include "libshared/mem/memory.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define BASE UINT64_C(0x80000000)

static struct memory memory;

static int make_fd(uint64_t size)
{
    int fd = memory_create_fd("test", size);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void open_regions(void)
{
    memset(&memory, 0, sizeof(memory));
    int low = make_fd(0x4000), high = make_fd(0x2000);
    ck_assert_int_eq(memory_add_region(&memory, low, BASE, 0x4000), 0);
    ck_assert_int_eq(memory_add_region(&memory, high, BASE + 0x4000, 0x2000), 0);
    close(low);
    close(high);
}

START_TEST(memfds_cannot_shrink)
{
    int fd = make_fd(0x4000);
    ck_assert_int_ne(ftruncate(fd, 0x1000), 0);
    ck_assert_int_ne(ftruncate(fd, 0x8000), 0);
    ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_SEAL),
                     F_SEAL_SHRINK | F_SEAL_SEAL);
    close(fd);
    ck_assert_int_lt(memory_create_fd("none", 0), 0);
}
END_TEST

START_TEST(bad_regions_are_refused)
{
    open_regions();
    int fd = make_fd(0x4000);
    static const struct {
        uint64_t base, size;
    } bad[] = {
        {BASE + 0x10800, 0x1000},     /* base not aligned */
        {BASE + 0x10000, 0x1800},     /* size not aligned */
        {BASE + 0x10000, 0},          /* nothing */
        {BASE + 0x10000, 0x8000},     /* more than the file has */
        {BASE + 0x5000, 0x1000},      /* overlap */
        {BASE - 0x1000, 0x2000},      /* overlap from below */
        {UINT64_MAX - 0xfff, 0x4000}, /* wraps */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(memory_add_region(&memory, fd, bad[i].base, bad[i].size), -EINVAL);
    }
    ck_assert_int_eq(memory_add_region(&memory, fd, BASE + 0x10000, 0x1000), 0);
    ck_assert_int_eq(memory_add_region(&memory, fd, BASE + 0x20000, 0x1000), 0);
    ck_assert_int_eq(memory_add_region(&memory, fd, BASE + 0x30000, 0x1000), -EINVAL);
    ck_assert_int_lt(memory_add_region(&memory, -1, BASE + 0x30000, 0x1000), 0);
    close(fd);
    memory_close(&memory);
}
END_TEST

START_TEST(pointers_are_checked)
{
    open_regions();
    uint8_t *low = memory_pointer(&memory, BASE, 0x4000);
    ck_assert_ptr_nonnull(low);
    ck_assert_ptr_eq(memory_pointer(&memory, BASE + 0x3fff, 1), low + 0x3fff);
    ck_assert_ptr_nonnull(memory_pointer(&memory, BASE + 0x4000, 0x2000));
    ck_assert_ptr_null(memory_pointer(&memory, BASE + 0x3fff, 2)); /* into the next region */
    ck_assert_ptr_null(memory_pointer(&memory, BASE - 1, 1));
    ck_assert_ptr_null(memory_pointer(&memory, BASE + 0x6000, 1));
    ck_assert_ptr_null(memory_pointer(&memory, BASE + 1, UINT64_MAX));
    ck_assert_ptr_null(memory_pointer(&memory, UINT64_MAX, 2));
    memory_close(&memory);
    ck_assert_ptr_null(memory_pointer(&memory, BASE, 1));
}
END_TEST

START_TEST(code_map)
{
    open_regions();
    ck_assert_uint_eq(memory.page_count, 6);
    ck_assert_uint_eq(memory_codemap_size(0x6000), MEMORY_CODEMAP_HEAD + 6);
    int small = make_fd(MEMORY_CODEMAP_HEAD + 5);
    ck_assert_int_eq(memory_attach_codemap(&memory, small), -EINVAL);
    int fd = make_fd(memory_codemap_size(0x6000));
    ck_assert_int_eq(memory_attach_codemap(&memory, fd), 0);
    close(small);
    close(fd);
    ck_assert_ptr_null(memory_page_flags(&memory, BASE + 0x6000));
    ck_assert_ptr_eq(memory_page_flags(&memory, BASE + 0x5800), &memory.page_flags[5]);

    *memory_page_flags(&memory, BASE + 0x1000) = MEMORY_PAGE_CODE;
    memory_device_wrote(&memory, BASE, 0x1000); /* another page */
    ck_assert_uint_eq(memory.codemap->device_wrote, 0);
    memory_device_wrote(&memory, BASE + 0xfff, 2);
    ck_assert_uint_eq(memory.codemap->device_wrote, 1);
    ck_assert_uint_eq(*memory_page_flags(&memory, BASE + 0x1000),
                      MEMORY_PAGE_CODE | MEMORY_PAGE_DEVICE_WROTE);
    ck_assert_uint_eq(*memory_page_flags(&memory, BASE), 0);

    memory_device_wrote(&memory, BASE + 0x1000, 0); /* nothing, and nonsense */
    memory_device_wrote(&memory, BASE + 0x1000, UINT64_MAX);
    memory_device_wrote(&memory, 0, 8);
    ck_assert_uint_eq(memory.codemap->device_wrote, 1);
    memory_close(&memory);
}
END_TEST

START_TEST(two_mappings_see_each_other)
{
    struct memory other = {0};
    memset(&memory, 0, sizeof(memory));
    int fd = make_fd(0x4000);
    ck_assert_int_eq(memory_add_region(&memory, fd, BASE, 0x4000), 0);
    ck_assert_int_eq(memory_add_region(&other, fd, BASE, 0x4000), 0);
    close(fd);
    strcpy(memory_pointer(&memory, BASE + 0x2000, 16), "hello");
    ck_assert_str_eq(memory_pointer(&other, BASE + 0x2000, 16), "hello");
    memory_close(&memory);
    memory_close(&other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    tcase_add_test(tests, memfds_cannot_shrink);
    tcase_add_test(tests, bad_regions_are_refused);
    tcase_add_test(tests, pointers_are_checked);
    tcase_add_test(tests, code_map);
    tcase_add_test(tests, two_mappings_see_each_other);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
