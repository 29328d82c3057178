/* What compiled regions call, and how they are entered and left (libshared/jit/runtime.h). */
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/enter.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/soft_mmu.h"

/* The region's bytes may be dropped by its own store: it is left at the next back edge, because
 * dropping asks for attention. cpu->block is not looked at by any of this. */

static CODE_SLOW uint64_t runtime_load(struct cpu *cpu, uint64_t va, uint64_t aux)
{
    uint64_t value[2] = {0};
    if (access_load(cpu, va, (unsigned)aux, value) && aux & IR_MEM_ACQUIRE) {
        atomic_thread_fence(memory_order_acquire);
    }
    return value[0];
}

static CODE_SLOW void runtime_store(struct cpu *cpu, uint64_t va, uint64_t value, uint64_t aux)
{
    const uint64_t values[2] = {value, 0};
    if (aux & IR_MEM_RELEASE) {
        atomic_thread_fence(memory_order_release);
    }
    if (access_store(cpu, va, (unsigned)aux, values) && aux & IR_MEM_RELEASE) {
        /* As in the interpreter: no later acquire load of this CPU is done before it. */
        atomic_thread_fence(memory_order_seq_cst);
    }
}

/* The host address, or NULL without leaving an exception: who asks does without. Either way
 * compiled code goes on with the table that it knows, and so do those to whom it leaves. */
static uint8_t *resolve_quietly(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    struct mmu_page page;
    self->tables_stay = true;
    bool found = mmu_resolve(self, va, access, &page);
    self->tables_stay = false;
    if (!found) {
        cpu->exception = 0;
        return NULL;
    }
    return access == CPU_ACCESS_WRITE && page.watched ? NULL : page.host;
}

static CODE_SLOW uint64_t runtime_translate(struct cpu *cpu, uint64_t va, uint64_t aux,
                                            uint64_t write)
{
    uint64_t size = UINT64_C(1) << (aux & IR_MEM_SIZE);
    if (va & (size - 1)) {
        return 0;
    }
    return (uint64_t)(uintptr_t)resolve_quietly(cpu, va,
                                                write ? CPU_ACCESS_WRITE : CPU_ACCESS_READ);
}

static CODE_SLOW_ALL uint64_t runtime_reach(struct cpu *cpu, uint64_t va, uint64_t span,
                                        uint64_t rights)
{
    uint8_t *host = NULL;
    if ((va ^ (va + span)) & PAGE_MASK) {
        return 0;
    }
    if (rights & REACH_READ) {
        host = resolve_quietly(cpu, va, CPU_ACCESS_READ);
    }
    if (rights & REACH_WRITE && (host || !(rights & REACH_READ))) {
        host = resolve_quietly(cpu, va, CPU_ACCESS_WRITE);
    }
    return (uint64_t)(uintptr_t)host;
}

static CODE_SLOW uint64_t runtime_page_is(struct cpu *cpu, uint64_t va, uint64_t expected)
{
    const uint8_t *host = resolve_quietly(cpu, va & PAGE_MASK, CPU_ACCESS_EXECUTE);
    return host && (uint64_t)(uintptr_t)host == expected;
}

static CODE_SLOW uint64_t runtime_helper(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm,
                                         uint64_t number)
{
    return cpu->isa->helpers[number].function(cpu, a, b, imm);
}

/* --- in and out ----------------------------------------------------------------------------- */

static CODE_CALL void runtime_jump(struct cpu *cpu, const void *step, char *tlb, uint64_t tlb_mask,
                                   uint64_t a, uint64_t b, struct code_target *target)
{
    struct block *block = jump_find(cpu, cpu->pc);
    if (block && !atomic_load_explicit(&cpu->attention, memory_order_relaxed)) {
        code_function *entry = __atomic_load_n(&block->target.entry, __ATOMIC_ACQUIRE);
        cpu->page_base = cpu->pc & PAGE_MASK;
        target = &block->target;
        __attribute__((musttail)) return entry(cpu, step, tlb, tlb_mask, a, b, target);
    }
}

CODE_CALL void region_leave(struct cpu *cpu, const void *step, char *tlb, uint64_t tlb_mask,
                            uint64_t a, uint64_t b, struct code_target *target)
{
    (void)step, (void)tlb, (void)tlb_mask, (void)a, (void)b;
    struct region_exit *exit = (struct region_exit *)target;
    cpu->pc = cpu->page_base + exit->offset;
    engine_cpu_of(cpu)->region_exit = exit;
}

void region_run(struct cpu *cpu, struct block *block)
{
    uint64_t retired = cpu->retired;
    void *entry = __atomic_load_n(&block->target.entry, __ATOMIC_ACQUIRE);
    enter_code(cpu, NULL, (char *)cpu->tlb_data, cpu->tlb_data_mask * sizeof(struct tlb_entry), 0,
               0, &block->target, entry);
    /* It left before an instruction that it does not do itself, or for attention: either way the
     * block gets on in the lower tier. */
    engine_cpu_of(cpu)->lower_tier = cpu->retired == retired;
}

const struct region_runtime region_runtime_functions = {
    .load = runtime_load,
    .store = runtime_store,
    .translate = runtime_translate,
    .page_is = runtime_page_is,
    .helper = runtime_helper,
    .jump = runtime_jump,
    .reservation = offsetof(struct engine_cpu, reservation),
    .reach = runtime_reach,
};
