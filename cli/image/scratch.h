/*
 * A folder for what a command needs while it runs: disks that are thrown away, what is extracted or
 * being built. It lies in the cache (cache_files.h), where there is room, and is locked while its
 * owner lives: what a killed command left is removed by the next one.
 */
#ifndef POLYVISOR_CLI_IMAGE_SCRATCH_H
#define POLYVISOR_CLI_IMAGE_SCRATCH_H

#include "libshared/base/error.h"
#include <stdint.h>

#define SCRATCH_PATH_MAX 1200

struct scratch {
    char path[SCRATCH_PATH_MAX]; /* "": none was made */
    int lock;
};

/* Make one. 0 or a negative code with *err set; scratch_close in every case. */
int scratch_open(struct scratch *scratch, struct error *err);
/* Remove it with all that is in it. A scratch of zeroes was never opened: no effect. */
void scratch_close(struct scratch *scratch);

/* Remove a folder with all that is in it, as far as that goes; links are not followed. */
void scratch_remove_tree(const char *path);

/* Copy a file to a new one: by reference where the file system can, and never its holes. 0 or a
 * negative code with *err set, and then there is no new file. */
int scratch_copy(const char *from, const char *to, struct error *err);

#endif
