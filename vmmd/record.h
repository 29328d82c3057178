/*
 * The record of a machine on disk: <machine directory>/state, a `MachineRecord` of
 * proto/state.proto behind a small header. It is replaced atomically and not synced: it need not
 * outlive the host's boot.
 */
#ifndef POLYVISOR_VMMD_RECORD_H
#define POLYVISOR_VMMD_RECORD_H

#include "proto/state.pb-c.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define RECORD_FILE    "state"
#define RECORD_VERSION 1

/* Write `record` into `directory`; version and boot id are filled in. 0 or negative errno. */
int record_write(const char *directory, Polyvisor__MachineRecord *record);
/* Read it, to be freed with polyvisor__machine_record__free_unpacked. NULL with errno set: ENOENT,
 * or EBADMSG when it is damaged or of another version. */
Polyvisor__MachineRecord *record_read(const char *directory);
/* True when the record was written since the host's last boot, so that its pids mean something. */
bool record_is_current(const Polyvisor__MachineRecord *record);
/* When a process was started, in clock ticks since boot (proc(5), stat field 22); 0 when there is
 * no such process. */
uint64_t process_start_time(pid_t pid);

#endif
