#include "tests/lockstep/state.h"
#include <inttypes.h>
#include <string.h>

struct field {
    const char *name;
    unsigned offset, size; /* bytes of one */
    unsigned count;        /* of an array */
};

#define FIELD(member)                                                                              \
    {                                                                                              \
#member, offsetof(struct riscv64_cpu, member), sizeof(((struct riscv64_cpu *)0)->member),  \
            1                                                                                      \
    }
#define ARRAY(member)                                                                              \
    {                                                                                              \
#member, offsetof(struct riscv64_cpu, member),                                             \
            sizeof(((struct riscv64_cpu *)0)->member[0]),                                          \
            sizeof(((struct riscv64_cpu *)0)->member) /                                            \
                sizeof(((struct riscv64_cpu *)0)->member[0])                                       \
    }

/* Left out: what only says where the state is kept (page_base, TLB pointers, temporaries), the
 * value of an exception when none is pending, and `attention`, which is the host's business. */
static const struct field fields[] = {
    FIELD(cpu.pc),
    FIELD(cpu.retired),
    FIELD(cpu.block_mode),
    FIELD(cpu.exception),
    FIELD(cpu.fp_flags),
    FIELD(cpu.waiting),
    FIELD(privilege),
    FIELD(frm),
    FIELD(hart_id),
    ARRAY(x),
    ARRAY(f),
    FIELD(csr.mstatus),
    FIELD(csr.misa),
    FIELD(csr.medeleg),
    FIELD(csr.mideleg),
    FIELD(csr.mie),
    FIELD(csr.mtvec),
    FIELD(csr.mcounteren),
    FIELD(csr.menvcfg),
    FIELD(csr.mcountinhibit),
    FIELD(csr.mscratch),
    FIELD(csr.mepc),
    FIELD(csr.mcause),
    FIELD(csr.mtval),
    FIELD(csr.stvec),
    FIELD(csr.scounteren),
    FIELD(csr.senvcfg),
    FIELD(csr.sscratch),
    FIELD(csr.sepc),
    FIELD(csr.scause),
    FIELD(csr.stval),
    FIELD(csr.satp),
    FIELD(csr.stimecmp),
    FIELD(csr.software_mip),
    FIELD(csr.cycle_offset),
    FIELD(csr.instret_offset),
    ARRAY(csr.pmpcfg),
    ARRAY(csr.pmpaddr),
    FIELD(lines),
    FIELD(data_key.root),
    FIELD(data_key.flags),
    FIELD(execute_key.root),
    FIELD(execute_key.flags),
    FIELD(pmp_count),
};
enum { FIELD_COUNT = sizeof(fields) / sizeof(fields[0]) };

static uint64_t value(const struct riscv64_cpu *cpu, const struct field *field, unsigned index)
{
    uint64_t result = 0;
    memcpy(&result, (const char *)cpu + field->offset + index * field->size, field->size);
    return result;
}

static void name(const struct field *field, unsigned index, char *text, size_t size)
{
    const char *dot = strrchr(field->name, '.');
    const char *last = dot && strncmp(field->name, "csr.", 4) == 0 ? dot + 1 : field->name;
    if (field->count > 1) {
        snprintf(text, size, "%s%u", last, index);
    } else {
        snprintf(text, size, "%s", last);
    }
}

bool state_same(const struct riscv64_cpu *a, const struct riscv64_cpu *b)
{
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        const struct field *field = &fields[i];
        if (memcmp((const char *)a + field->offset, (const char *)b + field->offset,
                   (size_t)field->size * field->count) != 0) {
            return false;
        }
    }
    return a->cpu.exception == 0 || a->cpu.exception_value == b->cpu.exception_value;
}

void state_print_difference(FILE *out, const struct riscv64_cpu *subject,
                            const struct riscv64_cpu *oracle)
{
    char text[32];
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        for (unsigned j = 0; j < fields[i].count; j++) {
            uint64_t ours = value(subject, &fields[i], j), theirs = value(oracle, &fields[i], j);
            if (ours != theirs) {
                name(&fields[i], j, text, sizeof(text));
                fprintf(out, "  %-14s subject %016" PRIx64 "  oracle %016" PRIx64 "\n", text, ours,
                        theirs);
            }
        }
    }
}

void state_print(FILE *out, const struct riscv64_cpu *cpu)
{
    char text[32];
    unsigned column = 0;
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        for (unsigned j = 0; j < fields[i].count; j++) {
            uint64_t v = value(cpu, &fields[i], j);
            if (v != 0) {
                name(&fields[i], j, text, sizeof(text));
                fprintf(out, "  %-14s %016" PRIx64 "%s", text, v, ++column % 3 == 0 ? "\n" : "");
            }
        }
    }
    fprintf(out, "%s", column % 3 == 0 ? "" : "\n");
}
