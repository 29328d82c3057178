/* The console copy loop and the keys that are vmctl's own, on socket pairs and a pseudo-terminal.
 */
#include "cli/attachment.h"
#include "libshared/ipc/console.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- Keys ---- */

/* What reaches the guest of `keys`, and the strongest action. */
static enum escape_action filter(struct escape *escape, const char *keys, char *guest)
{
    char buffer[64];
    size_t count = strlen(keys), done = 0, length = 0;
    enum escape_action strongest = ESCAPE_NONE;

    memcpy(buffer, keys, count);
    while (done < count) {
        size_t used = 0, kept = 0;
        enum escape_action action =
            escape_filter(escape, buffer + done, count - done, &used, &kept);

        ck_assert_uint_gt(used, 0);
        ck_assert_uint_le(kept, used);
        memcpy(guest + length, buffer + done, kept);
        length += kept;
        done += used;
        strongest = action > strongest ? action : strongest;
    }
    guest[length] = '\0';
    return strongest;
}

START_TEST(keys_of_ours_are_taken_out)
{
    static const struct {
        const char *keys, *guest;
        enum escape_action action;
    } cases[] = {
        {"abc", "abc", ESCAPE_NONE},
        {"ab\x1dxc", "abc", ESCAPE_QUIT},
        {"\x1d\x1d", "", ESCAPE_QUIT},
        {"\x1dk", "", ESCAPE_KILL},
        {"\x1d?a", "a", ESCAPE_HELP},
        {"a\x1dlb",
         "a\x1d"
         "b",
         ESCAPE_NONE},
        {"a\x1dzb", "ab", ESCAPE_NONE},
        {"\x1dx\x1dk", "", ESCAPE_KILL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct escape escape = {0};
        char guest[64];

        ck_assert_int_eq(filter(&escape, cases[i].keys, guest), cases[i].action);
        ck_assert_str_eq(guest, cases[i].guest);
        ck_assert(!escape.begun);
    }
}
END_TEST

START_TEST(a_key_may_come_in_two_parts)
{
    struct escape escape = {0};
    char guest[64];

    ck_assert_int_eq(filter(&escape, "a\x1d", guest), ESCAPE_NONE);
    ck_assert_str_eq(guest, "a");
    ck_assert_int_eq(filter(&escape, "x", guest), ESCAPE_QUIT);
    ck_assert_str_eq(guest, "");
}
END_TEST

START_TEST(a_visitor_detaches_at_once)
{
    struct escape escape = {.detach_at_once = true};
    char guest[64];

    ck_assert_int_eq(filter(&escape, "ab\x1d", guest), ESCAPE_DETACH);
    ck_assert_str_eq(guest, "ab");
}
END_TEST

/* ---- Copying ---- */

static struct attachment attachment;
static int guest;         /* the other end of the console */
static int input, output; /* the other ends of the standard streams */

static void attach_to_pairs(void)
{
    int console[2], in[2], out[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, console), 0);
    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe(out), 0);
    attachment_open(&attachment, false, false);
    terminal_open(&attachment.terminal, in[0]);
    attachment.console = console[0];
    attachment.refused = false;
    attachment.welcomed = true;
    attachment.input = in[0];
    attachment.output = out[1];
    guest = console[1];
    input = in[1];
    output = out[0];
    signal(SIGPIPE, SIG_IGN);
}

/* Poll until nothing moves any more. */
static void settle(void)
{
    for (int i = 0; i < 200; i++) {
        attachment_poll(&attachment, NULL, 0, 5);
    }
}

START_TEST(bytes_are_copied_exactly)
{
    static char sent[200000], received[sizeof(sent) + 1];
    size_t written = 0, read_count = 0;

    for (size_t i = 0; i < sizeof(sent); i++) {
        sent[i] = (char)(i * 7 + i / 256);
    }
    fcntl(output, F_SETFL, O_NONBLOCK);
    while (read_count < sizeof(sent)) {
        ssize_t count = write(guest, sent + written, sizeof(sent) - written);

        written += count > 0 ? (size_t)count : 0;
        attachment_poll(&attachment, NULL, 0, 10);
        count = read(output, received + read_count, sizeof(received) - read_count);
        read_count += count > 0 ? (size_t)count : 0;
    }
    ck_assert_mem_eq(received, sent, sizeof(sent));
    ck_assert_uint_eq(attachment.moved, sizeof(sent));
}
END_TEST

START_TEST(a_slow_reader_holds_the_console)
{
    static char block[65536];
    size_t written = 0;

    for (int round = 0; round < 200; round++) {
        ssize_t count = write(guest, block, sizeof(block));

        written += count > 0 ? (size_t)count : 0;
        attachment_poll(&attachment, NULL, 0, 0);
    }
    /* Buffers of the host and one of ours, not all that was offered. */
    ck_assert_uint_lt(written, 4u << 20);
    ck_assert(!attachment_drained(&attachment));
    close(guest);
    size_t read_count = 0;
    fcntl(output, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 100000 && !attachment_drained(&attachment); i++) {
        attachment_poll(&attachment, NULL, 0, 5);
        ssize_t count = read(output, block, sizeof(block));
        read_count += count > 0 ? (size_t)count : 0;
    }
    for (ssize_t count = 1; count > 0; read_count += count > 0 ? (size_t)count : 0) {
        count = read(output, block, sizeof(block));
    }
    ck_assert_uint_eq(read_count, written);
}
END_TEST

START_TEST(the_end_of_input_is_not_the_end)
{
    char bytes[16];

    ck_assert_int_eq(write(input, "hello", 5), 5);
    close(input);
    settle();
    ck_assert_int_eq(attachment.input, -1);
    ck_assert_int_eq(read(guest, bytes, sizeof(bytes)), 5);
    ck_assert_int_eq(write(guest, "more", 4), 4);
    settle();
    ck_assert_int_eq(read(output, bytes, sizeof(bytes)), 4);
    ck_assert(!attachment_drained(&attachment));
    close(guest);
    settle();
    ck_assert(attachment_drained(&attachment));
}
END_TEST

START_TEST(any_byte_of_a_file_reaches_the_guest)
{
    char bytes[16];

    ck_assert_int_eq(write(input, "\x1dx\x1d\x1d\0z", 6), 6);
    settle();
    ck_assert_int_eq(read(guest, bytes, sizeof(bytes)), 6);
    ck_assert_mem_eq(bytes, "\x1dx\x1d\x1d\0z", 6);
    ck_assert_int_eq(attachment.action, ESCAPE_NONE);
}
END_TEST

START_TEST(input_waits_for_the_guest)
{
    static char block[4096];
    size_t fed = 0;

    fcntl(input, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2000; i++) {
        ssize_t count = write(input, block, sizeof(block));

        fed += count > 0 ? (size_t)count : 0;
        attachment_poll(&attachment, NULL, 0, 0);
    }
    ck_assert_uint_lt(fed, 2u << 20);
    close(input);
    size_t got = 0;
    for (int i = 0; i < 100000 && got < fed; i++) {
        attachment_poll(&attachment, NULL, 0, 1);
        ssize_t count = read(guest, block, sizeof(block));
        got += count > 0 ? (size_t)count : 0;
    }
    ck_assert_uint_eq(got, fed);
}
END_TEST

START_TEST(a_reader_that_left_is_noticed_at_once)
{
    close(output);
    attachment_poll(&attachment, NULL, 0, 5000);
    ck_assert_int_eq(attachment.output, -1);
    ck_assert(attachment_drained(&attachment));
}
END_TEST

START_TEST(watched_descriptors_are_reported)
{
    int signal_pipe[2];

    ck_assert_int_eq(pipe(signal_pipe), 0);
    struct pollfd watched[] = {{.fd = signal_pipe[0], .events = POLLIN}};
    attachment_poll(&attachment, watched, 1, 0);
    ck_assert_int_eq(watched[0].revents, 0);
    ck_assert_int_eq(write(signal_pipe[1], "x", 1), 1);
    attachment_poll(&attachment, watched, 1, 5000);
    ck_assert_int_ne(watched[0].revents, 0);
}
END_TEST

/* ---- Connecting ---- */

START_TEST(the_hello_goes_first_even_over_long_paths)
{
    char directory[256] = "/tmp/cli-test-XXXXXX", path[512];
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "console.sock"};
    struct console_hello hello;
    struct error err = {0};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(mkdir("a-name-of-thirty-characters-xx", 0700), 0);
        ck_assert_int_eq(chdir("a-name-of-thirty-characters-xx"), 0);
    }
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    char *here = getcwd(NULL, 0);
    snprintf(path, sizeof(path), "%s/console.sock", here);
    free(here);
    ck_assert_uint_gt(strlen(path), sizeof(address.sun_path));

    ck_assert_int_eq(attachment_connect(&attachment, path, CONSOLE_LOSSLESS, &err), 0);
    int client = accept(listener, NULL, NULL);
    ck_assert_int_eq(recv(client, &hello, sizeof(hello), MSG_WAITALL), (ssize_t)sizeof(hello));
    ck_assert_uint_eq(hello.magic, CONSOLE_MAGIC);
    ck_assert_uint_eq(hello.flags, CONSOLE_LOSSLESS);

    close(listener);
    ck_assert_int_eq(attachment_connect(&attachment, path, 0, &err), -ERROR_CONNECT);
    unlink("console.sock");
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(chdir(".."), 0);
        ck_assert_int_eq(rmdir("a-name-of-thirty-characters-xx"), 0);
    }
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* ---- The terminal ---- */

/* A controlling terminal of our own, in a process of its own: check's are group leaders, which
 * cannot begin a session. */
static int open_terminal(int *controller)
{
    pid_t child = check_fork();

    if (child > 0) {
        check_waitpid_and_exit(child);
    }
    *controller = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert_int_ge(*controller, 0);
    ck_assert_int_eq(grantpt(*controller), 0);
    ck_assert_int_eq(unlockpt(*controller), 0);
    ck_assert_int_ge(setsid(), 0);
    int fd = open(ptsname(*controller), O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, TIOCSCTTY, 0), 0);
    return fd;
}

START_TEST(the_terminal_is_restored)
{
    struct termios before, during, after;
    int controller;
    int fd = open_terminal(&controller);

    ck_assert_int_eq(tcgetattr(fd, &before), 0);
    terminal_open(&attachment.terminal, fd);
    ck_assert_int_eq(terminal_make_raw(&attachment.terminal), 0);
    ck_assert_int_eq(tcgetattr(fd, &during), 0);
    ck_assert_int_eq(during.c_lflag & (ICANON | ECHO | ISIG), 0);
    attachment_close(&attachment);
    ck_assert_int_eq(tcgetattr(fd, &after), 0);
    ck_assert_int_eq(after.c_lflag, before.c_lflag);
    ck_assert_int_eq(after.c_iflag, before.c_iflag);
    ck_assert_int_eq(after.c_oflag, before.c_oflag);
}
END_TEST

START_TEST(one_can_leave_while_the_guest_takes_nothing)
{
    static char block[4096];
    char bytes[64];
    int controller;
    int fd = open_terminal(&controller);

    terminal_open(&attachment.terminal, fd);
    ck_assert_int_eq(terminal_make_raw(&attachment.terminal), 0);
    attachment.input = fd;
    ck_assert_int_eq(write(controller, "hi\003", 3), 3);
    settle();
    ck_assert_int_eq(read(guest, bytes, sizeof(bytes)), 3);
    ck_assert_mem_eq(bytes, "hi\003", 3);

    memset(block, 'x', sizeof(block));
    while (send(attachment.console, block, sizeof(block), MSG_DONTWAIT) > 0) {
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(write(controller, block, 2000), 2000);
        settle();
    }
    ck_assert_int_eq(write(controller, "\x1dx", 2), 2);
    settle();
    ck_assert_int_eq(attachment.action, ESCAPE_QUIT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_attachment");
    TCase *keys = tcase_create("keys");
    TCase *copying = tcase_create("copying");

    tcase_add_test(keys, keys_of_ours_are_taken_out);
    tcase_add_test(keys, a_key_may_come_in_two_parts);
    tcase_add_test(keys, a_visitor_detaches_at_once);
    suite_add_tcase(suite, keys);
    tcase_set_timeout(copying, 60);
    tcase_add_checked_fixture(copying, attach_to_pairs, NULL);
    tcase_add_test(copying, bytes_are_copied_exactly);
    tcase_add_test(copying, a_slow_reader_holds_the_console);
    tcase_add_test(copying, the_end_of_input_is_not_the_end);
    tcase_add_test(copying, any_byte_of_a_file_reaches_the_guest);
    tcase_add_test(copying, input_waits_for_the_guest);
    tcase_add_test(copying, a_reader_that_left_is_noticed_at_once);
    tcase_add_test(copying, watched_descriptors_are_reported);
    tcase_add_test(copying, the_hello_goes_first_even_over_long_paths);
    tcase_add_test(copying, the_terminal_is_restored);
    tcase_add_test(copying, one_can_leave_while_the_guest_takes_nothing);
    suite_add_tcase(suite, copying);
    return suite_run(suite);
}
