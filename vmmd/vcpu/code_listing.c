#include "vmmd/vcpu/code_listing.h"
#include "vmmd/vcpu/engine/inspect.h"
#include <capstone/capstone.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MAX 64u
/* Bytes of a listing, roughly: well within a message. */
#define LISTING_BYTES_MAX (768u << 10)
#define LINE_OVERHEAD     24u
#define TEXT_MAX          200u

#if defined(__x86_64__)
#define HOST_NAME "x86_64"
#define HOST_ARCH CS_ARCH_X86
#define HOST_MODE CS_MODE_64
#elif defined(__aarch64__)
#define HOST_NAME "arm64"
#define HOST_ARCH CS_ARCH_ARM64
#define HOST_MODE CS_MODE_LITTLE_ENDIAN
#endif

/* A block's message being filled. Memory that runs out is noted, and looked at in the end. */
struct writer {
    Polyvisor__CodeBlock *block;
    uint32_t *left; /* bytes that the listing may still grow by */
    bool failed;
};

static char *copy_text(struct writer *writer, const char *text)
{
    char *copy = strdup(text);
    writer->failed |= copy == NULL;
    return copy;
}

/* Whether the listing may grow by so much; if not, the block is cut. */
static bool take(struct writer *writer, size_t bytes)
{
    if (*writer->left < bytes) {
        writer->block->cut = true;
        return false;
    }
    *writer->left -= (uint32_t)bytes;
    return true;
}

static bool add_line(struct writer *writer, size_t *count, Polyvisor__CodeLine ***lines,
                     uint64_t address, const uint8_t *bytes, size_t size, const char *text)
{
    if (!take(writer, LINE_OVERHEAD + size + strlen(text))) {
        return false;
    }
    Polyvisor__CodeLine **grown = realloc(*lines, (*count + 1) * sizeof(Polyvisor__CodeLine *));
    Polyvisor__CodeLine *line = malloc(sizeof(*line));
    *lines = grown ? grown : *lines;
    if (!grown || !line) {
        free(line);
        writer->failed = true;
        return false;
    }
    polyvisor__code_line__init(line);
    (*lines)[(*count)++] = line;
    line->address = address;
    line->text = copy_text(writer, text);
    line->code.data = malloc(size ? size : 1);
    if (!line->code.data || !line->text) {
        writer->failed = true;
        return false;
    }
    memcpy(line->code.data, bytes, size);
    line->code.len = size;
    return true;
}

/* --- guest ---------------------------------------------------------------------------------- */

static void list_guest(struct writer *writer, const struct isa *isa,
                       const struct inspected_code *code, uint64_t va)
{
    Polyvisor__CodeBlock *block = writer->block;
    for (unsigned i = 0; i < code->ir.op_count; i++) {
        const struct ir_op *op = &code->ir.ops[i];
        unsigned offset = (unsigned)op->imm - code->ir.start;
        unsigned length = (unsigned)op->imm2;
        char text[TEXT_MAX] = "";
        if (op->opcode != IR_insn || offset + length > sizeof(code->guest)) {
            continue;
        }
        const uint8_t *bytes = code->guest + offset;
        if (!isa->disassemble ||
            isa->disassemble(bytes, length, va + offset, text, sizeof(text)) == 0) {
            text[0] = '\0';
        }
        if (!add_line(writer, &block->n_guest, &block->guest, va + offset, bytes, length, text)) {
            return;
        }
    }
}

static void list_ir(struct writer *writer, const struct isa *isa, const struct ir_block *ir)
{
    size_t length = ir_print(ir, isa->globals, isa->helpers, NULL, 0);
    if (!take(writer, length)) {
        return;
    }
    char *text = malloc(length + 1);
    if (!text) {
        writer->failed = true;
        return;
    }
    ir_print(ir, isa->globals, isa->helpers, text, length + 1);
    writer->block->ir = text;
}

/* --- host ----------------------------------------------------------------------------------- */

#ifdef HOST_ARCH
static void list_host(struct writer *writer, size_t *count, Polyvisor__CodeLine ***lines,
                      const struct inspected_host *host)
{
    const uint8_t *bytes = host->bytes;
    size_t left = host->size;
    uint64_t address = host->address;
    csh handle;
    while (left > 0 && bytes[left - 1] == 0) {
        left--; /* what fills the last cache line */
    }
    if (left == 0 || cs_open(HOST_ARCH, HOST_MODE, &handle) != CS_ERR_OK) {
        return;
    }
    cs_option(handle, CS_OPT_SKIPDATA, CS_OPT_ON); /* constants lie between the code */
    cs_insn *insn = cs_malloc(handle);
    while (insn && cs_disasm_iter(handle, &bytes, &left, &address, insn)) {
        char text[TEXT_MAX];
        snprintf(text, sizeof(text), "%s%s%s", insn->mnemonic, insn->op_str[0] ? " " : "",
                 insn->op_str);
        if (!add_line(writer, count, lines, insn->address, insn->bytes, insn->size, text)) {
            break;
        }
    }
    writer->failed |= insn == NULL;
    if (insn) {
        cs_free(insn, 1);
    }
    cs_close(&handle);
}
#else
#define HOST_NAME "unknown"
static void list_host(struct writer *writer, size_t *count, Polyvisor__CodeLine ***lines,
                      const struct inspected_host *host)
{
    (void)writer, (void)count, (void)lines, (void)host;
}
#endif

/* --- the listing ---------------------------------------------------------------------------- */

/* Append the block at `va`; *next is where it ends. 0, or a negative code with *err set. */
static int add_block(Polyvisor__CodeListing *listing, struct cpu *cpu, uint64_t va, uint32_t *left,
                     struct inspected_code *code, struct error *err)
{
    int result = inspect_code(cpu, va, code, err);
    if (result != 0) {
        return result;
    }
    Polyvisor__CodeBlock *block = malloc(sizeof(*block));
    struct writer writer = {.block = block, .left = left, .failed = block == NULL};
    if (block) {
        polyvisor__code_block__init(block);
        listing->blocks[listing->n_blocks++] = block;
        block->address = va;
        block->physical = code->physical;
        block->mode = code->mode;
        block->cached = code->cached;
        block->host_bytes = code->host.size;
        block->region_bytes = code->region.size;
        block->region_blocks = code->region_blocks;
        list_guest(&writer, cpu->isa, code, va);
        list_ir(&writer, cpu->isa, &code->ir);
        list_host(&writer, &block->n_host, &block->host, &code->host);
        list_host(&writer, &block->n_region, &block->region, &code->region);
    }
    inspect_release(code);
    return writer.failed ? error_set(err, ERROR_MEMORY, ENOMEM, "no memory for a listing of code")
                         : 0;
}

static int fill(Polyvisor__CodeListing *listing, struct cpu *cpu,
                const Polyvisor__CodeRequest *request, struct inspected_code *code,
                struct error *err)
{
    uint64_t va = request->at_pc ? cpu->pc : request->address;
    uint32_t left = LISTING_BYTES_MAX;
    uint32_t count = request->count ? request->count : 1;
    listing->guest_arch = strdup(cpu->isa->name);
    listing->host_arch = strdup(HOST_NAME);
    listing->blocks = calloc(BLOCKS_MAX, sizeof(Polyvisor__CodeBlock *));
    listing->cpu = cpu->index;
    listing->pc = cpu->pc;
    if (!listing->guest_arch || !listing->host_arch || !listing->blocks) {
        return error_set(err, ERROR_MEMORY, ENOMEM, "no memory for a listing of code");
    }
    for (uint32_t i = 0; i < count && i < BLOCKS_MAX; i++) {
        struct error reason = {0};
        int result = add_block(listing, cpu, va, &left, code, &reason);
        if (result == -ERROR_NOT_FOUND && i > 0) {
            break;
        }
        if (result != 0) {
            *err = reason;
            return result;
        }
        if (listing->blocks[i]->cut || code->ir.length == 0) {
            break;
        }
        va += code->ir.length;
    }
    return 0;
}

Polyvisor__CodeListing *code_listing_create(struct cpu *cpu, const Polyvisor__CodeRequest *request,
                                            struct error *err)
{
    struct inspected_code *code = malloc(sizeof(*code));
    Polyvisor__CodeListing *listing = malloc(sizeof(*listing));
    if (!code || !listing) {
        free(code);
        free(listing);
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for a listing of code");
        return NULL;
    }
    polyvisor__code_listing__init(listing);
    int result = fill(listing, cpu, request, code, err);
    free(code);
    if (result != 0) {
        polyvisor__code_listing__free_unpacked(listing, NULL);
        return NULL;
    }
    return listing;
}
