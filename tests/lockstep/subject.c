#include "tests/lockstep/subject.h"
#include "tests/lockstep/encode.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { T0 = 5, CSR_SSTATUS = 0x100, CSR_SEPC = 0x141, CSR_MSTATUS = 0x300 };
enum { ENTRY = STREAM_SCRATCH, EXIT = STREAM_SCRATCH + 0x100 };
enum { EXIT_INSTRUCTIONS = 2 }; /* and then it waits to be noticed */

struct code {
    uint32_t words[16];
    unsigned count;
};

static void add(struct code *code, uint32_t word)
{
    code->words[code->count++] = word;
}

static void add_csr(struct code *code, uint32_t function, unsigned csr)
{
    add(code, encode_i(0x73 | function << 12, 0, T0, (int)csr));
}

/* Switch floating point on, fetch the new code, and go there; for user mode by a return from a
 * trap that never was. */
static struct code entry_code(enum riscv64_privilege privilege)
{
    enum { CSRRW = 1, CSRRS = 2, CSRRC = 3, FENCE_I = 0x0000100f, SRET = 0x10200073 };
    struct code code = {.count = 0};
    add(&code, encode_u(0x37, T0, 6)); /* FS */
    add_csr(&code, CSRRS, privilege == RISCV64_MACHINE ? CSR_MSTATUS : CSR_SSTATUS);
    if (privilege == RISCV64_USER) {
        add(&code, encode_i(0x13, T0, 0, 0x100)); /* SPP */
        add_csr(&code, CSRRC, CSR_SSTATUS);
    }
    add(&code, FENCE_I);
    add(&code, encode_u(0x37, T0, STREAM_CODE >> 12));
    if (privilege == RISCV64_USER) {
        add_csr(&code, CSRRW, CSR_SEPC);
        add(&code, SRET);
    } else {
        add(&code, encode_i(0x67, 0, T0, 0));
    }
    return code;
}

static struct code exit_code(void)
{
    struct code code = {.count = 0};
    add(&code, encode_u(0x37, T0, BARE_EXIT >> 12));
    add(&code, encode_s(0x3023, T0, 0, 0));
    add(&code, 0x6f); /* j . */
    return code;
}

int subject_open(struct subject *subject, enum riscv64_privilege privilege, bool single,
                 enum engine_tier tier)
{
    subject->privilege = privilege;
    subject->machine = bare_machine_create(STREAM_BASE, STREAM_SIZE, 1, single, tier);
    if (!subject->machine) {
        return -1;
    }
    struct code entry = entry_code(privilege);
    struct code exit = exit_code();
    bare_machine_write(subject->machine, ENTRY, entry.words, entry.count * 4);
    bare_machine_write(subject->machine, EXIT, exit.words, exit.count * 4);
    return 0;
}

void subject_close(struct subject *subject)
{
    if (subject->machine) {
        bare_machine_destroy(subject->machine);
        subject->machine = NULL;
    }
}

uint64_t subject_run(struct subject *subject, const struct stream_request *request,
                     struct stream_result *result)
{
    struct bare_machine *machine = subject->machine;
    struct stream_state state = request->state;
    state.exit = EXIT;
    bare_machine_write(machine, STREAM_CODE, request->code, request->code_bytes);
    bare_machine_write(machine, STREAM_STATE, &state, sizeof(state));
    bare_machine_write(machine, STREAM_DATA, request->data, sizeof(request->data));
    bare_machine_boot(machine, 0,
                      subject->privilege == RISCV64_MACHINE ? RISCV64_MACHINE : RISCV64_SUPERVISOR,
                      ENTRY, 0);
    struct cpu *cpu = &machine->cpus[0].cpu->cpu;
    uint64_t before = cpu->retired;
    bare_machine_run(machine, 0);
    uint64_t entry = entry_code(subject->privilege).count;
    memcpy(&result->state, memory_pointer(&machine->memory, STREAM_STATE, sizeof(state)),
           sizeof(state));
    memcpy(result->data, memory_pointer(&machine->memory, STREAM_DATA, sizeof(result->data)),
           sizeof(result->data));
    result->state.exit = 0;
    uint64_t taken = cpu->retired - before;
    return taken > entry + EXIT_INSTRUCTIONS ? taken - entry - EXIT_INSTRUCTIONS : 0;
}
