/* Who may use a disk image at the same time. */
#include "libshared/disk/image_lock.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[256];

static void setup(void)
{
    const char *folder = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%s/polyvisor-test-lock-XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void teardown(void)
{
    unlink(path);
}

static int open_image(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static int lock(int fd, bool read_only)
{
    struct error err;
    return image_lock(fd, path, read_only, &err);
}

START_TEST(who_writes_is_alone)
{
    int first = open_image(), second = open_image();

    ck_assert_int_eq(lock(first, false), 0);
    ck_assert_int_eq(lock(first, false), 0); /* one's own is no obstacle */
    ck_assert_int_eq(lock(second, false), -ERROR_BUSY);
    close(second);
    second = open_image();
    ck_assert_int_eq(lock(second, true), -ERROR_BUSY);
    close(second);
    close(first);
    second = open_image();
    ck_assert_int_eq(lock(second, false), 0);
    close(second);
}
END_TEST

/* Whoever still has it open: the one who locked it says when it is over. */
START_TEST(it_is_free_when_its_owner_says_so)
{
    for (int read_only = 0; read_only < 2; read_only++) {
        int first = open_image(), second = open_image(), shared = dup(first);

        ck_assert_int_eq(lock(first, read_only), 0);
        close(first);
        ck_assert_int_eq(lock(second, false), -ERROR_BUSY);
        close(second);
        second = open_image();
        image_unlock(shared);
        ck_assert_int_eq(lock(second, false), 0);
        close(second);
        close(shared);
    }
}
END_TEST

START_TEST(readers_share)
{
    int first = open_image(), second = open_image(), writer = open_image();

    ck_assert_int_eq(lock(first, true), 0);
    ck_assert_int_eq(lock(second, true), 0);
    ck_assert_int_eq(lock(writer, false), -ERROR_BUSY);
    close(first);
    close(second);
    close(writer);
}
END_TEST

/* A process that ends does not take the lock along while another has the descriptor. */
START_TEST(it_lasts_as_long_as_anybody_has_the_descriptor)
{
    int first = open_image(), second = open_image(), ready[2];
    char byte;

    ck_assert_int_eq(lock(first, false), 0);
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        ck_assert_int_eq(write(ready[1], "x", 1), 1);
        pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ck_assert_int_eq(lock(second, false), -ERROR_BUSY);
    /* And the other way round: the child goes on with it when the parent has closed it. */
    pid = fork();
    if (pid == 0) {
        ck_assert_int_eq(write(ready[1], "x", 1), 1);
        pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    close(first);
    close(second);
    second = open_image();
    ck_assert_int_eq(lock(second, false), -ERROR_BUSY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(second);
    second = open_image();
    ck_assert_int_eq(lock(second, false), 0);
    close(second);
}
END_TEST

START_TEST(the_holder_is_named)
{
    int ready[2];
    char byte, text[32];
    struct error err;

    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        ck_assert_int_eq(lock(open_image(), false), 0);
        ck_assert_int_eq(write(ready[1], "x", 1), 1);
        pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    int fd = open_image();
    ck_assert_int_eq(image_lock(fd, path, false, &err), -ERROR_BUSY);
    snprintf(text, sizeof(text), "(pid %d)", (int)pid);
    ck_assert_msg(strstr(err.message, text) != NULL, "%s", err.message);
    ck_assert(err.hint[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
}
END_TEST

/* A classic lock of the whole file is respected, too. */
START_TEST(other_programs_locks)
{
    int other = open_image(), fd = open_image();
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    ck_assert_int_eq(fcntl(other, F_OFD_SETLK, &all), 0);
    ck_assert_int_eq(lock(fd, false), -ERROR_BUSY);
    ck_assert_int_eq(lock(fd, true), -ERROR_BUSY);
    close(other);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image lock");
    TCase *tests = tcase_create("lock");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, who_writes_is_alone);
    tcase_add_test(tests, it_is_free_when_its_owner_says_so);
    tcase_add_test(tests, readers_share);
    tcase_add_test(tests, it_lasts_as_long_as_anybody_has_the_descriptor);
    tcase_add_test(tests, the_holder_is_named);
    tcase_add_test(tests, other_programs_locks);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
