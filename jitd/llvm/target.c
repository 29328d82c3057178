#include "jitd/llvm/target.h"
#include <llvm-c/Error.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What is worth its time (docs/design/jit.md has the figures). */
#define PASSES "function(mem2reg,early-cse,instcombine<no-verify-fixpoint>,simplifycfg)"
/* Of the code generator's passes, those that cost more than they bring on a host that runs
 * instructions out of order. */
static const char *const without[] = {"polyvisor",
                                      "-disable-post-ra",
                                      "-enable-misched=false",
                                      "-disable-lsr",
                                      "-disable-x86-domain-reassignment",
                                      "-grow-region-complexity-budget=100"};
#define WITHOUT_COUNT (sizeof(without) / sizeof(without[0]))

/* Filled by target_setup, constant afterwards. */
static struct {
    bool ready;
    LLVMTargetRef target;
    char *triple, *cpu, *features;
    struct host_features host;
    char description[6144];
} host;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool has_feature(const char *feature)
{
    const char *found = strstr(host.features, feature);
    size_t length = strlen(feature);
    return found && (found[length] == ',' || found[length] == 0);
}

static void find_host(void)
{
    char *message = NULL;
    LLVMParseCommandLineOptions(WITHOUT_COUNT, without, NULL);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    host.triple = LLVMGetDefaultTargetTriple();
    host.cpu = LLVMGetHostCPUName();
    host.features = LLVMGetHostCPUFeatures();
    if (LLVMGetTargetFromTriple(host.triple, &host.target, &message) != 0) {
        LLVMDisposeMessage(message);
        return;
    }
    host.host = (struct host_features){
        .fma = has_feature("+fma"),
        .sse41 = has_feature("+sse4.1"),
    };
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    int length = snprintf(host.description, sizeof(host.description), "LLVM %u.%u.%u %s %s %s %s",
                          major, minor, patch, host.triple, host.cpu, host.features, PASSES);
    for (size_t i = 1; i < WITHOUT_COUNT && length > 0 && length < (int)sizeof(host.description);
         i++) {
        length += snprintf(host.description + length, sizeof(host.description) - (size_t)length,
                           " %s", without[i]);
    }
    host.ready = length > 0 && (size_t)length < sizeof(host.description);
}

bool target_setup(struct error *err)
{
    pthread_once(&once, find_host);
    if (!host.ready) {
        error_set(err, ERROR_UNSUPPORTED, 0, "LLVM cannot make code for this host");
    }
    return host.ready;
}

const char *target_description(void)
{
    return host.description;
}

const struct host_features *target_features(void)
{
    return &host.host;
}

LLVMTargetMachineRef target_create(struct error *err)
{
    LLVMTargetMachineRef machine =
        LLVMCreateTargetMachine(host.target, host.triple, host.cpu, host.features,
                                LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelSmall);
    if (!machine) {
        error_set(err, ERROR_UNSUPPORTED, 0, "LLVM cannot make code for this host");
    }
    return machine;
}

bool target_optimise(LLVMTargetMachineRef machine, LLVMModuleRef module, struct error *err)
{
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMErrorRef failure = LLVMRunPasses(module, PASSES, machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (failure) {
        char *message = LLVMGetErrorMessage(failure);
        error_set(err, ERROR_INTERNAL, 0, "LLVM's passes: %s", message);
        LLVMDisposeErrorMessage(message);
        return false;
    }
    return true;
}

LLVMMemoryBufferRef target_emit(LLVMTargetMachineRef machine, LLVMModuleRef module, bool text,
                                struct error *err)
{
    LLVMMemoryBufferRef buffer = NULL;
    char *message = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(
            machine, module, text ? LLVMAssemblyFile : LLVMObjectFile, &message, &buffer) != 0) {
        error_set(err, ERROR_INTERNAL, 0, "LLVM's code generator: %s", message ? message : "");
        LLVMDisposeMessage(message);
        return NULL;
    }
    return buffer;
}
