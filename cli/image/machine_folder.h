/*
 * The files of a machine that `vmctl create` made from an image: its disk, kernel and initrd, its
 * vsock. They are in a folder of the machine's name in $POLYVISOR_MACHINE_DIR, else
 * $XDG_DATA_HOME/polyvisor/machines, else /var/lib/polyvisor/machines for root and
 * ~/.local/share/polyvisor/machines for others. They outlive vmmd, and what a killed `create` left
 * half-made is taken over by the next one of that name.
 */
#ifndef POLYVISOR_CLI_IMAGE_MACHINE_FOLDER_H
#define POLYVISOR_CLI_IMAGE_MACHINE_FOLDER_H

#include "libshared/base/error.h"
#include <limits.h>
#include <stdbool.h>

struct machine_folder {
    char path[PATH_MAX]; /* "": not open */
    int lock;
    bool complete; /* was so before: there is a disk of somebody's */
};

/* Where the files of that machine are, or would be. 0 or a negative code with *err set. */
int machine_folder_path(const char *name, char path[PATH_MAX], struct error *err);
/* Whether it is there, completely made. */
bool machine_folder_exists(const char *path);

/* Make it, or take over one that is there, and lock it. 0 or a negative code with *err set (BUSY
 * when another command is at it); machine_folder_close in every case. */
int machine_folder_open(struct machine_folder *folder, const char *name, struct error *err);
/* `done`: all that belongs there is there. Otherwise it is removed, unless it was complete before.
 * One of zeroes was never opened: no effect. */
int machine_folder_close(struct machine_folder *folder, bool done, struct error *err);

/* Remove it with all that is in it. *there says whether there was anything. 0 or a negative code
 * with *err set. */
int machine_folder_remove(const char *name, bool *there, struct error *err);

#endif
