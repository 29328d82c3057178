/* virtio-vsock from the driver's side, with Unix sockets of the test as the host's processes. */
#include "devd/vsock/connection.h"
#include "libshared/vsock/setting.h"
#include "tests/unit/device_host.h"

extern const struct device_model device_model_virtio_vsock;

#define RX     0u
#define TX     1u
#define EVENT  2u
#define HEADER sizeof(struct virtio_vsock_hdr)
#define CID    5u
#define BUFFER 4096u
#define ROOM   65536u

static struct device_host host;
static char path[64], setting[96];
static struct error err;
static unsigned next_slot;

static void listen_at(const char *name, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
    unlink(name);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(*fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(*fd, 16), 0);
}

static uint64_t address_of(unsigned queue, unsigned slot)
{
    return DRIVER_DATA + (queue * DRIVER_QUEUE_SIZE + slot) * 0x4000u;
}

static void offer_buffer(unsigned slot)
{
    driver_describe(&host.driver, RX, slot, address_of(RX, slot), BUFFER, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, RX, (uint16_t)slot);
}

static void start(bool restart)
{
    struct device_settings settings = {.id = "vsock0", .vsock = setting, .restart = restart};

    ck_assert_msg(host_try_start(&host, &device_model_virtio_vsock, &settings, &err) != NULL, "%s",
                  err.message);
}

static void setup(void)
{
    host_open(&host);
    snprintf(path, sizeof(path), "/tmp/polyvisor-vsock-%d", (int)getpid());
    snprintf(setting, sizeof(setting), "path=%s,cid=%u", path, CID);
    listen_at(path, &host.backend);
    start(false);
    host_activate(&host, 0);
    next_slot = 0;
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        offer_buffer(i);
    }
}

static void teardown(void)
{
    host_close(&host);
    unlink(path);
}

/* ---- The guest ---- */

static void send_packet(struct virtio_vsock_hdr header, const void *data, uint32_t bytes)
{
    unsigned slot = next_slot++ % DRIVER_QUEUE_SIZE;
    uint8_t *to = driver_pointer(&host.driver, address_of(TX, slot));

    header.type = header.type ? header.type : VIRTIO_VSOCK_TYPE_STREAM;
    header.src_cid = header.src_cid ? header.src_cid : CID;
    header.dst_cid = VSOCK_CID_HOST;
    memcpy(to, &header, HEADER);
    if (bytes) {
        memcpy(to + HEADER, data, bytes);
    }
    driver_describe(&host.driver, TX, slot, address_of(TX, slot), (uint32_t)HEADER + bytes, 0, 0);
    driver_offer(&host.driver, TX, (uint16_t)slot);
    host_kick(&host, TX);
    host_turn(&host);
}

static void say(uint16_t op, uint32_t own_port, uint32_t host_port)
{
    send_packet(
        (struct virtio_vsock_hdr){
            .op = op, .src_port = own_port, .dst_port = host_port, .buf_alloc = ROOM},
        NULL, 0);
}

/* The next packet for the guest; its buffer is offered again. */
static bool hear(struct virtio_vsock_hdr *header, uint8_t data[BUFFER])
{
    struct virtqueue_used_element element;

    host_turn(&host);
    if (!driver_collect(&host.driver, RX, &element)) {
        return false;
    }
    const uint8_t *from = driver_pointer(&host.driver, address_of(RX, element.id));
    memcpy(header, from, HEADER);
    ck_assert_uint_eq(element.length, HEADER + header->len);
    ck_assert_uint_eq(header->src_cid, VSOCK_CID_HOST);
    ck_assert_uint_eq(header->dst_cid, CID);
    memcpy(data, from + HEADER, header->len);
    offer_buffer(element.id);
    host_kick(&host, RX);
    return true;
}

static struct virtio_vsock_hdr expect(uint16_t op)
{
    static uint8_t data[BUFFER];
    struct virtio_vsock_hdr header;

    ck_assert_msg(hear(&header, data), "no packet came");
    ck_assert_uint_eq(header.op, op);
    return header;
}

static void expect_nothing(void)
{
    static uint8_t data[BUFFER];
    struct virtio_vsock_hdr header;
    ck_assert_msg(!hear(&header, data), "a packet %u came", header.op);
}

/* ---- The host ---- */

static int dial(const char *greeting)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(write(fd, greeting, strlen(greeting)), strlen(greeting));
    host_turn(&host);
    return fd;
}

/* What there is to read; -1: nothing yet, -2: it was closed by force. */
static ssize_t take(int fd, char *text, size_t size)
{
    host_turn(&host);
    ssize_t bytes = read(fd, text, size);
    return bytes < 0 && errno == ECONNRESET ? -2 : bytes;
}

/* A stream from the host to port 80 of the guest; the host's port in *port. */
static int open_stream(uint32_t *port)
{
    char text[64] = "";
    int fd = dial("CONNECT 80\n");
    struct virtio_vsock_hdr request = expect(VIRTIO_VSOCK_OP_REQUEST);

    ck_assert_uint_eq(request.dst_port, 80);
    ck_assert_uint_eq(request.buf_alloc, VSOCK_BUFFER_BYTES);
    *port = request.src_port;
    ck_assert_int_eq(take(fd, text, sizeof(text)), -1);
    say(VIRTIO_VSOCK_OP_RESPONSE, 80, *port);
    ck_assert_int_gt(take(fd, text, sizeof(text)), 0);
    char expected[64];
    snprintf(expected, sizeof(expected), "OK %u\n", *port);
    ck_assert_str_eq(text, expected);
    return fd;
}

static void send_data(uint32_t port, const void *data, uint32_t bytes)
{
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RW,
                                          .src_port = 80,
                                          .dst_port = port,
                                          .len = bytes,
                                          .buf_alloc = ROOM},
                data, bytes);
}

/* ---- Tests ---- */

START_TEST(test_data_goes_both_ways_and_both_ends_close)
{
    static uint8_t data[BUFFER];
    struct virtio_vsock_hdr header;
    uint32_t port;
    char text[64];
    int fd = open_stream(&port);

    ck_assert_int_eq(write(fd, "to the guest", 12), 12);
    ck_assert(hear(&header, data));
    ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_RW);
    ck_assert_uint_eq(header.len, 12);
    ck_assert_mem_eq(data, "to the guest", 12);
    send_data(port, "to the host", 11);
    ck_assert_int_eq(take(fd, text, sizeof(text)), 11);
    ck_assert_mem_eq(text, "to the host", 11);

    /* Half a close each, then the rest. */
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    header = expect(VIRTIO_VSOCK_OP_SHUTDOWN);
    ck_assert_uint_eq(header.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    send_data(port, "last", 4);
    send_packet(
        (struct virtio_vsock_hdr){
            .op = VIRTIO_VSOCK_OP_SHUTDOWN, .src_port = 80, .dst_port = port, .flags = 3},
        NULL, 0);
    ck_assert_int_eq(take(fd, text, sizeof(text)), 4);
    ck_assert_int_eq(take(fd, text, sizeof(text)), 0);
    expect(VIRTIO_VSOCK_OP_RST);
    expect_nothing();
    close(fd);
}
END_TEST

START_TEST(test_the_guest_gets_no_more_than_it_has_room_for)
{
    static uint8_t data[BUFFER];
    static char many[3 * BUFFER];
    struct virtio_vsock_hdr header;
    uint32_t port, total = 0;
    int fd = open_stream(&port);

    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
                                          .src_port = 80,
                                          .dst_port = port,
                                          .buf_alloc = 5000},
                NULL, 0);
    ck_assert_int_eq(write(fd, many, sizeof(many)), sizeof(many));
    while (hear(&header, data)) {
        ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_RW);
        total += header.len;
    }
    ck_assert_uint_eq(total, 5000);
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
                                          .src_port = 80,
                                          .dst_port = port,
                                          .buf_alloc = 5000,
                                          .fwd_cnt = 100},
                NULL, 0);
    header = expect(VIRTIO_VSOCK_OP_RW);
    ck_assert_uint_eq(header.len, 100);
    /* A guest that claims to have taken more than it was sent has no room at all. */
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
                                          .src_port = 80,
                                          .dst_port = port,
                                          .buf_alloc = 5000,
                                          .fwd_cnt = 9000},
                NULL, 0);
    expect_nothing();
    close(fd);
}
END_TEST

START_TEST(test_a_slow_host_is_waited_for_up_to_the_credit)
{
    static char chunk[0x4000 - HEADER], text[65536];
    uint32_t port, sent = 0;
    int fd = open_stream(&port), small = 4096;
    static uint8_t data[BUFFER];
    struct virtio_vsock_hdr header;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    for (unsigned i = 0; i < sizeof(chunk); i++) {
        chunk[i] = (char)(i * 31);
    }
    /* As much as it has credit for, whatever the host's socket holds besides. */
    uint32_t told = 0;
    while (sent + sizeof(chunk) - told <= VSOCK_BUFFER_BYTES) {
        send_data(port, chunk, sizeof(chunk));
        sent += sizeof(chunk);
        while (hear(&header, data)) {
            ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
            told = header.fwd_cnt;
        }
    }
    uint32_t received = 0;
    ssize_t bytes;
    while (received < sent && (bytes = take(fd, text, sizeof(text))) > 0) {
        for (ssize_t i = 0; i < bytes; i++, received++) {
            ck_assert_int_eq(text[i], chunk[received % sizeof(chunk)]);
        }
    }
    ck_assert_uint_eq(received, sent);
    header = expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    close(fd);
}
END_TEST

START_TEST(test_more_than_the_credit_ends_the_stream)
{
    static char chunk[0x4000 - HEADER];
    static uint8_t data[BUFFER];
    struct virtio_vsock_hdr header = {0};
    uint32_t port;
    int fd = open_stream(&port);

    for (unsigned i = 0; i < 200 && header.op != VIRTIO_VSOCK_OP_RST; i++) {
        send_data(port, chunk, sizeof(chunk));
        hear(&header, data);
    }
    ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_RST);
    close(fd);
}
END_TEST

START_TEST(test_what_belongs_to_nobody_is_reset)
{
    uint32_t port;

    for (uint16_t op = 0; op < 9; op++) {
        if (op == VIRTIO_VSOCK_OP_RST) {
            say(op, 1, 2);
            expect_nothing();
            continue;
        }
        say(op, 1, 2);
        struct virtio_vsock_hdr header = expect(VIRTIO_VSOCK_OP_RST);
        ck_assert_uint_eq(header.src_port, 2);
        ck_assert_uint_eq(header.dst_port, 1);
    }
    int fd = open_stream(&port);
    say(VIRTIO_VSOCK_OP_REQUEST, 80, port); /* it is there already */
    expect(VIRTIO_VSOCK_OP_RST);
    say(VIRTIO_VSOCK_OP_RESPONSE, 80, port);
    expect(VIRTIO_VSOCK_OP_RST); /* nobody asked: that ends it */
    char text[8];
    ck_assert_int_eq(take(fd, text, sizeof(text)), 0);
    close(fd);
}
END_TEST

START_TEST(test_packets_that_make_no_sense_are_dropped)
{
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_RW, .len = 100}, "x", 1);
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_REQUEST, .src_cid = 99}, NULL, 0);
    expect_nothing();
    driver_describe(&host.driver, TX, 9, address_of(TX, 9), 10, 0, 0); /* half a header */
    driver_offer(&host.driver, TX, 9);
    host_kick(&host, TX);
    expect_nothing();
    send_packet((struct virtio_vsock_hdr){.op = VIRTIO_VSOCK_OP_REQUEST, .type = 7}, NULL, 0);
    expect(VIRTIO_VSOCK_OP_RST);
    ck_assert_uint_eq(atomic_load(&host.driver.state->needs_reset), 0);
}
END_TEST

START_TEST(test_the_guest_reaches_who_listens)
{
    char name[80], text[64];
    int listener;

    snprintf(name, sizeof(name), "%s_4000000000", path);
    listen_at(name, &listener);
    say(VIRTIO_VSOCK_OP_REQUEST, 1234, 4000000000u);
    expect(VIRTIO_VSOCK_OP_RESPONSE);
    int fd = accept(listener, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    send_packet(
        (struct virtio_vsock_hdr){
            .op = VIRTIO_VSOCK_OP_RW, .src_port = 1234, .dst_port = 4000000000u, .len = 5},
        "hello", 5);
    ck_assert_int_eq(take(fd, text, sizeof(text)), 5);
    close(fd);
    struct virtio_vsock_hdr header = expect(VIRTIO_VSOCK_OP_SHUTDOWN);
    ck_assert_uint_eq(header.flags, 3);
    say(VIRTIO_VSOCK_OP_REQUEST, 1235, 4000000001u);
    expect(VIRTIO_VSOCK_OP_RST);
    close(listener);
    unlink(name);
}
END_TEST

START_TEST(test_greetings)
{
    static const char *const wrong[] = {"GET / HTTP/1.0\r\n\r\n", "CONNECT \n",
                                        "CONNECT -1\n",           "CONNECT 5x\n",
                                        "CONNECT 4294967295\n",   "CONNECT 0000000000000000001\n"};
    char text[8];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int fd = dial(wrong[i]);
        ssize_t bytes = take(fd, text, sizeof(text));
        ck_assert_msg(bytes == 0 || bytes == -2, "'%s' was accepted", wrong[i]);
        close(fd);
    }
    expect_nothing();
    int fd = dial("CONN");
    expect_nothing();
    ck_assert_int_eq(write(fd, "ECT 7\nearly", 11), 11);
    struct virtio_vsock_hdr header = expect(VIRTIO_VSOCK_OP_REQUEST);
    ck_assert_uint_eq(header.dst_port, 7);
    say(VIRTIO_VSOCK_OP_RESPONSE, 7, header.src_port);
    header = expect(VIRTIO_VSOCK_OP_RW);
    ck_assert_uint_eq(header.len, 5);
    /* Refused by the guest. */
    int other = dial("CONNECT 8\n");
    header = expect(VIRTIO_VSOCK_OP_REQUEST);
    say(VIRTIO_VSOCK_OP_RST, 8, header.src_port);
    ck_assert_int_eq(take(other, text, sizeof(text)), 0);
    close(other);
    close(fd);
}
END_TEST

START_TEST(test_a_successor_tells_the_driver)
{
    struct virtqueue_used_element element;
    struct virtio_vsock_event *event = driver_pointer(&host.driver, address_of(EVENT, 0));
    uint32_t port;
    char text[8];
    int fd = open_stream(&port);

    event->id = 77;
    driver_describe(&host.driver, EVENT, 0, address_of(EVENT, 0), sizeof(*event), VIRTQUEUE_WRITE,
                    0);
    driver_offer(&host.driver, EVENT, 0);
    host_kick(&host, EVENT);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, EVENT, &element));

    device_destroy(host.device);
    host.device = NULL;
    start(true);
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, EVENT, &element));
    ck_assert_uint_eq(event->id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
    ck_assert(host_called(&host, EVENT));
    ck_assert_int_eq(take(fd, text, sizeof(text)), 0);
    send_data(port, "x", 1); /* a driver that has not seen it yet */
    expect(VIRTIO_VSOCK_OP_RST);
    close(fd);
    close(open_stream(&port));
}
END_TEST

START_TEST(test_settings)
{
    struct vsock_setting read;
    static const char *const wrong[] = {"",
                                        "cid=3",
                                        "path=",
                                        "path=/x,cid=2",
                                        "path=/x,cid=",
                                        "path=/x,cid=4294967295",
                                        "path=/x,y",
                                        "path=/x,cid=3x",
                                        "path=/x,"};
    char text[160];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(vsock_setting_parse(wrong[i], ERROR_USAGE, &read, &err) == -ERROR_USAGE,
                      "'%s' was accepted", wrong[i]);
    }
    ck_assert_int_eq(vsock_setting_parse("path=/a,,b", ERROR_USAGE, &read, &err), 0);
    ck_assert_str_eq(read.path, "/a,b");
    ck_assert_uint_eq(read.cid, VSOCK_CID_DEFAULT);
    char *formatted = vsock_setting_format(&read);
    ck_assert_str_eq(formatted, "path=/a,,b,cid=3");
    free(formatted);
    snprintf(text, sizeof(text), "path=/%0*d", VSOCK_PATH_MAX, 0);
    ck_assert_int_eq(vsock_setting_parse(text, ERROR_USAGE, &read, &err), -ERROR_USAGE);
    snprintf(text, sizeof(text), "path=/%0*d", VSOCK_PATH_MAX - 1, 0);
    ck_assert_int_eq(vsock_setting_parse(text, ERROR_USAGE, &read, &err), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device_vsock");
    TCase *tests = tcase_create("device");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_data_goes_both_ways_and_both_ends_close);
    tcase_add_test(tests, test_the_guest_gets_no_more_than_it_has_room_for);
    tcase_add_test(tests, test_a_slow_host_is_waited_for_up_to_the_credit);
    tcase_add_test(tests, test_more_than_the_credit_ends_the_stream);
    tcase_add_test(tests, test_what_belongs_to_nobody_is_reset);
    tcase_add_test(tests, test_packets_that_make_no_sense_are_dropped);
    tcase_add_test(tests, test_the_guest_reaches_who_listens);
    tcase_add_test(tests, test_greetings);
    tcase_add_test(tests, test_a_successor_tells_the_driver);
    suite_add_tcase(suite, tests);
    TCase *settings = tcase_create("settings");
    tcase_add_test(settings, test_settings);
    suite_add_tcase(suite, settings);
    return host_report_rings(suite);
}
