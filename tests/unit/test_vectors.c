/* Parts of lists of pieces of memory, and copies. */
#include "libshared/base/vectors.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <string.h>

static char bytes[] = "abcdefghij";
/* "abc", nothing, "d", "efghij" */
static const struct iovec pieces[] = {{bytes, 3}, {bytes, 0}, {bytes + 3, 1}, {bytes + 4, 6}};

enum { COUNT = sizeof(pieces) / sizeof(pieces[0]) };

/* What a cut of the pieces is, in words: its pieces with a comma behind each. */
static const char *cut_of(uint64_t skip, uint64_t size, unsigned room)
{
    static char text[32];
    struct iovec cut[COUNT];
    unsigned count = vectors_cut(pieces, COUNT, skip, size, cut, room);
    size_t used = 0;

    ck_assert_uint_eq(vectors_cut(pieces, COUNT, skip, size, NULL, room), count);
    for (unsigned i = 0; i < count; i++) {
        memcpy(text + used, cut[i].iov_base, cut[i].iov_len);
        used += cut[i].iov_len;
        text[used++] = ',';
    }
    text[used] = '\0';
    return text;
}

START_TEST(test_cut)
{
    ck_assert_str_eq(cut_of(0, UINT64_MAX, COUNT), "abc,d,efghij,");
    ck_assert_str_eq(cut_of(1, 4, COUNT), "bc,d,e,");
    ck_assert_str_eq(cut_of(3, 1, COUNT), "d,");
    ck_assert_str_eq(cut_of(9, 5, COUNT), "j,");
    ck_assert_str_eq(cut_of(10, 5, COUNT), "");
    ck_assert_str_eq(cut_of(UINT64_MAX, UINT64_MAX, COUNT), "");
    ck_assert_str_eq(cut_of(2, 0, COUNT), "");
    ck_assert_str_eq(cut_of(2, 8, 2), "c,d,");
    ck_assert_str_eq(cut_of(2, 8, 0), "");
}
END_TEST

START_TEST(test_cut_in_place)
{
    struct iovec list[COUNT];

    memcpy(list, pieces, sizeof(list));
    ck_assert_uint_eq(vectors_cut(list, COUNT, 3, 3, list, COUNT), 2);
    ck_assert_ptr_eq(list[0].iov_base, bytes + 3);
    ck_assert_uint_eq(list[0].iov_len, 1);
    ck_assert_ptr_eq(list[1].iov_base, bytes + 4);
    ck_assert_uint_eq(list[1].iov_len, 2);
}
END_TEST

START_TEST(test_skip)
{
    struct iovec list[COUNT], *left = list;

    memcpy(list, pieces, sizeof(list));
    ck_assert_uint_eq(vectors_skip(&left, COUNT, 2), COUNT);
    ck_assert_ptr_eq(left->iov_base, bytes + 2);
    ck_assert_uint_eq(left->iov_len, 1);
    ck_assert_uint_eq(vectors_skip(&left, COUNT, 1), COUNT - 2); /* none that is empty is first */
    ck_assert_ptr_eq(left->iov_base, bytes + 3);
    ck_assert_uint_eq(vectors_skip(&left, COUNT - 2, 7), 0);
    ck_assert_ptr_eq(left, list + COUNT);
}
END_TEST

START_TEST(test_copies)
{
    char room[16] = "";
    char into[] = "0123456789";
    const struct iovec list[] = {{into, 4}, {into + 6, 4}};

    ck_assert_uint_eq(vectors_get(pieces, COUNT, 2, room, 4), 4);
    ck_assert_str_eq(room, "cdef");
    ck_assert_uint_eq(vectors_get(pieces, COUNT, 8, room, 4), 2);
    ck_assert_str_eq(room, "ijef");
    ck_assert_uint_eq(vectors_put(list, 2, 3, "XYZ", 3), 3);
    ck_assert_str_eq(into, "012X45YZ89");
    ck_assert_uint_eq(vectors_put(list, 2, 7, "XYZ", 3), 1);
    ck_assert_str_eq(into, "012X45YZ8X");
    vectors_clear(list, 2, 1, 4);
    ck_assert_mem_eq(into,
                     "0\0\0\0"
                     "45\0Z8X",
                     10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vectors");
    TCase *tcase = tcase_create("vectors");

    tcase_add_test(tcase, test_cut);
    tcase_add_test(tcase, test_cut_in_place);
    tcase_add_test(tcase, test_skip);
    tcase_add_test(tcase, test_copies);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
