/* The PCI host bridge: configuration walk, BAR sizing and moving, INTx, capabilities, MSI-X. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/pci/msix.h"
#include "vmmd/vcpu/pci/pci_host.h"
#include <check.h>
#include <errno.h>
#include <linux/pci_regs.h>

#define ECAM     UINT64_C(0x30000000)
#define MMIO     UINT64_C(0x40000000)
#define MMIO64   UINT64_C(0x400000000)
#define PIO      UINT64_C(0x3000000)
#define BAR_SIZE 0x4000u

static bool levels[4];
static unsigned level_changes;

static void line_set(void *controller, unsigned number, bool level)
{
    (void)controller;
    levels[number] = level;
    level_changes++;
}

static struct machine_pci windows;
static struct bus *bus;
static struct pci_host *host;

struct device {
    struct pci_function function;
    uint64_t tag;
    uint64_t written;
    unsigned resets;
};
static struct device devices[4];

static bool device_read(void *opaque, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)size;
    *value = ((struct device *)opaque)->tag + offset;
    return true;
}

static bool device_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    (void)size;
    ((struct device *)opaque)->written = value;
    return true;
}

static void device_reset(void *opaque)
{
    ((struct device *)opaque)->resets++;
}

static const struct bus_ops DEVICE_OPS = {.read = device_read, .write = device_write};
static const struct pci_function_ops FUNCTION_OPS = {.reset = device_reset};
static const struct pci_identity IDENTITY = {
    .vendor = 0x1af4,
    .device = 0x1042,
    .revision = 1,
    .class_code = 0x010000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
};

static void add_device(unsigned number, unsigned slot)
{
    struct device *device = &devices[number];
    device->tag = 0x1000000 * (number + 1);
    pci_function_init(&device->function, &IDENTITY, 1, &FUNCTION_OPS, device);
    ck_assert_int_eq(pci_function_add_bar(&device->function, 4, BAR_SIZE, "bar", &DEVICE_OPS), 0);
    ck_assert_int_eq(pci_host_add(host, slot, &device->function), 0);
}

static void setup(void)
{
    windows = (struct machine_pci){
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .mmio_base = MMIO,
        .mmio_size = 0x40000000,
        .mmio64_base = MMIO64,
        .mmio64_size = 0x400000000,
        .pio_base = PIO,
        .pio_size = 0x10000,
    };
    for (unsigned i = 0; i < 4; i++) {
        windows.intx[i] = (struct irq_line){.set = line_set, .number = i};
        levels[i] = false;
    }
    level_changes = 0;
    bus = bus_create();
    struct error err;
    host = pci_host_create(bus, &windows, &err);
    ck_assert_ptr_nonnull(host);
    add_device(0, 1);
    add_device(1, 2);
    add_device(2, 5);
}

static void teardown(void)
{
    pci_host_destroy(host);
    bus_destroy(bus);
}

static uint64_t read_config(unsigned slot, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, ECAM + ((uint64_t)slot << 15) + offset, size, &value));
    return value;
}

static void write_config(unsigned slot, unsigned offset, unsigned size, uint64_t value)
{
    ck_assert(bus_write(bus, ECAM + ((uint64_t)slot << 15) + offset, size, value));
}

static void write_bar(unsigned slot, uint64_t base)
{
    write_config(slot, PCI_BASE_ADDRESS_4, 4, base);
    write_config(slot, PCI_BASE_ADDRESS_5, 4, base >> 32);
}

static uint64_t read_memory(uint64_t address)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, address, 4, &value));
    return value;
}

START_TEST(test_walk_finds_bridge_and_devices)
{
    ck_assert_uint_eq(read_config(0, PCI_VENDOR_ID, 4), 0x00081b36);
    ck_assert_uint_eq(read_config(0, PCI_CLASS_DEVICE, 2), 0x0600);
    unsigned present = 0;
    for (unsigned slot = 0; slot < 32; slot++) {
        present += read_config(slot, PCI_VENDOR_ID, 2) != 0xffff;
    }
    ck_assert_uint_eq(present, 4);
    ck_assert_uint_eq(read_config(1, PCI_DEVICE_ID, 2), 0x1042);
    ck_assert_uint_eq(read_config(1, PCI_REVISION_ID, 1), 1);
    ck_assert_uint_eq(read_config(1, PCI_CLASS_PROG, 1), 0);
    ck_assert_uint_eq(read_config(1, PCI_CLASS_DEVICE, 2), 0x0100);
    ck_assert_uint_eq(read_config(1, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
    ck_assert_uint_eq(read_config(1, PCI_HEADER_TYPE, 1), 0);
    ck_assert_uint_eq(read_config(1, PCI_INTERRUPT_PIN, 1), 1);
}
END_TEST

START_TEST(test_absent_and_odd_accesses)
{
    ck_assert_uint_eq(read_config(9, 0, 4), 0xffffffff);
    ck_assert_uint_eq(read_config(9, 0, 1), 0xff);
    uint64_t value = 0;
    ck_assert(bus_read(bus, ECAM + (1 << 20), 4, &value)); /* bus 1 */
    ck_assert_uint_eq(value, 0xffffffff);
    ck_assert(bus_read(bus, ECAM + 0x9000, 2, &value)); /* slot 1, function 1 */
    ck_assert_uint_eq(value, 0xffff);
    ck_assert_uint_eq(read_config(1, 0x100, 4), 0);         /* extended space */
    ck_assert_uint_eq(read_config(1, 0x02, 4), 0xffffffff); /* misaligned */
    ck_assert_uint_eq(read_config(1, 0x00, 8), UINT64_MAX);
    write_config(9, 4, 2, 0xffff);
    write_config(1, 0x100, 4, 0xffffffff);
    write_config(1, 0x00, 8, UINT64_MAX);
    ck_assert(!bus_read(bus, ECAM + 0x0fffffff, 2, &value));
}
END_TEST

START_TEST(test_only_writable_bits_change)
{
    uint8_t before[PCI_CONFIG_SIZE];
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        before[i] = (uint8_t)read_config(1, i, 1);
    }
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        write_config(1, i, 1, 0xff);
    }
    ck_assert_uint_eq(read_config(1, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                                          PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                                          PCI_COMMAND_INTX_DISABLE);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        bool writable = i == PCI_COMMAND || i == PCI_COMMAND + 1 || i == PCI_CACHE_LINE_SIZE ||
                        i == PCI_INTERRUPT_LINE ||
                        (i >= PCI_BASE_ADDRESS_4 && i < PCI_BASE_ADDRESS_5 + 4);
        if (!writable) {
            ck_assert_uint_eq(read_config(1, i, 1), before[i]);
        }
    }
}
END_TEST

START_TEST(test_bar_sizing)
{
    ck_assert_uint_eq(read_config(1, PCI_BASE_ADDRESS_4, 4), 0xc);
    write_bar(1, UINT64_MAX);
    uint64_t low = read_config(1, PCI_BASE_ADDRESS_4, 4);
    uint64_t high = read_config(1, PCI_BASE_ADDRESS_5, 4);
    ck_assert_uint_eq(~((high << 32 | low) & ~UINT64_C(0xf)) + 1, BAR_SIZE);
    write_config(1, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
    ck_assert_uint_eq(read_config(1, PCI_BASE_ADDRESS_0, 4), 0);
    write_config(1, PCI_ROM_ADDRESS, 4, UINT32_MAX);
    ck_assert_uint_eq(read_config(1, PCI_ROM_ADDRESS, 4), 0);
}
END_TEST

START_TEST(test_bar_moves_with_the_guest)
{
    write_bar(1, MMIO + 0x10000);
    ck_assert_uint_eq(read_memory(MMIO + 0x10000), 0xffffffff); /* decoding is still off */
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert_uint_eq(read_memory(MMIO + 0x10004), 0x1000004);
    ck_assert_uint_eq(read_memory(MMIO + 0x10000 + BAR_SIZE), 0xffffffff);
    write_bar(1, MMIO64 + 0x100000000);
    ck_assert_uint_eq(read_memory(MMIO + 0x10004), 0xffffffff);
    ck_assert_uint_eq(read_memory(MMIO64 + 0x100000008), 0x1000008);
    ck_assert(bus_write(bus, MMIO64 + 0x100000000, 4, 99));
    ck_assert_uint_eq(devices[0].written, 99);
    write_config(1, PCI_COMMAND, 2, 0);
    ck_assert_uint_eq(read_memory(MMIO64 + 0x100000008), 0xffffffff);
}
END_TEST

START_TEST(test_bar_outside_the_windows_is_nowhere)
{
    uint64_t value;
    const uint64_t places[] = {0, ECAM, 0x80000000, MMIO64 - BAR_SIZE / 2, UINT64_C(1) << 63};
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        write_bar(1, places[i]);
        if (places[i] != ECAM) {
            ck_assert(!bus_read(bus, places[i], 4, &value));
        }
    }
    ck_assert_uint_eq(read_config(0, PCI_VENDOR_ID, 4), 0x00081b36);
}
END_TEST

START_TEST(test_overlapping_bars)
{
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    write_config(2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    write_bar(1, MMIO);
    write_bar(2, MMIO);
    ck_assert_uint_eq(read_memory(MMIO), 0x1000000);
    write_bar(1, MMIO + 0x100000); /* the place is free: the other one appears */
    ck_assert_uint_eq(read_memory(MMIO), 0x2000000);
    ck_assert_uint_eq(read_memory(MMIO + 0x100000), 0x1000000);
}
END_TEST

START_TEST(test_intx_is_swizzled_and_shared)
{
    /* INTA of slots 1 and 5 is line 1, of slot 2 line 2. */
    pci_function_set_intx(&devices[0].function, true);
    ck_assert(levels[1] && !levels[0] && !levels[2] && !levels[3]);
    ck_assert_uint_eq(read_config(1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    ck_assert_uint_eq(read_config(1, PCI_COMMAND, 4) >> 16 & PCI_STATUS_INTERRUPT,
                      PCI_STATUS_INTERRUPT);
    ck_assert_uint_eq(read_config(5, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    pci_function_set_intx(&devices[2].function, true);
    pci_function_set_intx(&devices[1].function, true);
    ck_assert(levels[1] && levels[2]);
    pci_function_set_intx(&devices[0].function, false);
    ck_assert(levels[1]);
    pci_function_set_intx(&devices[2].function, false);
    ck_assert(!levels[1] && levels[2]);
    ck_assert_uint_eq(level_changes, 3);
}
END_TEST

START_TEST(test_intx_disable_bit)
{
    pci_function_set_intx(&devices[0].function, true);
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    ck_assert(!levels[1]);
    ck_assert_uint_eq(read_config(1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    write_config(1, PCI_COMMAND, 2, 0);
    ck_assert(levels[1]);
}
END_TEST

/* Devices are plugged in and out while CPUs look: a slot is empty, or all of one device. */
START_TEST(test_a_slot_that_comes_and_goes)
{
    for (unsigned round = 0; round < 3; round++) {
        write_bar(1, MMIO);
        write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        ck_assert_uint_eq(read_memory(MMIO), devices[0].tag);
        pci_function_set_intx(&devices[0].function, true);
        ck_assert(levels[1]);
        pci_host_remove(&devices[0].function);
        ck_assert(!levels[1]);
        ck_assert_uint_eq(read_memory(MMIO), 0xffffffff);
        for (unsigned offset = 0; offset < 0x1000; offset += 4) {
            write_config(1, offset, 4, 0x5a5a5a5a);
            ck_assert_uint_eq(read_config(1, offset, 4), 0xffffffff);
        }
        add_device(0, 1);
        ck_assert_uint_eq(read_config(1, PCI_VENDOR_ID, 4), 0x10421af4);
        ck_assert_uint_eq(read_config(1, PCI_COMMAND, 2), 0);
        ck_assert_uint_eq(read_memory(MMIO), 0xffffffff); /* until its driver says so */
    }
}
END_TEST

START_TEST(test_slots_that_cannot_be_had)
{
    pci_function_init(&devices[3].function, &IDENTITY, 1, &FUNCTION_OPS, &devices[3]);
    ck_assert_int_eq(pci_host_add(host, 0, &devices[3].function), -EEXIST); /* the bridge's */
    ck_assert_int_eq(pci_host_add(host, 2, &devices[3].function), -EEXIST);
    ck_assert_int_eq(pci_host_add(host, PCI_SLOT_COUNT, &devices[3].function), -EINVAL);
    ck_assert_int_eq(pci_host_add(host, UINT32_MAX, &devices[3].function), -EINVAL);
    ck_assert_int_eq(pci_host_add(host, PCI_SLOT_COUNT - 1, &devices[3].function), 0);
    ck_assert_uint_eq(read_config(2, PCI_VENDOR_ID, 4), 0x10421af4);
    ck_assert_uint_eq(read_config(PCI_SLOT_COUNT - 1, PCI_VENDOR_ID, 4), 0x10421af4);
}
END_TEST

/* Whose BAR was in another's way makes room by going. */
START_TEST(test_a_device_that_goes_makes_room)
{
    for (unsigned slot = 1; slot <= 2; slot++) {
        write_bar(slot, MMIO);
        write_config(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    }
    ck_assert_uint_eq(read_memory(MMIO), devices[0].tag);
    pci_host_remove(&devices[0].function);
    ck_assert_uint_eq(read_memory(MMIO), devices[1].tag);
    /* One that was pulled out, and whose driver has let go, is not there either. */
    devices[1].function.left = true;
    ck_assert_uint_eq(read_config(2, PCI_VENDOR_ID, 4), 0xffffffff);
    add_device(0, 1);
    write_bar(1, MMIO);
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert_uint_eq(read_memory(MMIO), devices[0].tag);
}
END_TEST

START_TEST(test_machine_reset)
{
    write_bar(1, MMIO);
    write_config(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
    write_config(1, PCI_INTERRUPT_LINE, 1, 7);
    pci_host_reset(host);
    ck_assert_uint_eq(devices[0].resets, 1);
    ck_assert_uint_eq(read_config(1, PCI_COMMAND, 2), 0);
    ck_assert_uint_eq(read_config(1, PCI_BASE_ADDRESS_4, 4), 0xc);
    ck_assert_uint_eq(read_config(1, PCI_INTERRUPT_LINE, 1), 0);
    ck_assert_uint_eq(read_memory(MMIO), 0xffffffff);
    pci_function_set_intx(&devices[0].function, true);
    ck_assert(levels[1]);
}
END_TEST

START_TEST(test_capability_list)
{
    struct pci_function *function = &devices[3].function;
    pci_function_init(function, &IDENTITY, 1, NULL, &devices[3]);
    ck_assert_uint_eq(pci_function_get(function, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST, 0);
    int first = pci_function_add_capability(function, PCI_CAP_ID_VNDR, 17);
    int second = pci_function_add_capability(function, PCI_CAP_ID_MSIX, 12);
    ck_assert_int_eq(first, 0x40);
    ck_assert_int_eq(second, 0x54);
    ck_assert_int_eq(pci_function_add_capability(function, PCI_CAP_ID_VNDR, 200), -ENOSPC);
    ck_assert_int_eq(pci_host_add(host, 5, function), -EEXIST);
    ck_assert_int_eq(pci_host_add(host, 32, function), -EINVAL);
    ck_assert_int_eq(pci_host_add(host, 31, function), 0);
    ck_assert(read_config(31, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    ck_assert_uint_eq(read_config(31, PCI_CAPABILITY_LIST, 1), 0x40);
    ck_assert_uint_eq(read_config(31, 0x40, 2), 0x5409);
    ck_assert_uint_eq(read_config(31, 0x54, 2), 0x0011);
}
END_TEST

START_TEST(test_bad_descriptions)
{
    struct pci_function *function = &devices[3].function;
    pci_function_init(function, &IDENTITY, 1, NULL, &devices[3]);
    ck_assert_int_eq(pci_function_add_bar(function, 1, 4096, "x", &DEVICE_OPS), -EINVAL);
    ck_assert_int_eq(pci_function_add_bar(function, 6, 4096, "x", &DEVICE_OPS), -EINVAL);
    ck_assert_int_eq(pci_function_add_bar(function, 0, 4095, "x", &DEVICE_OPS), -EINVAL);
    ck_assert_int_eq(pci_function_add_bar(function, 0, 8, "x", &DEVICE_OPS), -EINVAL);
    ck_assert_int_eq(pci_function_add_bar(function, 0, UINT64_C(1) << 33, "x", &DEVICE_OPS), 0);
    ck_assert_int_eq(pci_function_add_bar(function, 0, 4096, "x", &DEVICE_OPS), -EINVAL);
}
END_TEST

static uint64_t message_address;
static uint32_t message_data;
static unsigned message_count;

static void take_message(void *controller, uint64_t address, uint32_t data)
{
    (void)controller;
    message_address = address;
    message_data = data;
    message_count++;
}

START_TEST(test_msix)
{
    const struct pci_msi_target target = {.notify = take_message};
    struct pci_function *function = &devices[3].function;
    struct msix msix;
    message_count = 0;
    pci_function_init(function, &IDENTITY, 1, NULL, &devices[3]);
    ck_assert_int_eq(msix_init(&msix, function, 0, 0, &target), -EINVAL);
    ck_assert_int_eq(msix_init(&msix, function, MSIX_VECTORS_MAX + 1, 0, &target), -EINVAL);
    ck_assert_int_eq(msix_init(&msix, function, 3, 0, &target), 0);
    ck_assert_int_eq(pci_host_add(host, 31, function), 0);
    ck_assert_uint_eq(read_config(31, msix.capability + PCI_MSIX_FLAGS, 2), 2);
    ck_assert_uint_eq(msix_table_read(&msix, 12, 4), PCI_MSIX_ENTRY_CTRL_MASKBIT);

    write_config(31, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    msix_notify(&msix, 1); /* off: nothing, not even pending */
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 8), 0);
    write_config(31, msix.capability + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    msix_control_changed(&msix);
    ck_assert(msix_enabled(&msix));
    msix_table_write(&msix, 16, 8, UINT64_C(0x1234567800));
    msix_table_write(&msix, 24, 4, 77);
    msix_notify(&msix, 1); /* masked: pending */
    msix_notify(&msix, 3);
    msix_notify(&msix, 0xffff);
    ck_assert_uint_eq(message_count, 0);
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 4), 2);
    msix_table_write(&msix, 28, 4, 0);
    ck_assert_uint_eq(message_count, 1);
    ck_assert_uint_eq(message_address, UINT64_C(0x1234567800));
    ck_assert_uint_eq(message_data, 77);
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 4), 0);

    write_config(31, msix.capability + PCI_MSIX_FLAGS, 2,
                 PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    msix_control_changed(&msix);
    msix_notify(&msix, 1);
    ck_assert_uint_eq(message_count, 1);
    write_config(31, msix.capability + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    msix_control_changed(&msix);
    ck_assert_uint_eq(message_count, 2);

    /* Outside the table, misaligned, of odd width: nothing happens. */
    msix_table_write(&msix, 3 * 16, 4, 1);
    msix_table_write(&msix, 18, 4, 1);
    msix_table_write(&msix, 4096, 4, 1);
    msix_table_write(&msix, 16, 2, 1);
    ck_assert_uint_eq(msix_table_read(&msix, 3 * 16, 4), 0);
    ck_assert_uint_eq(msix_table_read(&msix, 4096, 8), 0);
    pci_function_restore(function);
    msix_reset(&msix);
    ck_assert(!msix_enabled(&msix));
    ck_assert_uint_eq(msix_table_read(&msix, 28, 4), PCI_MSIX_ENTRY_CTRL_MASKBIT);
    msix_destroy(&msix);
}
END_TEST

/* A function with MSI-X of `vectors`, on and unmasked as a whole, a bus master. */
static void open_msix(struct msix *msix, unsigned vectors)
{
    static const struct pci_msi_target target = {.notify = take_message};
    struct pci_function *function = &devices[3].function;
    message_count = 0;
    pci_function_init(function, &IDENTITY, 1, NULL, &devices[3]);
    ck_assert_int_eq(msix_init(msix, function, vectors, 0, &target), 0);
    ck_assert_int_eq(pci_host_add(host, 31, function), 0);
    write_config(31, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    write_config(31, msix->capability + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    msix_control_changed(msix);
}

static void set_control(struct msix *msix, uint32_t flags)
{
    write_config(31, msix->capability + PCI_MSIX_FLAGS, 2, flags);
    msix_control_changed(msix);
}

START_TEST(test_msix_every_entry)
{
    struct msix msix;
    open_msix(&msix, MSIX_VECTORS_MAX);
    ck_assert_uint_eq(read_config(31, msix.capability + PCI_MSIX_TABLE, 4), 0);
    ck_assert_uint_eq(read_config(31, msix.capability + PCI_MSIX_PBA, 4), MSIX_PBA_OFFSET);
    for (unsigned i = 0; i < MSIX_VECTORS_MAX; i++) {
        /* After power-on all are masked, and each field holds what is written to it. */
        ck_assert_uint_eq(msix_table_read(&msix, i * 16 + 12, 4), 1);
        msix_table_write(&msix, i * 16, 4, UINT32_MAX);
        msix_table_write(&msix, i * 16 + 4, 4, i);
        msix_table_write(&msix, i * 16 + 8, 8, UINT64_C(0xffffffff) << 32 | (1000 + i));
        ck_assert_uint_eq(msix_table_read(&msix, i * 16, 4), 0xfffffffc);
        ck_assert_uint_eq(msix_table_read(&msix, i * 16, 8), (uint64_t)i << 32 | 0xfffffffc);
        ck_assert_uint_eq(msix_table_read(&msix, i * 16 + 8, 4), 1000 + i);
        ck_assert_uint_eq(msix_table_read(&msix, i * 16 + 12, 4), 1); /* one bit of control */
        ck_assert(!msix_notify(&msix, i));
        ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 8), UINT64_C(1) << i);
        msix_table_write(&msix, MSIX_PBA_OFFSET, 8, 0); /* software cannot */
        msix_table_write(&msix, MSIX_PBA_OFFSET, 8, UINT64_MAX);
        ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 8), UINT64_C(1) << i);
        msix_table_write(&msix, i * 16 + 12, 4, 0);
        ck_assert_uint_eq(message_count, i + 1);
        ck_assert_uint_eq(message_address, (uint64_t)i << 32 | 0xfffffffc);
        ck_assert_uint_eq(message_data, 1000 + i);
        ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 8), 0);
    }
    for (unsigned i = 0; i < MSIX_VECTORS_MAX; i++) {
        ck_assert(msix_notify(&msix, i));
        ck_assert_uint_eq(message_data, 1000 + i);
    }
    msix_destroy(&msix);
}
END_TEST

START_TEST(test_msix_both_masks_hold_back)
{
    struct msix msix;
    open_msix(&msix, 3);
    msix_table_write(&msix, 1 * 16 + 12, 4, 0);
    set_control(&msix, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(!msix_notify(&msix, 1));
        ck_assert(!msix_notify(&msix, 2));
    }
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 4), 6);
    msix_table_write(&msix, 2 * 16 + 12, 4, 0); /* the function is still masked */
    msix_table_write(&msix, 2 * 16 + 12, 4, 1);
    ck_assert_uint_eq(message_count, 0);
    set_control(&msix, PCI_MSIX_FLAGS_ENABLE);
    ck_assert_uint_eq(message_count, 1); /* many became one */
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 4), 4);
    msix_table_write(&msix, 2 * 16 + 12, 4, 0);
    ck_assert_uint_eq(message_count, 2);
    /* A vector that is moved while masked goes to the new place only. */
    msix_table_write(&msix, 2 * 16 + 12, 4, 1);
    msix_table_write(&msix, 2 * 16, 4, 0x28001000);
    msix_notify(&msix, 2);
    msix_table_write(&msix, 2 * 16, 4, 0x28003000);
    msix_table_write(&msix, 2 * 16 + 12, 4, 0);
    ck_assert_uint_eq(message_count, 3);
    ck_assert_uint_eq(message_address, 0x28003000);
    msix_destroy(&msix);
}
END_TEST

START_TEST(test_msix_needs_a_bus_master)
{
    struct msix msix;
    open_msix(&msix, 2);
    msix_table_write(&msix, 12, 4, 0);
    write_config(31, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    msix_control_changed(&msix);
    ck_assert(!msix_notify(&msix, 0));
    ck_assert_uint_eq(message_count, 0);
    write_config(31, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    msix_control_changed(&msix);
    ck_assert_uint_eq(message_count, 1); /* late, not lost */
    msix_destroy(&msix);
}
END_TEST

START_TEST(test_msix_off_and_on_again)
{
    struct msix msix;
    open_msix(&msix, 2);
    msix_notify(&msix, 0); /* masked: pending */
    set_control(&msix, 0);
    msix_table_write(&msix, 12, 4, 0);
    msix_notify(&msix, 1);
    ck_assert_uint_eq(message_count, 0);
    set_control(&msix, PCI_MSIX_FLAGS_ENABLE);
    ck_assert_uint_eq(message_count, 1);
    ck_assert_uint_eq(msix_table_read(&msix, MSIX_PBA_OFFSET, 4), 0);
    /* Of the control word software has two bits; the size stays. */
    set_control(&msix, 0xffff);
    ck_assert_uint_eq(read_config(31, msix.capability + PCI_MSIX_FLAGS, 2), 0xc001);
    msix_destroy(&msix);
}
END_TEST

START_TEST(test_no_ecam_no_bridge)
{
    struct machine_pci none = {0};
    struct error err;
    ck_assert_ptr_null(pci_host_create(bus, &none, &err));
    ck_assert_int_eq(err.code, ERROR_UNSUPPORTED);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("pci");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, test_walk_finds_bridge_and_devices);
    tcase_add_test(cases, test_absent_and_odd_accesses);
    tcase_add_test(cases, test_only_writable_bits_change);
    tcase_add_test(cases, test_bar_sizing);
    tcase_add_test(cases, test_bar_moves_with_the_guest);
    tcase_add_test(cases, test_bar_outside_the_windows_is_nowhere);
    tcase_add_test(cases, test_overlapping_bars);
    tcase_add_test(cases, test_intx_is_swizzled_and_shared);
    tcase_add_test(cases, test_intx_disable_bit);
    tcase_add_test(cases, test_a_slot_that_comes_and_goes);
    tcase_add_test(cases, test_slots_that_cannot_be_had);
    tcase_add_test(cases, test_a_device_that_goes_makes_room);
    tcase_add_test(cases, test_machine_reset);
    tcase_add_test(cases, test_capability_list);
    tcase_add_test(cases, test_bad_descriptions);
    tcase_add_test(cases, test_msix);
    tcase_add_test(cases, test_msix_every_entry);
    tcase_add_test(cases, test_msix_both_masks_hold_back);
    tcase_add_test(cases, test_msix_needs_a_bus_master);
    tcase_add_test(cases, test_msix_off_and_on_again);
    tcase_add_test(cases, test_no_ecam_no_bridge);
    Suite *suite = suite_create("pci");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
