/* The device tree: a kernel finds every device where the memory map has it. */
#include "libshared/isa/riscv64/riscv64.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/machine/riscv64/fdt.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include <check.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

static uint8_t buffer[RISCV64_FDT_CAPACITY];

static const struct machine_pci pci = {
    .ecam_base = LAYOUT_ECAM_BASE,
    .ecam_size = LAYOUT_ECAM_SIZE,
    .mmio_base = LAYOUT_MMIO_BASE,
    .mmio_size = LAYOUT_MMIO_SIZE,
    .mmio64_base = 0x400000000,
    .mmio64_size = LAYOUT_MMIO64_SIZE,
    .pio_base = LAYOUT_PIO_BASE,
    .pio_size = LAYOUT_PIO_SIZE,
};

static const struct riscv64_fdt full = {
    .cpu_count = 4,
    .memory_base = LAYOUT_RAM_BASE,
    .memory_size = 512ull << 20,
    .append = "root=/dev/vda quiet",
    .initrd_start = 0x9f000000,
    .initrd_end = 0x9f123456,
    .kernel_start = 0x80200000,
    .kernel_end = 0x82000000,
    .has_serial = true,
    .has_rtc = true,
    .pci = &pci,
};

static void build(const struct riscv64_fdt *fdt)
{
    struct error err = {0};
    int size = riscv64_fdt_build(fdt, buffer, &err);
    ck_assert_msg(size > 0, "%s", err.message);
    ck_assert_int_eq(fdt_check_full(buffer, (size_t)size), 0);
}

static int node(const char *path)
{
    int offset = fdt_path_offset(buffer, path);
    ck_assert_msg(offset >= 0, "no node %s", path);
    return offset;
}

static const char *text(const char *path, const char *name)
{
    int length;
    const char *value = fdt_getprop(buffer, node(path), name, &length);
    ck_assert_msg(value && length > 0 && value[length - 1] == '\0', "%s of %s", name, path);
    return value;
}

static uint32_t cell(const char *path, const char *name, unsigned index)
{
    int length;
    const fdt32_t *value = fdt_getprop(buffer, node(path), name, &length);
    ck_assert_msg(value && (size_t)length >= (index + 1) * 4, "%s of %s", name, path);
    return fdt32_to_cpu(value[index]);
}

static uint64_t wide(const char *path, const char *name, unsigned index)
{
    return (uint64_t)cell(path, name, index) << 32 | cell(path, name, index + 1);
}

static void reg_is(const char *path, uint64_t base, uint64_t size)
{
    ck_assert_uint_eq(wide(path, "reg", 0), base);
    ck_assert_uint_eq(wide(path, "reg", 2), size);
}

START_TEST(devices_are_where_the_map_has_them)
{
    build(&full);
    reg_is("/memory@80000000", 0x80000000, 512ull << 20);
    reg_is("/soc/serial@10000000", 0x10000000, 0x100);
    reg_is("/soc/rtc@101000", 0x101000, 0x1000);
    reg_is("/soc/test@100000", 0x100000, 0x1000);
    reg_is("/soc/clint@2000000", 0x2000000, 0x10000);
    reg_is("/soc/plic@c000000", 0xc000000, 0x600000);
    reg_is("/soc/pci@30000000", 0x30000000, 0x10000000);
    ck_assert_uint_eq(cell("/soc/serial@10000000", "interrupts", 0), 10);
    ck_assert_uint_eq(cell("/soc/rtc@101000", "interrupts", 0), 11);
    ck_assert_uint_eq(cell("/soc/plic@c000000", "riscv,ndev", 0), 96);
    ck_assert_uint_eq(cell("/cpus", "timebase-frequency", 0), 10000000);
    ck_assert_str_eq(text("/soc/serial@10000000", "compatible"), "ns16550a");
    ck_assert_str_eq(text("/soc/rtc@101000", "compatible"), "google,goldfish-rtc");
}
END_TEST

START_TEST(every_reference_leads_to_its_node)
{
    build(&full);
    uint32_t plic = cell("/soc/plic@c000000", "phandle", 0);
    ck_assert_uint_eq(cell("/soc/serial@10000000", "interrupt-parent", 0), plic);
    ck_assert_uint_eq(cell("/poweroff", "regmap", 0), cell("/soc/test@100000", "phandle", 0));
    ck_assert_uint_eq(cell("/poweroff", "value", 0), 0x5555);
    ck_assert_uint_eq(cell("/reboot", "value", 0), 0x7777);
    for (unsigned i = 0; i < 4; i++) {
        char path[64], core[64];
        snprintf(path, sizeof(path), "/cpus/cpu@%u/interrupt-controller", i);
        snprintf(core, sizeof(core), "/cpus/cpu-map/cluster0/core%u", i);
        uint32_t intc = cell(path, "phandle", 0);
        /* Machine context first, then supervisor, hart by hart. */
        ck_assert_uint_eq(cell("/soc/plic@c000000", "interrupts-extended", i * 4), intc);
        ck_assert_uint_eq(cell("/soc/plic@c000000", "interrupts-extended", i * 4 + 1), 11);
        ck_assert_uint_eq(cell("/soc/plic@c000000", "interrupts-extended", i * 4 + 2), intc);
        ck_assert_uint_eq(cell("/soc/plic@c000000", "interrupts-extended", i * 4 + 3), 9);
        ck_assert_uint_eq(cell("/soc/clint@2000000", "interrupts-extended", i * 4 + 1), 3);
        ck_assert_uint_eq(cell("/soc/clint@2000000", "interrupts-extended", i * 4 + 3), 7);
        snprintf(path, sizeof(path), "/cpus/cpu@%u", i);
        ck_assert_uint_eq(cell(core, "cpu", 0), cell(path, "phandle", 0));
    }
    for (unsigned slot = 0; slot < 4; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            unsigned at = (slot * 4 + pin) * 6;
            ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", at), slot << 11);
            ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", at + 3), pin + 1);
            ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", at + 4), plic);
            ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", at + 5),
                              0x20 + (slot + pin) % 4);
        }
    }
}
END_TEST

START_TEST(messages_have_their_nodes)
{
    struct riscv64_fdt aia = full;
    aia.has_aia = true;
    build(&aia);
    ck_assert_int_lt(fdt_path_offset(buffer, "/soc/plic@c000000"), 0);
    reg_is("/soc/imsics@28000000", 0x28000000, 4 * 0x1000);
    reg_is("/soc/aplic@d000000", 0xd000000, 0x4000);
    ck_assert_str_eq(text("/soc/imsics@28000000", "compatible"), "riscv,imsics");
    ck_assert_str_eq(text("/soc/aplic@d000000", "compatible"), "riscv,aplic");
    ck_assert_uint_eq(cell("/soc/imsics@28000000", "riscv,num-ids", 0), 255);
    ck_assert_uint_eq(cell("/soc/aplic@d000000", "riscv,num-sources", 0), 96);
    uint32_t imsic = cell("/soc/imsics@28000000", "phandle", 0);
    uint32_t aplic = cell("/soc/aplic@d000000", "phandle", 0);
    ck_assert_uint_eq(cell("/soc/aplic@d000000", "msi-parent", 0), imsic);
    ck_assert_uint_eq(cell("/soc/pci@30000000", "msi-parent", 0), imsic);
    ck_assert_uint_eq(cell("/soc/serial@10000000", "interrupt-parent", 0), aplic);
    ck_assert_uint_eq(cell("/soc/serial@10000000", "interrupts", 0), 10);
    ck_assert_uint_eq(cell("/soc/serial@10000000", "interrupts", 1), 4); /* level, high */
    ck_assert_uint_eq(cell("/soc/rtc@101000", "interrupts", 0), 11);
    for (unsigned i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/cpus/cpu@%u/interrupt-controller", i);
        ck_assert_uint_eq(cell("/soc/imsics@28000000", "interrupts-extended", i * 2),
                          cell(path, "phandle", 0));
        ck_assert_uint_eq(cell("/soc/imsics@28000000", "interrupts-extended", i * 2 + 1), 9);
        snprintf(path, sizeof(path), "/cpus/cpu@%u", i);
        ck_assert_str_eq(text(path, "riscv,isa"), riscv64_isa_string(true));
        ck_assert_int_ge(fdt_stringlist_search(buffer, node(path), "riscv,isa-extensions", "ssaia"),
                         0);
    }
    for (unsigned entry = 0; entry < 16; entry++) {
        unsigned slot = entry / 4, pin = entry % 4;
        ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", entry * 7 + 4), aplic);
        ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", entry * 7 + 5),
                          0x20 + (slot + pin) % 4);
        ck_assert_uint_eq(cell("/soc/pci@30000000", "interrupt-map", entry * 7 + 6), 4);
    }
    build(&full);
    ck_assert_int_lt(fdt_path_offset(buffer, "/soc/imsics@28000000"), 0);
    ck_assert_ptr_null(fdt_getprop(buffer, node("/soc/pci@30000000"), "msi-parent", NULL));
}
END_TEST

START_TEST(cpus_say_what_they_can)
{
    build(&full);
    ck_assert_str_eq(text("/cpus/cpu@3", "riscv,isa"), riscv64_isa_string(false));
    ck_assert_str_eq(text("/cpus/cpu@0", "riscv,isa-base"), "rv64i");
    ck_assert_str_eq(text("/cpus/cpu@0", "mmu-type"), "riscv,sv57");
    int cpu = node("/cpus/cpu@1"), count = 0;
    for (const char *const *name = riscv64_isa_extensions(false); *name; name++, count++) {
        ck_assert_int_ge(fdt_stringlist_search(buffer, cpu, "riscv,isa-extensions", *name), 0);
    }
    ck_assert_int_eq(fdt_stringlist_count(buffer, cpu, "riscv,isa-extensions"), count);
    ck_assert_int_lt(fdt_path_offset(buffer, "/cpus/cpu@4"), 0);
}
END_TEST

START_TEST(chosen_carries_the_boot_parameters)
{
    build(&full);
    ck_assert_str_eq(text("/chosen", "bootargs"), "root=/dev/vda quiet");
    ck_assert_int_eq(node(text("/chosen", "stdout-path")), node("/soc/serial@10000000"));
    ck_assert_int_eq(node(text("/aliases", "serial0")), node("/soc/serial@10000000"));
    ck_assert_uint_eq(wide("/chosen", "linux,initrd-start", 0), 0x9f000000);
    ck_assert_uint_eq(wide("/chosen", "linux,initrd-end", 0), 0x9f123456);
    uint64_t seed = wide("/chosen", "kaslr-seed", 0), rng = wide("/chosen", "rng-seed", 6);
    build(&full);
    ck_assert_uint_ne(wide("/chosen", "kaslr-seed", 0), seed);
    ck_assert_uint_ne(wide("/chosen", "rng-seed", 6), rng);
}
END_TEST

START_TEST(what_is_absent_is_not_described)
{
    struct riscv64_fdt bare = {
        .cpu_count = 1,
        .memory_base = LAYOUT_RAM_BASE,
        .memory_size = 64ull << 20,
        .append = "",
    };
    build(&bare);
    ck_assert_int_lt(fdt_path_offset(buffer, "/soc/serial@10000000"), 0);
    ck_assert_int_lt(fdt_path_offset(buffer, "/soc/rtc@101000"), 0);
    ck_assert_int_lt(fdt_path_offset(buffer, "/soc/pci@30000000"), 0);
    ck_assert_int_lt(fdt_path_offset(buffer, "/aliases"), 0);
    ck_assert_ptr_null(fdt_getprop(buffer, node("/chosen"), "stdout-path", NULL));
    ck_assert_ptr_null(fdt_getprop(buffer, node("/chosen"), "linux,initrd-start", NULL));
}
END_TEST

START_TEST(a_command_line_that_does_not_fit_is_refused)
{
    static char line[2 * RISCV64_FDT_CAPACITY];
    struct riscv64_fdt fdt = full;
    struct error err = {0};
    memset(line, 'x', sizeof(line) - 1);
    fdt.append = line;
    ck_assert_int_lt(riscv64_fdt_build(&fdt, buffer, &err), 0);
    ck_assert_int_eq(err.code, ERROR_CONFIG);
    line[4000] = '\0';
    build(&fdt);
    ck_assert_str_eq(text("/chosen", "bootargs"), line);
    fdt.cpu_count = MACHINE_CPUS_MAX;
    build(&fdt);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device tree");
    TCase *tests = tcase_create("device tree");
    tcase_add_test(tests, devices_are_where_the_map_has_them);
    tcase_add_test(tests, every_reference_leads_to_its_node);
    tcase_add_test(tests, messages_have_their_nodes);
    tcase_add_test(tests, cpus_say_what_they_can);
    tcase_add_test(tests, chosen_carries_the_boot_parameters);
    tcase_add_test(tests, what_is_absent_is_not_described);
    tcase_add_test(tests, a_command_line_that_does_not_fit_is_refused);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
