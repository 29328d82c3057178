/* A virtio device's interrupts by messages: vectors of queues and configuration, masks, and the pin
 * that is silent meanwhile. Its process is not there: it misses one short deadline at activation.
 */
#include "vmmd/vcpu/pci/virtio_pci.h"
#include <check.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define ECAM     UINT64_C(0x30000000)
#define MMIO     UINT64_C(0x40000000)
#define RAM      UINT64_C(0x80000000)
#define RAM_SIZE 0x100000u
#define SLOT     3u
#define COMMON   MMIO
#define ISR      (MMIO + 0x1000)
#define TABLE    (MMIO + 0x10000)

static char directory[64], path[80];
static struct machine_pci windows;
static struct memory memory;
static struct virtio_state *state;
static struct bus *bus;
static struct pci_host *host;
static struct transport_client *client;
static struct virtio_pci *device;
static int kicks[2];
static bool line_level;
static unsigned messages;
static uint64_t last_address;
static uint32_t last_data;

static void line_set(void *controller, unsigned number, bool level)
{
    (void)controller;
    (void)number;
    line_level = level;
}

static void take_message(void *controller, uint64_t address, uint32_t data)
{
    (void)controller;
    messages++;
    last_address = address;
    last_data = data;
}

static void timed_out(void *context)
{
    (void)context;
}

static void write_config(unsigned offset, unsigned size, uint64_t value)
{
    ck_assert(bus_write(bus, ECAM + (SLOT << 15) + offset, size, value));
}

static uint64_t read_config(unsigned offset, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, ECAM + (SLOT << 15) + offset, size, &value));
    return value;
}

static uint64_t load(uint64_t address, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, address, size, &value));
    return value;
}

static void store(uint64_t address, unsigned size, uint64_t value)
{
    ck_assert(bus_write(bus, address, size, value));
}

static void map_bars(void)
{
    write_config(PCI_BASE_ADDRESS_0, 4, TABLE);
    write_config(PCI_BASE_ADDRESS_4, 4, MMIO);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void create(bool takes_messages)
{
    struct error err = {0};
    windows = (struct machine_pci){
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .mmio_base = MMIO,
        .mmio_size = 0x1000000,
        .msi = {.notify = takes_messages ? take_message : NULL},
    };
    for (unsigned i = 0; i < 4; i++) {
        windows.intx[i] = (struct irq_line){.set = line_set, .number = i};
    }
    memory = (struct memory){.region_count = 1};
    memory.regions[0] = (struct memory_region){.base = RAM, .size = RAM_SIZE};
    memory.regions[0].host =
        mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory.regions[0].host, MAP_FAILED);
    state = calloc(1, VIRTIO_STATE_SIZE);
    *state = (struct virtio_state){
        .magic = VIRTIO_STATE_MAGIC,
        .version = VIRTIO_STATE_VERSION,
        .device_id = 2,
        .queue_count = 2,
        .device_features = UINT64_C(1) << VIRTIO_F_VERSION_1,
    };
    state->queues[0].size_max = state->queues[1].size_max = 64;
    snprintf(directory, sizeof(directory), "/tmp/test-messages-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/t.sock", directory);
    bus = bus_create();
    host = pci_host_create(bus, &windows, &err);
    client = transport_client_create(path, 1, &err);
    ck_assert(host && client);
    struct virtio_pci_config config = {
        .name = "disk0",
        .kind = "virtio-blk",
        .slot = SLOT,
        .queue_count = 2,
        .state = state,
        .memory = &memory,
        .client = client,
        .unresponsive = timed_out,
    };
    for (unsigned i = 0; i < 2; i++) {
        config.kick[i] = kicks[i] = eventfd(0, EFD_NONBLOCK);
    }
    device = virtio_pci_create(host, &config, &err);
    ck_assert_msg(device != NULL, "%s", err.message);
    messages = 0;
    line_level = false;
    map_bars();
}

static void set_up(void)
{
    create(true);
}

static void tear_down(void)
{
    pci_host_destroy(host);
    virtio_pci_destroy(device);
    transport_client_destroy(client);
    bus_destroy(bus);
    munmap(memory.regions[0].host, RAM_SIZE);
    free(state);
    close(kicks[0]);
    close(kicks[1]);
    unlink(path);
    rmdir(directory);
}

static void set_status(uint64_t value)
{
    store(COMMON + VIRTIO_PCI_COMMON_STATUS, 1, value);
}

/* The driver is up; whatever its first interrupts were is forgotten. */
static void start_driver(void)
{
    const uint64_t known = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    set_status(known);
    store(COMMON + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    store(COMMON + VIRTIO_PCI_COMMON_GF, 4, 1);
    set_status(known | VIRTIO_CONFIG_S_FEATURES_OK);
    set_status(known | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
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
    tear_down();
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
    start_driver();
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
    start_driver();
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
    start_driver();
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
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, without_messages_there_are_no_vectors);
    tcase_add_test(tests, vectors_are_mapped);
    tcase_add_test(tests, interrupts_by_messages);
    tcase_add_test(tests, the_pin_is_silent_while_messages_are_on);
    tcase_add_test(tests, machine_reset_takes_the_messages_away);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
