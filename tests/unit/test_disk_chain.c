/* What an image names as its backing file is looked at before it is opened. */
#include "libshared/disk/chain.h"
#include "tests/unit/qcow2_image.h"
#include "tests/unit/suite.h"
#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static char folder[] = "/tmp/polyvisor-test-XXXXXX";
static char image[64], backing[64];

/* An image that names `backing`. */
static int open_image(void)
{
    const struct qcow2_creation creation = {
        .size = 1 << 20, .backing = "backing", .backing_format = "raw"};
    struct error err;
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_eq(qcow2_create(fd, image, &creation, &err), 0);
    return fd;
}

/* The status, and in *opened whether the backing file was. */
static int open_chain(bool *opened)
{
    const struct disk_chain_settings settings = {0};
    char events[sizeof(struct inotify_event) + NAME_MAX + 1];
    struct disk_chain chain;
    struct error err;
    int fd = open_image(), watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    ck_assert_int_ge(inotify_add_watch(watch, backing, IN_OPEN), 0);
    error_clear(&err);
    int status = disk_chain_open(&chain, fd, image, &settings, &err);
    *opened = read(watch, events, sizeof(events)) > 0;
    if (status == 0) {
        ck_assert_uint_eq(chain.count, 2);
        disk_chain_close(&chain);
    } else {
        ck_assert_ptr_nonnull(strstr(err.message, "neither a file nor a block device"));
    }
    close(watch);
    close(fd);
    return status;
}

START_TEST(a_file_is_opened)
{
    bool opened;

    close(open(backing, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ck_assert_int_eq(open_chain(&opened), 0);
    ck_assert(opened);
}
END_TEST

START_TEST(what_is_none_is_not_even_opened)
{
    bool opened;

    ck_assert_int_eq(mkfifo(backing, 0600), 0);
    ck_assert_int_eq(open_chain(&opened), -ERROR_DISK);
    ck_assert(!opened);
}
END_TEST

static void setup(void)
{
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(image, sizeof(image), "%s/image.qcow2", folder);
    snprintf(backing, sizeof(backing), "%s/backing", folder);
}

static void teardown(void)
{
    unlink(image);
    unlink(backing);
    rmdir(folder);
}

int main(void)
{
    Suite *suite = suite_create("disk_chain");
    TCase *test = tcase_create("chain");

    tcase_add_checked_fixture(test, setup, teardown);
    tcase_add_test(test, a_file_is_opened);
    tcase_add_test(test, what_is_none_is_not_even_opened);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
