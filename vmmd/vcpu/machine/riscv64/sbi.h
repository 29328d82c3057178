/*
 * The built-in firmware: RISC-V Supervisor Binary Interface 2.0, for a kernel that starts in
 * supervisor mode with no firmware of its own.
 *
 * Source: RISC-V Supervisor Binary Interface Specification 2.0. Offered: base, TIME, IPI, RFENCE,
 * HSM, SRST, DBCN, and the legacy calls for timer, console and shutdown. Everything else, PMU
 * included, probes as absent and answers SBI_ERR_NOT_SUPPORTED.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_SBI_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_SBI_H

#include "libshared/isa/cpu.h"

/* cpu_host.firmware_call: false when the machine runs the guest's own firmware instead. */
bool sbi_call(struct cpu *cpu);

#endif
