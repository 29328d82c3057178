#include "vmmd/vcpu/machine/riscv64/sbi.h"
#include "vmmd/vcpu/machine/riscv64/harts.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"

#define SPEC_VERSION           (2u << 24)  /* 2.0 */
#define IMPLEMENTATION_ID      0x50564d4du /* none is assigned to this program: "PVMM" */
#define IMPLEMENTATION_VERSION 1u

enum sbi_error {
    SBI_SUCCESS = 0,
    SBI_FAILED = -1,
    SBI_NOT_SUPPORTED = -2,
    SBI_INVALID_PARAM = -3,
    SBI_INVALID_ADDRESS = -5,
    SBI_ALREADY_AVAILABLE = -6,
};

/* What a call returns in a0 (error) and a1 (value). */
struct sbi_result {
    int64_t error;
    uint64_t value;
};

#define SUCCESS(v) ((struct sbi_result){SBI_SUCCESS, (v)})
#define FAILURE(e) ((struct sbi_result){(e), 0})

/* Where the call came from, and its arguments a0 to a5. */
struct sbi_caller {
    struct riscv64_machine *machine;
    struct riscv64_cpu *cpu;
    const uint64_t *arguments;
};

struct sbi_extension {
    uint64_t id;
    bool legacy; /* returns in a0 alone */
    struct sbi_result (*call)(const struct sbi_caller *caller, uint64_t function);
};

static const struct sbi_extension *extension_find(uint64_t id);

/* --- base ----------------------------------------------------------------------------------- */

static struct sbi_result call_base(const struct sbi_caller *caller, uint64_t function)
{
    switch (function) {
    case 0:
        return SUCCESS(SPEC_VERSION);
    case 1:
        return SUCCESS(IMPLEMENTATION_ID);
    case 2:
        return SUCCESS(IMPLEMENTATION_VERSION);
    case 3:
        return SUCCESS(extension_find(caller->arguments[0]) != NULL);
    case 4: /* mvendorid, marchid and mimpid: this is no one's silicon */
    case 5:
    case 6:
        return SUCCESS(0);
    default:
        return FAILURE(SBI_NOT_SUPPORTED);
    }
}

/* --- timer ---------------------------------------------------------------------------------- */

/* With Sstc the supervisor's comparator does all that the call asks for. */
static void set_timer(const struct sbi_caller *caller, uint64_t deadline)
{
    struct cpu *cpu = &caller->cpu->cpu;
    caller->cpu->csr.stimecmp = deadline;
    cpu->host->timer_changed(cpu, RISCV64_TIMER_STIMECMP, deadline);
}

static struct sbi_result call_time(const struct sbi_caller *caller, uint64_t function)
{
    if (function != 0) {
        return FAILURE(SBI_NOT_SUPPORTED);
    }
    set_timer(caller, caller->arguments[0]);
    return SUCCESS(0);
}

/* --- other harts ---------------------------------------------------------------------------- */

/* CPUs named by a hart mask and its base (section 3.1; base -1 = all). False: one does not exist.
 */
static bool hart_mask(const struct sbi_caller *caller, uint64_t mask, uint64_t base,
                      uint64_t *cpu_mask)
{
    unsigned count = caller->machine->machine.config.cpu_count;
    uint64_t all = (1ull << count) - 1;
    if (base == UINT64_MAX) {
        *cpu_mask = all;
        return true;
    }
    if (mask == 0) {
        *cpu_mask = 0;
        return true;
    }
    if (base >= count || mask > all >> base) {
        return false;
    }
    *cpu_mask = mask << base;
    return true;
}

static struct sbi_result call_ipi(const struct sbi_caller *caller, uint64_t function)
{
    uint64_t cpus;
    if (function != 0) {
        return FAILURE(SBI_NOT_SUPPORTED);
    }
    if (!hart_mask(caller, caller->arguments[0], caller->arguments[1], &cpus)) {
        return FAILURE(SBI_INVALID_PARAM);
    }
    for (; cpus != 0; cpus &= cpus - 1) {
        unsigned index = (unsigned)__builtin_ctzll(cpus);
        harts_set_line(caller->machine, harts_line(index, RISCV64_IRQ_SSOFT), true);
    }
    return SUCCESS(0);
}

#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK  (0xffffull << SATP_ASID_SHIFT)

static struct sbi_result call_rfence(const struct sbi_caller *caller, uint64_t function)
{
    enum { FENCE_I, SFENCE_VMA, SFENCE_VMA_ASID };
    const uint64_t *arguments = caller->arguments;
    struct cpu *cpu = &caller->cpu->cpu;
    uint64_t cpus;
    if (function > SFENCE_VMA_ASID) {
        return FAILURE(SBI_NOT_SUPPORTED); /* the rest is for hypervisors */
    }
    if (!hart_mask(caller, arguments[0], arguments[1], &cpus)) {
        return FAILURE(SBI_INVALID_PARAM);
    }
    if (cpus == 0) {
        return SUCCESS(0);
    }
    if (function == FENCE_I) {
        engine_remote_fetch_barrier(cpu, cpus);
        return SUCCESS(0);
    }
    uint64_t start = arguments[2], size = arguments[3];
    if ((start == 0 && size == 0) || size > UINT64_MAX - start) {
        start = 0; /* section 8.2: all of the address space */
        size = UINT64_MAX;
    }
    if (size == 0) {
        return SUCCESS(0);
    }
    if (function == SFENCE_VMA) {
        engine_remote_flush(cpu, cpus, true, 0, 0, start, size);
    } else {
        uint64_t root = (arguments[4] << SATP_ASID_SHIFT) & SATP_ASID_MASK;
        engine_remote_flush(cpu, cpus, false, root, SATP_ASID_MASK, start, size);
    }
    return SUCCESS(0);
}

static struct sbi_result hart_start(const struct sbi_caller *caller)
{
    struct riscv64_machine *machine = caller->machine;
    uint64_t index = caller->arguments[0], address = caller->arguments[1];
    if (index >= machine->machine.config.cpu_count) {
        return FAILURE(SBI_INVALID_PARAM);
    }
    if (address % 2 != 0 || !memory_pointer(machine->machine.memory, address, 2)) {
        return FAILURE(SBI_INVALID_ADDRESS);
    }
    bool started = harts_start(machine, (unsigned)index, address, caller->arguments[2]);
    return started ? SUCCESS(0) : FAILURE(SBI_ALREADY_AVAILABLE);
}

/* Only the default retentive suspend (type 0), which is what WFI does. */
static struct sbi_result hart_suspend(const struct sbi_caller *caller)
{
    const uint64_t non_retentive = 0x80000000u;
    uint64_t type = caller->arguments[0];
    if (type == 0) {
        caller->cpu->cpu.waiting = 1;
        return SUCCESS(0);
    }
    bool known = type == non_retentive || (type <= UINT32_MAX && (type & 0x7fffffff) >= 0x10000000);
    return FAILURE(known ? SBI_NOT_SUPPORTED : SBI_INVALID_PARAM);
}

static struct sbi_result call_hsm(const struct sbi_caller *caller, uint64_t function)
{
    uint64_t index = caller->arguments[0];
    switch (function) {
    case 0:
        return hart_start(caller);
    case 1:
        harts_stop(caller->machine, caller->cpu->cpu.index);
        return SUCCESS(0);
    case 2:
        if (index >= caller->machine->machine.config.cpu_count) {
            return FAILURE(SBI_INVALID_PARAM);
        }
        return SUCCESS(harts_state(caller->machine, (unsigned)index));
    case 3:
        return hart_suspend(caller);
    default:
        return FAILURE(SBI_NOT_SUPPORTED);
    }
}

/* --- the end -------------------------------------------------------------------------------- */

static struct sbi_result end_machine(const struct sbi_caller *caller, enum machine_event event,
                                     unsigned code)
{
    riscv64_machine_end(caller->machine, event, code);
    harts_stop(caller->machine, caller->cpu->cpu.index); /* the call does not return */
    return SUCCESS(0);
}

static struct sbi_result call_srst(const struct sbi_caller *caller, uint64_t function)
{
    enum { SHUTDOWN, COLD_REBOOT, WARM_REBOOT };
    enum { NO_REASON, SYSTEM_FAILURE };
    const uint64_t implementation_reasons = 0xe0000000u, vendor_types = 0xf0000000u;
    uint64_t type = (uint32_t)caller->arguments[0];
    uint64_t reason = (uint32_t)caller->arguments[1];
    if (function != 0) {
        return FAILURE(SBI_NOT_SUPPORTED);
    }
    if (type > WARM_REBOOT) {
        return FAILURE(type >= vendor_types ? SBI_NOT_SUPPORTED : SBI_INVALID_PARAM);
    }
    if (reason > SYSTEM_FAILURE && reason < implementation_reasons) {
        return FAILURE(SBI_INVALID_PARAM);
    }
    if (type != SHUTDOWN) {
        return end_machine(caller, MACHINE_RESET, (unsigned)reason);
    }
    return end_machine(caller, reason == NO_REASON ? MACHINE_POWER_OFF : MACHINE_FAILURE,
                       (unsigned)reason);
}

/* --- console -------------------------------------------------------------------------------- */

/* Registers of the 16550 that the console goes through. */
#define SERIAL_DATA       LAYOUT_SERIAL_BASE
#define SERIAL_STATUS     (LAYOUT_SERIAL_BASE + 5)
#define SERIAL_DATA_READY 0x01u

#define CONSOLE_CHUNK 1024u /* a call may do less than it was asked for (section 12.1) */

static bool console_put(struct riscv64_machine *machine, uint8_t byte)
{
    return bus_write(machine->machine.bus, SERIAL_DATA, 1, byte);
}

/* The next byte of input, or -1. */
static int console_get(struct riscv64_machine *machine)
{
    uint64_t status, byte;
    if (!bus_read(machine->machine.bus, SERIAL_STATUS, 1, &status) ||
        !(status & SERIAL_DATA_READY) || !bus_read(machine->machine.bus, SERIAL_DATA, 1, &byte)) {
        return -1;
    }
    return (int)(byte & 0xff);
}

static struct sbi_result console_write(struct riscv64_machine *machine, const uint8_t *bytes,
                                       size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!console_put(machine, bytes[i])) {
            return FAILURE(SBI_FAILED);
        }
    }
    return SUCCESS(size);
}

static struct sbi_result console_read(struct riscv64_machine *machine, uint64_t address,
                                      uint8_t *bytes, size_t size)
{
    size_t count = 0;
    while (count < size) {
        int byte = console_get(machine);
        if (byte < 0) {
            break;
        }
        bytes[count++] = (uint8_t)byte;
    }
    if (count > 0) {
        memory_device_wrote(machine->machine.memory, address, count);
        engine_device_wrote(machine->machine.engine);
    }
    return SUCCESS(count);
}

static struct sbi_result call_dbcn(const struct sbi_caller *caller, uint64_t function)
{
    enum { WRITE, READ, WRITE_BYTE };
    struct riscv64_machine *machine = caller->machine;
    const uint64_t *arguments = caller->arguments;
    if (function == WRITE_BYTE) {
        bool written = console_put(machine, (uint8_t)arguments[0]);
        return written ? SUCCESS(0) : FAILURE(SBI_FAILED);
    }
    if (function > WRITE_BYTE) {
        return FAILURE(SBI_NOT_SUPPORTED);
    }
    uint64_t size = arguments[0], address = arguments[1];
    if (size == 0) {
        return SUCCESS(0);
    }
    uint8_t *bytes = memory_pointer(machine->machine.memory, address, size);
    if (arguments[2] != 0 || !bytes) {
        return FAILURE(SBI_INVALID_PARAM);
    }
    size = size < CONSOLE_CHUNK ? size : CONSOLE_CHUNK;
    return function == WRITE ? console_write(machine, bytes, size)
                             : console_read(machine, address, bytes, size);
}

/* --- legacy (chapter 5): one function an extension, the result in a0 ------------------------- */

static struct sbi_result legacy_set_timer(const struct sbi_caller *caller, uint64_t function)
{
    (void)function;
    set_timer(caller, caller->arguments[0]);
    return SUCCESS(0);
}

static struct sbi_result legacy_putchar(const struct sbi_caller *caller, uint64_t function)
{
    (void)function;
    console_put(caller->machine, (uint8_t)caller->arguments[0]);
    return SUCCESS(0);
}

static struct sbi_result legacy_getchar(const struct sbi_caller *caller, uint64_t function)
{
    (void)function;
    return FAILURE(console_get(caller->machine)); /* the byte or -1, in a0 */
}

static struct sbi_result legacy_clear_ipi(const struct sbi_caller *caller, uint64_t function)
{
    (void)function;
    riscv64_set_line(caller->cpu, RISCV64_IRQ_SSOFT, false);
    return SUCCESS(0);
}

static struct sbi_result legacy_shutdown(const struct sbi_caller *caller, uint64_t function)
{
    (void)function;
    return end_machine(caller, MACHINE_POWER_OFF, 0);
}

/* -------------------------------------------------------------------------------------------- */

static const struct sbi_extension extensions[] = {
    {0x10, false, call_base},         {0x54494d45, false, call_time}, /* "TIME" */
    {0x735049, false, call_ipi},                                      /* "sPI" */
    {0x52464e43, false, call_rfence},                                 /* "RFNC" */
    {0x48534d, false, call_hsm},                                      /* "HSM" */
    {0x53525354, false, call_srst},                                   /* "SRST" */
    {0x4442434e, false, call_dbcn},                                   /* "DBCN" */
    {0, true, legacy_set_timer},      {1, true, legacy_putchar},      {2, true, legacy_getchar},
    {3, true, legacy_clear_ipi},      {8, true, legacy_shutdown},
};

static const struct sbi_extension *extension_find(uint64_t id)
{
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
        if (extensions[i].id == id) {
            return &extensions[i];
        }
    }
    return NULL;
}

bool sbi_call(struct cpu *generic)
{
    enum { A0 = 10, A1 = 11, A6 = 16, A7 = 17 };
    struct riscv64_cpu *cpu = (struct riscv64_cpu *)generic;
    struct riscv64_machine *machine = riscv64_machine_of(generic);
    if (machine->has_firmware) {
        return false;
    }
    const struct sbi_extension *extension = extension_find(cpu->x[A7]);
    if (!extension) {
        cpu->x[A0] = (uint64_t)SBI_NOT_SUPPORTED;
        cpu->x[A1] = 0;
        return true;
    }
    struct sbi_caller caller = {.machine = machine, .cpu = cpu, .arguments = &cpu->x[A0]};
    struct sbi_result result = extension->call(&caller, cpu->x[A6]);
    cpu->x[A0] = (uint64_t)result.error;
    if (!extension->legacy) {
        cpu->x[A1] = result.value;
    }
    return true;
}
