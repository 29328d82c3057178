/*
 * Kernel, initrd and firmware as somebody hostile built them: ELF files, Linux Images with and
 * without an EFI stub, and anything else. Where a plan is made of them, everything in it lies in
 * RAM and apart from the rest, and loading them leaves nothing but errors.
 */
#include "libshared/base/log.h"
#include "tests/fuzz/fuzz_input.h"
#include "vmmd/vcpu/boot/identify.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/machine/riscv64/boot_plan.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_SIZE (UINT64_C(40) << 20)
#define FILE_MAX 0x10000u

static struct memory memory;
static struct machine *machine;
static uint8_t file[FILE_MAX];

static void event(void *context, enum machine_event what, unsigned code)
{
    (void)context, (void)what, (void)code;
}

static void open_machine(void)
{
    struct error err = {0};
    struct machine_config config = {
        .cpu_count = 2,
        .memory_size = RAM_SIZE,
        .kernel_fd = memfd_create("kernel", MFD_CLOEXEC),
        .initrd_fd = memfd_create("initrd", MFD_CLOEXEC),
        .firmware_fd = memfd_create("firmware", MFD_CLOEXEC),
        .append = "console=ttyS0",
        .event = event,
    };
    int ram = memory_create_fd("ram", RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(RAM_SIZE));

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    fuzz_require(memory_add_region(&memory, ram, LAYOUT_RAM_BASE, RAM_SIZE) == 0 &&
                     memory_attach_codemap(&memory, codemap) == 0,
                 "memory");
    machine = machine_model_find("riscv64")->create(&config, &memory, &err);
    fuzz_require(machine != NULL, err.message);
}

static void put(size_t at, uint64_t value, unsigned size)
{
    if (at < FILE_MAX && size <= FILE_MAX - at) {
        memcpy(file + at, &value, size);
    }
}

/* An address, an offset or a size that mostly means something for this machine. */
static uint64_t take_place(struct fuzz_input *input)
{
    static const uint64_t places[] = {
        0,          LAYOUT_RAM_BASE, LAYOUT_RAM_BASE + 0x200000, 0x200000,
        UINT64_MAX, 0x80400000,      LAYOUT_RAM_BASE + RAM_SIZE, 0xffffffff80000000};
    unsigned how = (unsigned)fuzz_take(input, 1);
    uint64_t base = places[how & 7];

    return how & 0x80 ? fuzz_number(input) : how & 0x40 ? base : base + fuzz_take(input, 2);
}

/* An executable of some segments; the bytes of the file. */
static size_t make_elf(struct fuzz_input *input)
{
    unsigned segments = fuzz_pick(input, 20);
    Elf64_Ehdr header = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_RISCV,
        .e_entry = take_place(input),
        .e_phoff = sizeof(header),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (Elf64_Half)segments,
    };

    memcpy(file, &header, sizeof(header));
    for (unsigned i = 0; i < segments; i++) {
        Elf64_Phdr segment = {
            .p_type = PT_LOAD,
            .p_offset = fuzz_take(input, 2) & 0x7fff,
            .p_vaddr = take_place(input),
            .p_paddr = take_place(input),
            .p_filesz = fuzz_take(input, 2) & 0x7fff,
        };
        segment.p_memsz = segment.p_filesz + fuzz_number(input);
        memcpy(file + sizeof(header) + i * sizeof(segment), &segment, sizeof(segment));
    }
    return FILE_MAX;
}

/* A Linux Image, perhaps with the EFI stub's headers. */
static size_t make_image(struct fuzz_input *input)
{
    unsigned how = (unsigned)fuzz_take(input, 1), sections = fuzz_pick(input, 16);
    size_t pe = 0x40;

    put(0, how & 1 ? 0x5a4d : 0x6f, 4);
    put(8, how & 2 ? 0x200000 : take_place(input), 8);
    put(16, how & 4 ? 0x10000 : take_place(input), 8);
    put(24, how & 8 ? 0 : fuzz_take(input, 8), 8);
    put(32, how & 16 ? 2 : fuzz_take(input, 4), 4);
    memcpy(file + 48, "RISCV\0\0\0RSC\5", 12);
    if (how & 1) {
        put(60, pe, 4);
        put(pe, 0x4550, 4);
        put(pe + 4, 0x5064, 2);
        put(pe + 6, sections, 2);
        put(pe + 20, 0xa0, 2);
        for (unsigned i = 0; i < sections; i++) {
            size_t section = pe + 24 + 0xa0 + i * 40;
            put(section + 8, fuzz_number(input), 4);
            put(section + 16, fuzz_number(input), 4);
            put(section + 20, fuzz_number(input), 4);
        }
    }
    return FILE_MAX / 2;
}

static size_t make_bytes(struct fuzz_input *input)
{
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, fuzz_take(input, 1) * 2, &size);

    memcpy(file, bytes, size);
    return size;
}

static size_t make_zeros(struct fuzz_input *input)
{
    return (size_t)(fuzz_number(input) % (FILE_MAX + 1));
}

/* One image into `fd`; a descriptor for the machine, or -1 when it has none. */
static int make(struct fuzz_input *input, int fd)
{
    static size_t (*const kinds[])(struct fuzz_input *) = {make_elf, make_image, make_bytes,
                                                           make_zeros};
    unsigned how = (unsigned)fuzz_take(input, 1), patches;

    if (how & 0x80) {
        return -1;
    }
    memset(file, 0, sizeof(file));
    size_t size = kinds[how & 3](input);
    patches = how & 0x40 ? fuzz_pick(input, 16) : 0;
    for (unsigned i = 0; i < patches; i++) {
        size_t at = fuzz_take(input, 2) % FILE_MAX;
        file[at] = (uint8_t)fuzz_take(input, 1);
    }
    if (how & 0x20) {
        size = (size_t)(fuzz_number(input) % (FILE_MAX + 1));
    }
    fuzz_require(ftruncate(fd, 0) == 0 && pwrite(fd, file, size, 0) == (ssize_t)size, "a file");
    if (how & 0x10) { /* a large one; the rest is a hole */
        fuzz_require(ftruncate(fd, (off_t)(fuzz_number(input) % (RAM_SIZE * 2))) == 0, "a hole");
    }
    boot_identify(file, size < BOOT_IDENTIFY_BYTES ? size : BOOT_IDENTIFY_BYTES);
    return fd;
}

static bool apart(uint64_t one, uint64_t one_size, uint64_t other, uint64_t other_size)
{
    return one + one_size <= other || other + other_size <= one;
}

static void check_plan(const struct boot_plan *plan, uint64_t memory_size)
{
    const struct {
        bool present;
        uint64_t address, size;
    } parts[] = {
        {plan->firmware.present, plan->firmware.address, plan->firmware.memory_size},
        {plan->kernel.present, plan->kernel.address, plan->kernel.memory_size},
        {plan->initrd.present, plan->initrd.address, plan->initrd.image.size},
        {true, plan->tree_address, BOOT_TREE_ROOM},
    };

    for (unsigned i = 0; i < 4; i++) {
        if (!parts[i].present) {
            continue;
        }
        fuzz_require(parts[i].address >= LAYOUT_RAM_BASE && parts[i].size <= memory_size &&
                         parts[i].address - LAYOUT_RAM_BASE <= memory_size - parts[i].size,
                     "an image lies in RAM");
        for (unsigned k = 0; k < i; k++) {
            fuzz_require(!parts[k].present || apart(parts[i].address, parts[i].size,
                                                    parts[k].address, parts[k].size),
                         "images lie apart");
        }
    }
}

static void check_status(int status, const struct error *err)
{
    fuzz_require(status == 0 || (status == -(int)err->code && err->message[0]),
                 "an error has a code and a text");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const uint64_t sizes[] = {UINT64_C(2) << 20, UINT64_C(8) << 20, UINT64_C(16) << 20,
                                     RAM_SIZE};
    struct fuzz_input input = {bytes, size};
    struct boot_plan plan;
    struct error err = {0};

    if (!machine) {
        open_machine();
    }
    struct machine_config kept = machine->config;
    machine->config.memory_size = sizes[fuzz_pick(&input, 4)];
    machine->config.kernel_fd = make(&input, kept.kernel_fd);
    machine->config.initrd_fd = make(&input, kept.initrd_fd);
    machine->config.firmware_fd = make(&input, kept.firmware_fd);
    int status = boot_plan_make(&plan, &machine->config, &err);
    check_status(status, &err);
    if (status == 0) {
        check_plan(&plan, machine->config.memory_size);
    }
    error_clear(&err);
    int loaded = machine->model->load(machine, &err);
    check_status(loaded, &err);
    fuzz_require(status == 0 || loaded != 0, "what cannot be planned is not loaded");
    machine->config = kept;
    return 0;
}
