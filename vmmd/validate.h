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

/* Check what lies in the configuration itself: values, combinations, and that every string has a
 * bounded length. Empty arch and engine are replaced by what they stand for. For a configuration
 * that was stored: its files may come back. `config` and `directory` as below. */
int config_validate_form(Polyvisor__MachineConfig *config, const char *directory,
                         struct error *err);
/* Check everything that can be known without starting the machine; files are opened and closed
 * again. Empty arch, engine and disk formats are replaced by what they stand for (`config` must be
 * an unpacked message or a copy). `directory` is the runtime directory. 0, or the negative code. */
int config_validate(Polyvisor__MachineConfig *config, const char *directory, struct error *err);

#endif
