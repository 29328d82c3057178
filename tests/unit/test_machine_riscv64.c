/* The riscv64 machine: what a guest finds after reset, its fixed devices, and how it ends. */
#include "tests/unit/suite.h"
#include "tests/unit/test_machine.h"
#include "vmmd/vcpu/irqchip/guest_clock.h"
#include <errno.h>
#include <libfdt.h>
#include <pthread.h>
#include <stdlib.h>

#define UART   0x10000000ull
#define SYSCON 0x100000ull
#define ACLINT 0x2000000ull
#define PLIC   0xc000000ull
#define ROM    0x1000ull

static struct test_machine test;

static const uint32_t wait_for_ever[] = {0x10500073 /* wfi */, 0xffdff06f /* j -4 */};

static void setup(void)
{
    test_machine_open(&test, 2, wait_for_ever, sizeof(wait_for_ever));
}

static void teardown(void)
{
    test_machine_close(&test);
}

static uint64_t get(uint64_t address, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(test.machine->bus, address, size, &value));
    return value;
}

static void put(uint64_t address, unsigned size, uint64_t value)
{
    ck_assert(bus_write(test.machine->bus, address, size, value));
}

static bool line(unsigned index, enum riscv64_interrupt interrupt)
{
    return atomic_load(&test_cpu(&test, index)->lines) >> interrupt & 1;
}

START_TEST(the_boot_hart_starts_in_supervisor_mode_at_the_kernel)
{
    struct riscv64_cpu *cpu = test_cpu(&test, 0);
    ck_assert_uint_eq(cpu->cpu.pc, TEST_ENTRY);
    ck_assert_uint_eq(cpu->privilege, RISCV64_SUPERVISOR);
    ck_assert_uint_eq(cpu->x[10], 0);
    ck_assert_uint_eq(cpu->csr.satp, 0);
    const void *tree = memory_pointer(&test.memory, cpu->x[11], 65536);
    ck_assert_ptr_nonnull(tree);
    ck_assert_int_eq(fdt_check_header(tree), 0);
    const char *bootargs = fdt_getprop(tree, fdt_path_offset(tree, "/chosen"), "bootargs", NULL);
    ck_assert_str_eq(bootargs, "console=ttyS0");
    ck_assert_int_ge(fdt_path_offset(tree, "/soc/serial@10000000"), 0);
    ck_assert_int_lt(fdt_path_offset(tree, "/soc/rtc@101000"), 0); /* nobody attached one */
    ck_assert_int_lt(fdt_path_offset(tree, "/soc/pci@30000000"), 0);
}
END_TEST

START_TEST(firmware_starts_all_harts_in_machine_mode)
{
    const uint32_t raw[] = {0x10500073, 0xffdff06f};
    int fd = memfd_create("firmware", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, raw, sizeof(raw)), sizeof(raw));
    test.machine->config.firmware_fd = fd;
    struct error err = {0};
    ck_assert_msg(test.machine->model->load(test.machine, &err) == 0, "%s", err.message);
    for (unsigned i = 0; i < 2; i++) {
        struct riscv64_cpu *cpu = test_cpu(&test, i);
        ck_assert_uint_eq(cpu->cpu.pc, TEST_RAM_BASE);
        ck_assert_uint_eq(cpu->privilege, RISCV64_MACHINE);
        ck_assert_uint_eq(cpu->x[10], i);
        ck_assert_int_eq(fdt_check_header(memory_pointer(&test.memory, cpu->x[11], 65536)), 0);
        /* What fw_dynamic reads: magic, version, next address, next mode, options, boot hart. */
        uint64_t info = cpu->x[12];
        ck_assert_uint_eq(get(info, 8), 0x4942534f);
        ck_assert_uint_eq(get(info + 8, 8), 2);
        ck_assert_uint_eq(get(info + 16, 8), TEST_ENTRY);
        ck_assert_uint_eq(get(info + 24, 8), 1);
        ck_assert_uint_eq(get(info + 32, 8), 0);
        ck_assert_uint_eq(get(info + 40, 8), 0);
        ck_assert(!cpu->cpu.host->firmware_call(&cpu->cpu));
    }
    ck_assert_uint_eq(get(ROM, 4), 0x297);
    put(ROM, 4, 0);
    ck_assert_uint_eq(get(ROM, 4), 0x297);
    ck_assert_uint_eq(get(ROM + 0xeff8, 8), 0);
    close(fd);
}
END_TEST

START_TEST(device_interrupts_reach_the_hart_that_enabled_them)
{
    put(PLIC + 10 * 4, 4, 1);
    put(PLIC + 0x2000 + 3 * 0x80, 4, 1u << 10); /* supervisor context of hart 1 */
    irq_line_set(&test.serial_irq, true);
    ck_assert(line(1, RISCV64_IRQ_SEXT) && !line(0, RISCV64_IRQ_SEXT));
    ck_assert(!line(1, RISCV64_IRQ_MEXT));
    put(PLIC + 0x2000 + 2 * 0x80, 4, 1u << 10); /* machine context of hart 1 */
    ck_assert(line(1, RISCV64_IRQ_MEXT));
    ck_assert_uint_eq(get(PLIC + 0x203004, 4), 10);
    ck_assert(!line(1, RISCV64_IRQ_SEXT) && !line(1, RISCV64_IRQ_MEXT));
    irq_line_set(&test.serial_irq, false);
    put(PLIC + 0x2000, 4, 0);
    put(PLIC + 0x23 * 4, 4, 1);
    put(PLIC + 0x2084, 4, 1u << 3);
    irq_line_set(&test.machine->pci.intx[3], true); /* INTD is source 0x23 */
    ck_assert(line(0, RISCV64_IRQ_SEXT));
}
END_TEST

START_TEST(the_aclint_drives_machine_interrupts)
{
    put(ACLINT + 4, 4, 1);
    ck_assert(line(1, RISCV64_IRQ_MSOFT) && !line(0, RISCV64_IRQ_MSOFT));
    put(ACLINT + 0x4000, 8, 0);
    ck_assert(line(0, RISCV64_IRQ_MTIMER) && !line(1, RISCV64_IRQ_MTIMER));
    struct cpu *cpu = &test_cpu(&test, 0)->cpu;
    uint64_t before = cpu->host->time(cpu);
    ck_assert_uint_ge(get(ACLINT + 0xbff8, 8), before);
    ck_assert_uint_ge(cpu->host->time(cpu), before);
    cpu->host->timer_changed(cpu, RISCV64_TIMER_STIMECMP, before);
    ck_assert(line(0, RISCV64_IRQ_STIMER));
    cpu->host->timer_changed(cpu, RISCV64_TIMER_STIMECMP, UINT64_MAX);
    ck_assert(!line(0, RISCV64_IRQ_STIMER));
    cpu->host->timer_changed(cpu, 2, 0); /* no such timer */
}
END_TEST

START_TEST(the_test_device_ends_the_machine_once)
{
    static const struct {
        uint32_t value;
        enum machine_event event;
        unsigned code;
    } cases[] = {
        {0x5555, MACHINE_POWER_OFF, 0},
        {0x7777, MACHINE_RESET, 0},
        {0x3333 | 42 << 16, MACHINE_FAILURE, 42},
    };
    put(SYSCON, 4, 0x1234);
    put(SYSCON + 4, 4, 0x5555);
    ck_assert(!bus_write(test.machine->bus, SYSCON, 8, 0x5555));
    ck_assert_uint_eq(test.events, 0);
    put(SYSCON, 4, cases[_i].value);
    put(SYSCON, 4, 0x5555);
    ck_assert_uint_eq(test.events, 1);
    ck_assert_int_eq(test.event, cases[_i].event);
    ck_assert_uint_eq(test.code, cases[_i].code);
    /* Loading again arms it again. */
    ck_assert_int_eq(test.machine->model->load(test.machine, NULL), 0);
    put(SYSCON, 2, 0x5555);
    ck_assert_uint_eq(test.events, 2);
}
END_TEST

START_TEST(loading_again_is_a_reset)
{
    struct riscv64_cpu *cpu = test_cpu(&test, 0);
    put(PLIC + 10 * 4, 4, 1);
    put(PLIC + 0x2080, 4, 1u << 10);
    irq_line_set(&test.serial_irq, true);
    put(ACLINT, 4, 1);
    put(ACLINT + 0x4000, 8, 0);
    cpu->x[10] = 99;
    cpu->csr.satp = 1ull << 63;
    cpu->csr.mie = ~0ull;
    cpu->cpu.pc = 0x1234;
    memset(memory_pointer(&test.memory, TEST_ENTRY, 8), 0, 8);
    memset(memory_pointer(&test.memory, cpu->x[11], 64), 0, 64);
    ck_assert_int_eq(test.machine->model->load(test.machine, NULL), 0);
    ck_assert_uint_eq(cpu->cpu.pc, TEST_ENTRY);
    ck_assert_uint_eq(cpu->x[10], 0);
    ck_assert_uint_eq(cpu->csr.satp, 0);
    ck_assert_uint_eq(atomic_load(&cpu->lines), 0);
    ck_assert_uint_eq(get(PLIC + 10 * 4, 4), 0);
    ck_assert_uint_lt(get(ACLINT + 0xbff8, 8), 600ull * GUEST_CLOCK_HZ);
    const uint32_t *code = memory_pointer(&test.memory, TEST_ENTRY, 8);
    ck_assert_uint_eq(code[0], wait_for_ever[0]);
    ck_assert_int_eq(fdt_check_header(memory_pointer(&test.memory, cpu->x[11], 64)), 0);
}
END_TEST

static void *run(void *argument)
{
    unsigned index = (unsigned)(uintptr_t)argument;
    return (void *)(uintptr_t)test.machine->model->run_cpu(test.machine, index);
}

START_TEST(harts_leave_when_asked_whether_stopped_or_asleep)
{
    static const struct {
        uint32_t attention;
        enum engine_exit exit;
    } rounds[] = {{CPU_ATTENTION_PAUSE, ENGINE_EXIT_PAUSE},
                  {CPU_ATTENTION_PAUSE, ENGINE_EXIT_PAUSE},
                  {CPU_ATTENTION_STOP, ENGINE_EXIT_STOP}};
    for (unsigned round = 0; round < 3; round++) {
        pthread_t threads[2];
        for (uintptr_t i = 0; i < 2; i++) {
            pthread_create(&threads[i], NULL, run, (void *)i);
        }
        usleep(2000); /* usually both sleep by then; either way they must leave */
        for (unsigned i = 0; i < 2; i++) {
            engine_kick(&test_cpu(&test, i)->cpu, rounds[round].attention);
        }
        for (unsigned i = 0; i < 2; i++) {
            void *why;
            pthread_join(threads[i], &why);
            ck_assert_uint_eq((uintptr_t)why, (uintptr_t)rounds[round].exit);
        }
    }
}
END_TEST

START_TEST(interrupts_for_a_stopped_hart_do_not_start_it)
{
    pthread_t thread;
    pthread_create(&thread, NULL, run, (void *)1);
    for (unsigned i = 0; i < 100; i++) {
        put(ACLINT + 4, 4, i & 1);
        engine_kick(&test_cpu(&test, 1)->cpu, CPU_ATTENTION_INTERRUPT);
    }
    engine_kick(&test_cpu(&test, 1)->cpu, CPU_ATTENTION_STOP);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(test_cpu(&test, 1)->cpu.retired, 0);
}
END_TEST

START_TEST(attaching_is_checked)
{
    const struct machine_model *model = test.machine->model;
    struct irq_line irq;
    ck_assert_int_eq(
        model->attach_mmio_device(test.machine, "serial", &test_serial_ops, &test, &irq), -EEXIST);
    ck_assert_int_eq(
        model->attach_mmio_device(test.machine, "floppy", &test_serial_ops, &test, &irq), -ENOENT);
    ck_assert_int_eq(model->attach_mmio_device(test.machine, "rtc", &test_serial_ops, &test, &irq),
                     0);
    ck_assert_ptr_null(machine_model_find("vax"));
}
END_TEST

START_TEST(impossible_configurations_are_refused)
{
    const struct machine_model *model = machine_model_find("riscv64");
    static const struct {
        unsigned cpus;
        uint64_t memory;
        enum error_code code;
    } cases[] = {
        {0, TEST_RAM_SIZE, ERROR_CONFIG},
        {MACHINE_CPUS_MAX + 1, TEST_RAM_SIZE, ERROR_CONFIG},
        {1, 0, ERROR_MEMORY},
        {1, 1 << 20, ERROR_MEMORY},
        {1, UINT64_MAX, ERROR_MEMORY},
        {1, TEST_RAM_SIZE - 1, ERROR_MEMORY},
        {1, 2 * TEST_RAM_SIZE, ERROR_INTERNAL}, /* more than is mapped */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct machine_config config = test.machine->config;
        struct error err = {0};
        config.cpu_count = cases[i].cpus;
        config.memory_size = cases[i].memory;
        ck_assert_ptr_null(model->create(&config, &test.memory, &err));
        ck_assert_int_eq(err.code, cases[i].code);
        ck_assert_int_ne(err.message[0], '\0');
    }
}
END_TEST

START_TEST(a_failed_load_leaves_the_machine_usable)
{
    struct error err = {0};
    int good = test.machine->config.kernel_fd;
    test.machine->config.kernel_fd = -1;
    ck_assert_int_lt(test.machine->model->load(test.machine, &err), 0);
    ck_assert_int_eq(err.code, ERROR_KERNEL);
    test.machine->config.kernel_fd = good;
    ck_assert_int_eq(test.machine->model->load(test.machine, &err), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 machine");
    TCase *tests = tcase_create("riscv64 machine");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, the_boot_hart_starts_in_supervisor_mode_at_the_kernel);
    tcase_add_test(tests, firmware_starts_all_harts_in_machine_mode);
    tcase_add_test(tests, device_interrupts_reach_the_hart_that_enabled_them);
    tcase_add_test(tests, the_aclint_drives_machine_interrupts);
    tcase_add_loop_test(tests, the_test_device_ends_the_machine_once, 0, 3);
    tcase_add_test(tests, loading_again_is_a_reset);
    tcase_add_test(tests, harts_leave_when_asked_whether_stopped_or_asleep);
    tcase_add_test(tests, interrupts_for_a_stopped_hart_do_not_start_it);
    tcase_add_test(tests, attaching_is_checked);
    tcase_add_test(tests, impossible_configurations_are_refused);
    tcase_add_test(tests, a_failed_load_leaves_the_machine_usable);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
