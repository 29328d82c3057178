/* A virtio device's interrupts by messages: vectors of queues and configuration, masks, and the pin
 * that is silent meanwhile. Its process is not there: it misses one short deadline at activation.
 */
#include "tests/unit/suite.h"
#include "tests/unit/virtio_transport_host.h"

#define TABLE (MMIO + 0x10000)

static unsigned messages;
static uint64_t last_address;
static uint32_t last_data;

static void take_message(void *controller, uint64_t address, uint32_t data)
{
    (void)controller;
    messages++;
    last_address = address;
    last_data = data;
}

static void map_bars(void)
{
    write_config(PCI_BASE_ADDRESS_0, 4, TABLE);
    map_bar();
}

static void create(bool takes_messages)
{
    on_message = takes_messages ? take_message : NULL;
    setup_with_deadline(1);
    messages = 0;
    map_bars();
}

static void set_up(void)
{
    create(true);
}

/* The driver is up, with the vectors as they are; whatever its first interrupts were is forgotten.
 */
static void start_with_vectors(void)
{
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(FEATURES);
    set_status(STATUS_READY);
    set_status(STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    load(ISR, 1);
    messages = 0;
}

/* The MSI-X capability's offset. */
static unsigned msix_capability(void)
{
    unsigned at = (unsigned)read_config(PCI_CAPABILITY_LIST, 1);
    while (at != 0 && read_config(at, 1) != PCI_CAP_ID_MSIX) {
        at = (unsigned)read_config(at + 1, 1);
    }
    return at;
}

static void set_msix(uint32_t flags)
{
    write_config(msix_capability() + PCI_MSIX_FLAGS, 2, flags);
}

static void set_entry(unsigned vector, uint64_t address, uint32_t data, bool masked)
{
    const uint64_t entry = TABLE + vector * 16;
    ck_assert(bus_write(bus, entry, 8, address));
    ck_assert(bus_write(bus, entry + 8, 4, data));
    ck_assert(bus_write(bus, entry + 12, 4, masked));
}

static unsigned queue_vector(unsigned queue, unsigned vector)
{
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    store(COMMON + VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
    return (unsigned)load(COMMON + VIRTIO_PCI_COMMON_Q_MSIX, 2);
}

static unsigned config_vector(unsigned vector)
{
    store(COMMON + VIRTIO_PCI_COMMON_MSIX, 2, vector);
    return (unsigned)load(COMMON + VIRTIO_PCI_COMMON_MSIX, 2);
}

START_TEST(without_messages_there_are_no_vectors)
{
    teardown();
    create(false);
    ck_assert_uint_eq(msix_capability(), 0);
    ck_assert_uint_eq(queue_vector(0, 0), 0xffff);
    ck_assert_uint_eq(config_vector(0), 0xffff);
}
END_TEST

/* 4.1.5.1.2: a vector that cannot be had reads back as none; there is one a queue and one for the
 * configuration, and several may share one. */
START_TEST(vectors_are_mapped)
{
    ck_assert_uint_ne(msix_capability(), 0);
    ck_assert_uint_eq(read_config(msix_capability() + PCI_MSIX_FLAGS, 2), 2); /* three */
    ck_assert_uint_eq(queue_vector(0, 0xffff), 0xffff);
    for (unsigned vector = 0; vector < 3; vector++) {
        ck_assert_uint_eq(queue_vector(0, vector), vector);
        ck_assert_uint_eq(queue_vector(1, vector), vector);
        ck_assert_uint_eq(config_vector(vector), vector);
    }
    ck_assert_uint_eq(queue_vector(0, 3), 0xffff);
    ck_assert_uint_eq(queue_vector(1, 0xfffe), 0xffff);
    ck_assert_uint_eq(config_vector(3), 0xffff);
    ck_assert_uint_eq(queue_vector(2, 0), 0); /* no such queue: reads as zeros */
    config_vector(1);
    queue_vector(0, 2);
    set_status(0); /* a reset unmaps them */
    ck_assert_uint_eq(config_vector(0xffff), 0xffff);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    ck_assert_uint_eq(load(COMMON + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
}
END_TEST

START_TEST(interrupts_by_messages)
{
    struct virtio_pci_counts before = {0}, counts = {0};
    set_msix(PCI_MSIX_FLAGS_ENABLE);
    for (unsigned i = 0; i < 3; i++) {
        set_entry(i, 0x28000000 + i * 0x1000, 40 + i, false);
    }
    config_vector(0);
    queue_vector(0, 1);
    queue_vector(1, 2);
    virtio_pci_interrupt(device, 0);
    ck_assert_uint_eq(messages, 0); /* the driver is not up */
    start_with_vectors();
    virtio_pci_count(device, &before);
    virtio_pci_interrupt(device, 1);
    ck_assert_uint_eq(messages, 1);
    ck_assert_uint_eq(last_address, 0x28002000);
    ck_assert_uint_eq(last_data, 42);
    virtio_pci_interrupt(device, 0);
    ck_assert_uint_eq(last_data, 41);
    virtio_pci_interrupt(device, 2); /* the configuration */
    ck_assert_uint_eq(last_data, 40);
    ck_assert_uint_eq(messages, 3);
    ck_assert(!line_level);
    ck_assert_uint_eq(load(ISR, 1), 0);

    /* Without a vector a queue interrupts nobody, MSI-X being on; moved, it uses the new one. */
    ck_assert_uint_eq(queue_vector(0, 0xffff), 0xffff);
    virtio_pci_interrupt(device, 0);
    ck_assert_uint_eq(messages, 3);
    ck_assert(!line_level);
    queue_vector(0, 2);
    ck_assert_uint_eq(messages, 3); /* nothing was kept for it */
    virtio_pci_interrupt(device, 0);
    ck_assert_uint_eq(last_data, 42);
    ck_assert_uint_eq(messages, 4);
    /* Masked, it waits. */
    set_entry(2, 0x28002000, 42, true);
    virtio_pci_interrupt(device, 0);
    virtio_pci_interrupt(device, 1);
    ck_assert_uint_eq(messages, 4);
    set_entry(2, 0x28003000, 43, false);
    ck_assert_uint_eq(messages, 5);
    ck_assert_uint_eq(last_address, 0x28003000);
    virtio_pci_count(device, &counts);
    ck_assert_uint_eq(counts.interrupts - before.interrupts, 7);
    ck_assert_uint_eq(counts.messages - before.messages, 4); /* at once */
    set_status(0);
    virtio_pci_interrupt(device, 0);
    ck_assert_uint_eq(messages, 5);
}
END_TEST

START_TEST(the_pin_is_silent_while_messages_are_on)
{
    start_with_vectors();
    virtio_pci_interrupt(device, 0); /* MSI-X is off: as without it */
    ck_assert(line_level);
    set_msix(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    ck_assert(!line_level);
    virtio_pci_interrupt(device, 0);
    ck_assert(!line_level);
    set_msix(0); /* what was not acknowledged is there again */
    ck_assert(line_level);
    ck_assert_uint_eq(load(ISR, 1), 1);
    ck_assert(!line_level);
}
END_TEST

START_TEST(machine_reset_takes_the_messages_away)
{
    set_msix(PCI_MSIX_FLAGS_ENABLE);
    set_entry(1, 0x28000000, 9, true);
    queue_vector(0, 1);
    start_with_vectors();
    virtio_pci_interrupt(device, 0); /* pending */
    pci_host_reset(host);
    map_bars();
    uint64_t value = 0;
    ck_assert(bus_read(bus, TABLE + 16, 8, &value));
    ck_assert_uint_eq(value, 0);
    ck_assert(bus_read(bus, TABLE + 28, 4, &value));
    ck_assert_uint_eq(value, 1);
    ck_assert(bus_read(bus, TABLE + 0x800, 4, &value));
    ck_assert_uint_eq(value, 0);
    ck_assert_uint_eq(read_config(msix_capability() + PCI_MSIX_FLAGS, 2), 2);
    ck_assert_uint_eq(messages, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio messages");
    TCase *tests = tcase_create("virtio messages");
    tcase_add_checked_fixture(tests, set_up, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, without_messages_there_are_no_vectors);
    tcase_add_test(tests, vectors_are_mapped);
    tcase_add_test(tests, interrupts_by_messages);
    tcase_add_test(tests, the_pin_is_silent_while_messages_are_on);
    tcase_add_test(tests, machine_reset_takes_the_messages_away);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
