/* A small riscv64 machine in this process, with a serial port that records what it is sent: for the
 * tests of machine and firmware. */
#ifndef POLYVISOR_TESTS_UNIT_TEST_MACHINE_H
#define POLYVISOR_TESTS_UNIT_TEST_MACHINE_H

#include "libshared/isa/riscv64/riscv64.h"
#include "vmmd/vcpu/machine/machine.h"
#include <check.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TEST_RAM_BASE 0x80000000ull
#define TEST_RAM_SIZE (64ull << 20)
#define TEST_ENTRY    (TEST_RAM_BASE + 0x200000)

struct test_machine {
    struct memory memory;
    struct machine *machine;
    int kernel_fd;
    unsigned events;
    enum machine_event event;
    unsigned code;
    char output[4096];
    size_t output_size;
    const char *input;
    bool dead; /* the serial device refuses */
    struct irq_line serial_irq, rtc_irq;
    enum machine_irqchip irqchip; /* kept by test_machine_open */
};

static inline bool test_serial_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct test_machine *test = device;
    (void)size;
    *value = 0;
    if (offset == 5) {
        *value = 0x60 | (*test->input != '\0');
    } else if (offset == 0 && *test->input) {
        *value = (uint8_t)*test->input++;
    }
    return !test->dead;
}

static inline bool test_serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct test_machine *test = device;
    (void)size;
    if (offset == 0 && test->output_size < sizeof(test->output) - 1) {
        test->output[test->output_size++] = (char)value;
    }
    return !test->dead;
}

static const struct bus_ops test_serial_ops = {
    .read = test_serial_read,
    .write = test_serial_write,
};

static inline void test_event(void *context, enum machine_event event, unsigned code)
{
    struct test_machine *test = context;
    test->events++;
    test->event = event;
    test->code = code;
}

/* An ELF kernel of these instruction words, linked at TEST_ENTRY. */
static inline int test_kernel(const uint32_t *code, size_t size)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment;
    } elf = {
        .header =
            {
                .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_EXEC,
                .e_machine = EM_RISCV,
                .e_entry = TEST_ENTRY,
                .e_phoff = sizeof(Elf64_Ehdr),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_phnum = 1,
            },
        .segment =
            {
                .p_type = PT_LOAD,
                .p_offset = sizeof(elf),
                .p_vaddr = TEST_ENTRY,
                .p_paddr = TEST_ENTRY,
                .p_filesz = size,
                .p_memsz = size,
            },
    };
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, &elf, sizeof(elf)), sizeof(elf));
    ck_assert_int_eq(write(fd, code, size), (ssize_t)size);
    return fd;
}

/* Build and load a machine that would run `code`; no CPU runs yet. */
static inline void test_machine_open(struct test_machine *test, unsigned cpus, const uint32_t *code,
                                     size_t size)
{
    *test = (struct test_machine){.input = "", .irqchip = test->irqchip};
    test->kernel_fd = test_kernel(code, size);
    int ram = memory_create_fd("ram", TEST_RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(TEST_RAM_SIZE));
    ck_assert_int_eq(memory_add_region(&test->memory, ram, TEST_RAM_BASE, TEST_RAM_SIZE), 0);
    ck_assert_int_eq(memory_attach_codemap(&test->memory, codemap), 0);
    close(ram);
    close(codemap);
    struct machine_config config = {
        .cpu_count = cpus,
        .memory_size = TEST_RAM_SIZE,
        .kernel_fd = test->kernel_fd,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .append = "console=ttyS0",
        .irqchip = test->irqchip,
        .event = test_event,
        .event_context = test,
    };
    struct error err = {0};
    const struct machine_model *model = machine_model_find("riscv64");
    ck_assert_ptr_nonnull(model);
    test->machine = model->create(&config, &test->memory, &err);
    ck_assert_msg(test->machine != NULL, "%s", err.message);
    ck_assert_int_eq(model->attach_mmio_device(test->machine, "serial", &test_serial_ops, test,
                                               &test->serial_irq),
                     0);
    ck_assert_msg(model->load(test->machine, &err) == 0, "%s", err.message);
}

static inline void test_machine_close(struct test_machine *test)
{
    test->machine->model->destroy(test->machine);
    memory_close(&test->memory);
    close(test->kernel_fd);
}

static inline struct riscv64_cpu *test_cpu(struct test_machine *test, unsigned index)
{
    return (struct riscv64_cpu *)engine_cpu(test->machine->engine, index);
}

#endif
