/* The two ends of a link find each other, whoever comes, goes or pretends. */
#include "vmmd/link.h"

#include "libshared/net/link.h"
#include "tests/unit/suite.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char directory[64], path[96], lock_path[112];
static struct event_base *base;
static struct error err;

static void set_up(void)
{
    strcpy(directory, "/tmp/pv-link.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cable", directory);
    snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
    base = event_base_new();
}

static void tear_down(void)
{
    char command[128];

    event_base_free(base);
    snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    ck_assert_int_eq(system(command), 0);
}

static struct link *make(void)
{
    error_clear(&err);
    return link_create(path, base, &err);
}

/* What the device is told next, as a kind, and the connection in *fd; 0 when nothing comes. */
static char told(const struct link *link, int *fd, unsigned patience_ms)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char kind = 0;
    struct iovec body = {&kind, 1};

    *fd = -1;
    for (unsigned waited = 0;; waited += 5) {
        struct msghdr message = {.msg_iov = &body,
                                 .msg_iovlen = 1,
                                 .msg_control = control.room,
                                 .msg_controllen = sizeof(control.room)};
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (recvmsg(link_device_fd(link), &message, MSG_DONTWAIT) == 1) {
            const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            if (head) {
                memcpy(fd, CMSG_DATA(head), sizeof(int));
            }
            return kind;
        }
        if (waited >= patience_ms) {
            return 0;
        }
        usleep(5000);
    }
}

/* Both ends are told of a connection, and it carries packets. */
static void check_joined(const struct link *one, const struct link *other, int fds[2])
{
    char bytes[8] = {0};

    ck_assert_int_eq(told(one, &fds[0], 10000), LINK_CONNECTED);
    ck_assert_int_eq(told(other, &fds[1], 10000), LINK_CONNECTED);
    ck_assert_int_eq(send(fds[0], "frame", 5, 0), 5);
    ck_assert_int_eq(recv(fds[1], bytes, sizeof(bytes), 0), 5);
    ck_assert_str_eq(bytes, "frame");
}

START_TEST(two_ends_and_no_third)
{
    struct link *one = make(), *other = make();
    int fds[2], fd;

    ck_assert(one && other);
    check_joined(one, other, fds);
    ck_assert_ptr_null(make());
    ck_assert_int_eq(err.code, ERROR_BUSY);
    ck_assert_uint_ne(strlen(err.hint), 0);
    /* A new process is told again. */
    link_repeat(one);
    ck_assert_int_eq(told(one, &fd, 0), LINK_CONNECTED);
    close(fd);
    close(fds[0]);
    close(fds[1]);
    link_destroy(one);
    link_destroy(other);
    ck_assert_int_lt(access(path, F_OK), 0);
    ck_assert_int_lt(access(lock_path, F_OK), 0);
}
END_TEST

START_TEST(either_end_may_come_back)
{
    struct link *one = make(), *other = make();
    int fds[2], fd;

    for (unsigned round = 0; round < 6; round++) {
        check_joined(one, other, fds);
        close(fds[0]);
        close(fds[1]);
        struct link **leaves = round % 2 ? &one : &other;
        struct link *stays = round % 2 ? other : one;
        link_destroy(*leaves);
        ck_assert_int_eq(told(stays, &fd, 10000), LINK_GONE);
        *leaves = make();
        ck_assert_ptr_nonnull(*leaves);
    }
    link_destroy(one);
    link_destroy(other);
}
END_TEST

/* What a vmmd that was killed leaves does not hinder the next. */
START_TEST(remains_are_taken_over)
{
    int fds[2];
    int fd = open(lock_path, O_RDWR | O_CREAT, 0600);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int old = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ck_assert_int_eq(bind(old, (struct sockaddr *)&address, sizeof(address)), 0);
    close(old);
    close(fd);
    struct link *one = make(), *other = make();
    ck_assert(one && other);
    check_joined(one, other, fds);
    close(fds[0]);
    close(fds[1]);
    link_destroy(one);
    link_destroy(other);
}
END_TEST

/* Somebody else connects: without a proper greeting nothing of it reaches a device. */
START_TEST(strangers_are_not_let_in)
{
    static const struct {
        const char *bytes;
        int count;
    } cases[] = {{"", 0}, {"GET / HTTP/1.0\r\n", 16}, {"PVLK", 4}, {"PVLK\2\0\0\0", 8}};
    struct link *one = make();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, fds[2];

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int stranger = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        ck_assert_int_eq(connect(stranger, (struct sockaddr *)&address, sizeof(address)), 0);
        if (cases[i].count) {
            ck_assert_int_eq(send(stranger, cases[i].bytes, (size_t)cases[i].count, 0),
                             cases[i].count);
        }
        ck_assert_int_eq(told(one, &fd, 50), 0);
        close(stranger);
        ck_assert_int_eq(told(one, &fd, 50), 0);
    }
    struct link *other = make(); /* and the right one is */
    check_joined(one, other, fds);
    close(fds[0]);
    close(fds[1]);
    link_destroy(one);
    link_destroy(other);
}
END_TEST

START_TEST(paths_that_cannot_be)
{
    ck_assert_ptr_null(link_create("/none/such/cable", base, &err));
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    int fd = open(path, O_RDWR | O_CREAT, 0600); /* a file of somebody's */
    ck_assert_ptr_null(make());
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    ck_assert_int_eq(access(path, F_OK), 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: links");
    TCase *tests = tcase_create("links");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, two_ends_and_no_third);
    tcase_add_test(tests, either_end_may_come_back);
    tcase_add_test(tests, remains_are_taken_over);
    tcase_add_test(tests, strangers_are_not_let_in);
    tcase_add_test(tests, paths_that_cannot_be);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
