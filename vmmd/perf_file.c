#include "vmmd/perf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int perf_file_open(struct perf_file *file, struct error *err)
{
    strcpy(file->path, "/tmp/perf-new.XXXXXX");
    file->fd = mkostemp(file->path, O_CLOEXEC | O_APPEND);
    if (file->fd < 0) {
        int cause = errno;
        file->path[0] = '\0';
        error_set(err, ERROR_IO, cause, "cannot make the map for perf in /tmp: %s",
                  strerror(cause));
        error_hint(err, "or leave out --perf-map");
        return -ERROR_IO;
    }
    return 0;
}

int perf_file_name(struct perf_file *file, pid_t pid, struct error *err)
{
    char path[32];

    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)pid);
    if (rename(file->path, path) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot name the map for perf '%s': %s", path,
                         strerror(errno));
    }
    file->path[0] = '\0';
    return 0;
}

void perf_file_close(struct perf_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    file->fd = -1;
    if (file->path[0]) {
        unlink(file->path);
    }
    file->path[0] = '\0';
}
