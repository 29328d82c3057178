/* A virtio device as the guest sees it on PCI, against a device process played by a thread. */
#include "tests/unit/suite.h"
#include "tests/unit/virtio_transport_host.h"

/* --- tests ----------------------------------------------------------------------------------- */

START_TEST(test_identity_and_capabilities)
{
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 4), 0x10421af4);
    ck_assert_uint_eq(read_config(PCI_REVISION_ID, 1), 1);
    ck_assert_uint_eq(read_config(PCI_CLASS_DEVICE, 2), 0x0100);
    unsigned seen = 0, next = (unsigned)read_config(PCI_CAPABILITY_LIST, 1);
    for (unsigned i = 0; next != 0 && i < 16; i++) {
        ck_assert_uint_eq(read_config(next, 1), PCI_CAP_ID_VNDR);
        unsigned type = (unsigned)read_config(next + VIRTIO_PCI_CAP_CFG_TYPE, 1);
        uint64_t length = read_config(next + VIRTIO_PCI_CAP_LENGTH, 4);
        seen |= 1u << type;
        ck_assert(type == VIRTIO_PCI_CAP_PCI_CFG ||
                  (length > 0 && read_config(next + VIRTIO_PCI_CAP_BAR, 1) == 4));
        if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
            ck_assert_uint_eq(read_config(next + 16, 4), 4);
        }
        next = (unsigned)read_config(next + 1, 1);
    }
    ck_assert_uint_eq(next, 0);
    ck_assert_uint_eq(seen, 0x3e); /* types 1 to 5, and no MSI-X */
}
END_TEST

START_TEST(test_negotiation_and_activation)
{
    peer_start(PEER_ANSWERS);
    ck_assert_uint_eq(status(), 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_DF, 4), 0x30);
    store(COMMON + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_DF, 4), 1);
    store(COMMON + VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_DF, 4), 0);
    start_driver();
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(atomic_load(&peer.activations), 1);
    ck_assert_uint_eq(state->driver_features, FEATURES);
    ck_assert_uint_eq(atomic_load(&state->queues[0].enabled), 1);
    ck_assert_uint_eq(state->queues[0].size, 64);
    ck_assert_uint_eq(state->queues[0].descriptors, RAM);
    ck_assert_uint_eq(state->queues[0].driver_area, RAM + 0x1000);
    ck_assert_uint_eq(state->queues[0].device_area, RAM + 0x2000);
    ck_assert_uint_eq(atomic_load(&state->queues[1].enabled), 0);
    ck_assert_uint_eq(atomic_load(&state->status), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);

    set_status(0);
    ck_assert_uint_eq(status(), 0);
    ck_assert_uint_eq(atomic_load(&peer.resets), 1);
    ck_assert_uint_eq(atomic_load(&state->queues[0].enabled), 0);
    set_status(0); /* nothing to reset any more: the device is left alone */
    ck_assert_uint_eq(atomic_load(&peer.resets), 1);
    ck_assert_uint_eq(timeouts, 0);
}
END_TEST

START_TEST(test_features_are_checked)
{
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(0x30); /* without VERSION_1 */
    set_status(STATUS_READY);
    ck_assert(!(status() & VIRTIO_CONFIG_S_FEATURES_OK));
    accept_features(FEATURES | 0x40); /* more than offered */
    set_status(STATUS_READY);
    ck_assert(!(status() & VIRTIO_CONFIG_S_FEATURES_OK));
    set_status(STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK); /* refused for the same reason */
    ck_assert(!(status() & VIRTIO_CONFIG_S_DRIVER_OK));
    accept_features(FEATURES);
    set_status(STATUS_READY);
    ck_assert(status() & VIRTIO_CONFIG_S_FEATURES_OK);
    accept_features(0); /* too late */
    store(COMMON + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_GF, 4), 0x30);
    /* What this transport cannot do is never offered, whatever the device says. */
    state->device_features = UINT64_MAX;
    store(COMMON + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_DF, 4), 0xfffc0105);
    store(COMMON + VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_DF, 4), 0x30ffffff);
}
END_TEST

START_TEST(test_queue_registers)
{
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 128);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 256);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 3);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 4, 16); /* not the field's width */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 128);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
    store(COMMON + VIRTIO_PCI_COMMON_Q_MSIX, 2, 0); /* there is no MSI-X */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
    store(COMMON + VIRTIO_PCI_COMMON_MSIX, 2, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_NOFF, 2), 1);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 16); /* fixed once enabled */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
    ck_assert_uint_eq(load(COMMON + 0x3c, 8), 0);
    ck_assert_uint_eq(load(COMMON + 0x800, 4), 0);
}
END_TEST

/* Virtio 1.2, 2.6.1: one queue is reset and set up again while the driver runs. */
static void start_with_queue_reset(uint64_t more_features)
{
    state->device_features |= UINT64_C(1) << VIRTIO_F_RING_RESET | more_features;
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(state->device_features);
    set_status(STATUS_READY);
    set_queue(1, 64, RAM, RAM + 0x1000, RAM + 0x2000);
    set_status(STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
}

START_TEST(test_queue_reset)
{
    peer_start(PEER_ANSWERS);
    start_with_queue_reset(0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, 32); /* too late for that */
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 2); /* means nothing */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    ck_assert_uint_eq(peer.queue_resets, 0);

    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    ck_assert_uint_eq(peer.queue_resets, 1);
    ck_assert_uint_eq(peer.queue, 1);
    ck_assert_uint_eq(state->queues[1].enabled, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1); /* there is nothing to reset */
    ck_assert_uint_eq(peer.queue_resets, 1);

    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0); /* one that was never reset */
    store(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);

    set_queue(1, 16, RAM + 0x4000, RAM + 0x5000, RAM + 0x6000);
    ck_assert_uint_eq(peer.queue_enables, 1);
    ck_assert_uint_eq(peer.queue, 1);
    ck_assert_uint_eq(state->queues[1].enabled, 1);
    ck_assert_uint_eq(state->queues[1].size, 16);
    ck_assert_uint_eq(state->queues[1].descriptors, RAM + 0x4000);
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(peer.activations, 1);
}
END_TEST

START_TEST(test_queue_reset_must_be_negotiated)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    ck_assert_uint_eq(peer.queue_resets, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
}
END_TEST

START_TEST(test_a_queue_set_up_wrongly_after_its_reset)
{
    peer_start(PEER_ANSWERS);
    start_with_queue_reset(0);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    set_queue(1, 16, RAM + RAM_SIZE, RAM + 0x5000, RAM + 0x6000);
    ck_assert_uint_eq(peer.queue_enables, 0);
    ck_assert_uint_eq(state->queues[1].enabled, 0);
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

/* The device takes its time, then is replaced: until then the driver reads that it goes on. */
START_TEST(test_a_queue_reset_that_takes_long)
{
    peer_start(PEER_ANSWERS);
    start_with_queue_reset(0);
    atomic_store(&peer.mode, PEER_IS_MUTE);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    ck_assert_uint_eq(timeouts, 1);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2), 1);
    ck_assert_uint_eq(timeouts, 1);
    set_queue(1, 16, RAM + 0x4000, RAM + 0x5000, RAM + 0x6000); /* not yet */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    ck_assert_uint_eq(peer.queue_enables, 0);
    atomic_store(&peer.mode, PEER_ANSWERS);
    while (load(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2)) {
    }
    set_queue(1, 16, RAM + 0x4000, RAM + 0x5000, RAM + 0x6000);
    ck_assert_uint_eq(peer.queue_enables, 1);

    atomic_store(&peer.mode, PEER_IS_MUTE);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    peer_stop();
    virtio_pci_device_gone(device);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
}
END_TEST

/* Packed rings need not have a size that is a power of two, and have smaller areas. */
START_TEST(test_packed_queues)
{
    peer_start(PEER_ANSWERS);
    start_with_queue_reset(UINT64_C(1) << VIRTIO_F_RING_PACKED);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    set_queue(1, 33, RAM + RAM_SIZE - 33 * 16, RAM + RAM_SIZE - 4, RAM);
    ck_assert_uint_eq(peer.queue_enables, 1);
    ck_assert_uint_eq(state->queues[1].size, 33);
    store(COMMON + VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    set_queue(1, 33, RAM, RAM + 2, RAM + 0x1000); /* misaligned */
    ck_assert_uint_eq(peer.queue_enables, 1);
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(test_hostile_device_counts)
{
    state->queue_count = 0xffffffff;
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    state->queue_count = 0;
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_NUMQ, 2), 0);
    state->queue_count = 2;
    state->queues[0].size_max = 0xffff;
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), VIRTIO_QUEUE_SIZE_MAX);
    state->queues[0].size_max = 0;
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    state->config_length = 0xffffffff;
    load(DEVICE + 0xffc, 4);
    ck_assert_uint_eq(load(DEVICE + VIRTIO_CONFIG_MAX, 4), 0);
    ck_assert_uint_eq(load(DEVICE + VIRTIO_CONFIG_MAX - 4, 8), 0);
    atomic_store(&state->generation, 1); /* stuck in a change: answered all the same */
    ck_assert_uint_eq(load(DEVICE, 4), 0xa3a2a1a0);
}
END_TEST

static void check_queue_refused(unsigned size, uint64_t descriptors, uint64_t driver,
                                uint64_t device_area)
{
    set_status(0);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(FEATURES);
    set_status(STATUS_READY);
    set_queue(0, size, descriptors, driver, device_area);
    set_status(STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_uint_eq(atomic_load(&peer.activations), 0);
}

START_TEST(test_malformed_queues_never_reach_the_device)
{
    peer_start(PEER_ANSWERS);
    check_queue_refused(64, 0, RAM, RAM);
    check_queue_refused(64, RAM, RAM + RAM_SIZE, RAM);
    check_queue_refused(64, RAM, RAM, RAM + RAM_SIZE - 6 - 64 * 8 + 4);
    check_queue_refused(64, RAM + RAM_SIZE - 64 * 16 + 16, RAM, RAM);
    check_queue_refused(64, UINT64_MAX - 15, RAM, RAM);
    check_queue_refused(64, RAM + 8, RAM, RAM);
    check_queue_refused(64, RAM, RAM + 1, RAM);
    check_queue_refused(64, RAM, RAM, RAM + 2);
    state->device_id = 4; /* not the device that was configured */
    check_queue_refused(64, RAM, RAM, RAM);
    state->device_id = 2;
    start_driver();
    ck_assert_uint_eq(atomic_load(&peer.activations), 1);
}
END_TEST

START_TEST(test_kicks)
{
    peer_start(PEER_ANSWERS);
    store(NOTIFY, 2, 0);
    ck_assert_uint_eq(take(kicks[0]), 0); /* the driver is not up */
    start_driver();
    store(NOTIFY, 2, 0);
    store(NOTIFY + 4, 4, 1);
    store(NOTIFY + 8, 2, 2); /* no such queue */
    ck_assert_uint_eq(take(kicks[0]), 1);
    ck_assert_uint_eq(take(kicks[1]), 1);
    ck_assert_uint_eq(load(NOTIFY, 4), 0);
}
END_TEST

START_TEST(test_interrupts)
{
    peer_start(PEER_ANSWERS);
    virtio_pci_interrupt(device, 0);
    ck_assert(!line_level); /* nobody would acknowledge it */
    start_driver();
    virtio_pci_interrupt(device, 1);
    ck_assert(line_level);
    ck_assert(read_config(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    virtio_pci_interrupt(device, 2);
    ck_assert_uint_eq(load(ISR, 1), 3);
    ck_assert(!line_level);
    ck_assert_uint_eq(load(ISR, 1), 0);
    virtio_pci_interrupt(device, 0);
    set_status(0);
    ck_assert(!line_level);
    ck_assert_uint_eq(load(ISR, 1), 0);
}
END_TEST

START_TEST(test_device_configuration)
{
    peer_start(PEER_ANSWERS);
    ck_assert_uint_eq(load(DEVICE, 8), UINT64_C(0xa7a6a5a4a3a2a1a0));
    ck_assert_uint_eq(load(DEVICE + 10, 4), 0xabaa); /* ends at 12 */
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_CFGGENERATION, 1), 0);
    atomic_store(&state->generation, 0x1fe);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_CFGGENERATION, 1), 0xfe);
    store(DEVICE + 4, 2, 0xbeef); /* before the driver shows up: ignored */
    ck_assert_uint_eq(atomic_load(&peer.writes), 0);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    store(DEVICE + 4, 2, 0xbeef);
    ck_assert_uint_eq(atomic_load(&peer.writes), 1);
    ck_assert_uint_eq(peer.write_offset, 4);
    ck_assert_uint_eq(peer.write_length, 2);
    ck_assert_uint_eq(peer.write_data[0], 0xef);
    ck_assert_uint_eq(peer.write_data[1], 0xbe);
    store(DEVICE + 11, 2, 1);
    store(DEVICE + 12, 1, 1);
    ck_assert_uint_eq(atomic_load(&peer.writes), 1);
}
END_TEST

START_TEST(test_device_needs_reset)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    atomic_store(&state->needs_reset, 1);
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
    atomic_store(&state->needs_reset, 0);
    set_status(0);
    ck_assert_uint_eq(status(), 0);
}
END_TEST

START_TEST(test_refused_activation)
{
    peer_start(PEER_REFUSES);
    start_driver();
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert(line_level);
    ck_assert_uint_eq(load(ISR, 1), 2);
    ck_assert_uint_eq(timeouts, 0);
}
END_TEST

START_TEST(test_hung_device_misses_its_deadline)
{
    peer_start(_i == 0 ? PEER_IS_MUTE : PEER_FLOODS_WRONG_IDS);
    start_driver();
    ck_assert_uint_eq(timeouts, 1);
    ck_assert_uint_eq(status(),
                      STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
    set_status(0);
    /* It may still use guest memory: the reset is not done. */
    ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_NEEDS_RESET);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_uint_eq(atomic_load(&state->status), 0);
    /* Its successor connects to the same socket, is asked again, and answers. */
    peer_stop();
    peer_start(PEER_ANSWERS);
    for (unsigned i = 0; i < 2000 && status() != 0; i++) {
        usleep(1000);
    }
    ck_assert_uint_eq(status(), 0);
    unsigned before = atomic_load(&peer.activations);
    start_driver();
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(atomic_load(&peer.activations), before + 1);
}
END_TEST

START_TEST(test_absent_device)
{
    start_driver(); /* nobody connected */
    ck_assert_uint_eq(timeouts, 1);
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

/* The device dies with the request in its hands, and is replaced. */
static void *replace_peer(void *argument)
{
    (void)argument;
    while (atomic_load(&peer.activations) == 0) {
        usleep(1000);
    }
    peer_stop();
    peer_start(PEER_ANSWERS);
    return NULL;
}

START_TEST(test_device_dies_before_it_answers)
{
    pthread_t supervisor;
    peer_start(PEER_IS_MUTE);
    ck_assert_int_eq(pthread_create(&supervisor, NULL, replace_peer, NULL), 0);
    start_driver();
    pthread_join(supervisor, NULL);
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_ge(atomic_load(&peer.activations), 2);
    ck_assert_uint_eq(timeouts, 0);
}
END_TEST

START_TEST(test_replaced_device_is_activated_again)
{
    peer_start(PEER_ANSWERS);
    ck_assert_int_eq(virtio_pci_reactivate(device), 0); /* not running: nothing to do */
    ck_assert_uint_eq(atomic_load(&peer.activations), 0);
    start_driver();
    peer_stop();
    peer_start(PEER_ANSWERS);
    ck_assert_int_eq(virtio_pci_reactivate(device), 0);
    ck_assert_uint_eq(atomic_load(&peer.activations), 2);
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
}
END_TEST

static void await_reset(void)
{
    while (virtio_pci_reset_pending(device)) { /* the test's limit bounds it */
        usleep(1000);
    }
}

START_TEST(test_machine_reset)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    virtio_pci_interrupt(device, 0);
    pci_host_reset(host);
    ck_assert(!line_level);
    await_reset();
    ck_assert_uint_ge(atomic_load(&peer.resets), 1);
    ck_assert_uint_eq(read_config(PCI_COMMAND, 2), 0);
    map_bar();
    ck_assert_uint_eq(status(), 0);
}
END_TEST

/* 4.1.4.9: registers through configuration space. */
START_TEST(test_configuration_access_window)
{
    unsigned window = (unsigned)read_config(PCI_CAPABILITY_LIST, 1);
    while (read_config(window + VIRTIO_PCI_CAP_CFG_TYPE, 1) != VIRTIO_PCI_CAP_PCI_CFG) {
        window = (unsigned)read_config(window + 1, 1);
        ck_assert_uint_ne(window, 0);
    }
    unsigned data = window + 16;
    ck_assert_uint_eq(read_config(data, 4), 0); /* names nothing yet */
    write_config(window + VIRTIO_PCI_CAP_BAR, 1, 4);
    write_config(window + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_NUMQ);
    write_config(window + VIRTIO_PCI_CAP_LENGTH, 4, 2);
    ck_assert_uint_eq(read_config(data, 4), 2);
    write_config(window + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_STATUS);
    write_config(window + VIRTIO_PCI_CAP_LENGTH, 4, 1);
    write_config(data, 4, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE);
    const uint32_t hostile[][3] = {
        {4, 0x4000, 4}, {4, 0xfffffffc, 4}, {4, 2, 4}, {4, 0, 8}, {4, 0, 0}, {5, 0, 4}, {0, 0, 4},
    };
    for (unsigned i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        write_config(window + VIRTIO_PCI_CAP_BAR, 1, hostile[i][0]);
        write_config(window + VIRTIO_PCI_CAP_OFFSET, 4, hostile[i][1]);
        write_config(window + VIRTIO_PCI_CAP_LENGTH, 4, hostile[i][2]);
        write_config(data, 4, 0xffffffff);
        ck_assert_uint_eq(read_config(data, 4), 0);
    }
}
END_TEST

START_TEST(test_bad_creation)
{
    struct error err = {0};
    struct virtio_pci_config config = {
        .name = "x",
        .kind = "virtio-toaster",
        .slot = 4,
        .queue_count = 1,
        .state = state,
        .memory = &memory,
        .client = client,
    };
    ck_assert(virtio_pci_kind_known("virtio-rng") && !virtio_pci_kind_known("virtio-toaster"));
    ck_assert_ptr_null(virtio_pci_create(host, &config, &err));
    ck_assert_int_eq(err.code, ERROR_UNSUPPORTED);
    config.kind = "virtio-rng";
    config.queue_count = 17;
    ck_assert_ptr_null(virtio_pci_create(host, &config, &err));
    config.queue_count = 1;
    config.slot = SLOT;
    ck_assert_ptr_null(virtio_pci_create(host, &config, &err));
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    config.slot = 4;
    state->magic = 0;
    ck_assert_ptr_null(virtio_pci_create(host, &config, &err));
    state->magic = VIRTIO_STATE_MAGIC;
}
END_TEST

/* A guest that restarts while no disk answers (the host's storage hangs) must not be killed for it:
 * whoever resets the machine waits for none of them, not even once. The deadline is beyond this
 * test's limit. */
START_TEST(a_machine_reset_waits_for_no_device)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    peer_stop();
    peer_start(PEER_IS_MUTE);
    pci_host_reset(host);
    ck_assert(virtio_pci_reset_pending(device));
    ck_assert_uint_eq(atomic_load(&state->status), 0);
    /* Its successor is asked again. */
    peer_stop();
    peer_start(PEER_ANSWERS);
    await_reset();
    ck_assert_uint_eq(timeouts, 0);
    pci_host_reset(host);
    ck_assert(!virtio_pci_reset_pending(device)); /* it was not touched since */
}
END_TEST

static unsigned slow_calls;
static _Atomic bool hopeless;

static void note_slow(void *context)
{
    (void)context;
    slow_calls++;
    atomic_store(&hopeless, true);
}

static bool is_hopeless(void *context)
{
    (void)context;
    return atomic_load(&hopeless);
}

/* A CPU says that it waits, and need not wait on when that is of no use any more. */
START_TEST(a_hopeless_wait_ends)
{
    const struct transport_client_wait wait = {
        .slow_ms = 10, .slow = note_slow, .hopeless = is_hopeless};
    slow_calls = 0;
    atomic_store(&hopeless, false);
    transport_client_set_wait(client, &wait);
    peer_start(PEER_IS_MUTE);
    start_driver();
    ck_assert_uint_eq(slow_calls, 1);
    ck_assert_uint_eq(timeouts, 0);
    ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
    set_status(0);
    ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_NEEDS_RESET); /* it was not confirmed */
    ck_assert_uint_eq(timeouts, 0);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("virtio_transport");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_identity_and_capabilities);
    tcase_add_test(cases, test_negotiation_and_activation);
    tcase_add_test(cases, test_features_are_checked);
    tcase_add_test(cases, test_queue_registers);
    tcase_add_test(cases, test_queue_reset);
    tcase_add_test(cases, test_queue_reset_must_be_negotiated);
    tcase_add_test(cases, test_a_queue_set_up_wrongly_after_its_reset);
    tcase_add_test(cases, test_packed_queues);
    tcase_add_test(cases, test_hostile_device_counts);
    tcase_add_test(cases, test_malformed_queues_never_reach_the_device);
    tcase_add_test(cases, test_kicks);
    tcase_add_test(cases, test_interrupts);
    tcase_add_test(cases, test_device_configuration);
    tcase_add_test(cases, test_device_needs_reset);
    tcase_add_test(cases, test_refused_activation);
    tcase_add_test(cases, test_device_dies_before_it_answers);
    tcase_add_test(cases, test_replaced_device_is_activated_again);
    tcase_add_test(cases, test_machine_reset);
    tcase_add_test(cases, test_configuration_access_window);
    tcase_add_test(cases, test_bad_creation);
    TCase *impatient = tcase_create("deadlines");
    tcase_add_checked_fixture(impatient, setup_impatient, teardown);
    tcase_set_timeout(impatient, 60);
    tcase_add_test(impatient, test_a_queue_reset_that_takes_long);
    tcase_add_loop_test(impatient, test_hung_device_misses_its_deadline, 0, 2);
    tcase_add_test(impatient, test_absent_device);
    Suite *suite = suite_create("virtio_transport");
    TCase *patient = tcase_create("waits");
    tcase_add_checked_fixture(patient, setup_patient, teardown);
    tcase_set_timeout(patient, 120);
    tcase_add_test(patient, a_machine_reset_waits_for_no_device);
    tcase_add_test(patient, a_hopeless_wait_ends);
    suite_add_tcase(suite, patient);
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, impatient);
    return suite_run(suite);
}
