/* The host's part of register allocation (registers.c). */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

const struct host_register_order compile_register_orders[2] = {
    [FILE_GENERAL] = {22, {2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                           13, 14, 15, 19, 24, 25, 27, 28, 26, 0,  1}},
    [FILE_FLOAT] = {31, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                         16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30}},
};

/* The last in that order, so that rounds seldom want them; but none with a role at the end. */
const struct host_register_order compile_loop_registers = {8, {28, 27, 25, 24, 19, 14, 13, 12}};

void compile_check_boxed(struct compiler *c, unsigned offset)
{
    emit_load(c->hot, 2, true, REG_SCRATCH, host_cpu((int32_t)offset));
    emit_compare_constant(c->hot, true, REG_SCRATCH, -1);
    compile_retreat_if(c, HOST_NOT_EQUAL);
}

#endif
