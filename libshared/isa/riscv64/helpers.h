/* Helpers: numbers and functions of helpers.def. Called from generated code only. */
#ifndef POLYVISOR_ISA_RISCV64_HELPERS_H
#define POLYVISOR_ISA_RISCV64_HELPERS_H

#include "libshared/ir/ir.h"

enum riscv64_helper {
#define HELPER(name, effects) HELPER_##name,
#include "libshared/isa/riscv64/helpers.def"
#undef HELPER
    HELPER_COUNT
};

#define HELPER(name, effects) ir_helper_function riscv64_helper_##name;
#include "libshared/isa/riscv64/helpers.def"
#undef HELPER

extern const struct ir_helper riscv64_helpers[];

#endif
