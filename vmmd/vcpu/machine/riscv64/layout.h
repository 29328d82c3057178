/*
 * The riscv64 machine's memory map and interrupt numbers: those of QEMU's `virt` machine, so that
 * stock firmware and kernels find what they were built for. Left out: NOR flash, fw_cfg and
 * virtio-mmio, which this machine does not have.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_LAYOUT_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_LAYOUT_H

#include <stdint.h>

#define LAYOUT_ROM_BASE    0x1000ull
#define LAYOUT_ROM_SIZE    0xf000ull
#define LAYOUT_SYSCON_BASE 0x100000ull
#define LAYOUT_SYSCON_SIZE 0x1000ull
#define LAYOUT_RTC_BASE    0x101000ull
#define LAYOUT_RTC_SIZE    0x1000ull
/* Not on QEMU's machine. */
#define LAYOUT_WATCHDOG_BASE 0x102000ull
#define LAYOUT_WATCHDOG_SIZE 0x1000ull
#define LAYOUT_ACLINT_BASE   0x2000000ull
#define LAYOUT_PIO_BASE      0x3000000ull /* PCI port I/O, memory-mapped */
#define LAYOUT_PIO_SIZE      0x10000ull
#define LAYOUT_PLIC_BASE     0xc000000ull
#define LAYOUT_APLIC_BASE    0xd000000ull /* supervisor level; the machine level's is not there */
#define LAYOUT_SERIAL_BASE   0x10000000ull
#define LAYOUT_SERIAL_SIZE   0x100ull
#define LAYOUT_IMSIC_BASE    0x28000000ull /* a page a hart, supervisor level */
#define LAYOUT_IMSIC_SIZE    0x8000ull
#define LAYOUT_ECAM_BASE     0x30000000ull
#define LAYOUT_ECAM_SIZE     0x10000000ull
#define LAYOUT_MMIO_BASE     0x40000000ull
#define LAYOUT_MMIO_SIZE     0x40000000ull
#define LAYOUT_RAM_BASE      0x80000000ull
/* The 64-bit PCI window follows RAM at the next multiple of its size: 0x400000000 up to 14 GiB. */
#define LAYOUT_MMIO64_SIZE 0x400000000ull

#define LAYOUT_RAM_MIN (2ull << 20)
#define LAYOUT_RAM_MAX (1ull << 40)

#define LAYOUT_IRQ_SERIAL   10u
#define LAYOUT_IRQ_RTC      11u
#define LAYOUT_IRQ_WATCHDOG 12u   /* never raised */
#define LAYOUT_IRQ_PCI      0x20u /* INTA to INTD: four in a row */
#define LAYOUT_IRQ_SOURCES  96u

#define LAYOUT_SERIAL_CLOCK_HZ 3686400u

#endif
