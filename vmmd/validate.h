/* Is a machine's configuration possible on this build and host? Each mistake has its own words. */
#ifndef POLYVISOR_VMMD_VALIDATE_H
#define POLYVISOR_VMMD_VALIDATE_H

#include "libshared/base/error.h"
#include "proto/control.pb-c.h"
#include <stdint.h>

#define CONFIG_CPUS_MAX     8
#define CONFIG_MEMORY_MIN   (UINT64_C(16) << 20)
#define CONFIG_DISKS_MAX    16
#define CONFIG_APPEND_MAX   2047
#define CONFIG_DEFAULT_ARCH "riscv64"
/* What a panic of the guest's kernel leads to: an event; that and the machine's end. */
#define CONFIG_PANIC_REPORT "report"
#define CONFIG_PANIC_STOP   "stop"

#define HOTPLUG_SLOTS_DEFAULT 8
#define HOTPLUG_SLOTS_MAX     24

/* Check what lies in the configuration itself: values, combinations, and that every string has a
 * bounded length. Empty arch and engine are replaced by what they stand for. For a configuration
 * that was stored: its files may come back. `config` and `directory` as below. */
int config_validate_form(Polyvisor__MachineConfig *config, const char *directory,
                         struct error *err);
/* Check everything that can be known without starting the machine; files are opened and closed
 * again. Empty arch, engine and disk formats are replaced by what they stand for (`config` must be
 * an unpacked message or a copy). `directory` is the runtime directory. 0, or the negative code. */
int config_validate(Polyvisor__MachineConfig *config, const char *directory, struct error *err);

/* A device that is to be plugged in: is it one, of one kind? 0 or the negative code. */
int config_check_attachment(const Polyvisor__DeviceAttachRequest *wanted, struct error *err);
/* Likewise check its setting, and complete it (`wanted` must be a copy). It will be the one of that
 * number; `cards` are the settings of the machine's network cards by number, NULL where there is
 * none. The file of a disk is opened and closed again. */
int config_validate_attachment(const Polyvisor__MachineConfig *machine,
                               Polyvisor__DeviceAttachRequest *wanted, size_t number,
                               const char *const *cards, const char *directory, struct error *err);

#endif
