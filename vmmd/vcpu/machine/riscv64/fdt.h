/*
 * The device tree that describes the machine to firmware and kernel.
 *
 * Source: Devicetree Specification 0.4 and the bindings of the Linux kernel; nodes, names and
 * order follow QEMU's `virt` machine.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_FDT_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_FDT_H

#include "libshared/base/error.h"
#include "vmmd/vcpu/machine/machine.h"

#define RISCV64_FDT_CAPACITY 65536u /* bytes; also bounds the kernel command line */

struct riscv64_fdt {
    unsigned cpu_count;
    uint64_t memory_base, memory_size;
    const char *append;
    uint64_t initrd_start, initrd_end; /* equal: no initrd */
    uint64_t kernel_start, kernel_end; /* equal: none; told to firmware that boots it itself */
    bool has_serial, has_rtc, has_watchdog;
    bool has_aia;                  /* APLIC and IMSICs instead of the PLIC */
    const struct machine_pci *pci; /* NULL: the machine has no PCI host */
};

/* Build the tree into `buffer` of RISCV64_FDT_CAPACITY bytes, with fresh random seeds. Its length
 * in bytes, or negative with *err set: ERROR_CONFIG when the command line is too long. */
int riscv64_fdt_build(const struct riscv64_fdt *fdt, void *buffer, struct error *err);

#endif
