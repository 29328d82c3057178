/*
 * Shared directories (libshared/share/setting.h): what vmmd makes and keeps for the process that
 * serves one, so that the next one goes on where it stopped.
 */
#ifndef POLYVISOR_VMMD_SHARED_DIRECTORY_H
#define POLYVISOR_VMMD_SHARED_DIRECTORY_H

#include "libshared/base/error.h"
#include "proto/control.pb-c.h"
#include <stdbool.h>
#include <stddef.h>

struct shared_directory {
    int directory;         /* O_PATH */
    int state;             /* libshared/share/state.h */
    int keep_in, keep_out; /* the two ends between which descriptors wait: both are kept here */
};

/* Check the settings of a machine's configuration. 0 or a negative code (CONFIG). */
int shared_directory_check(const Polyvisor__MachineConfig *config, struct error *err);
/* The same, and that the directories are there. */
int shared_directory_check_host(const Polyvisor__MachineConfig *config, struct error *err);
/* Make what one share needs. On failure, a negative code, nothing is open. */
int shared_directory_open(const char *text, struct shared_directory *share, struct error *err);
void shared_directory_close(struct shared_directory *share);
/* The path of its directory. */
bool shared_directory_path(const char *text, char *folder, size_t size, bool *read_only);
/* How many queues its device has. */
unsigned shared_directory_queue_count(unsigned cpus);

#endif
