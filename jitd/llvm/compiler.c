/* Regions to blobs: the life of a compiler, and the order of things. */
#include "jitd/llvm/code.h"
#include "jitd/llvm/object.h"
#include "jitd/llvm/target.h"
#include "jitd/region_compiler.h"
#include "libshared/jit/abi.h"
#include "source_digest.h"
#include <llvm-c/Analysis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Types, constants and metadata of all modules stay in the context: after so many, begin anew. */
#define CONTEXT_USES 256u

struct region_compiler {
    LLVMContextRef context;
    LLVMTargetMachineRef machine;
    unsigned uses;
    struct region_code code;
};

/* --- identity ------------------------------------------------------------------------------- */

static pthread_once_t identity_once = PTHREAD_ONCE_INIT;
static char identity[8192];

static uint64_t hash(uint64_t sum, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

static uint64_t hash_globals(uint64_t sum, const struct isa *isa)
{
    for (const struct ir_global *global = isa->globals; global->name; global++) {
        sum = hash(sum, global->name, strlen(global->name) + 1);
        sum = hash(sum, &global->offset, sizeof(global->offset));
        sum = hash(sum, &global->type, sizeof(global->type));
    }
    for (const struct ir_helper *helper = isa->helpers; helper->name; helper++) {
        sum = hash(sum, helper->name, strlen(helper->name) + 1);
        sum = hash(sum, &helper->effects, sizeof(helper->effects));
    }
    return sum;
}

/* Everything of the CPU's state that code knows the place of. */
static uint64_t layout(void)
{
    static const size_t offsets[] = {
        offsetof(struct cpu, attention),      offsetof(struct cpu, pc),
        offsetof(struct cpu, page_base),      offsetof(struct cpu, tlb_data),
        offsetof(struct cpu, tlb_data_mask),  offsetof(struct cpu, tlb_exec),
        offsetof(struct cpu, tlb_exec_mask),  offsetof(struct cpu, retired),
        offsetof(struct cpu, exception),      offsetof(struct cpu, engine),
        offsetof(struct cpu, runtime),        offsetof(struct cpu, retired_optimised),
        offsetof(struct tlb_entry, tag_read), offsetof(struct tlb_entry, tag_write),
        offsetof(struct tlb_entry, tag_exec), offsetof(struct tlb_entry, addend),
        sizeof(struct region_runtime),
    };
    uint64_t sum = hash(UINT64_C(0xcbf29ce484222325), offsets, sizeof(offsets));
    for (const struct isa *const *isa = code_isas; *isa; isa++) {
        sum = hash_globals(sum, *isa);
    }
    return sum;
}

static void make_identity(void)
{
    snprintf(identity, sizeof(identity), "lowering " SOURCE_DIGEST_LOWERING " %s layout %016llx %s",
             region_abi(), (unsigned long long)layout(), target_description());
}

bool region_compiler_setup(struct error *err)
{
    if (!target_setup(err)) {
        return false;
    }
    pthread_once(&identity_once, make_identity);
    return true;
}

const char *region_compiler_identity(void)
{
    return identity;
}

/* --- life ----------------------------------------------------------------------------------- */

struct region_compiler *region_compiler_create(struct error *err)
{
    struct region_compiler *compiler = calloc(1, sizeof(*compiler));
    if (!compiler) {
        error_set(err, ERROR_MEMORY, 0, "no memory for a compiler");
        return NULL;
    }
    compiler->machine = target_create(err);
    if (!compiler->machine) {
        free(compiler);
        return NULL;
    }
    compiler->context = LLVMContextCreate();
    return compiler;
}

void region_compiler_destroy(struct region_compiler *compiler)
{
    if (compiler) {
        LLVMContextDispose(compiler->context);
        LLVMDisposeTargetMachine(compiler->machine);
        free(compiler);
    }
}

static void refresh_context(struct region_compiler *compiler)
{
    if (compiler->uses++ == CONTEXT_USES) {
        LLVMContextDispose(compiler->context);
        compiler->context = LLVMContextCreate();
        compiler->uses = 1;
    }
}

/* --- compiling ------------------------------------------------------------------------------ */

/* The region's module before the passes, in the compiler's context. NULL with *err set. */
static LLVMModuleRef build(struct region_compiler *compiler, const struct region *region,
                           struct error *err)
{
    const char *defect = region_check(region);
    if (defect) {
        error_set(err, ERROR_PROTOCOL, 0, "the region is not sound: %s", defect);
        return NULL;
    }
    if (!code_decode(&compiler->code, region, err) || !code_analyse(&compiler->code, err)) {
        return NULL;
    }
    refresh_context(compiler);
    struct lowering lowering = {
        .code = &compiler->code,
        .features = target_features(),
        .context = compiler->context,
        .module = LLVMModuleCreateWithNameInContext("region", compiler->context),
        .builder = LLVMCreateBuilderInContext(compiler->context),
    };
    LLVMTargetDataRef data = LLVMCreateTargetDataLayout(compiler->machine);
    LLVMSetModuleDataLayout(lowering.module, data);
    LLVMDisposeTargetData(data);
    bool sound = lower_region(&lowering, err);
    LLVMDisposeBuilder(lowering.builder);
    if (!sound) {
        LLVMDisposeModule(lowering.module);
        return NULL;
    }
    return lowering.module;
}

static bool pack(const struct region_code *code, const struct object_code *object,
                 struct compiled_region *out, struct error *err)
{
    struct blob_header header = {
        .magic = BLOB_MAGIC,
        .version = BLOB_VERSION,
        .code_bytes = object->size,
        .entry = object->entry,
        .exit_count = (uint16_t)code->exit_count,
        .page_count = code->region->page_count,
    };
    size_t exits = code->exit_count * sizeof(struct blob_exit);
    out->size = sizeof(header) + exits + object->size;
    out->insns = code->insns;
    out->bytes = malloc(out->size);
    if (!out->bytes) {
        error_set(err, ERROR_MEMORY, 0, "no memory for a region's code");
        return false;
    }
    memcpy(out->bytes, &header, sizeof(header));
    memcpy(out->bytes + sizeof(header), code->exits, exits);
    memcpy(out->bytes + sizeof(header) + exits, object->bytes, object->size);
    return true;
}

bool region_compile(struct region_compiler *compiler, const struct region *region,
                    struct compiled_region *out, struct error *err)
{
    struct object_code object;
    LLVMMemoryBufferRef buffer = NULL;
    bool done = false;
    *out = (struct compiled_region){0};
    LLVMModuleRef module = build(compiler, region, err);
    if (!module) {
        return false;
    }
    if (target_optimise(compiler->machine, module, err)) {
        buffer = target_emit(compiler->machine, module, false, err);
    }
    if (buffer &&
        object_extract((const uint8_t *)LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer),
                       compiler->code.exit_count, &object, err)) {
        done = pack(&compiler->code, &object, out, err);
        free(object.bytes);
    }
    if (buffer) {
        LLVMDisposeMemoryBuffer(buffer);
    }
    LLVMDisposeModule(module);
    return done;
}

/* --- listing -------------------------------------------------------------------------------- */

char *region_compile_listing(struct region_compiler *compiler, const struct region *region,
                             struct error *err)
{
    char *before = NULL, *after = NULL, *listing = NULL, *defects = NULL;
    LLVMMemoryBufferRef text = NULL;
    LLVMModuleRef module = build(compiler, region, err);
    if (!module) {
        return NULL;
    }
    LLVMVerifyModule(module, LLVMReturnStatusAction, &defects);
    before = LLVMPrintModuleToString(module);
    if (target_optimise(compiler->machine, module, err)) {
        after = LLVMPrintModuleToString(module);
        text = target_emit(compiler->machine, module, true, err);
    }
    if (text &&
        asprintf(&listing, "; before the passes\n%s%s\n; after them\n%s\n; host code\n%.*s", before,
                 defects, after, (int)LLVMGetBufferSize(text), LLVMGetBufferStart(text)) < 0) {
        error_set(err, ERROR_MEMORY, 0, "no memory for a listing");
        listing = NULL;
    }
    if (text) {
        LLVMDisposeMemoryBuffer(text);
    }
    LLVMDisposeMessage(defects);
    LLVMDisposeMessage(before);
    if (after) {
        LLVMDisposeMessage(after);
    }
    LLVMDisposeModule(module);
    return listing;
}
