/* Message-signalled interrupts in the machine: the harts' pages, the APLIC behind the devices'
 * lines, messages of PCI functions to any address, and which controller a machine gets. */
#include "test_machine.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/machine/riscv64/messages.h"
#include <libfdt.h>
#include <pthread.h>

#define APLIC 0xd000000ull
#define IMSIC 0x28000000ull
#define PLIC  0xc000000ull
#define CPUS  3u

static struct test_machine test;

static const uint32_t wait_for_ever[] = {0x10500073 /* wfi */, 0xffdff06f /* j -4 */};

static void set_up(void)
{
    test.irqchip = MACHINE_IRQCHIP_AIA;
    test_machine_open(&test, CPUS, wait_for_ever, sizeof(wait_for_ever));
}

static void tear_down(void)
{
    test_machine_close(&test);
}

static uint64_t get(uint64_t address, unsigned size)
{
    uint64_t value = 99;
    ck_assert(bus_read(test.machine->bus, address, size, &value));
    return value;
}

static void put(uint64_t address, uint64_t value)
{
    ck_assert(bus_write(test.machine->bus, address, 4, value));
}

static struct riscv64_imsic *file(unsigned hart)
{
    return &test_cpu(&test, hart)->imsic;
}

/* The only identity pending at any hart: hart << 16 | identity; 0 = none. */
static unsigned only_pending(void)
{
    unsigned found = 0;
    for (unsigned hart = 0; hart < CPUS; hart++) {
        for (unsigned i = 0; i < 256; i++) {
            if (atomic_load(&file(hart)->pending[i / 64]) >> (i % 64) & 1) {
                ck_assert_uint_eq(found, 0);
                found = hart << 16 | i;
            }
        }
    }
    for (unsigned hart = 0; hart < CPUS; hart++) {
        for (unsigned word = 0; word < RISCV64_IMSIC_WORDS; word++) {
            atomic_store(&file(hart)->pending[word], 0);
        }
    }
    return found;
}

START_TEST(each_hart_has_a_page)
{
    for (unsigned hart = 0; hart < CPUS; hart++) {
        ck_assert(test_cpu(&test, hart)->has_aia);
        for (unsigned identity = 1; identity <= RISCV64_IMSIC_IDENTITIES; identity++) {
            put(IMSIC + hart * 0x1000, identity);
            ck_assert_uint_eq(only_pending(), hart << 16 | identity);
        }
        ck_assert_uint_eq(get(IMSIC + hart * 0x1000, 4), 0);
    }
    ck_assert_uint_eq(atomic_load(&file(1)->messages), RISCV64_IMSIC_IDENTITIES);
    struct machine_counts counts = {0};
    test.machine->model->count(test.machine, &counts);
    ck_assert_uint_eq(counts.messages, CPUS * RISCV64_IMSIC_IDENTITIES);
}
END_TEST

START_TEST(what_is_no_message_changes_nothing)
{
    static const uint32_t values[] = {0, 256, 2047, 0x01000000, UINT32_MAX};
    for (unsigned i = 0; i < 5; i++) {
        put(IMSIC, values[i]);
    }
    put(IMSIC + 4, 1);          /* big-endian: not offered */
    put(IMSIC + 4, 0x01000000); /* */
    put(IMSIC + 8, 1);
    put(IMSIC + 0xffc, 1);
    for (uint64_t page = CPUS; page < 8; page++) { /* harts that there are not */
        put(IMSIC + page * 0x1000, 1);
        ck_assert_uint_eq(get(IMSIC + page * 0x1000, 4), 0);
    }
    ck_assert_uint_eq(only_pending(), 0);
    static const struct {
        uint64_t offset;
        unsigned size;
    } odd[] = {{0, 1}, {0, 2}, {0, 8}, {2, 4}, {0x8000, 4}};
    uint64_t value;
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(!bus_write(test.machine->bus, IMSIC + odd[i].offset, odd[i].size, 1));
        ck_assert(!bus_read(test.machine->bus, IMSIC + odd[i].offset, odd[i].size, &value));
    }
    ck_assert_uint_eq(only_pending(), 0);
}
END_TEST

/* A device's message goes where the guest's table says, which is anywhere. */
START_TEST(messages_of_functions_reach_interrupt_files_only)
{
    const struct pci_msi_target *msi = &test.machine->pci.msi;
    ck_assert_ptr_nonnull(msi->notify);
    msi->notify(msi->controller, IMSIC + 0x2000, 77);
    ck_assert_uint_eq(only_pending(), 2u << 16 | 77);
    msi->notify(msi->controller, IMSIC, 1);
    ck_assert_uint_eq(only_pending(), 1);

    uint32_t *ram = memory_pointer(&test.memory, TEST_RAM_BASE + 0x10000, 4);
    *ram = 0x12345678;
    const uint64_t places[] = {0,
                               1,
                               TEST_RAM_BASE + 0x10000,
                               0x10000000, /* the serial port: no device waits for a device */
                               APLIC + 0x2000,
                               IMSIC - 4,
                               IMSIC + 4,
                               IMSIC + 2,
                               IMSIC + 3 * 0x1000,
                               IMSIC + 0x8000,
                               UINT64_C(1) << 32 | IMSIC,
                               UINT64_MAX - 3,
                               UINT64_MAX};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        msi->notify(msi->controller, places[i], 1);
        msi->notify(msi->controller, places[i], UINT32_MAX);
    }
    msi->notify(msi->controller, IMSIC, UINT32_MAX);
    msi->notify(msi->controller, IMSIC, 0);
    ck_assert_uint_eq(only_pending(), 0);
    ck_assert_uint_eq(*ram, 0x12345678);
    ck_assert_uint_eq(test.output_size, 0);
}
END_TEST

START_TEST(wired_devices_send_messages_by_the_aplic)
{
    put(APLIC, 0x100);
    put(APLIC + 10 * 4, 6); /* the serial port: level, high */
    put(APLIC + 0x3000 + 10 * 4, 1u << 18 | 33);
    put(APLIC + 0x1edc, 10);
    irq_line_set(&test.serial_irq, true);
    ck_assert_uint_eq(only_pending(), 1u << 16 | 33);
    irq_line_set(&test.serial_irq, false);
    put(APLIC + 0x23 * 4, 6); /* INTD */
    put(APLIC + 0x3000 + 0x23 * 4, 2u << 18 | 255);
    put(APLIC + 0x1edc, 0x23);
    irq_line_set(&test.machine->pci.intx[3], true);
    ck_assert_uint_eq(only_pending(), 2u << 16 | 255);
    /* A target that does not exist. */
    put(APLIC + 0x3000 + 0x23 * 4, UINT32_MAX);
    put(APLIC + 0x2000, 0x23);
    put(APLIC + 0x3000, UINT32_MAX);
    ck_assert_uint_eq(only_pending(), 0);
    uint64_t value;
    ck_assert(!bus_read(test.machine->bus, PLIC, 4, &value));
}
END_TEST

START_TEST(loading_again_is_a_reset)
{
    put(APLIC, 0x100);
    put(APLIC + 10 * 4, 6);
    put(IMSIC, 5);
    atomic_store(&file(0)->delivery, 1);
    atomic_store(&file(0)->enabled[0], 0xff);
    ck_assert_int_eq(test.machine->model->load(test.machine, NULL), 0);
    ck_assert_uint_eq(get(APLIC, 4), 0x80000004);
    ck_assert_uint_eq(get(APLIC + 10 * 4, 4), 0);
    ck_assert_uint_eq(atomic_load(&file(0)->delivery), 0);
    ck_assert_uint_eq(only_pending(), 0);
    ck_assert(test_cpu(&test, 0)->has_aia);
    const void *tree = memory_pointer(&test.memory, test_cpu(&test, 0)->x[11], 65536);
    ck_assert_int_ge(fdt_path_offset(tree, "/soc/imsics@28000000"), 0);
}
END_TEST

static void *run(void *argument)
{
    unsigned index = (unsigned)(uintptr_t)argument;
    return (void *)(uintptr_t)test.machine->model->run_cpu(test.machine, index);
}

/* Asleep in WFI, woken by messages alone, which its handler (SIE is off: it only looks) counts. */
START_TEST(messages_wake_a_sleeping_hart)
{
    struct riscv64_cpu *cpu = test_cpu(&test, 0);
    pthread_t thread;
    atomic_store(&cpu->imsic.delivery, 1);
    atomic_store(&cpu->imsic.enabled[0], ~1ull);
    cpu->csr.mie = 1u << 9;
    ck_assert_int_eq(pthread_create(&thread, NULL, run, (void *)0), 0);
    usleep(2000);
    put(IMSIC, 3);
    uint64_t before = 0;
    do { /* with an interrupt pending WFI falls through: the loop runs */
        usleep(1000);
        before = *(volatile uint64_t *)&cpu->cpu.retired;
    } while (before == 0);
    engine_kick(&cpu->cpu, CPU_ATTENTION_STOP);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(cpu->cpu.retired, 0);
}
END_TEST

static bool gets_aia(enum machine_irqchip irqchip, const char *kernel, bool firmware)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    bool wanted = false;
    struct error err = {0};
    ck_assert_int_eq(ftruncate(fd, 700000), 0);
    /* Across the border between two reads, so at no special place. */
    ck_assert_int_gt(pwrite(fd, kernel, strlen(kernel) + 1, 256 * 1024 - 6), 0);
    ck_assert_int_gt(pwrite(fd, "riscv,aplic", 12, 650000), 0);
    const struct machine_config config = {
        .irqchip = irqchip, .kernel_fd = fd, .firmware_fd = firmware ? fd : -1, .initrd_fd = -1};
    ck_assert_int_eq(messages_wanted(&config, &wanted, &err), 0);
    close(fd);
    return wanted;
}

START_TEST(auto_looks_at_the_kernel)
{
    ck_assert(gets_aia(MACHINE_IRQCHIP_AUTO, "riscv,imsics", false));
    ck_assert(!gets_aia(MACHINE_IRQCHIP_AUTO, "riscv,imsic", false));
    ck_assert(!gets_aia(MACHINE_IRQCHIP_AUTO, "riscv,imsicss", false));
    ck_assert(
        !gets_aia(MACHINE_IRQCHIP_AUTO, "riscv,imsics", true)); /* firmware knows no APLIC here */
    ck_assert(!gets_aia(MACHINE_IRQCHIP_PLIC, "riscv,imsics", false));
    ck_assert(gets_aia(MACHINE_IRQCHIP_AIA, "nothing", false));
    const struct machine_config none = {.kernel_fd = -1, .firmware_fd = -1, .initrd_fd = -1};
    bool wanted = true;
    ck_assert_int_eq(messages_wanted(&none, &wanted, NULL), 0);
    ck_assert(!wanted);
    struct machine_config both = none;
    struct error err = {0};
    both.irqchip = MACHINE_IRQCHIP_AIA;
    both.firmware_fd = 0;
    ck_assert_int_lt(messages_wanted(&both, &wanted, &err), 0);
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    ck_assert_int_ne(err.hint[0], '\0');
    enum machine_irqchip irqchip;
    ck_assert(machine_irqchip_find("", &irqchip) && irqchip == MACHINE_IRQCHIP_AUTO);
    ck_assert(machine_irqchip_find("plic", &irqchip) && irqchip == MACHINE_IRQCHIP_PLIC);
    ck_assert(machine_irqchip_find("aia", &irqchip) && irqchip == MACHINE_IRQCHIP_AIA);
    ck_assert(!machine_irqchip_find("gic", &irqchip));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("messages");
    TCase *tests = tcase_create("messages");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, each_hart_has_a_page);
    tcase_add_test(tests, what_is_no_message_changes_nothing);
    tcase_add_test(tests, messages_of_functions_reach_interrupt_files_only);
    tcase_add_test(tests, wired_devices_send_messages_by_the_aplic);
    tcase_add_test(tests, loading_again_is_a_reset);
    tcase_add_test(tests, messages_wake_a_sleeping_hart);
    tcase_add_test(tests, auto_looks_at_the_kernel);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
