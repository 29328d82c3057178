/* A network card whose process is killed at any instant, with frames on their way in and out. */
#include "tests/unit/net_card_host.h"
#include <signal.h>
#include <sys/wait.h>

#define DEATHS    40
#define FRAMES    2000 /* at least, each way */
#define IN_BYTES  2000 /* of a frame from the link: two buffers */
#define OUT_BYTES 100
#define NUMBER_AT 14 /* of a frame, behind its Ethernet header */

/* Frames are numbered: they may be missing, or on the way out come twice, never be out of order or
 * damaged; each buffer comes back once, in its turn. */
static struct {
    unsigned offered, collected; /* transmit buffers */
    unsigned sent, received;     /* frames that the link got; buffers that the guest got */
    uint32_t number_out, last_out, number_in, last_in;
} flow;

/* A device process, until it is killed. */
static pid_t run_process(bool restart)
{
    pid_t pid = fork();

    if (pid == 0) {
        event_reinit(host.base);
        if (!restart) {
            start(ALL_FEATURES);
        } else {
            tell(LINK_CONNECTED, connection);
            ck_assert_msg(try_start(SETTING, true), "%s", err.message);
        }
        event_base_dispatch(host.base);
        _exit(1);
    }
    return pid;
}

/* Its number is also at its end. */
static void write_to_link(void)
{
    fill_frame(message.frame, IN_BYTES, 0);
    flow.number_in++;
    memcpy(message.frame + NUMBER_AT, &flow.number_in, 4);
    memcpy(message.frame + IN_BYTES - 4, &flow.number_in, 4);
    message.header = plain;
    if (write(peer, &message, HEADER + IN_BYTES) < 0) {
        flow.number_in--;
    }
}

static void transmit_next(void)
{
    struct virtqueue_used_element element;

    if (flow.offered - flow.collected < DRIVER_QUEUE_SIZE) {
        unsigned slot = flow.offered++ % DRIVER_QUEUE_SIZE;
        uint8_t *to = buffer(TX, slot);
        memcpy(to, &plain, HEADER);
        fill_frame(to + HEADER, OUT_BYTES, 0);
        flow.number_out++;
        memcpy(to + HEADER + NUMBER_AT, &flow.number_out, 4);
        driver_describe(&host.driver, TX, slot, buffer_address(TX, slot), HEADER + OUT_BYTES, 0, 0);
        driver_offer(&host.driver, TX, (uint16_t)slot);
        host_kick(&host, TX);
    }
    while (driver_collect(&host.driver, TX, &element)) {
        ck_assert_uint_eq(element.id, flow.collected++ % DRIVER_QUEUE_SIZE);
    }
}

static void read_from_link(void)
{
    struct message got;

    for (ssize_t bytes; (bytes = read(peer, &got, sizeof(got))) > 0;) {
        uint32_t number;
        ck_assert_int_eq(bytes, HEADER + OUT_BYTES);
        memcpy(&number, got.frame + NUMBER_AT, 4);
        ck_assert(number == flow.last_out || number == flow.last_out + 1); /* none is missing */
        flow.last_out = number;
        flow.sent++;
    }
}

static void receive_buffers(void)
{
    struct virtqueue_used_element element;

    while (driver_collect(&host.driver, RX, &element)) {
        unsigned slot = flow.received % DRIVER_QUEUE_SIZE;
        uint8_t *from = buffer(RX, slot);
        uint32_t number;
        ck_assert_uint_eq(element.id, slot);
        if (flow.received % 2 == 0) {
            ck_assert_uint_eq(element.length, BUFFER);
            ck_assert_uint_eq(((struct virtio_net_hdr_v1 *)(void *)from)->num_buffers, 2);
            memcpy(&number, from + HEADER + NUMBER_AT, 4);
            ck_assert_uint_gt(number, flow.last_in);
            flow.last_in = number;
        } else {
            ck_assert_uint_eq(element.length, HEADER + IN_BYTES - BUFFER);
            memcpy(&number, from + element.length - 4, 4);
            ck_assert_uint_eq(number, flow.last_in);
        }
        memset(from, 0xee, BUFFER);
        offer_receive(slot, BUFFER);
        host_kick(&host, RX);
        flow.received++;
    }
}

START_TEST(killed_at_any_instant)
{
    unsigned deaths = 0, seed = 1;

    memset(&flow, 0, sizeof(flow));
    offer_all_receive(BUFFER);
    pid_t pid = run_process(false);
    while (deaths < DEATHS || flow.received < FRAMES || flow.sent < FRAMES) {
        write_to_link();
        transmit_next();
        read_from_link();
        receive_buffers();
        seed = seed * 1103515245 + 12345;
        if (seed >> 16 & 1) {
            usleep(seed >> 20 & 0xff);
        }
        if ((seed >> 17) % 60 == 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            pid = run_process(true);
            deaths++;
        }
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ck_assert(!host.driver.state->needs_reset);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-net, death");
    TCase *tests = tcase_create("device");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, killed_at_any_instant);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
