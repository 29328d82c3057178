/* A virtio device that is taken from the guest: when its driver has let go, by force, and not while
 * a CPU waits for it. */
#include "tests/unit/suite.h"
#include "tests/unit/virtio_transport_host.h"

static void let_go(void)
{
    set_status(0);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
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

int main(void)
{
    const TTest *const tests[] = {
        it_goes_when_the_driver_has_let_go,  to_be_asked_in_vain_is_nothing,
        by_force_the_driver_may_only_let_go, a_machine_reset_lets_go_of_it,
        a_reset_that_goes_on_is_waited_for,  nobody_waits_for_a_cpu_that_waits,
    };
    TCase *cases = tcase_create("unplug");
    tcase_add_checked_fixture(cases, setup_patient, teardown);
    tcase_set_timeout(cases, 60);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(cases, tests[i]);
    }
    Suite *suite = suite_create("virtio_unplug");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
