/* virtio-net from the driver's side. */
#include "tests/unit/net_card_host.h"

START_TEST(describes_itself)
{
    start(ALL_FEATURES);
    const struct virtio_state *state = host.driver.state;

    ck_assert_uint_eq(state->device_id, 1);
    ck_assert_uint_eq(state->queue_count, 3);
    ck_assert_mem_eq(config()->mac, MAC, sizeof(MAC));
    ck_assert_uint_eq(config()->status, VIRTIO_NET_S_LINK_UP);
    ck_assert_uint_eq(config()->max_virtqueue_pairs, 1);
    ck_assert(state->device_features & NET_FEATURE(VIRTIO_NET_F_MRG_RXBUF));
    ck_assert(!(state->device_features & NET_FEATURE(VIRTIO_NET_F_MQ)));
    ck_assert(!(state->device_features & NET_FEATURE(VIRTIO_NET_F_MTU)));
}
END_TEST

START_TEST(several_queues_and_an_mtu)
{
    host.kicks = 7;
    ck_assert(try_start(SETTING ",queues=3,mtu=9000", false));
    ck_assert_uint_eq(host.driver.state->queue_count, 7);
    ck_assert_uint_eq(config()->max_virtqueue_pairs, 3);
    ck_assert_uint_eq(config()->mtu, 9000);
    ck_assert(host.driver.state->device_features & NET_FEATURE(VIRTIO_NET_F_MQ));
    ck_assert(host.driver.state->device_features & NET_FEATURE(VIRTIO_NET_F_MTU));
}
END_TEST

START_TEST(settings_that_do_not_fit)
{
    ck_assert(!try_start(SETTING ",queues=2", false)); /* five queues, three doorbells */
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    ck_assert(!try_start("link,path=/x", false));               /* no address */
    ck_assert(!try_start("user,mac=52:54:00:00:00:01", false)); /* that is another model */
    ck_assert(!try_start("nonsense", false));
    host.device = NULL;
}
END_TEST

START_TEST(sends_what_the_guest_transmits)
{
    start(ALL_FEATURES);
    struct virtqueue_used_element element;

    fill_frame(buffer(TX, 3) + HEADER, 100, 1);
    transmit(3, &plain, 100);
    ck_assert_int_eq(read(peer, &message, sizeof(message)), HEADER + 100);
    ck_assert_mem_eq(message.frame, buffer(TX, 3) + HEADER, 100);
    ck_assert(driver_collect(&host.driver, TX, &element));
    ck_assert_uint_eq(element.id, 3);
    ck_assert_uint_eq(element.length, 0);
    ck_assert(host_called(&host, TX));
}
END_TEST

START_TEST(drops_what_is_no_frame)
{
    start(PLAIN); /* no checksums, no segmentation */
    struct virtqueue_used_element element;
    const struct virtio_net_hdr_v1 sums = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34};
    const struct virtio_net_hdr_v1 cut = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1};

    transmit(0, &plain, 13);
    transmit(1, &sums, 100);
    transmit(2, &cut, 100);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(driver_collect(&host.driver, TX, &element));
        ck_assert_uint_eq(element.id, i);
    }
    ck_assert_int_lt(read(peer, &message, sizeof(message)), 0);
    ck_assert(!host.driver.state->needs_reset);
}
END_TEST

START_TEST(a_full_link_holds_up_and_goes_on)
{
    start(ALL_FEATURES);
    struct virtqueue_used_element element;
    unsigned sent = 0, received = 0, done = 0;

    while (sent < 2000 && received == 0) {
        fill_frame(buffer(TX, sent % DRIVER_QUEUE_SIZE) + HEADER, 1000, (uint8_t)sent);
        transmit(sent % DRIVER_QUEUE_SIZE, &plain, 1000);
        sent++;
        if (!driver_collect(&host.driver, TX, &element)) {
            break; /* the other end reads nothing: it is full */
        }
        done++;
    }
    ck_assert_uint_lt(done, sent);
    for (ssize_t bytes; (bytes = read(peer, &message, sizeof(message))) > 0;) {
        ck_assert_int_eq(message.frame[14], (uint8_t)(received + 14 * 7));
        received++;
        host_turn(&host);
    }
    ck_assert_uint_eq(received, sent); /* none is lost, none comes twice */
}
END_TEST

START_TEST(receives_into_one_buffer)
{
    start(ALL_FEATURES);
    struct virtio_net_hdr_v1 header;

    offer_receive(5, BUFFER);
    fill_frame(message.frame, 60, 9);
    send_frame(&plain, 60);
    ck_assert_uint_eq(receive_one(5), HEADER + 60);
    ck_assert(host_called(&host, RX));
    memcpy(&header, buffer(RX, 5), sizeof(header));
    ck_assert_uint_eq(header.num_buffers, 1);
    ck_assert_mem_eq(buffer(RX, 5) + HEADER, message.frame, 60);
}
END_TEST

START_TEST(merges_buffers)
{
    start(ALL_FEATURES);
    struct virtio_net_hdr_v1 header;
    const size_t length = 4000;
    size_t done = 0;

    offer_all_receive(BUFFER);
    fill_frame(message.frame, length, 3);
    send_frame(&plain, length);
    memcpy(&header, buffer(RX, 0), sizeof(header));
    ck_assert_uint_eq(header.num_buffers, 3);
    for (unsigned i = 0; i < 3; i++) {
        unsigned skip = i == 0 ? HEADER : 0;
        uint32_t bytes = receive_one(i) - skip;
        ck_assert_mem_eq(buffer(RX, i) + skip, message.frame + done, bytes);
        done += bytes;
    }
    ck_assert_uint_eq(done, length);
    receive_nothing();
}
END_TEST

START_TEST(a_frame_waits_for_room)
{
    start(ALL_FEATURES);

    offer_receive(0, BUFFER);
    fill_frame(message.frame, 4000, 3);
    send_frame(&plain, 4000);
    fill_frame(message.frame, 60, 4);
    send_frame(&plain, 60);
    receive_nothing(); /* not even a part */
    for (unsigned i = 1; i < 5; i++) {
        offer_receive(i, BUFFER);
    }
    host_kick(&host, RX);
    host_turn(&host);
    for (unsigned i = 0; i < 4; i++) {
        receive_one(i);
    }
    ck_assert_mem_eq(buffer(RX, 3) + HEADER, message.frame, 60);
}
END_TEST

/* Three buffers are there, four are needed: the device asks to be told of the fourth, not of the
 * first, which would never come, and does not look again and again meanwhile. */
START_TEST(asks_for_a_kick_beyond_what_is_there)
{
    start(ALL_FEATURES);
    struct driver_queue *queue = &host.driver.queues[RX];
    uint16_t *kick_at = queue->used + 2 + 4 * DRIVER_QUEUE_SIZE;

    for (unsigned i = 0; i < 3; i++) {
        offer_receive(i, BUFFER);
    }
    fill_frame(message.frame, 5000, 3);
    send_frame(&plain, 5000);
    receive_nothing();
    if (host.driver.packed) {
        ck_assert_uint_eq(queue->device_event->flags, VIRTQUEUE_EVENT_DESCRIPTOR);
        ck_assert_uint_eq(queue->device_event->descriptor, 0x8000 | 3);
    } else {
        ck_assert_uint_eq(*kick_at, 3);
    }
    offer_receive(3, BUFFER);
    host_kick(&host, RX);
    host_turn(&host);
    for (unsigned i = 0; i < 4; i++) {
        receive_one(i);
    }
}
END_TEST

START_TEST(a_frame_too_large_for_plain_buffers_is_lost)
{
    start(PLAIN);
    offer_receive(0, BUFFER);
    fill_frame(message.frame, 4000, 3);
    send_frame(&plain, 4000);
    fill_frame(message.frame, 60, 4);
    send_frame(&plain, 60);
    ck_assert_uint_eq(receive_one(0), HEADER + 60);
}
END_TEST

START_TEST(a_receive_buffer_without_room_for_the_header)
{
    start(ALL_FEATURES);
    offer_receive(0, 11);
    fill_frame(message.frame, 60, 4);
    send_frame(&plain, 60);
    ck_assert(host.driver.state->needs_reset);
    receive_nothing();
}
END_TEST

/* A TCP segment over IPv4 of `payload` bytes; its length. */
static size_t fill_segment(uint8_t *frame, unsigned payload)
{
    static const uint8_t head[] = {
        0x08, 0x00, 0x45, 0, 0, 0, 0,    1,    0x40, 0,    64,   6,    0, 0, 10, 0,
        0,    1,    10,   0, 0, 2, 0x12, 0x34, 0,    80, /* ports */
        0,    0,    0,    1, 0, 0, 0,    2,    0x50, 0x18, 0xff, 0xff, 0, 0, 0,  0};
    unsigned total = 40 + payload;

    fill_frame(frame, NET_ETHERNET_BYTES + total, 0);
    memcpy(frame + 12, head, sizeof(head));
    frame[16] = (uint8_t)(total >> 8);
    frame[17] = (uint8_t)total;
    return NET_ETHERNET_BYTES + total;
}

START_TEST(cuts_and_sums_for_a_guest_that_cannot)
{
    start(PLAIN);
    const struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                             .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                             .gso_size = 1000,
                                             .csum_start = 34,
                                             .csum_offset = 16};
    struct virtio_net_hdr_v1 got;

    offer_all_receive(BUFFER);
    send_frame(&header, fill_segment(message.frame, 2500));
    ck_assert_uint_eq(receive_one(0), HEADER + 54 + 1000);
    ck_assert_uint_eq(receive_one(1), HEADER + 54 + 1000);
    ck_assert_uint_eq(receive_one(2), HEADER + 54 + 500);
    receive_nothing();
    memcpy(&got, buffer(RX, 0), sizeof(got));
    ck_assert_uint_eq(got.flags, 0);
    ck_assert_uint_eq(got.gso_type, 0);
}
END_TEST

START_TEST(hands_on_what_the_guest_can_do)
{
    start(ALL_FEATURES);
    const struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                             .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                             .gso_size = 1000,
                                             .hdr_len = 9999,
                                             .csum_start = 34,
                                             .csum_offset = 16};
    struct virtio_net_hdr_v1 got;
    uint64_t none = 0;

    offer_all_receive(BUFFER);
    send_frame(&header, fill_segment(message.frame, 1400));
    ck_assert_uint_eq(receive_one(0), HEADER + 54 + 1400);
    memcpy(&got, buffer(RX, 0), sizeof(got));
    ck_assert_uint_eq(got.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    ck_assert_uint_eq(got.hdr_len, 54); /* what is true, not what was said */
    /* It may turn that off. */
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                              &none, sizeof(none)),
                      VIRTIO_NET_OK);
    send_frame(&header, fill_segment(message.frame, 1400));
    ck_assert_uint_eq(receive_one(1), HEADER + 54 + 1000);
    ck_assert_uint_eq(receive_one(2), HEADER + 54 + 400);
}
END_TEST

START_TEST(headers_from_the_link_are_checked)
{
    start(ALL_FEATURES);
    static const struct virtio_net_hdr_v1 wrong[] = {
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 60000, .csum_offset = 6000},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 2},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = 77, .gso_size = 1, .csum_start = 34},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 100},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
         .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
         .csum_start = 34},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
         .gso_type = VIRTIO_NET_HDR_GSO_TCPV6,
         .gso_size = 100,
         .csum_start = 34},
    };

    offer_all_receive(BUFFER);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        send_frame(&wrong[i], fill_segment(message.frame, 500));
        receive_nothing();
    }
    ck_assert_int_eq(write(peer, &message, 5), 5); /* no whole header */
    send_frame(&plain, 60);
    receive_one(0);
}
END_TEST

START_TEST(filters_by_address)
{
    start(ALL_FEATURES);
    static const uint8_t other[] = {0x52, 0x54, 0, 0, 0, 9}, group[] = {1, 0, 0x5e, 0, 0, 1};
    struct {
        uint32_t unicast_count;
        uint8_t unicast[6];
        uint32_t multicast_count;
        uint8_t multicast[6];
    } __attribute__((packed)) table = {1, {0x52, 0x54, 0, 0, 0, 9}, 1, {1, 0, 0x5e, 0, 0, 1}};
    uint8_t off = 0;

    offer_all_receive(BUFFER);
    fill_frame(message.frame, 60, 1);
    memcpy(message.frame, other, 6);
    send_frame(&plain, 60);
    receive_one(0); /* everything, until the driver says otherwise */
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1),
                      VIRTIO_NET_OK);
    send_frame(&plain, 60);
    memcpy(message.frame, group, 6);
    send_frame(&plain, 60);
    receive_nothing();
    ck_assert_uint_eq(
        command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, &table, sizeof(table)),
        VIRTIO_NET_OK);
    send_frame(&plain, 60);
    receive_one(1);
    replace(); /* the next process knows */
    send_frame(&plain, 60);
    receive_one(2);
    memcpy(message.frame, "\x52\x54\x00\x00\x00\x0a", 6);
    send_frame(&plain, 60);
    receive_nothing();
    memcpy(message.frame, "\xff\xff\xff\xff\xff\xff", 6);
    send_frame(&plain, 60);
    receive_one(3);
}
END_TEST

START_TEST(bad_commands_are_refused)
{
    start(ALL_FEATURES);
    const uint16_t pairs = 2;
    const uint32_t many = 0x40000000;
    const uint64_t offloads = UINT64_MAX;
    const uint8_t group[] = {1, 0, 0, 0, 0, 1};

    ck_assert_uint_eq(command(99, 0, "", 0), VIRTIO_NET_ERR);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_RX, 99, "\1", 1), VIRTIO_NET_ERR);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "", 0),
                      VIRTIO_NET_ERR);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, &many, 4),
                      VIRTIO_NET_ERR);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6),
                      VIRTIO_NET_ERR);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, 2),
                      VIRTIO_NET_ERR);
    ck_assert_uint_eq(
        command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads, 8),
        VIRTIO_NET_ERR);
    ck_assert(!host.driver.state->needs_reset);
}
END_TEST

START_TEST(an_address_that_was_set_outlives_the_process)
{
    start(ALL_FEATURES);
    static const uint8_t mac[] = {2, 0, 0, 0, 0, 7};
    uint8_t off = 0;

    command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1);
    ck_assert_uint_eq(command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6),
                      VIRTIO_NET_OK);
    ck_assert_mem_eq(config()->mac, mac, 6);
    replace();
    ck_assert_mem_eq(config()->mac, mac, 6);
    offer_all_receive(BUFFER);
    fill_frame(message.frame, 60, 1);
    send_frame(&plain, 60); /* to the old address */
    receive_nothing();
    memcpy(message.frame, mac, 6);
    send_frame(&plain, 60);
    receive_one(0);
}
END_TEST

START_TEST(the_cable)
{
    start(ALL_FEATURES);
    struct virtqueue_used_element element;

    ck_assert_int_eq(device_set_link(host.device, false, &err), 0);
    ck_assert_uint_eq(config()->status, 0);
    ck_assert(host_called(&host, 3)); /* its configuration changed */
    offer_all_receive(BUFFER);
    fill_frame(message.frame, 60, 1);
    send_frame(&plain, 60);
    receive_nothing();
    transmit(0, &plain, 60);
    ck_assert(driver_collect(&host.driver, TX, &element)); /* given back, gone nowhere */
    ck_assert_int_lt(read(peer, &message, sizeof(message)), 0);
    ck_assert_int_eq(device_set_link(host.device, true, &err), 0);
    ck_assert_uint_eq(config()->status, VIRTIO_NET_S_LINK_UP);
    send_frame(&plain, 60);
    receive_one(0);
    /* The other machine ends, and there is another. */
    tell(LINK_GONE, -1);
    host_turn(&host);
    ck_assert_uint_eq(config()->status, 0);
    tell(LINK_CONNECTED, connection);
    host_turn(&host);
    ck_assert_uint_eq(config()->status, VIRTIO_NET_S_LINK_UP);
    send_frame(&plain, 60);
    receive_one(1);
}
END_TEST

static void note_reset(void *context)
{
    *(bool *)context = true;
}

START_TEST(a_reset_forgets)
{
    start(ALL_FEATURES);
    struct virtio_state *state = host.driver.state;
    static const uint8_t mac[] = {2, 0, 0, 0, 0, 7};
    bool done = false;

    command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6);
    atomic_store(&state->status, 0);
    virtio_device_reset(host.device, note_reset, &done);
    ck_assert(done);
    ck_assert_mem_eq(config()->mac, MAC, 6);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    host_activate(&host, ALL_FEATURES);
    offer_all_receive(BUFFER);
    fill_frame(message.frame, 60, 1);
    send_frame(&plain, 60);
    receive_one(0);
}
END_TEST

static void limit(const char *words)
{
    struct limits limits = {0};

    ck_assert_int_eq(limits_parse(LIMIT_NET, words, ERROR_CONFIG, &limits, &err), 0);
    ck_assert_int_eq(device_set_limits(host.device, &limits, &err), 0);
}

/* Both directions have their own limit; what waits is neither lost nor in another order. */
START_TEST(limits_hold_frames_up)
{
    struct virtqueue_used_element element;

    start(ALL_FEATURES);
    offer_all_receive(BUFFER);
    limit("pps-rx=1,pps-rx-burst=2,bps-tx=1,bps-tx-burst=200");
    for (unsigned i = 0; i < 5; i++) {
        fill_frame(message.frame, 100, (uint8_t)i);
        send_frame(&plain, 100);
        fill_frame(buffer(TX, i) + HEADER, 100, (uint8_t)i);
        transmit(i, &plain, 100);
    }
    receive_one(0);
    receive_one(1);
    receive_nothing();
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(read(peer, &message, sizeof(message)), HEADER + 100);
        ck_assert(driver_collect(&host.driver, TX, &element));
    }
    ck_assert_int_eq(read(peer, &message, sizeof(message)), -1);
    ck_assert(!driver_collect(&host.driver, TX, &element));
    command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\1", 1); /* goes on to work */
    limit("off");
    host_turn(&host);
    for (unsigned i = 2; i < 5; i++) {
        receive_one(i);
        ck_assert_uint_eq(buffer(RX, i)[HEADER + NET_ETHERNET_BYTES],
                          (uint8_t)(i + NET_ETHERNET_BYTES * 7));
        ck_assert_int_eq(read(peer, &message, sizeof(message)), HEADER + 100);
        ck_assert_uint_eq(message.frame[NET_ETHERNET_BYTES], (uint8_t)(i + NET_ETHERNET_BYTES * 7));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-net");
    TCase *tests = tcase_create("device");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, describes_itself);
    tcase_add_test(tests, several_queues_and_an_mtu);
    tcase_add_test(tests, settings_that_do_not_fit);
    tcase_add_test(tests, sends_what_the_guest_transmits);
    tcase_add_test(tests, drops_what_is_no_frame);
    tcase_add_test(tests, a_full_link_holds_up_and_goes_on);
    tcase_add_test(tests, receives_into_one_buffer);
    tcase_add_test(tests, merges_buffers);
    tcase_add_test(tests, a_frame_waits_for_room);
    tcase_add_test(tests, asks_for_a_kick_beyond_what_is_there);
    tcase_add_test(tests, a_frame_too_large_for_plain_buffers_is_lost);
    tcase_add_test(tests, a_receive_buffer_without_room_for_the_header);
    tcase_add_test(tests, cuts_and_sums_for_a_guest_that_cannot);
    tcase_add_test(tests, hands_on_what_the_guest_can_do);
    tcase_add_test(tests, headers_from_the_link_are_checked);
    tcase_add_test(tests, filters_by_address);
    tcase_add_test(tests, bad_commands_are_refused);
    tcase_add_test(tests, an_address_that_was_set_outlives_the_process);
    tcase_add_test(tests, the_cable);
    tcase_add_test(tests, a_reset_forgets);
    tcase_add_test(tests, limits_hold_frames_up);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
