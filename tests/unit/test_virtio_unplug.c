/* A virtio device that is taken from the guest: when its driver has let go, by force, and not while
 * a CPU waits for it. */
#include "tests/unit/suite.h"
#include "tests/unit/virtio_transport_host.h"
#include <sched.h>

static void let_go_of_the_bus(void)
{
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
}

static void let_go(void)
{
    set_status(0);
    let_go_of_the_bus();
}

/* A driver has it while the status says so, or while it may still write to memory. */
START_TEST(it_goes_when_the_driver_has_let_go)
{
    peer_start(PEER_ANSWERS);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ck_assert(!virtio_pci_unplug(device, false)); /* the bus's driver has it */
    start_driver();
    ck_assert(!virtio_pci_unplug(device, false));
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert(!virtio_pci_unplug(device, false)); /* the device's driver has it */
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    set_status(0);
    ck_assert(virtio_pci_unplug(device, false));
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER); /* too late */
    ck_assert_uint_eq(status(), 0);
    virtio_pci_remove(device);
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 4), UINT32_MAX);
    ck_assert_uint_eq(load(COMMON, 4), UINT32_MAX);
}
END_TEST

/* That the guest asks, and nothing comes of it, changes nothing for the driver. */
START_TEST(to_be_asked_in_vain_is_nothing)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(!virtio_pci_unplug(device, false));
    }
    set_status(0);
    start_driver();
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(atomic_load(&peer.activations), 2);
}
END_TEST

START_TEST(by_force_the_driver_may_only_let_go)
{
    peer_start(PEER_ANSWERS);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    start_driver();
    ck_assert(!virtio_pci_unplug(device, true));
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert(!virtio_pci_unplug(device, false)); /* it has not, yet */
    let_go();
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 4), UINT32_MAX); /* gone for the guest at once */
    ck_assert(virtio_pci_unplug(device, false));
    virtio_pci_remove(device);
}
END_TEST

START_TEST(a_machine_reset_lets_go_of_it)
{
    peer_start(PEER_ANSWERS);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    start_driver();
    virtio_pci_unplug(device, true);
    pci_host_reset(host);
    while (virtio_pci_reset_pending(device)) {
        usleep(1000);
    }
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 4), UINT32_MAX);
    ck_assert(virtio_pci_unplug(device, false));
}
END_TEST

/* Not before the device has confirmed its reset: it may still write to memory. */
START_TEST(a_reset_that_goes_on_is_waited_for)
{
    peer_start(PEER_ANSWERS);
    start_driver();
    peer_stop();
    peer_start(PEER_IS_MUTE);
    let_go();
    ck_assert(!virtio_pci_unplug(device, false));
    virtio_pci_device_gone(device);
    ck_assert(virtio_pci_unplug(device, false));
}
END_TEST

static void *write_configuration(void *argument)
{
    (void)argument;
    store(DEVICE, 1, 1);
    return NULL;
}

/* A CPU waits for a mute device, for longer than this test may take. */
START_TEST(nobody_waits_for_a_cpu_that_waits)
{
    pthread_t cpu;

    peer_start(PEER_IS_MUTE);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    ck_assert_int_eq(pthread_create(&cpu, NULL, write_configuration, NULL), 0);
    while (atomic_load(&peer.writes) == 0) {
        usleep(1000);
    }
    ck_assert(!virtio_pci_unplug(device, false));
    ck_assert(!virtio_pci_unplug(device, true));
    atomic_store(&peer.mode, PEER_ANSWERS);
    pthread_join(cpu, NULL);
    ck_assert(!virtio_pci_unplug(device, false));
    let_go();
    ck_assert(virtio_pci_unplug(device, false));
}
END_TEST

/* The driver gives up mastering without a reset, and its BAR is where it cannot be: after a force
 * nothing of the device can be reached any more, so it is reset for the driver. */
START_TEST(a_driver_that_cannot_reset_it_any_more)
{
    peer_start(PEER_ANSWERS);
    map_bar();
    start_driver();
    write_config(PCI_BASE_ADDRESS_5, 4, 0x12345678);
    ck_assert(!virtio_pci_unplug(device, true));
    ck_assert(!virtio_pci_unplug(device, false));
    let_go_of_the_bus();
    while (!virtio_pci_unplug(device, false)) {
        usleep(1000);
    }
    ck_assert_uint_eq(atomic_load(&peer.resets), 1);
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 2), 0xffff);
}
END_TEST

static void *write_through_window(void *argument)
{
    const unsigned *window = argument;
    write_config(*window + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), 1, 1);
    return NULL;
}

static unsigned find_window(void)
{
    unsigned place = (unsigned)read_config(PCI_CAPABILITY_LIST, 1);
    while (read_config(place, 1) != PCI_CAP_ID_VNDR ||
           read_config(place + offsetof(struct virtio_pci_cap, cfg_type), 1) !=
               VIRTIO_PCI_CAP_PCI_CFG) {
        place = (unsigned)read_config(place + PCI_CAP_LIST_NEXT, 1);
        ck_assert_uint_ne(place, 0);
    }
    return place;
}

/* A CPU waits for a mute device in an access to configuration space: the others, and the main
 * thread, go on there and move its BAR meanwhile. */
START_TEST(nobody_waits_for_a_cpu_in_configuration_space)
{
    pthread_t cpu;

    peer_start(PEER_IS_MUTE);
    map_bar();
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    unsigned window = find_window();
    write_config(window + offsetof(struct virtio_pci_cap, bar), 1, 4);
    write_config(window + offsetof(struct virtio_pci_cap, offset), 4, 0x2000);
    write_config(window + offsetof(struct virtio_pci_cap, length), 4, 1);
    ck_assert_int_eq(pthread_create(&cpu, NULL, write_through_window, &window), 0);
    while (atomic_load(&peer.writes) == 0) {
        usleep(1000);
    }
    ck_assert_uint_eq(read_config(PCI_VENDOR_ID, 2), 0x1af4);
    write_config(PCI_BASE_ADDRESS_4, 4, MMIO + 0x8000);
    struct pci_function other;
    pci_function_init(&other, &(struct pci_identity){.vendor = 0x1234}, 1, NULL, &other);
    ck_assert_int_eq(pci_host_add(host, SLOT + 1, &other), 0);
    pci_host_remove(&other);
    ck_assert(!virtio_pci_unplug(device, false));
    atomic_store(&peer.mode, PEER_ANSWERS);
    pthread_join(cpu, NULL);
    ck_assert_uint_eq(peer.write_data[0], 1);
}
END_TEST

/* ---- Harts that do not care ---- */

#define HARTS  4
#define ROUNDS 60

static _Atomic bool harts_stop;

static uint64_t hart_random(uint64_t *state_of)
{
    *state_of = *state_of * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *state_of >> 33;
}

/* The upper half of an address stays 0: what they do, some driver could make good again. */
static void hart_configure(uint64_t *random)
{
    uint64_t where = hart_random(random) & 0xfc;
    bool upper = where == PCI_BASE_ADDRESS_1 || where == PCI_BASE_ADDRESS_5;

    bus_write(bus, ECAM + (SLOT << 15) + where, 4, upper ? 0 : hart_random(random));
}

/* One access, anywhere that the device may be, but none for which a CPU would wait for the device's
 * process. What it reads is of no interest. */
static void hart_step(uint64_t *random)
{
    static const uint16_t commands[] = {0, PCI_COMMAND_MEMORY,
                                        PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
                                        PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE};
    static const uint8_t steps[] = {0, 0, VIRTIO_CONFIG_S_ACKNOWLEDGE, STATUS_READY};
    uint64_t what = hart_random(random), place = MMIO + (hart_random(random) & 7) * 0x4000, value;
    const uint64_t space = ECAM + (SLOT << 15);

    switch (what % 8) {
    case 0:
        bus_write(bus, space + PCI_COMMAND, 2, commands[what >> 3 & 3]);
        break;
    case 1:
        bus_write(bus, space + (what & 8 ? PCI_BASE_ADDRESS_4 : PCI_BASE_ADDRESS_0), 4, place);
        break;
    case 2:
        hart_configure(random);
        break;
    case 3:
        bus_read(bus, space + (hart_random(random) & 0xfc), 4, &value);
        break;
    case 4:
        bus_write(bus, place + VIRTIO_PCI_COMMON_STATUS, 1, steps[what >> 3 & 3]);
        break;
    case 5:
        bus_write(bus, place + (hart_random(random) & 0x1ffc), 4, hart_random(random) & 0xff);
        break;
    default:
        bus_read(bus, place + (hart_random(random) & 0x3ffc), 4, &value);
        break;
    }
}

static void *hart_main(void *number)
{
    uint64_t random = (uint64_t)(uintptr_t)number;

    while (!atomic_load(&harts_stop)) {
        hart_step(&random);
    }
    return NULL;
}

static void plug_in(void)
{
    struct error err = {0};
    const struct virtio_pci_config config = {
        .name = "disk0",
        .kind = "virtio-blk",
        .slot = SLOT,
        .queue_count = 2,
        .state = state,
        .memory = &memory,
        .client = client,
        .unresponsive = device_timed_out,
        .kick = {kicks[0], kicks[1]},
    };

    transport_client_forget(client);
    device = virtio_pci_create(host, &config, &err);
    ck_assert_msg(device != NULL, "%s", err.message);
}

/* The guest touches the slot with all harts while devices come and go there. */
START_TEST(harts_may_touch_what_comes_and_goes)
{
    pthread_t harts[HARTS];

    peer_start(PEER_ANSWERS);
    atomic_store(&harts_stop, false);
    for (uintptr_t i = 0; i < HARTS; i++) {
        ck_assert_int_eq(pthread_create(&harts[i], NULL, hart_main, (void *)(i + 1)), 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i % 2) {
            virtio_pci_unplug(device, true);
        }
        while (!virtio_pci_unplug(device, false)) {
            sched_yield();
        }
        virtio_pci_remove(device);
        virtio_pci_destroy(device);
        plug_in();
    }
    atomic_store(&harts_stop, true);
    for (unsigned i = 0; i < HARTS; i++) {
        pthread_join(harts[i], NULL);
    }
    /* And for a driver that behaves all is as it was. */
    write_config(PCI_COMMAND, 2, 0);
    write_config(PCI_BASE_ADDRESS_0, 4, MMIO + 0x100000);
    map_bar();
    set_status(0);
    while (status() != 0) { /* a reset that the device has not answered yet */
        usleep(1000);
    }
    start_driver();
    ck_assert_uint_eq(status(), STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
}
END_TEST

static void no_message(void *controller, uint64_t address, uint32_t data)
{
    (void)controller, (void)address, (void)data;
}

static void setup_with_messages(void)
{
    on_message = no_message;
    setup_patient();
}

int main(void)
{
    const TTest *const tests[] = {
        it_goes_when_the_driver_has_let_go,     to_be_asked_in_vain_is_nothing,
        by_force_the_driver_may_only_let_go,    a_machine_reset_lets_go_of_it,
        a_reset_that_goes_on_is_waited_for,     nobody_waits_for_a_cpu_that_waits,
        a_driver_that_cannot_reset_it_any_more, nobody_waits_for_a_cpu_in_configuration_space,
    };
    TCase *cases = tcase_create("unplug");
    tcase_add_checked_fixture(cases, setup_patient, teardown);
    tcase_set_timeout(cases, 60);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(cases, tests[i]);
    }
    Suite *suite = suite_create("virtio_unplug");
    suite_add_tcase(suite, cases);
    TCase *together = tcase_create("together");
    tcase_add_checked_fixture(together, setup_with_messages, teardown);
    tcase_set_timeout(together, 240);
    tcase_add_test(together, harts_may_touch_what_comes_and_goes);
    suite_add_tcase(suite, together);
    return suite_run(suite);
}
