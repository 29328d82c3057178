/* From a region's bytes to checked IR. */
#include "jitd/llvm/code.h"
#include "libshared/ir/opcode.h"
#include <string.h>

/* Instruction sets that can be compiled. */
const struct isa *const code_isas[] = {&isa_riscv64, NULL};
/* Their registers that are always zero, IR_NONE: there is none. */
static const ir_value zero_registers[] = {0};
_Static_assert(sizeof(zero_registers) / sizeof(zero_registers[0]) + 1 ==
                   sizeof(code_isas) / sizeof(code_isas[0]),
               "one each");

static bool find_isa(struct region_code *code, const char *name)
{
    for (unsigned i = 0; code_isas[i]; i++) {
        if (strcmp(code_isas[i]->name, name) == 0) {
            code->isa = code_isas[i];
            code->zero = zero_registers[i];
            return true;
        }
    }
    return false;
}

static void copy_block(const struct region *region, const struct region_block *block, uint8_t *page)
{
    memcpy(page + block->start, region->bytes + block->bytes, block->length);
}

/* Bytes of other blocks stay in `page`: decoders may look ahead, as they did for vcpud. What no
 * block covers is zero. */
static bool decode_block(struct region_code *code, unsigned index, const uint8_t *page,
                         struct error *err)
{
    const struct region_block *source = &code->region->blocks[index];
    struct code_block *block = &code->blocks[index];
    struct isa_code bytes = {
        .page = page,
        .start = source->start,
        .insn_limit = source->insns,
        .mode = code->region->mode,
    };
    unsigned where;
    if (code->isa->decode(&block->ir, &bytes) != ISA_DECODED || block->ir.straddles ||
        block->ir.insn_count != source->insns || block->ir.length != source->length) {
        error_set(err, ERROR_UNSUPPORTED, 0, "block %u of the region decodes differently here",
                  index);
        return false;
    }
    const char *defect = ir_verify(&block->ir, code->isa->globals, code->isa->helpers, &where);
    if (defect) {
        error_set(err, ERROR_INTERNAL, 0, "block %u, operation %u: %s", index, where, defect);
        return false;
    }
    block->base = (int64_t)code->region->page_delta[source->page] * CODE_PAGE_BYTES;
    block->heat = source->heat;
    code->insns += source->insns;
    code->ends[index] = (uint16_t)index;
    return true;
}

bool code_decode(struct region_code *code, const struct region *region, struct error *err)
{
    uint8_t page[CODE_PAGE_BYTES];
    code->region = region;
    code->insns = 0;
    code->exit_count = 0;
    if (!find_isa(code, region->isa)) {
        error_set(err, ERROR_UNSUPPORTED, 0, "no instruction set of that name");
        return false;
    }
    code->global_count = ir_global_count(code->isa->globals);
    if (code->global_count > CODE_GLOBALS_MAX) {
        error_set(err, ERROR_UNSUPPORTED, 0, "%s has too many registers", code->isa->name);
        return false;
    }
    for (unsigned p = 0; p < region->page_count; p++) {
        memset(page, 0, sizeof(page));
        for (unsigned i = 0; i < region->block_count; i++) {
            if (region->blocks[i].page == p) {
                copy_block(region, &region->blocks[i], page);
            }
        }
        for (unsigned i = 0; i < region->block_count; i++) {
            if (region->blocks[i].page == p) {
                copy_block(region, &region->blocks[i], page);
                if (!decode_block(code, i, page, err)) {
                    return false;
                }
            }
        }
    }
    return true;
}

int code_exit(struct region_code *code, unsigned page, unsigned offset)
{
    for (unsigned i = 0; i < code->exit_count; i++) {
        if (code->exits[i].page == page && code->exits[i].offset == offset) {
            return (int)i;
        }
    }
    if (code->exit_count == BLOB_EXITS_MAX) {
        return -1;
    }
    code->exits[code->exit_count] =
        (struct blob_exit){.page = (uint8_t)page, .offset = (uint16_t)offset};
    return (int)code->exit_count++;
}
