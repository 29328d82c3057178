/*
 * Compiled regions without an engine side: a CPU on RAM, a runtime of the plainest kind, and a
 * second CPU that the interpreter steps through the same code, to compare with.
 */
#ifndef POLYVISOR_TESTS_REGION_HOST_H
#define POLYVISOR_TESTS_REGION_HOST_H

#include "jitd/region_compiler.h"
#include "libshared/fp/fp_host.h"
#include "libshared/isa/riscv64/riscv64.h"
#include "libshared/jit/runtime.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/engine.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST_RAM      UINT64_C(0x40000000)
#define HOST_RAM_SIZE (UINT64_C(8) << 20)

struct region_host {
    struct memory memory;
    struct engine *engine;
    struct riscv64_cpu *guest;
    struct cpu *cpu;
    uint64_t slow_loads, slow_stores;
    void (*behind_slow_load)(struct region_host *host); /* or NULL */
};

/* --- a machine ------------------------------------------------------------------------------- */

static inline uint64_t host_time(struct cpu *cpu)
{
    return cpu->retired;
}

static inline void host_timer(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    (void)cpu, (void)timer, (void)deadline;
}

static inline bool host_firmware(struct cpu *cpu)
{
    (void)cpu;
    return false;
}

static inline bool host_mmio_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)cpu, (void)size;
    *value = address * 3;
    return address >= 0x10000000 && address < 0x10001000;
}

static inline bool host_mmio_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)cpu, (void)size, (void)value;
    return address >= 0x10000000 && address < 0x10001000;
}

static const struct cpu_host region_host_functions = {
    .time = host_time,
    .timer_changed = host_timer,
    .firmware_call = host_firmware,
    .mmio_read = host_mmio_read,
    .mmio_write = host_mmio_write,
};

/* `tier` and `limit`: how the engine itself runs code. */
static inline struct region_host *host_create(enum engine_tier tier, unsigned limit)
{
    struct region_host *host = calloc(1, sizeof(*host));
    struct error err = {0};
    int fd = memory_create_fd("region-ram", HOST_RAM_SIZE);
    if (memory_add_region(&host->memory, fd, HOST_RAM, HOST_RAM_SIZE) < 0) {
        abort();
    }
    close(fd);
    fd = memory_create_fd("region-codemap", memory_codemap_size(HOST_RAM_SIZE));
    if (memory_attach_codemap(&host->memory, fd) < 0) {
        abort();
    }
    close(fd);
    host->engine = engine_create(&isa_riscv64, &host->memory, 1, &err);
    engine_set_tier(host->engine, tier);
    if (limit) {
        engine_set_block_limit(host->engine, limit);
    }
    host->cpu = engine_add_cpu(host->engine, 0, &region_host_functions, host);
    host->guest = (struct riscv64_cpu *)host->cpu;
    return host;
}

static inline void host_destroy(struct region_host *host)
{
    engine_destroy(host->engine);
    memory_close(&host->memory);
    free(host);
}

static inline uint8_t *host_ram(struct region_host *host, uint64_t address)
{
    return memory_pointer(&host->memory, address, 1);
}

/* As a device would: code there is decoded anew. */
static inline void host_write(struct region_host *host, uint64_t address, const void *bytes,
                              size_t size)
{
    memcpy(host_ram(host, address), bytes, size);
    memory_device_wrote(&host->memory, address, size);
    engine_device_wrote(host->engine);
}

/* Machine mode, floating point on and dirty, rounding to nearest. */
static inline void host_boot(struct region_host *host, uint64_t pc)
{
    isa_riscv64.reset(host->cpu);
    riscv64_boot(host->guest, RISCV64_MACHINE, pc, 0, 0);
    host->guest->csr.mstatus |= UINT64_C(3) << 13;
    host->guest->csr.mtvec = HOST_RAM + 0x100000;
    host->guest->x[10] = host->guest->x[11] = 0;
    host->cpu->block_mode = 2; /* dirty; frm 0 */
    host->cpu->retired_optimised = 0;
}

/* --- the runtime ----------------------------------------------------------------------------- */

static inline struct region_host *host_of(struct cpu *cpu)
{
    return cpu->host_data;
}

static CODE_SLOW inline uint64_t host_load(struct cpu *cpu, uint64_t va, uint64_t aux)
{
    uint64_t value[2] = {0};
    host_of(cpu)->slow_loads++;
    access_load(cpu, va, (unsigned)aux, value);
    unsigned bits = 8u << (aux & IR_MEM_SIZE);
    return bits < 64 ? value[0] & ((UINT64_C(1) << bits) - 1) : value[0];
}

static CODE_SLOW inline void host_store(struct cpu *cpu, uint64_t va, uint64_t value, uint64_t aux)
{
    const uint64_t both[2] = {value, 0};
    host_of(cpu)->slow_stores++;
    access_store(cpu, va, (unsigned)aux, both);
}

static inline uint8_t *host_resolve(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    struct mmu_page page;
    if (!mmu_resolve(engine_cpu_of(cpu), va, access, &page)) {
        cpu->exception = 0;
        return NULL;
    }
    return page.watched ? NULL : page.host;
}

static CODE_SLOW inline uint64_t host_translate(struct cpu *cpu, uint64_t va, uint64_t aux,
                                                uint64_t write)
{
    if (va & ((UINT64_C(1) << (aux & IR_MEM_SIZE)) - 1)) {
        return 0;
    }
    return (uint64_t)(uintptr_t)host_resolve(cpu, va, write ? CPU_ACCESS_WRITE : CPU_ACCESS_READ);
}

/* Counted like a load or a store that missed. */
static CODE_SLOW_ALL inline uint64_t host_reach(struct cpu *cpu, uint64_t va, uint64_t span,
                                                uint64_t rights)
{
    uint8_t *host = NULL;
    host_of(cpu)->slow_loads += (rights & REACH_READ) != 0;
    host_of(cpu)->slow_stores += (rights & REACH_WRITE) != 0;
    if ((va ^ (va + span)) >> 12) {
        return 0;
    }
    if (rights & REACH_READ) {
        host = host_resolve(cpu, va, CPU_ACCESS_READ);
    }
    if (rights & REACH_WRITE && (host || !(rights & REACH_READ))) {
        host = host_resolve(cpu, va, CPU_ACCESS_WRITE);
    }
    if (rights & REACH_READ && host_of(cpu)->behind_slow_load) {
        host_of(cpu)->behind_slow_load(host_of(cpu));
    }
    return (uint64_t)(uintptr_t)host;
}

static CODE_SLOW inline uint64_t host_page_is(struct cpu *cpu, uint64_t va, uint64_t expected)
{
    return (uint64_t)(uintptr_t)host_resolve(cpu, va, CPU_ACCESS_EXECUTE) == expected;
}

static CODE_SLOW inline uint64_t host_helper(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm,
                                             uint64_t number)
{
    return isa_riscv64.helpers[number].function(cpu, a, b, imm);
}

static CODE_CALL inline void host_jump(struct cpu *cpu, const void *unused_step, char *tlb,
                                       uint64_t tlb_mask, uint64_t unused_a, uint64_t unused_b,
                                       struct code_target *target)
{
    (void)cpu, (void)unused_step, (void)tlb, (void)tlb_mask, (void)unused_a, (void)unused_b;
    (void)target;
}

static const struct region_runtime region_host_runtime = {
    .load = host_load,
    .store = host_store,
    .translate = host_translate,
    .page_is = host_page_is,
    .helper = host_helper,
    .jump = host_jump,
    .reservation = offsetof(struct engine_cpu, reservation),
    .reach = host_reach,
};

/* --- regions --------------------------------------------------------------------------------- */

/* Where an exit leads: the test gets control back. */
struct host_exit {
    struct code_target target;
    uint16_t offset;
};

struct host_region {
    struct region region;
    uint64_t pc;
    uint8_t *code;
    size_t code_size;
    struct host_exit exits[BLOB_EXITS_MAX];
    struct compiled_region compiled;
    code_function *entry;
};

static CODE_CALL inline void host_exit_taken(struct cpu *cpu, const void *unused_step, char *tlb,
                                             uint64_t tlb_mask, uint64_t unused_a,
                                             uint64_t unused_b, struct code_target *target)
{
    (void)unused_step, (void)tlb, (void)tlb_mask, (void)unused_a, (void)unused_b;
    const struct host_exit *exit = (const struct host_exit *)(const void *)target;
    cpu->pc = cpu->page_base + exit->offset;
}

struct host_former {
    struct region_host *host;
    struct region *region;
    uint64_t base;
    unsigned limit, page_limit;
};

static inline int host_add_block(struct host_former *former, uint64_t pc)
{
    struct region *region = former->region;
    struct ir_block ir;
    int64_t delta = (int64_t)((pc & ~UINT64_C(4095)) - former->base) / 4096;
    unsigned page = 0;
    if (pc < HOST_RAM || pc >= HOST_RAM + HOST_RAM_SIZE) {
        return -1;
    }
    while (page < region->page_count && region->page_delta[page] != delta) {
        page++;
    }
    if (page == former->page_limit) {
        return -1;
    }
    uint16_t start = pc & 4095;
    for (int i = 0; i < region->block_count; i++) {
        if (region->blocks[i].page == page && region->blocks[i].start == start) {
            return i;
        }
    }
    struct isa_code code = {
        .page = host_ram(former->host, pc & ~UINT64_C(4095)),
        .start = start,
        .insn_limit = IR_INSNS_MAX,
        .mode = former->host->cpu->block_mode,
    };
    if (region->block_count == former->limit || isa_riscv64.decode(&ir, &code) != ISA_DECODED ||
        ir.straddles || region->byte_count + ir.length > REGION_BYTES_MAX) {
        return -1;
    }
    if (page == region->page_count) {
        region->page_delta[region->page_count++] = (int32_t)delta;
    }
    region->blocks[region->block_count] = (struct region_block){
        .page = (uint8_t)page,
        .start = start,
        .length = ir.length,
        .insns = ir.insn_count,
        .bytes = region->byte_count,
        .heat = 1,
    };
    memcpy(region->bytes + region->byte_count, code.page + start, ir.length);
    region->byte_count += ir.length;
    return region->block_count++;
}

/* Ways back are hot, so that loops seem to go on for long. */
static inline void host_add_edge(struct region *region, int from, int to)
{
    if (from >= 0 && to >= 0 && region->edge_count < REGION_EDGES_MAX) {
        region->edges[region->edge_count++] = (struct region_edge){
            .from = (uint16_t)from, .to = (uint16_t)to, .heat = to <= from ? 100 : 1};
    }
}

/* Everything that is reached from pc by direct jumps, and returns to all calls. */
static inline void host_form(struct region_host *host, uint64_t pc, unsigned block_limit,
                             unsigned page_limit, struct region *region)
{
    struct host_former former = {.host = host,
                                 .region = region,
                                 .base = pc & ~UINT64_C(4095),
                                 .limit = block_limit,
                                 .page_limit = page_limit};
    int returns[REGION_BLOCKS_MAX], rets[REGION_BLOCKS_MAX];
    unsigned return_count = 0, ret_count = 0, insns = 0;
    memset(region, 0, sizeof(*region));
    strcpy(region->isa, "riscv64");
    region->mode = host->cpu->block_mode;
    region->page_count = 1;
    host_add_block(&former, pc);
    for (int i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        uint64_t page = former.base + (uint64_t)((int64_t)region->page_delta[block->page] * 4096);
        struct ir_block ir;
        struct isa_code code = {.page = host_ram(host, page),
                                .start = block->start,
                                .insn_limit = IR_INSNS_MAX,
                                .mode = region->mode};
        isa_riscv64.decode(&ir, &code);
        insns += ir.insn_count;
        if (insns > REGION_INSNS_MAX) {
            region->block_count = (uint16_t)i;
            break;
        }
        const struct ir_op *last = &ir.ops[ir.op_count - 1];
        if (last->opcode == IR_jump || last->opcode == IR_call) {
            host_add_edge(region, i, host_add_block(&former, page + (uint64_t)last->imm));
        } else if (last->opcode == IR_branch) {
            host_add_edge(region, i, host_add_block(&former, page + (uint64_t)(int64_t)last->imm2));
            host_add_edge(region, i, host_add_block(&former, page + ir.start + ir.length));
        }
        if (last->opcode == IR_call || last->opcode == IR_call_ind) {
            int back = host_add_block(&former, page + (uint64_t)(int64_t)last->imm2);
            if (back >= 0) {
                returns[return_count++] = back;
            }
        } else if (last->opcode == IR_ret) {
            rets[ret_count++] = i;
        }
    }
    for (unsigned i = 0; i < ret_count * return_count; i++) {
        if (rets[i % ret_count] < region->block_count &&
            returns[i / ret_count] < region->block_count) {
            host_add_edge(region, rets[i % ret_count], returns[i / ret_count]);
        }
    }
    for (unsigned i = 0; i < region->edge_count;) {
        if (region->edges[i].from >= region->block_count ||
            region->edges[i].to >= region->block_count) {
            region->edges[i] = region->edges[--region->edge_count];
        } else {
            i++;
        }
    }
}

static inline bool host_install(struct region_host *host, struct host_region *installed,
                                struct error *err)
{
    struct blob blob;
    if (!blob_check(&blob, installed->compiled.bytes, installed->compiled.size, &installed->region,
                    err)) {
        return false;
    }
    installed->code_size = blob_installed_size(&blob);
    installed->code = mmap(NULL, installed->code_size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(installed->code, blob.code, blob.header.code_bytes);
    struct code_target **exits =
        (struct code_target **)(void *)(installed->code + blob.header.code_bytes);
    for (unsigned i = 0; i < blob.header.exit_count; i++) {
        code_function *function = host_exit_taken;
        memcpy(&installed->exits[i].target.entry, &function, sizeof(function));
        installed->exits[i].offset = blob.exits[i].offset;
        exits[i] = &installed->exits[i].target;
    }
    uint64_t *pages = (uint64_t *)(void *)(exits + blob.header.exit_count);
    for (unsigned i = 0; i < blob.header.page_count; i++) {
        uint64_t page = (installed->pc & ~UINT64_C(4095)) +
                        (uint64_t)((int64_t)installed->region.page_delta[i] * 4096);
        pages[i] = (uint64_t)(uintptr_t)host_ram(host, page);
    }
    mprotect(installed->code, installed->code_size, PROT_READ | PROT_EXEC);
    uint8_t *entry = installed->code + blob.header.entry;
    memcpy(&installed->entry, &entry, sizeof(entry));
    return true;
}

/* NULL with *err set when the compiler refuses. */
static inline struct host_region *host_compile(struct region_host *host,
                                               struct region_compiler *compiler, uint64_t pc,
                                               unsigned block_limit, unsigned page_limit,
                                               struct error *err)
{
    struct host_region *installed = calloc(1, sizeof(*installed));
    installed->pc = pc;
    host_form(host, pc, block_limit, page_limit, &installed->region);
    if (installed->region.block_count == 0) {
        error_set(err, ERROR_UNSUPPORTED, 0, "the first instruction crosses the page");
        free(installed);
        return NULL;
    }
    if (!region_compile(compiler, &installed->region, &installed->compiled, err) ||
        !host_install(host, installed, err)) {
        free(installed->compiled.bytes);
        free(installed);
        return NULL;
    }
    return installed;
}

static inline void host_region_free(struct host_region *installed)
{
    munmap(installed->code, installed->code_size);
    free(installed->compiled.bytes);
    free(installed);
}

/* The guest's memory still holds what the region was made of. */
static inline bool host_region_holds(struct region_host *host, const struct host_region *installed)
{
    const struct region *region = &installed->region;
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        uint64_t page = (installed->pc & ~UINT64_C(4095)) +
                        (uint64_t)((int64_t)region->page_delta[block->page] * 4096);
        if (memcmp(host_ram(host, page + block->start), region->bytes + block->bytes,
                   block->length) != 0) {
            return false;
        }
    }
    return true;
}

/* Nothing of this frame may need a register that the region uses. */
__attribute__((noinline, no_sanitize("address", "undefined"))) static void
host_call(struct cpu *cpu, code_function *entry)
{
    entry(cpu, NULL, (char *)cpu->tlb_data, cpu->tlb_data_mask * sizeof(struct tlb_entry), 0, 0,
          NULL);
}

/* Run the region from its entry until it leaves; an exception is delivered. */
static inline void host_enter(struct region_host *host, const struct host_region *installed)
{
    struct cpu *cpu = host->cpu;
    cpu->runtime = &region_host_runtime;
    cpu->page_base = installed->pc & ~UINT64_C(4095);
    fp_host_begin();
    host_call(cpu, installed->entry);
    cpu->fp_flags |= fp_collect_host_flags();
    if (cpu->exception) {
        isa_riscv64.deliver_exception(cpu);
    }
}

/* One instruction (or its exception) by the engine. */
static inline void host_step(struct region_host *host)
{
    atomic_fetch_or(&host->cpu->attention, CPU_ATTENTION_STEP);
    engine_run(host->cpu);
    atomic_fetch_and(&host->cpu->attention, ~(uint32_t)CPU_ATTENTION_STEP);
}

/* NULL when both guests are in the same state, otherwise what differs. */
static inline const char *host_differs(const struct region_host *one,
                                       const struct region_host *other)
{
    static char text[160];
    const struct riscv64_cpu *a = one->guest, *b = other->guest;
    if (a->cpu.pc != b->cpu.pc || a->cpu.retired != b->cpu.retired) {
        snprintf(text, sizeof(text), "pc %lx, %lx after %lu, %lu instructions", a->cpu.pc,
                 b->cpu.pc, a->cpu.retired, b->cpu.retired);
        return text;
    }
    for (unsigned i = 0; i < 32; i++) {
        if (a->x[i] != b->x[i] || a->f[i] != b->f[i]) {
            snprintf(text, sizeof(text), "x%u %lx, %lx; f%u %lx, %lx at pc %lx", i, a->x[i],
                     b->x[i], i, a->f[i], b->f[i], a->cpu.pc);
            return text;
        }
    }
    if (a->cpu.fp_flags != b->cpu.fp_flags || a->csr.mcause != b->csr.mcause ||
        a->csr.mtval != b->csr.mtval || a->csr.mepc != b->csr.mepc) {
        snprintf(text, sizeof(text), "flags %x, %x; cause %lu, %lu; value %lx, %lx; epc %lx, %lx",
                 a->cpu.fp_flags, b->cpu.fp_flags, a->csr.mcause, b->csr.mcause, a->csr.mtval,
                 b->csr.mtval, a->csr.mepc, b->csr.mepc);
        return text;
    }
    return NULL;
}

#endif
