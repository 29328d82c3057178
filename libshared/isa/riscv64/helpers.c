/* What generated code calls for instructions that are more than computation. */
#include "libshared/isa/riscv64/helpers.h"
#include "libshared/fp/fp_host.h"
#include "libshared/isa/riscv64/csr.h"
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"

#define HELPER(name, effects) {#name, riscv64_helper_##name, effects},
const struct ir_helper riscv64_helpers[] = {
#include "libshared/isa/riscv64/helpers.def"
    {NULL, NULL, 0},
};
#undef HELPER

static uint64_t raise_illegal(struct cpu *cpu, uint64_t word)
{
    cpu_raise(cpu, CAUSE_ILLEGAL, word);
    return 0;
}

uint64_t riscv64_helper_illegal(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    return raise_illegal(cpu, word);
}

/* --- traps ---------------------------------------------------------------------------------- */
uint64_t riscv64_helper_breakpoint(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    (void)word;
    cpu_raise(cpu, CAUSE_BREAKPOINT, cpu->pc);
    return 0;
}

/* A supervisor's call that machine mode would get may be answered by the machine itself. It finds
 * pc already past the ECALL, and may change it (a hart that is started over). */
static bool call_firmware(struct riscv64_cpu *cpu)
{
    const struct cpu_host *host = cpu->cpu.host;
    uint64_t pc = cpu->cpu.pc;
    if (cpu->privilege != RISCV64_SUPERVISOR || !host->firmware_call ||
        (cpu->csr.medeleg & BIT64(CAUSE_SUPERVISOR_CALL))) {
        return false;
    }
    cpu->cpu.pc = pc + 4;
    if (host->firmware_call(&cpu->cpu)) {
        riscv64_update_attention(cpu);
        return true;
    }
    cpu->cpu.pc = pc;
    return false;
}

uint64_t riscv64_helper_environment_call(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    static const uint8_t causes[] = {
        [RISCV64_USER] = CAUSE_USER_CALL,
        [RISCV64_SUPERVISOR] = CAUSE_SUPERVISOR_CALL,
        [RISCV64_MACHINE] = CAUSE_MACHINE_CALL,
    };
    (void)a;
    (void)b;
    (void)word;
    if (!call_firmware(riscv64_cpu(cpu))) {
        cpu_raise(cpu, causes[riscv64_cpu(cpu)->privilege], 0);
    }
    return 0;
}

uint64_t riscv64_helper_mret(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    (void)a;
    (void)b;
    if (cpu->privilege != RISCV64_MACHINE) {
        return raise_illegal(base, word);
    }
    riscv64_return_machine(cpu);
    return 0;
}

/* Whether a supervisor instruction that `trap_bit` of mstatus forbids may run. */
static bool supervisor_may(const struct riscv64_cpu *cpu, uint64_t trap_bit)
{
    return cpu->privilege == RISCV64_MACHINE ||
           (cpu->privilege == RISCV64_SUPERVISOR && !(cpu->csr.mstatus & trap_bit));
}

uint64_t riscv64_helper_sret(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    (void)a;
    (void)b;
    if (!supervisor_may(cpu, STATUS_TSR)) {
        return raise_illegal(base, word);
    }
    riscv64_return_supervisor(cpu);
    return 0;
}

uint64_t riscv64_helper_wfi(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    if (!supervisor_may(riscv64_cpu(base), STATUS_TW)) {
        return raise_illegal(base, word);
    }
    base->waiting = 1;
    return 0;
}

uint64_t riscv64_helper_pause(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    (void)word;
    if (cpu->host->pause) {
        cpu->host->pause(cpu);
    }
    return 0;
}

/* --- fences --------------------------------------------------------------------------------- */
uint64_t riscv64_helper_fence_i(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    (void)word;
    cpu->host->fetch_barrier(cpu);
    return 0;
}

uint64_t riscv64_helper_sfence_vma(struct cpu *base, uint64_t va, uint64_t asid, uint64_t word)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    bool any_page = field_rs1((uint32_t)word) == 0;
    bool any_root = field_rs2((uint32_t)word) == 0;
    if (!supervisor_may(cpu, STATUS_TVM)) {
        return raise_illegal(base, word);
    }
    base->host->tlb_flush(base, any_root, any_root ? 0 : asid << SATP_ASID_SHIFT & SATP_ASID_MASK,
                          any_root ? 0 : SATP_ASID_MASK, any_page, any_page ? 0 : va);
    return 0;
}

uint64_t riscv64_helper_sfence_check(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    if (!supervisor_may(riscv64_cpu(base), 0)) {
        return raise_illegal(base, word);
    }
    return 0;
}

/* --- CSRs and the FP unit ------------------------------------------------------------------- */
uint64_t riscv64_helper_csr(struct cpu *base, uint64_t source, uint64_t b, uint64_t word)
{
    uint64_t old = 0;
    (void)b;
    if (!riscv64_csr_execute(riscv64_cpu(base), (uint32_t)word, source, &old)) {
        raise_illegal(base, word);
    }
    return old;
}

/* Other numbers for the same function: their declared effects differ. */
uint64_t riscv64_helper_csr_status(struct cpu *base, uint64_t source, uint64_t b, uint64_t word)
{
    return riscv64_helper_csr(base, source, b, word);
}

uint64_t riscv64_helper_csr_mode(struct cpu *base, uint64_t source, uint64_t b, uint64_t word)
{
    return riscv64_helper_csr(base, source, b, word);
}

uint64_t riscv64_helper_csr_poll(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    (void)word;
    riscv64_update_attention(riscv64_cpu(base));
    return 0;
}

uint64_t riscv64_helper_get_fflags(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    (void)word;
    return (cpu->fp_flags | fp_host_flags()) & FP_FLAGS;
}

/* Compilers compare in silence by reading the flags, comparing, and setting what they read: mostly
 * nothing changes. */
uint64_t riscv64_helper_set_fflags(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)b;
    (void)word;
    if (((cpu->fp_flags | fp_host_flags()) & FP_FLAGS) != (a & FP_FLAGS)) {
        fp_collect_host_flags();
        cpu->fp_flags = a & FP_FLAGS;
    }
    return 0;
}

uint64_t riscv64_helper_float_dirty(struct cpu *base, uint64_t a, uint64_t b, uint64_t word)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    (void)a;
    (void)b;
    (void)word;
    riscv64_mark_float_dirty(cpu);
    riscv64_update_modes(cpu);
    return 0;
}

/* --- cache blocks ("CMO Extensions") -------------------------------------------------------- */

/* Whether the environment configuration lets this privilege use the instruction. */
static bool cache_enabled(const struct riscv64_cpu *cpu, uint64_t field)
{
    if (cpu->privilege < RISCV64_MACHINE && !(cpu->csr.menvcfg & field)) {
        return false;
    }
    return cpu->privilege != RISCV64_USER || (cpu->csr.senvcfg & field);
}

/* Memory is coherent, so all that is left to do is to fault where the hardware would: access needs
 * read or write permission, and is reported as a store. */
static uint64_t check_cache_block(struct riscv64_cpu *cpu, uint64_t va, uint64_t field,
                                  uint64_t word)
{
    struct mmu_translation translation;
    if (!cache_enabled(cpu, field)) {
        return raise_illegal(&cpu->cpu, word);
    }
    if (riscv64_translate(&cpu->cpu, cpu->data_key, va, CPU_ACCESS_READ, &translation)) {
        return 0;
    }
    cpu_raise(&cpu->cpu,
              cpu->cpu.exception - 1 == CAUSE_LOAD_PAGE ? CAUSE_STORE_PAGE : CAUSE_STORE_ACCESS,
              va);
    return 0;
}

uint64_t riscv64_helper_cbo_inval(struct cpu *cpu, uint64_t va, uint64_t b, uint64_t word)
{
    (void)b;
    return check_cache_block(riscv64_cpu(cpu), va, ENVCFG_CBIE, word);
}

uint64_t riscv64_helper_cbo_clean(struct cpu *cpu, uint64_t va, uint64_t b, uint64_t word)
{
    (void)b;
    return check_cache_block(riscv64_cpu(cpu), va, ENVCFG_CBCFE, word);
}

uint64_t riscv64_helper_cbo_zero(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t word)
{
    (void)a;
    (void)b;
    if (!cache_enabled(riscv64_cpu(cpu), ENVCFG_CBZE)) {
        return raise_illegal(cpu, word);
    }
    return 0;
}
