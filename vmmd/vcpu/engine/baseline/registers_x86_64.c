/* The host's part of register allocation (registers.c). */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

/* Those without a prefix first, those with fixed uses last. */
const struct host_register_order compile_register_orders[2] = {
    [FILE_GENERAL] = {10, {RBX, RSI, RDI, RCX, RAX, RDX, R8, R9, R10, R11}},
    [FILE_FLOAT] = {15, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}},
};

/* Not those with fixed uses; three are left for what a round works with. */
const struct host_register_order compile_loop_registers = {6, {RBX, RSI, RDI, R8, R9, R10}};

void compile_check_boxed(struct compiler *c, unsigned offset)
{
    emit_arithmetic_memory_constant(c->hot, false, HOST_CMP, host_cpu((int32_t)offset), -1);
    compile_retreat_if(c, HOST_NOT_EQUAL);
}

#endif
