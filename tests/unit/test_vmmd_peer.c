/* What the process of a network disk can do to vmmd over their channel: nothing. */
#include "libshared/base/log.h"
#include "libshared/ipc/rights.h"
#include "libshared/nbd/channel.h"
#include "tests/unit/descriptors.h"
#include "tests/unit/suite.h"
#include "vmmd/peer.h"
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int pair[2];

/* `size` bytes of a message of that kind with so many descriptors. */
static void send_descriptors(uint32_t kind, size_t size, unsigned count)
{
    struct nbd_message message = {.kind = kind};
    const struct iovec body = {&message, size};
    int fds[8];

    for (unsigned i = 0; i < count; i++) {
        fds[i] = pair[0];
    }
    ck_assert_int_eq(rights_send(pair[0], &body, 1, fds, count), 0);
}

static void setup(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                     0);
}

static void teardown(void)
{
    close(pair[0]);
    close(pair[1]);
}

START_TEST(test_descriptors_stay_out)
{
    static const uint32_t kinds[] = {NBD_ASK, NBD_CONNECTED, NBD_FAILED, 0};
    const size_t sizes[] = {sizeof(struct nbd_message), sizeof(struct nbd_message) - 1, 1, 0};
    struct nbd_message message;
    int before = count_descriptors();
    int fd;

    for (unsigned i = 0; i < 4 * 4 * 9; i++) {
        uint32_t kind = kinds[i / 4 % 4];
        size_t size = sizes[i % 4];
        unsigned count = i / 16;
        send_descriptors(kind, size, count);
        bool good = size == sizeof(message) && count == (kind == NBD_CONNECTED);
        int status = nbd_message_receive(pair[1], &message, &fd);
        ck_assert_int_eq(status, good ? 0 : size || count ? -EBADMSG : -EPIPE);
        ck_assert_int_eq(fd >= 0, good && count);
        if (fd >= 0) {
            close(fd);
        }
        ck_assert_msg(count_descriptors() == before, "%u descriptors with %zu bytes of kind '%c'",
                      count, size, (int)kind);
    }
}
END_TEST

START_TEST(test_text_is_a_line)
{
    struct nbd_message message = {.kind = NBD_FAILED};
    int fd;

    memset(message.text, '\x1b', sizeof(message.text)); /* for the terminal of who reads it */
    ck_assert_int_eq(nbd_message_send(pair[0], &message, -1), 0);
    ck_assert_int_eq(nbd_message_receive(pair[1], &message, &fd), 0);
    ck_assert_uint_eq(strlen(message.text), sizeof(message.text) - 1);
    ck_assert_uint_eq(strspn(message.text, "?"), sizeof(message.text) - 1);
}
END_TEST

/* The process shares its end of the channel with vmmd, so it can shut it down for both. */
START_TEST(test_channel_shut_down)
{
    const struct nbd_message ask = {.kind = NBD_ASK, .number = 7};
    struct event_base *base = event_base_new();
    struct nbd_message answer;
    struct error err;
    struct peer *peer = peer_create("nbd://localhost/", "/nonexistent", "/tmp", base, &err);
    int fd;

    ck_assert_ptr_nonnull(peer);
    ck_assert_int_eq(shutdown(peer_device_fd(peer), SHUT_RDWR), 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
    struct pollfd idle = {.fd = peer_device_fd(peer), .events = POLLIN};
    ck_assert_msg(poll(&idle, 1, 0) == 0, "the next process would get a channel that has ended");
    ck_assert_int_eq(nbd_message_send(idle.fd, &ask, -1), 0);
    while (nbd_message_receive(idle.fd, &answer, &fd) != 0) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(answer.kind, NBD_FAILED); /* there is no connector there */
    ck_assert_uint_eq(answer.number, 7);
    peer_destroy(peer);
    event_base_free(base);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd_peer");
    TCase *test = tcase_create("peer");

    setenv("POLYVISOR_LOG", "error", 0);
    log_open("test");
    tcase_add_checked_fixture(test, setup, teardown);
    tcase_add_test(test, test_descriptors_stay_out);
    tcase_add_test(test, test_text_is_a_line);
    tcase_add_test(test, test_channel_shut_down);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
