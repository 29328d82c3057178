/*
 * Loading: images into RAM, the device tree, and the state the harts start from.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_LOAD_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_LOAD_H

#include "vmmd/vcpu/machine/riscv64/virt.h"

/* machine_model.load. While no CPU thread is in guest code. */
int riscv64_load(struct machine *machine, struct error *err);

#endif
