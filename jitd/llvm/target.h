/*
 * LLVM for this host: the target machine, the passes, and object code in memory.
 */
#ifndef POLYVISOR_JITD_LLVM_TARGET_H
#define POLYVISOR_JITD_LLVM_TARGET_H

#include "jitd/llvm/lowering.h"
#include <llvm-c/TargetMachine.h>

/* Once a process, before anything else of LLVM. */
bool target_setup(struct error *err);
/* Constant text once target_setup succeeded: triple, CPU, features, LLVM's version, passes. */
const char *target_description(void);

LLVMTargetMachineRef target_create(struct error *err);
const struct host_features *target_features(void);
bool target_optimise(LLVMTargetMachineRef machine, LLVMModuleRef module, struct error *err);
/* Object code, or text. NULL with *err set. */
LLVMMemoryBufferRef target_emit(LLVMTargetMachineRef machine, LLVMModuleRef module, bool text,
                                struct error *err);

#endif
