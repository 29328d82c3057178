/* The CPU as the engine and a machine see it: tables, reset, boot state, names. */
#include "libshared/isa/riscv64/csr.h"
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/helpers.h"
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"
#include <string.h>

#define MISA_LETTER(letter) BIT64((letter) - 'A')
#define MISA                                                                                       \
    (UINT64_C(2) << 62 | MISA_LETTER('I') | MISA_LETTER('M') | MISA_LETTER('A') |                  \
     MISA_LETTER('F') | MISA_LETTER('D') | MISA_LETTER('C') | MISA_LETTER('S') | MISA_LETTER('U'))

/* --- globals -------------------------------------------------------------------------------- */
#define X(n)                                                                                       \
    {                                                                                              \
        "x" #n, offsetof(struct riscv64_cpu, x[n]), IR_TYPE_I64                                    \
    }
#define F(n)                                                                                       \
    {                                                                                              \
        "f" #n, offsetof(struct riscv64_cpu, f[n]), IR_TYPE_F64                                    \
    }
#define C(name)                                                                                    \
    {                                                                                              \
#name, offsetof(struct riscv64_cpu, csr.name), IR_TYPE_I64                                 \
    }
const struct ir_global riscv64_globals[] = {
    X(0),  X(1),  X(2),  X(3),  X(4),       X(5),        X(6),    X(7),      X(8),     X(9),
    X(10), X(11), X(12), X(13), X(14),      X(15),       X(16),   X(17),     X(18),    X(19),
    X(20), X(21), X(22), X(23), X(24),      X(25),       X(26),   X(27),     X(28),    X(29),
    X(30), X(31), F(0),  F(1),  F(2),       F(3),        F(4),    F(5),      F(6),     F(7),
    F(8),  F(9),  F(10), F(11), F(12),      F(13),       F(14),   F(15),     F(16),    F(17),
    F(18), F(19), F(20), F(21), F(22),      F(23),       F(24),   F(25),     F(26),    F(27),
    F(28), F(29), F(30), F(31), C(mstatus), C(sscratch), C(sepc), C(scause), C(stval), {NULL, 0, 0},
};
#undef X
#undef F
#undef C
_Static_assert(sizeof(riscv64_globals) / sizeof(riscv64_globals[0]) == CSR_VALUES_END + 1,
               "register numbers are value references");

/* --- reset and boot ------------------------------------------------------------------------- */

/* The common head keeps what ties the CPU to its engine, and the count of instructions, from which
 * the engine's statistics are made. */
static void reset(struct cpu *base)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    memset(cpu->x, 0, sizeof(cpu->x));
    memset((char *)cpu + sizeof(struct cpu), 0, sizeof(*cpu) - sizeof(struct cpu));
    base->pc = 0;
    base->page_base = 0;
    base->exception = 0;
    base->exception_value = 0;
    base->fp_flags = 0;
    base->waiting = 0;
    cpu->privilege = RISCV64_MACHINE;
    cpu->hart_id = base->index;
    cpu->csr.mstatus = STATUS_XL_64;
    cpu->csr.misa = MISA;
    /* Page-table attributes and hardware updates work from the start: firmware that predates these
     * extensions cannot switch them on for a kernel that finds them in the device tree. */
    cpu->csr.menvcfg = ENVCFG_PBMTE | ENVCFG_ADUE;
    cpu->csr.stimecmp = UINT64_MAX;
    cpu->csr.cycle_offset = -base->retired;
    cpu->csr.instret_offset = -base->retired;
    cpu->data_key.flags = UINT32_MAX; /* no key: the engine hears of the first one */
    riscv64_update_modes(cpu);
    riscv64_pmp_update(cpu);
}

static void boot_supervisor(struct riscv64_cpu *cpu)
{
    struct riscv64_csrs *csr = &cpu->csr;
    csr->medeleg = DELEGABLE_EXCEPTIONS & ~BIT64(CAUSE_SUPERVISOR_CALL);
    csr->mideleg = IRQ_SUPERVISOR;
    csr->mcounteren = UINT32_MAX;
    csr->scounteren = COUNTER_CYCLE | COUNTER_TIME | COUNTER_INSTRET;
    csr->menvcfg = ENVCFG_MACHINE & ~ENVCFG_FIOM; /* CBIE = 3: invalidate as such */
    csr->mstatus |= STATUS_FS_DIRTY | STATUS_SD;
    csr->pmpcfg[0] = PMP_MODE_NAPOT | PMP_ALL;
    csr->pmpaddr[0] = BIT64(54) - 1;
    riscv64_pmp_update(cpu);
}

void riscv64_boot(struct riscv64_cpu *cpu, enum riscv64_privilege privilege, uint64_t pc,
                  uint64_t hart_id, uint64_t a1)
{
    if (privilege == RISCV64_SUPERVISOR) {
        boot_supervisor(cpu);
    }
    cpu->privilege = (uint8_t)privilege;
    cpu->hart_id = hart_id;
    cpu->cpu.pc = pc;
    cpu->x[10] = hart_id;
    cpu->x[11] = a1;
    riscv64_update_modes(cpu);
}

/* --- names ---------------------------------------------------------------------------------- */
/* svvptc: an invalid page-table entry is never cached, so one that becomes valid is seen without a
 * fence. A kernel that knows it leaves out a flush a page fault, and one a stack for a task. Ssaia,
 * which depends on the machine, stands between the two lists. */
#define EXTENSIONS_BEFORE(X)                                                                       \
    X(zicbom)                                                                                      \
    X(zicboz)                                                                                      \
    X(zicntr)                                                                                      \
    X(zicond) X(zicsr) X(zifencei) X(zihintpause) X(zihpm) X(zfa) X(zba) X(zbb) X(zbs)
#define EXTENSIONS_AFTER(X) X(sstc) X(svadu) X(svinval) X(svnapot) X(svpbmt) X(svvptc)

const char *riscv64_isa_string(bool has_aia)
{
#define X(name) "_" #name
    return has_aia ? "rv64imafdc" EXTENSIONS_BEFORE(X) "_ssaia" EXTENSIONS_AFTER(X)
                   : "rv64imafdc" EXTENSIONS_BEFORE(X) EXTENSIONS_AFTER(X);
#undef X
}

#define BASE_LETTERS "i", "m", "a", "f", "d", "c"

const char *const *riscv64_isa_extensions(bool has_aia)
{
#define X(name) #name,
    static const char *const plain[] = {BASE_LETTERS,
                                        EXTENSIONS_BEFORE(X) EXTENSIONS_AFTER(X) NULL};
    static const char *const with_aia[] = {BASE_LETTERS, EXTENSIONS_BEFORE(X) "ssaia",
                                           EXTENSIONS_AFTER(X) NULL};
#undef X
    return has_aia ? with_aia : plain;
}

const char *riscv64_register_name(unsigned index)
{
    static const char *const names[32] = {
        "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
        "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
        "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
    };
    return index < 32 ? names[index] : "?";
}

const char *riscv64_float_register_name(unsigned index)
{
    static const char *const names[32] = {
        "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1",  "fa0",
        "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4",  "fs5",
        "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
    };
    return index < 32 ? names[index] : "?";
}

const struct isa isa_riscv64 = {
    .name = "riscv64",
    .cpu_size = sizeof(struct riscv64_cpu),
    .globals = riscv64_globals,
    .helpers = riscv64_helpers,
    .nan_rule = ISA_NAN_CANONICAL,
    .reset = reset,
    .decode = riscv64_decode,
    .translate = riscv64_translate,
    .raise_access_fault = riscv64_raise_access_fault,
    .raise_misaligned = riscv64_raise_misaligned,
    .deliver_exception = riscv64_deliver_exception,
    .interrupt_pending = riscv64_interrupt_pending,
    .deliver_interrupt = riscv64_deliver_interrupt,
    .disassemble = riscv64_disassemble,
    .debug_translate = riscv64_debug_translate_code,
    .guess_translation = riscv64_guess_translation,
};
