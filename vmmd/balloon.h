/* The setting of a machine's balloon (libshared/balloon/setting.h), as vmmd uses it. */
#ifndef POLYVISOR_VMMD_BALLOON_H
#define POLYVISOR_VMMD_BALLOON_H

#include "libshared/base/error.h"
#include "proto/control.pb-c.h"
#include <stdint.h>

/* Check the configuration's setting and write out what it leaves open. 0 or a negative code. */
int balloon_complete(Polyvisor__MachineConfig *config, struct error *err);
/* Whether the machine has one. */
bool balloon_present(const Polyvisor__MachineConfig *config);
/* Bytes at the beginning of memory that belong to the firmware of that file (-1: there is none). */
uint64_t balloon_memory_kept(int firmware_fd);

#endif
