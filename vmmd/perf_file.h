/*
 * The file in which perf looks for the names of code that a process generated: /tmp/perf-PID.map.
 * The pid is known only once the process was forked, so the file is made under another name first.
 */
#ifndef POLYVISOR_VMMD_PERF_FILE_H
#define POLYVISOR_VMMD_PERF_FILE_H

#include "libshared/base/error.h"
#include <sys/types.h>

struct perf_file {
    int fd;        /* -1 = none */
    char path[32]; /* until it gets its name */
};

/* Make it, empty, readable by its owner only. 0 or a negative code with *err set. */
int perf_file_open(struct perf_file *file, struct error *err);
/* Give it the name that perf wants for `pid`; a file of that name, which an earlier process left,
 * goes. 0 or a negative code with *err set. It stays when everything else has ended: perf reads it
 * when it reports. */
int perf_file_name(struct perf_file *file, pid_t pid, struct error *err);
/* Close our descriptor; a file that got no name is removed. */
void perf_file_close(struct perf_file *file);

#endif
