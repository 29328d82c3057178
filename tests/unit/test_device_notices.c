/* Every virtio device offers event index and indirect descriptors, and keeps to both: it interrupts
 * where the driver wants it, tells from where on it wants kicks, and finds requests in tables. */
#include "devd/vsock/connection.h"
#include "libshared/ipc/rights.h"
#include "libshared/net/link.h"
#include "libshared/vsock/setting.h"
#include "tests/unit/device_host.h"
#include "tests/unit/suite.h"
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>

extern const struct device_model device_model_virtio_blk, device_model_virtio_console,
    device_model_virtio_rng, device_model_virtio_input, device_model_virtio_net,
    device_model_virtio_vsock;

#define TABLE (DRIVER_DATA + 0x10000) /* indirect descriptors */

static struct device_host host;
static int peers[2]; /* the other ends of a network card's sockets */
static char path[64], setting[96];
static struct error err;

/* --- backends -------------------------------------------------------------------------------- */

static void disk_backend(void)
{
    host.backend = memfd_create("disk", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(host.backend, 1 << 20), 0);
}

static void console_backend(void)
{
    host_listen(&host);
}

static void no_backend(void)
{
}

/* A link whose other end nobody has connected yet would do, but for frames somebody must read. */
static void card_backend(void)
{
    int control[2], data[2];
    char kind = LINK_CONNECTED;
    const struct iovec body = {&kind, 1};

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, control), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, data), 0);
    ck_assert_int_eq(rights_send(control[0], &body, 1, &data[1], 1), 0);
    close(data[1]);
    peers[0] = control[0];
    peers[1] = data[0];
    host.backend = control[1];
    host.kicks = 3;
}

static void socket_backend(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(path, sizeof(path), "/tmp/polyvisor-notices-%d", (int)getpid());
    snprintf(setting, sizeof(setting), "path=%s,cid=5", path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    unlink(path);
    host.backend = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(host.backend, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(host.backend, 16), 0);
}

/* --- requests: one that each device completes by itself --------------------------------------- */

static void fill_disk(uint8_t *data)
{
    struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_GET_ID};
    memcpy(data, &header, sizeof(header));
}

static void fill_text(uint8_t *data)
{
    memcpy(data, "text\n", 5);
}

static void fill_nothing(uint8_t *data)
{
    (void)data;
}

static void fill_frame(uint8_t *data)
{
    memset(data + sizeof(struct virtio_net_hdr_v1), 0xff, 60);
}

static void fill_packet(uint8_t *data)
{
    struct virtio_vsock_hdr header = {.src_cid = 5,
                                      .dst_cid = VSOCK_CID_HOST,
                                      .src_port = 1,
                                      .dst_port = 2,
                                      .type = VIRTIO_VSOCK_TYPE_STREAM,
                                      .op = VIRTIO_VSOCK_OP_RST};
    memcpy(data, &header, sizeof(header));
}

static const struct kind {
    const struct device_model *model;
    void (*backend)(void);
    const char *net;
    unsigned queue;
    void (*fill)(uint8_t *data);
    uint32_t readable, writable[2]; /* bytes of each buffer; 0: there is none */
} kinds[] = {
    {&device_model_virtio_blk, disk_backend, NULL, 0, fill_disk, 16, {20, 1}},
    {&device_model_virtio_console, console_backend, NULL, 1, fill_text, 5, {0, 0}},
    {&device_model_virtio_rng, no_backend, NULL, 0, fill_nothing, 0, {64, 0}},
    {&device_model_virtio_input, no_backend, NULL, 1, fill_nothing, 8, {0, 0}},
    {&device_model_virtio_net,
     card_backend,
     "link,path=/x,mac=52:54:00:00:00:01",
     1,
     fill_frame,
     sizeof(struct virtio_net_hdr_v1) + 60,
     {0, 0}},
    {&device_model_virtio_vsock,
     socket_backend,
     NULL,
     1,
     fill_packet,
     sizeof(struct virtio_vsock_hdr),
     {0, 0}},
};
#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

static const struct kind *kind;

static void open_kind(int number)
{
    kind = &kinds[number];
    peers[0] = peers[1] = -1;
    path[0] = setting[0] = '\0';
    host_open(&host);
    kind->backend();
    struct device_settings settings = {
        .id = "test0", .serial = "serial", .net = kind->net, .vsock = setting};
    ck_assert_msg(host_try_start(&host, kind->model, &settings, &err) != NULL, "%s", err.message);
}

static void close_kind(void)
{
    host_close(&host);
    for (unsigned i = 0; i < 2; i++) {
        if (peers[i] >= 0) {
            close(peers[i]);
        }
    }
    if (path[0]) {
        unlink(path);
    }
}

/* The request's buffers, as descriptors that follow each other from `first` on. */
static unsigned describe(struct virtqueue_descriptor *table, unsigned first)
{
    const uint32_t lengths[3] = {kind->readable, kind->writable[0], kind->writable[1]};
    uint64_t address = DRIVER_DATA + first * 0x1000;
    unsigned count = 0;

    kind->fill(driver_pointer(&host.driver, address));
    for (unsigned i = 0; i < 3; i++) {
        if (lengths[i] != 0) {
            table[count] = (struct virtqueue_descriptor){
                .address = address + i * 0x400,
                .length = lengths[i],
                .flags = (uint16_t)(VIRTQUEUE_NEXT | (i > 0 ? VIRTQUEUE_WRITE : 0)),
                .next = (uint16_t)(first + count + 1),
            };
            count++;
        }
    }
    table[count - 1].flags &= (uint16_t)~VIRTQUEUE_NEXT;
    return count;
}

/* Offer the request in the queue's own descriptors, from number 4 * slot on. */
static void offer_direct(unsigned slot)
{
    describe(&host.driver.queues[kind->queue].descriptors[4 * slot], 4 * slot);
    driver_offer(&host.driver, kind->queue, (uint16_t)(4 * slot));
}

static void offer_indirect(void)
{
    struct virtqueue_descriptor *table = driver_pointer(&host.driver, TABLE);
    unsigned count = describe(table, 0);

    driver_describe(&host.driver, kind->queue, 0, TABLE, count * 16, VIRTQUEUE_INDIRECT, 0);
    driver_offer(&host.driver, kind->queue, 0);
}

static void complete(void)
{
    struct virtqueue_used_element element;

    host_kick(&host, kind->queue);
    while (!driver_collect(&host.driver, kind->queue, &element)) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    host_turn(&host);
}

/* Where driver and device say what they want to hear of (2.7.10). */
static uint16_t *used_event(void)
{
    return &host.driver.queues[kind->queue].available[2 + DRIVER_QUEUE_SIZE];
}

static uint16_t available_event(void)
{
    return host.driver.queues[kind->queue].used[2 + 4 * DRIVER_QUEUE_SIZE];
}

/* --- tests ----------------------------------------------------------------------------------- */

START_TEST(both_are_offered)
{
    const uint64_t both = VIRTQUEUE_FEATURE_EVENT_INDEX | VIRTQUEUE_FEATURE_INDIRECT;
    open_kind(_i);
    ck_assert_msg((host.driver.state->device_features & both) == both, "%s", kind->model->kind);
    close_kind();
}
END_TEST

START_TEST(requests_are_found_in_tables)
{
    open_kind(_i);
    host_activate(&host, VIRTQUEUE_FEATURE_INDIRECT);
    for (unsigned i = 0; i < 3; i++) {
        offer_indirect();
        complete();
        ck_assert_msg(host_called(&host, kind->queue), "%s", kind->model->kind);
    }
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
    close_kind();
}
END_TEST

START_TEST(tables_are_refused_that_nobody_agreed_on)
{
    open_kind(_i);
    host_activate(&host, 0);
    offer_indirect();
    host_kick(&host, kind->queue);
    host_turn(&host);
    ck_assert_msg(host.driver.state->needs_reset != 0, "%s", kind->model->kind);
    close_kind();
}
END_TEST

START_TEST(interrupts_come_where_the_driver_wants_them)
{
    open_kind(_i);
    host_activate(&host, VIRTQUEUE_FEATURE_EVENT_INDEX);
    host_called(&host, kind->queue);
    *used_event() = 2; /* when the third is used */
    for (unsigned i = 0; i < 3; i++) {
        offer_direct(i);
        complete();
        ck_assert_msg(host_called(&host, kind->queue) == (i == 2), "%s: %u", kind->model->kind, i);
    }
    offer_direct(3); /* the driver wants no more for now */
    complete();
    ck_assert_msg(!host_called(&host, kind->queue), "%s", kind->model->kind);
    close_kind();
}
END_TEST

START_TEST(the_device_says_from_where_on_it_wants_kicks)
{
    open_kind(_i);
    host_activate(&host, VIRTQUEUE_FEATURE_EVENT_INDEX);
    host_turn(&host);
    for (unsigned i = 0; i < 4; i++) {
        /* All is done, so the next one is to be told. */
        ck_assert_msg(available_event() == i, "%s: %u", kind->model->kind, available_event());
        offer_direct(i);
        complete();
    }
    close_kind();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("notices of virtio devices");
    TCase *tests = tcase_create("notices");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, both_are_offered, 0, KINDS);
    tcase_add_loop_test(tests, requests_are_found_in_tables, 0, KINDS);
    tcase_add_loop_test(tests, tables_are_refused_that_nobody_agreed_on, 0, KINDS);
    tcase_add_loop_test(tests, interrupts_come_where_the_driver_wants_them, 0, KINDS);
    tcase_add_loop_test(tests, the_device_says_from_where_on_it_wants_kicks, 0, KINDS);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
