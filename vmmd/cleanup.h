/*
 * What an earlier vmmd left behind when it was killed: processes, sockets, directories.
 *
 * A process is killed only when its pid, its start time and the name of its program are those that
 * were recorded; through a pidfd, so that nothing can take its place in between. Everything here
 * happens before the event loop runs, and may wait a little.
 */
#ifndef POLYVISOR_VMMD_CLEANUP_H
#define POLYVISOR_VMMD_CLEANUP_H

#include "proto/state.pb-c.h"
#include <stdbool.h>

/* Kill the processes of a record that still live and wait for their end (at most a few seconds
 * each). The number killed. */
unsigned cleanup_kill_processes(const Polyvisor__MachineRecord *record);
/* Remove what a machine keeps in its directory while it runs; with `everything` also its record
 * and the directory itself. Files that vmmd does not make stay, and the directory with them. */
void cleanup_machine_directory(const char *path, bool everything);
/* Clean a runtime directory whose lock the caller holds: each machine's processes and sockets.
 * With `everything` no file that vmmd made is left but the lock. Links are not followed. */
void cleanup_runtime_directory(const char *path, bool everything);
/* Remove the directories of private vmmds below `parent` that nobody lives in any more: their
 * name is PID-8 hexadecimal digits, that process (vmctl) is gone, and their lock is free. */
void cleanup_private_directories(const char *parent);
/* Take a runtime directory's lock. The descriptor that holds it, or negative errno: -EWOULDBLOCK
 * when another vmmd has it. */
int cleanup_lock_directory(const char *path, bool create);

#endif
