/* The network disk's backend: against a server that keeps to the protocol, one that goes away and
 * comes back, and those that lie. The test is vmmd: it makes the connections. */
#include "devd/block/block.h"
#include "libshared/base/clock.h"
#include "libshared/nbd/channel.h"
#include "tests/unit/device_host.h"
#include "tests/unit/nbd_server.h"
#include "tests/unit/suite.h"
#include <malloc.h>
#include <signal.h>

#define REQUESTS 32u

static struct event_base *base;
static struct event *asked;
static int own, channel;
static struct nbd_server servers[64];
static unsigned stopped_count; /* of these, from the first on */
static unsigned server_count;
/* What the next connections get; the last again and again. */
static enum nbd_lie lies[8];
static unsigned lie_count;
static bool refuse; /* there is no server */
static int held;    /* vmmd keeps a connection, too; -1: it need not here */
static uint64_t bytes;
static uint8_t contents[NBD_BYTES];
static struct nbd_server model; /* what all have in common */

/* Links it, which block_open alone does not see to. */
static struct block *(*volatile opener)(int, const struct block_settings *, struct event_base *,
                                        struct error *) = block_nbd_open;
static struct block *block;
static struct block_kept kept;
static struct error err;
static struct {
    unsigned lost, back, settled, done;
} told;
static struct block_request requests[REQUESTS];
static struct iovec vectors[REQUESTS][4];
static uint8_t data[REQUESTS][65536];

/* ---- vmmd ---- */

static void stop_servers(void)
{
    for (; stopped_count < server_count; stopped_count++) {
        nbd_server_stop(&servers[stopped_count]);
    }
}

static void connect_one(uint64_t number)
{
    struct nbd_message message = {.kind = NBD_CONNECTED, .number = number};

    if (refuse) {
        message.kind = NBD_FAILED;
        snprintf(message.text, sizeof(message.text), "nobody there");
        ck_assert_int_eq(nbd_message_send(own, &message, -1), 0);
        return;
    }
    ck_assert_uint_lt(server_count, sizeof(servers) / sizeof(servers[0]));
    stop_servers(); /* the connector waits for the old connection's end, too */
    struct nbd_server *server = &servers[server_count];
    *server = model;
    server->lie = lies[server_count < lie_count ? server_count : lie_count - 1];
    server->bytes = bytes;
    server->contents = contents;
    server_count++;
    int socket = nbd_server_start(server);
    ck_assert_int_eq(nbd_message_send(own, &message, socket), 0);
    if (held >= 0) {
        dup2(socket, held);
    }
    close(socket);
}

static void on_ask(evutil_socket_t fd, short what, void *context)
{
    struct nbd_message message;
    int socket;

    (void)what;
    (void)context;
    if (nbd_message_receive(fd, &message, &socket) == 0) {
        ck_assert_uint_eq(message.kind, NBD_ASK);
        /* What was meant for an earlier process is ignored. */
        const struct nbd_message stale = {.kind = NBD_FAILED, .number = message.number - 1};
        ck_assert_int_eq(nbd_message_send(own, &stale, -1), 0);
        connect_one(message.number);
    }
}

/* ---- the disk's device ---- */

static void settled(void *context)
{
    (void)context;
    told.settled++;
    block_start(block);
}

static void heard(void *context, bool well, const char *text)
{
    (void)context;
    ck_assert_uint_gt(strlen(text), 0);
    told.back += well;
    told.lost += !well;
}

static bool try_open(unsigned timeout_s, bool read_only)
{
    const struct block_settings settings = {
        .nbd = "nbd://host/export", .timeout_s = timeout_s, .read_only = read_only, .kept = &kept};

    error_clear(&err);
    ck_assert(opener != NULL);
    block = block_open(channel, &settings, base, settled, NULL, &err);
    if (block) {
        block->told = heard;
    }
    return block;
}

static void lie_with(enum nbd_lie first, enum nbd_lie then)
{
    lies[0] = first;
    lies[1] = then;
    lie_count = 2;
}

static void setup(void)
{
    int pair[2];

    memset(&told, 0, sizeof(told));
    memset(&kept, 0, sizeof(kept));
    memset(&model, 0, sizeof(model));
    memset(contents, 0, sizeof(contents));
    server_count = 0;
    refuse = false;
    held = -1;
    bytes = NBD_BYTES;
    block = NULL;
    lie_with(NBD_HONEST, NBD_HONEST);
    base = event_base_new();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    own = pair[0];
    channel = pair[1];
    asked = event_new(base, own, EV_READ | EV_PERSIST, on_ask, NULL);
    event_add(asked, NULL);
}

static void teardown(void)
{
    block_close(block);
    stop_servers();
    event_free(asked);
    event_base_free(base);
    close(own);
    close(channel);
}

static void done(struct block_request *request)
{
    (void)request;
    told.done++;
}

/* In one piece, or in three. */
static struct block_request *ask(unsigned index, enum block_operation operation, uint64_t offset,
                                 uint32_t length, bool pieces)
{
    struct block_request *request = &requests[index];
    uint32_t third = length / 3;

    *request = (struct block_request){.operation = operation,
                                      .offset = offset,
                                      .length = length,
                                      .vectors = vectors[index],
                                      .vector_count = pieces ? 3 : 1,
                                      .status = 1,
                                      .done = done};
    vectors[index][0] = (struct iovec){data[index], pieces ? third : length};
    vectors[index][1] = (struct iovec){data[index] + third, third};
    vectors[index][2] = (struct iovec){data[index] + 2 * third, length - 2 * third};
    block_submit(block, request);
    return request;
}

static void await(unsigned count)
{
    block_start(block);
    while (told.done < count) {
        event_base_loop(base, EVLOOP_ONCE);
    }
}

static int perform(unsigned index, enum block_operation operation, uint64_t offset, uint32_t length)
{
    unsigned before = told.done;
    struct block_request *request = ask(index, operation, offset, length, false);

    await(before + 1);
    return request->status;
}

/* ---- An honest server ---- */

START_TEST(says_what_the_export_is)
{
    ck_assert_msg(try_open(30, false), "%s", err.message);
    ck_assert_uint_eq(block->size, NBD_BYTES);
    ck_assert(!block->read_only && block->can_discard && block->can_zero);
    ck_assert_uint_eq(block->physical_bytes, 4096);
    ck_assert_uint_eq(block->logical_bytes, 512);
}
END_TEST

START_TEST(does_every_operation)
{
    ck_assert(try_open(30, false));
    memset(data[0], 0x5a, 4096);
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 8192, 4096), 0);
    ck_assert_int_eq(perform(1, BLOCK_READ, 8192, 4096), 0);
    ck_assert_mem_eq(data[1], data[0], 4096);
    ck_assert_int_eq(perform(0, BLOCK_FLUSH, 0, 0), 0);
    ck_assert_int_eq(perform(0, BLOCK_DISCARD, 0, 4096), 0);
    ck_assert_int_eq(perform(0, BLOCK_WRITE_ZEROES, 8192, 4096), 0);
    ck_assert_int_eq(perform(1, BLOCK_READ, 8192, 4096), 0);
    ck_assert_uint_eq(data[1][0], 0);
    ck_assert_uint_eq(servers[0].flushes, 1);
    ck_assert_uint_eq(servers[0].trims, 1);
    ck_assert_uint_eq(servers[0].zeroes, 1);
    ck_assert_int_eq(block_flush(block), 0);
    ck_assert_int_eq(perform(1, BLOCK_READ, NBD_BYTES - 512, 1024), -EIO);
}
END_TEST

START_TEST(many_at_once_in_pieces)
{
    ck_assert(try_open(30, false));
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < REQUESTS; i++) {
            memset(data[i], (int)(round * 7 + i), 24576);
            ask(i, BLOCK_WRITE, i * 24576u, 24576, i % 2);
        }
        await(told.done + REQUESTS);
        for (unsigned i = 0; i < REQUESTS; i++) {
            memset(data[i], 0xee, 24576);
            ask(i, BLOCK_READ, i * 24576u, 24576, (i / 2) % 2);
        }
        await(told.done + REQUESTS);
        for (unsigned i = 0; i < REQUESTS; i++) {
            ck_assert_int_eq(requests[i].status, 0);
            ck_assert_uint_eq(data[i][0], (uint8_t)(round * 7 + i));
            ck_assert_uint_eq(data[i][24575], (uint8_t)(round * 7 + i));
        }
    }
}
END_TEST

START_TEST(durable_writes_are_forced_or_flushed)
{
    ck_assert(try_open(30, false));
    ask(0, BLOCK_WRITE, 0, 4096, false)->durable = true;
    await(1);
    ck_assert_uint_eq(servers[0].forced, 1);
    ck_assert_uint_eq(servers[0].flushes, 0);
    block_close(block);
    model.no_flush = true; /* and no force: nothing can be done */
    memset(&kept, 0, sizeof(kept));
    ck_assert(try_open(30, false));
    ask(0, BLOCK_WRITE, 0, 4096, false)->durable = true;
    await(2);
    ck_assert_int_eq(requests[0].status, 0);
    ck_assert_int_eq(perform(0, BLOCK_FLUSH, 0, 0), 0);
    ck_assert_uint_eq(servers[1].flushes + servers[1].forced, 0);
}
END_TEST

START_TEST(a_read_only_export_is_that)
{
    model.read_only = true;
    ck_assert(try_open(30, false));
    ck_assert(block->read_only && !block->can_discard && !block->can_zero);
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), -EROFS);
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), 0);
    ck_assert_uint_eq(servers[0].writes, 0);
}
END_TEST

/* ---- One that comes and goes ---- */

START_TEST(what_was_under_way_is_done_again)
{
    ck_assert(try_open(30, false));
    for (unsigned round = 0; round < 20; round++) {
        servers[server_count - 1].ends_after = 5 + round % 7;
        for (unsigned i = 0; i < REQUESTS; i++) {
            memset(data[i], (int)(round * 3 + i), 4096);
            ask(i, BLOCK_WRITE, i * 4096u, 4096, i % 3 == 0);
        }
        await(told.done + REQUESTS);
        for (unsigned i = 0; i < REQUESTS; i++) {
            ck_assert_int_eq(requests[i].status, 0);
            ck_assert_uint_eq(contents[i * 4096u], (uint8_t)(round * 3 + i));
        }
    }
    ck_assert_uint_ge(server_count, 20);
    ck_assert_uint_ge(told.lost, 1);
}
END_TEST

START_TEST(a_server_that_stays_away_fails_requests_in_time)
{
    ck_assert(try_open(1, false));
    refuse = true;
    shutdown(servers[0].socket, SHUT_RDWR);
    uint64_t began = clock_monotonic_ns();
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), -ETIMEDOUT);
    ck_assert_uint_ge(clock_monotonic_ns() - began, 900000000u);
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), -ETIMEDOUT); /* at once, from now on */
    ck_assert_uint_eq(told.lost, 1);
    refuse = false;
    while (!told.back) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), 0);
}
END_TEST

/* How many descriptors the kernel watches for the event loop. */
static unsigned watched(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 64; fd++) {
        char path[64], text[64] = "", line[256];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (readlink(path, text, sizeof(text) - 1) < 0 || !strstr(text, "eventpoll")) {
            continue;
        }
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        FILE *file = fopen(path, "r");
        while (file && fgets(line, sizeof(line), file)) {
            count += strncmp(line, "tfd:", 4) == 0;
        }
        fclose(file);
    }
    return count;
}

/* vmmd holds the connection, too, so the kernel goes on watching what this process only closes: the
 * loop would turn for as long as there is no other server. */
START_TEST(an_end_is_seen_once)
{
    held = dup(own);
    ck_assert(try_open(1, false));
    unsigned before = watched();
    refuse = true;
    shutdown(servers[0].socket, SHUT_RDWR);
    while (!told.lost) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(watched(), before - 1);
    close(held);
}
END_TEST

static bool all_over(const struct block_request *request)
{
    (void)request;
    return true;
}

START_TEST(a_reset_does_not_wait_for_a_server)
{
    ck_assert(try_open(3600, false));
    refuse = true;
    shutdown(servers[0].socket, SHUT_RDWR);
    while (!told.lost) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    ask(0, BLOCK_READ, 0, 512, false);
    block_start(block);
    ck_assert_uint_eq(told.done, 0);
    block_let_go(block, all_over);
    ck_assert_uint_eq(told.done, 1);
    ck_assert_int_eq(requests[0].status, -ECANCELED);
}
END_TEST

/* The process dies: the next one knows what the disk is, server or none. */
START_TEST(the_next_process_begins_without_a_server)
{
    ck_assert(try_open(30, false));
    block_close(block);
    block = NULL;
    refuse = true;
    ck_assert_msg(try_open(30, false), "%s", err.message);
    ck_assert_uint_eq(block->size, NBD_BYTES);
    ck_assert(block->can_discard && block->can_zero && !block->read_only);
    ask(0, BLOCK_WRITE, 0, 512, false);
    block_start(block);
    refuse = false;
    await(1);
    ck_assert_int_eq(requests[0].status, 0);
}
END_TEST

START_TEST(what_is_remembered_is_checked)
{
    ck_assert(try_open(30, false));
    for (unsigned i = 0; i < 5; i++) {
        struct block_kept good = kept;
        block_close(block);
        kept.size = i == 0 ? 0 : i == 1 ? UINT64_MAX : i == 2 ? 513 : kept.size;
        kept.physical_bytes = i == 3 ? 3 : i == 4 ? 1u << 31 : kept.physical_bytes;
        ck_assert(try_open(30, false)); /* asked anew */
        ck_assert_uint_eq(block->size, NBD_BYTES);
        ck_assert_uint_eq(block->physical_bytes, 4096);
        kept = good;
    }
}
END_TEST

START_TEST(another_size_is_seen)
{
    ck_assert(try_open(30, false));
    bytes = NBD_BYTES / 2;
    ask(0, BLOCK_RESIZE, 0, NBD_BYTES / 2, false);
    await(1);
    ck_assert_int_eq(requests[0].status, 0);
    ck_assert_uint_eq(block->size, NBD_BYTES / 2);
    ck_assert_int_eq(perform(0, BLOCK_READ, NBD_BYTES / 2, 512), -EIO);
    ask(0, BLOCK_RESIZE, 0, NBD_BYTES, false);
    await(told.done + 1);
    ck_assert_int_eq(requests[0].status, -EINVAL); /* the server has not done it */
}
END_TEST

/* ---- Liars ---- */

START_TEST(no_start_without_a_server)
{
    refuse = true;
    ck_assert(!try_open(30, false));
    ck_assert_int_eq(err.code, ERROR_DISK);
    ck_assert_ptr_nonnull(strstr(err.message, "nobody there"));
}
END_TEST

START_TEST(lies_in_the_handshake)
{
    lie_with((enum nbd_lie)_i, (enum nbd_lie)_i);
    ck_assert(!try_open(_i == NBD_MUTE ? 1 : 30, false));
    ck_assert_int_eq(err.code, ERROR_DISK);
    ck_assert(err.hint[0]);
}
END_TEST

/* Later, they are as good as none. */
START_TEST(lies_in_a_later_handshake)
{
    lies[0] = NBD_HONEST;
    lies[1] = lies[2] = (enum nbd_lie)_i;
    lies[3] = NBD_HONEST;
    lie_count = 4;
    ck_assert(try_open(30, false));
    shutdown(servers[0].socket, SHUT_RDWR);
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), 0);
    ck_assert_uint_eq(server_count, 4);
}
END_TEST

START_TEST(lies_in_replies)
{
    lie_with((enum nbd_lie)_i, NBD_HONEST);
    ck_assert(try_open(30, false));
    memset(contents, 0x33, 4096);
    memset(data, 0, sizeof(data));
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), 0);
    ck_assert_uint_eq(data[0][0], 0x33);
    ck_assert_uint_eq(data[0][4095], 0x33);
    ck_assert_uint_eq(data[0][4096], 0);
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), 0);
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), 0);
}
END_TEST

/* What such a server leaves out must not be what was in our memory: guests may be its friends. */
START_TEST(nothing_of_ours_shows_in_what_is_read)
{
    lie_with(NBD_HALF_TWICE, NBD_HALF_TWICE);
    ck_assert(try_open(30, false));
    memset(contents, 0x33, 12288);
    memset(data[0], 0, 12288);
    mallopt(M_PERTURB, 0x5a); /* memory is not empty */
    ask(0, BLOCK_READ, 0, 12288, true);
    await(1);
    mallopt(M_PERTURB, 0);
    for (unsigned i = 0; i < 12288; i++) {
        ck_assert_msg(data[0][i] == 0 || data[0][i] == 0x33, "%#x at %u", data[0][i], i);
    }
}
END_TEST

START_TEST(no_reply_costs_the_connection)
{
    lie_with(NBD_NO_REPLY, NBD_HONEST);
    ck_assert(try_open(1, false));
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), -ETIMEDOUT);
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), 0);
    ck_assert_uint_eq(server_count, 2);
}
END_TEST

START_TEST(errors_are_those_of_the_request)
{
    lie_with(NBD_ERRORS, NBD_ERRORS);
    ck_assert(try_open(30, false));
    ck_assert_int_eq(perform(0, BLOCK_WRITE, 0, 4096), -ENOSPC);
    ck_assert_int_eq(perform(0, BLOCK_FLUSH, 0, 0), -ENOSPC);
    servers[0].lie = NBD_STRANGE_ERRORS;
    ck_assert_int_lt(perform(0, BLOCK_READ, 0, 4096), 0);
    servers[0].lie = NBD_HONEST;
    ck_assert_int_eq(perform(0, BLOCK_READ, 0, 4096), 0);
    ck_assert_uint_eq(server_count, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("block_nbd");
    TCase *tests = tcase_create("nbd");

    signal(SIGPIPE, SIG_IGN);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, says_what_the_export_is);
    tcase_add_test(tests, does_every_operation);
    tcase_add_test(tests, many_at_once_in_pieces);
    tcase_add_test(tests, durable_writes_are_forced_or_flushed);
    tcase_add_test(tests, a_read_only_export_is_that);
    tcase_add_test(tests, what_was_under_way_is_done_again);
    tcase_add_test(tests, a_server_that_stays_away_fails_requests_in_time);
    tcase_add_test(tests, an_end_is_seen_once);
    tcase_add_test(tests, a_reset_does_not_wait_for_a_server);
    tcase_add_test(tests, the_next_process_begins_without_a_server);
    tcase_add_test(tests, what_is_remembered_is_checked);
    tcase_add_test(tests, another_size_is_seen);
    tcase_add_test(tests, no_start_without_a_server);
    tcase_add_loop_test(tests, lies_in_the_handshake, NBD_NO_GREETING, NBD_NO_REPLY);
    tcase_add_loop_test(tests, lies_in_a_later_handshake, NBD_NO_GREETING, NBD_MUTE);
    tcase_add_loop_test(tests, lies_in_replies, NBD_REPLY_MAGIC, NBD_ERRORS);
    tcase_add_test(tests, nothing_of_ours_shows_in_what_is_read);
    tcase_add_test(tests, no_reply_costs_the_connection);
    tcase_add_test(tests, errors_are_those_of_the_request);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
