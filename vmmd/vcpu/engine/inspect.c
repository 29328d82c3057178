#include "vmmd/vcpu/engine/inspect.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct location {
    uint64_t physical, index; /* of the address; page of RAM */
};

static bool locate(struct cpu *cpu, uint64_t va, struct location *location)
{
    const struct memory *memory = cpu->memory;
    if (!cpu->isa->debug_translate(cpu, va, &location->physical)) {
        return false;
    }
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t offset = location->physical - region->base;
        if (offset < region->size) {
            location->index = region->first_page + (offset >> MEMORY_PAGE_SHIFT);
            return true;
        }
    }
    return false;
}

/* Guest RAM may be written meanwhile, by devices. */
GUEST_ACCESS static void copy_page(const struct engine *engine, uint64_t index, uint8_t *page)
{
    const uint8_t *host = watch_page_host(engine, index);
    for (unsigned i = 0; i < PAGE_BYTES; i += 8) {
        *(guest_u64 *)(page + i) = *(const volatile guest_u64 *)(host + i);
    }
}

/* The engine's block there: of this mode, or of any. Watch lock. */
static const struct block *find_block(const struct engine *engine, const struct location *location,
                                      uint32_t mode, uint64_t next_physical)
{
    const struct block *block = block_cache_find(engine, location->physical, mode, next_physical);
    const struct code_page *page = engine->code_pages[location->index];
    if (block || !page) {
        return block;
    }
    for (block = page->blocks; block; block = *block_next_in_page(block, page)) {
        bool same_end = !block->straddles || block_second(block)->physical == next_physical;
        if (block->physical == location->physical && same_end) {
            return block;
        }
    }
    return NULL;
}

static bool copy_host(struct inspected_host *host, const uint8_t *write, const uint8_t *execute,
                      uint32_t size)
{
    host->bytes = malloc(size);
    if (!host->bytes) {
        return false;
    }
    memcpy(host->bytes, write, size);
    host->size = size;
    host->address = (uint64_t)(uintptr_t)execute;
    return true;
}

/* Watch lock. */
static bool take_host_code(const struct engine *engine, const struct block *block,
                           struct inspected_code *code)
{
    const struct block_compiled *compiled = &block->compiled;
    const struct installed_region *region = atomic_load(&block->region);
    if (compiled->execute &&
        !copy_host(&code->host, code_memory_write_view(engine->code_memory, compiled->execute),
                   compiled->execute, compiled->size - CODE_HEADER_BYTES)) {
        return false;
    }
    if (region &&
        !copy_host(&code->region, region->span.write, region->span.execute, region->code_bytes)) {
        return false;
    }
    code->region_blocks = region ? region->place_count : 0;
    return true;
}

/* Watch lock, so that what the engine has stays and belongs to the bytes. */
static int look(struct cpu *cpu, uint64_t va, struct inspected_code *code, struct error *err)
{
    struct engine *engine = engine_cpu_of(cpu)->engine;
    struct location location, next;
    uint8_t pages[2 * PAGE_BYTES];
    if (!locate(cpu, va, &location)) {
        error_set(err, ERROR_NOT_FOUND, 0, "no memory is mapped at 0x%" PRIx64 " on CPU %u", va,
                  cpu->index);
        error_hint(err, "addresses are virtual ones, in the address space that the CPU is in now");
        return -ERROR_NOT_FOUND;
    }
    bool has_next = locate(cpu, (va & PAGE_MASK) + PAGE_BYTES, &next);
    const struct block *block =
        find_block(engine, &location, cpu->block_mode, has_next ? next.physical : UINT64_MAX);
    copy_page(engine, location.index, pages);
    struct isa_code bytes = {
        .page = pages,
        .start = (uint16_t)(va & (PAGE_BYTES - 1)),
        .insn_limit = (uint16_t)engine->block_insns,
        .mode = block ? atomic_load(&block->mode) : cpu->block_mode,
    };
    code->physical = location.physical;
    code->mode = bytes.mode;
    code->cached = block != NULL;
    if (cpu->isa->decode(&code->ir, &bytes) == ISA_NEEDS_NEXT_PAGE) {
        if (!has_next) {
            return error_set(
                err, ERROR_NOT_FOUND, 0,
                "the instruction at 0x%" PRIx64 " goes on in a page that is not mapped", va);
        }
        copy_page(engine, next.index, pages + PAGE_BYTES);
        bytes.next_page = pages + PAGE_BYTES;
        cpu->isa->decode(&code->ir, &bytes);
    }
    size_t there = sizeof(pages) - bytes.start;
    there = there < sizeof(code->guest) ? there : sizeof(code->guest);
    memcpy(code->guest, pages + bytes.start, code->ir.length < there ? code->ir.length : there);
    if (block && !take_host_code(engine, block, code)) {
        return error_set(err, ERROR_MEMORY, ENOMEM, "no memory for a copy of the host code");
    }
    return 0;
}

int inspect_code(struct cpu *cpu, uint64_t va, struct inspected_code *code, struct error *err)
{
    memset(code, 0, sizeof(*code));
    if (!cpu->isa->debug_translate) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "code of %s guests cannot be looked at",
                         cpu->isa->name);
    }
    struct engine *engine = engine_cpu_of(cpu)->engine;
    watch_acquire(engine, NULL);
    int result = look(cpu, va, code, err);
    watch_release(engine);
    if (result != 0) {
        inspect_release(code);
    }
    return result;
}

void inspect_release(struct inspected_code *code)
{
    free(code->host.bytes);
    free(code->region.bytes);
    code->host = code->region = (struct inspected_host){0};
}
