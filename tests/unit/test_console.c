/* The console core: several clients, backlog, lossless clients, input, drain. */
#include "devd/console.h"
#include "tests/unit/device_host.h"
#include "tests/unit/suite.h"
#include <pthread.h>

static struct device_host host;
static struct console *console;
static size_t room;     /* the device takes this much input */
static char typed[256]; /* what it got */
static size_t typed_count;
static unsigned releases;
static uint8_t pattern[CONSOLE_BACKLOG];

static size_t input_room(void *context)
{
    (void)context;
    return room;
}

static void input(void *context, const uint8_t *bytes, size_t count)
{
    (void)context;
    ck_assert_uint_le(count, room);
    ck_assert_uint_le(typed_count + count, sizeof(typed));
    memcpy(typed + typed_count, bytes, count);
    typed_count += count;
    room -= count;
}

static void output_released(void *context)
{
    (void)context;
    releases++;
}

static const struct console_operations operations = {
    .input_room = input_room, .input = input, .output_released = output_released};

static void setup(void)
{
    host_open(&host);
    host_listen(&host);
    room = sizeof(typed);
    typed_count = 0;
    releases = 0;
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (uint8_t)(i * 31 + i / 251);
    }
    console = console_create(host.base, fcntl(host.listener, F_DUPFD_CLOEXEC, 0),
                             host.console_memory, &operations, NULL);
    ck_assert_ptr_nonnull(console);
}

static void teardown(void)
{
    console_destroy(console);
    host_close(&host);
}

/* Read all that is there for a client now; -1 at its end. */
static ssize_t receive(int client, uint8_t *bytes, size_t size)
{
    size_t count = 0;

    for (;;) {
        ssize_t got = recv(client, bytes + count, size - count, MSG_DONTWAIT);
        if (got == 0 && count < size) {
            return count ? (ssize_t)count : -1;
        }
        if (got <= 0) {
            return (ssize_t)count;
        }
        count += (size_t)got;
    }
}

/* Run the loop and read until `size` bytes came. */
static void receive_all(int client, uint8_t *bytes, size_t size)
{
    for (size_t count = 0; count < size;) {
        host_turn(&host);
        ssize_t got = receive(client, bytes + count, size - count);
        ck_assert_int_ge(got, 0);
        count += (size_t)got;
    }
}

static void expect(int client, const char *text)
{
    uint8_t bytes[64] = {0};

    host_turn(&host);
    ck_assert_int_eq(receive(client, bytes, sizeof(bytes) - 1), (ssize_t)strlen(text));
    ck_assert_str_eq((char *)bytes, text);
}

static size_t print(const char *text)
{
    return console_write(console, (const uint8_t *)text, strlen(text));
}

START_TEST(all_clients_get_output_and_the_backlog)
{
    print("before ");
    int first = host_attach(&host, 0);
    expect(first, "before ");
    print("after");
    expect(first, "after");
    int second = host_attach(&host, 0);
    int third = host_attach(&host, CONSOLE_SKIP_BACKLOG);
    expect(second, "before after");
    expect(third, "");
    print("!");
    expect(first, "!");
    expect(second, "!");
    expect(third, "!");
    close(first);
    close(second);
    close(third);
}
END_TEST

START_TEST(backlog_is_the_last_mebibyte)
{
    uint8_t *got = malloc(CONSOLE_BACKLOG);

    ck_assert_uint_eq(console_write(console, pattern, 1000), 1000);
    ck_assert_uint_eq(console_write(console, pattern, CONSOLE_BACKLOG), CONSOLE_BACKLOG);
    int client = host_attach(&host, 0);
    receive_all(client, got, CONSOLE_BACKLOG);
    ck_assert_mem_eq(got, pattern, CONSOLE_BACKLOG);
    expect(client, "");
    free(got);
    close(client);
}
END_TEST

START_TEST(a_slow_client_loses_but_holds_nobody)
{
    int slow = host_attach(&host, 0);
    int quick = host_attach(&host, 0);
    uint8_t *got = malloc(CONSOLE_BACKLOG);

    host_turn(&host);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_uint_eq(console_write(console, pattern, CONSOLE_BACKLOG), CONSOLE_BACKLOG);
        ck_assert(!console_held(console));
        receive_all(quick, got, CONSOLE_BACKLOG);
        ck_assert_mem_eq(got, pattern, CONSOLE_BACKLOG);
    }
    print("end");
    /* What the slow one gets ends with the newest bytes. */
    size_t total = 0;
    uint8_t last[3] = {0};
    while (memcmp(last, "end", 3) != 0) {
        host_turn(&host);
        ssize_t count = receive(slow, got, CONSOLE_BACKLOG);
        ck_assert_int_ge(count, 0);
        total += (size_t)count;
        if (count >= 3) {
            memcpy(last, got + count - 3, 3);
        }
    }
    ck_assert_uint_lt(total, 3 * CONSOLE_BACKLOG);
    free(got);
    close(slow);
    close(quick);
}
END_TEST

START_TEST(a_lossless_client_holds_the_producer)
{
    int client = host_attach(&host, CONSOLE_LOSSLESS);
    uint8_t *got = malloc(CONSOLE_BACKLOG);
    size_t written = 0, read_back = 0;
    const size_t total = 4 * CONSOLE_BACKLOG;

    host_turn(&host);
    /* As a guest does: write while not held. */
    while (read_back < total) {
        while (written < total && !console_held(console)) {
            size_t part = total - written < 1000 ? total - written : 1000;
            size_t at = written % sizeof(pattern);
            part = part < sizeof(pattern) - at ? part : sizeof(pattern) - at;
            ck_assert_uint_eq(console_write(console, pattern + at, part), part);
            written += part;
        }
        host_turn(&host);
        ssize_t count = receive(client, got, CONSOLE_BACKLOG);
        ck_assert_int_ge(count, 0);
        bool same = true;
        for (ssize_t i = 0; i < count; i++) {
            same &= got[i] == pattern[(read_back + (size_t)i) % sizeof(pattern)];
        }
        ck_assert(same);
        read_back += (size_t)count;
    }
    ck_assert_uint_ge(releases, 1);
    ck_assert(!console_held(console));
    free(got);
    close(client);
}
END_TEST

START_TEST(a_held_producer_may_still_write_the_headroom)
{
    int client = host_attach(&host, CONSOLE_LOSSLESS);
    size_t late = 0;

    host_turn(&host);
    while (!console_held(console)) {
        ck_assert_uint_eq(console_write(console, pattern, 4096), 4096);
    }
    while (console_write(console, pattern, 1) == 1) {
        late++;
    }
    ck_assert_uint_ge(late, CONSOLE_HEADROOM - 4096);
    /* When it leaves, the producer goes on. */
    close(client);
    host_turn(&host);
    ck_assert(!console_held(console));
    ck_assert_uint_eq(releases, 1);
    ck_assert_uint_eq(console_write(console, pattern, 4096), 4096);
}
END_TEST

START_TEST(input_is_merged_and_held_back)
{
    int first = host_attach(&host, 0);
    int second = host_attach(&host, CONSOLE_READ_ONLY);

    ck_assert_int_eq(write(first, "ab", 2), 2);
    ck_assert_int_eq(write(second, "no", 2), 2);
    host_turn(&host);
    ck_assert_uint_eq(typed_count, 2);
    room = 3;
    ck_assert_int_eq(write(first, "cdefgh", 6), 6);
    host_turn(&host);
    ck_assert_uint_eq(typed_count, 5);
    room = 100;
    console_input_resume(console);
    host_turn(&host);
    ck_assert_mem_eq(typed, "abcdefgh", 8);
    close(first);
    close(second);
}
END_TEST

START_TEST(a_client_that_only_listens_on_still_gets_output)
{
    int client = host_attach(&host, 0);

    ck_assert_int_eq(write(client, "x", 1), 1);
    shutdown(client, SHUT_WR);
    host_turn(&host);
    ck_assert_uint_eq(typed_count, 1);
    print("still");
    expect(client, "still");
    close(client);
}
END_TEST

START_TEST(strangers_are_sent_away)
{
    struct console_hello hello = {.magic = 0x12345678};
    int client = host_attach(&host, -1);
    uint8_t byte;

    print("secret");
    host_turn(&host);
    ck_assert_int_eq(receive(client, &byte, 1), 0); /* nothing before the greeting */
    ck_assert_int_eq(write(client, &hello, sizeof(hello)), sizeof(hello));
    host_turn(&host);
    ck_assert_int_eq(receive(client, &byte, 1), -1);
    close(client);
}
END_TEST

START_TEST(a_greeting_may_come_in_pieces)
{
    struct console_hello hello = {.magic = CONSOLE_MAGIC};
    int client = host_attach(&host, -1);

    print("hi");
    for (unsigned i = 0; i < sizeof(hello); i++) {
        expect(client, "");
        ck_assert_int_eq(write(client, (uint8_t *)&hello + i, 1), 1);
    }
    expect(client, "hi");
    close(client);
}
END_TEST

START_TEST(a_silent_stranger_is_sent_away_in_time)
{
    int client = host_attach(&host, -1);
    uint8_t byte;

    /* Only that it ends: the event loop waits for the timer by itself. */
    do {
        event_base_loop(host.base, EVLOOP_ONCE);
    } while (receive(client, &byte, 1) != -1);
    close(client);
}
END_TEST

START_TEST(more_clients_than_places)
{
    int clients[2 * CONSOLE_CLIENTS_MAX];
    uint8_t byte;
    unsigned refused = 0;

    for (unsigned i = 0; i < 2 * CONSOLE_CLIENTS_MAX; i++) {
        clients[i] = host_attach(&host, 0);
        host_turn(&host);
    }
    print("x");
    host_turn(&host);
    for (unsigned i = 0; i < 2 * CONSOLE_CLIENTS_MAX; i++) {
        ssize_t got = recv(clients[i], &byte, 1, MSG_DONTWAIT);
        refused += got <= 0;
        ck_assert_int_eq(got == 1, i < CONSOLE_CLIENTS_MAX);
    }
    ck_assert_uint_eq(refused, CONSOLE_CLIENTS_MAX);
    /* Those that left make room, also when they had closed their sending side first. */
    for (unsigned i = 0; i < 2 * CONSOLE_CLIENTS_MAX; i++) {
        shutdown(clients[i], SHUT_WR);
        host_turn(&host);
        close(clients[i]);
    }
    int late = host_attach(&host, 0);
    expect(late, "x");
    close(late);
}
END_TEST

static void note(void *context)
{
    ++*(unsigned *)context;
}

START_TEST(drain_delivers_what_is_left)
{
    int greeted = host_attach(&host, 0);
    uint8_t *got = malloc(CONSOLE_BACKLOG);
    unsigned drained = 0;
    uint8_t byte;

    host_turn(&host);
    ck_assert_uint_eq(console_write(console, pattern, CONSOLE_BACKLOG), CONSOLE_BACKLOG);
    int arriving = host_attach(&host, 0); /* connected, not yet accepted */
    ck_assert_int_eq(write(arriving, "input that nobody reads", 23), 23);
    console_drain(console, 60000, note, &drained);
    ck_assert_uint_eq(drained, 0);
    receive_all(greeted, got, CONSOLE_BACKLOG);
    ck_assert_mem_eq(got, pattern, CONSOLE_BACKLOG);
    receive_all(arriving, got, CONSOLE_BACKLOG);
    ck_assert_mem_eq(got, pattern, CONSOLE_BACKLOG);
    host_turn(&host);
    ck_assert_uint_eq(drained, 1);
    ck_assert_int_eq(receive(greeted, &byte, 1), -1);
    ck_assert_int_eq(receive(arriving, &byte, 1), -1);
    free(got);
    close(greeted);
    close(arriving);
}
END_TEST

START_TEST(drain_gives_up_on_a_stuck_client)
{
    int stuck = host_attach(&host, CONSOLE_LOSSLESS);
    unsigned drained = 0;

    host_turn(&host);
    console_write(console, pattern, CONSOLE_BACKLOG);
    console_drain(console, 20, note, &drained);
    while (!drained) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    close(stuck);
}
END_TEST

/* Who reads all the time gets all, however long it takes. */
START_TEST(drain_waits_for_a_slow_client)
{
    int slow = host_attach(&host, CONSOLE_LOSSLESS);
    uint8_t *got = malloc(CONSOLE_BACKLOG);
    unsigned drained = 0;

    host_turn(&host);
    ck_assert_uint_eq(console_write(console, pattern, CONSOLE_BACKLOG), CONSOLE_BACKLOG);
    console_drain(console, 3000, note, &drained);
    for (size_t at = 0; at < CONSOLE_BACKLOG; at += CONSOLE_BACKLOG / 4) {
        sleep(1); /* together longer than the limit */
        receive_all(slow, got + at, CONSOLE_BACKLOG / 4);
    }
    ck_assert_mem_eq(got, pattern, CONSOLE_BACKLOG);
    while (!drained) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    free(got);
    close(slow);
}
END_TEST

START_TEST(drain_without_clients_is_immediate)
{
    unsigned drained = 0;

    print("unheard");
    console_drain(console, 60000, note, &drained);
    ck_assert_uint_eq(drained, 1);
}
END_TEST

#define FLOOD_MAX ((size_t)256 << 20)

static _Atomic size_t flooded; /* bytes written */

/* Write without end, up to a bound for the case that nobody stops it. */
static void *flood(void *argument)
{
    static const char rubbish[64 << 10];
    int client = *(int *)argument;
    ssize_t sent = 0;

    while (sent >= 0 && atomic_fetch_add(&flooded, (size_t)sent) < FLOOD_MAX) {
        sent = send(client, rubbish, sizeof(rubbish), MSG_NOSIGNAL);
    }
    return NULL;
}

/* One that speaks another protocol, ever on: it is cut off, however fast it writes. */
START_TEST(flooding_clients_do_not_hold_up)
{
    int client = host_attach(&host, -1);
    pthread_t threads[4];

    fcntl(client, F_SETFL, 0);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, flood, &client), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        while (pthread_tryjoin_np(threads[i], NULL) != 0) {
            event_base_loop(host.base, EVLOOP_NONBLOCK);
        }
    }
    ck_assert_uint_lt(atomic_load(&flooded), FLOOD_MAX);
    close(client);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console");
    TCase *tests = tcase_create("console");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, all_clients_get_output_and_the_backlog);
    tcase_add_test(tests, backlog_is_the_last_mebibyte);
    tcase_add_test(tests, a_slow_client_loses_but_holds_nobody);
    tcase_add_test(tests, a_lossless_client_holds_the_producer);
    tcase_add_test(tests, a_held_producer_may_still_write_the_headroom);
    tcase_add_test(tests, input_is_merged_and_held_back);
    tcase_add_test(tests, a_client_that_only_listens_on_still_gets_output);
    tcase_add_test(tests, strangers_are_sent_away);
    tcase_add_test(tests, a_greeting_may_come_in_pieces);
    tcase_add_test(tests, a_silent_stranger_is_sent_away_in_time);
    tcase_add_test(tests, more_clients_than_places);
    tcase_add_test(tests, flooding_clients_do_not_hold_up);
    tcase_add_test(tests, drain_delivers_what_is_left);
    tcase_add_test(tests, drain_gives_up_on_a_stuck_client);
    tcase_add_test(tests, drain_waits_for_a_slow_client);
    tcase_add_test(tests, drain_without_clients_is_immediate);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
