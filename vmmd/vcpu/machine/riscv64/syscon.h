/*
 * The test device: one register by which the guest powers off, resets or reports failure.
 *
 * Source: SiFive's test finisher, as QEMU's virt machine has it.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_SYSCON_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_SYSCON_H

#include "vmmd/vcpu/machine/bus.h"

/* `device` is the struct riscv64_machine. Accesses of 2 and 4 bytes. */
extern const struct bus_ops syscon_bus_ops;

#endif
