/*
 * Where the sockets are. One runtime directory a vmmd, mode 0700:
 *   control.sock  vmctl requests      events.sock  published events    lock  held (flock) while vmmd lives
 *   vms/<name>/   vcpud.sock, <device>.sock, <device>.transport.sock, <device>.console.sock, state
 * The default is $POLYVISOR_RUNTIME_DIR, else /run/polyvisor for root, else
 * $XDG_RUNTIME_DIR/polyvisor, else /tmp/polyvisor-<uid>. Private vmmds of `vmctl run` use
 * <default>/private/<pid>-<random>.
 */
#ifndef POLYVISOR_IPC_RUNTIME_H
#define POLYVISOR_IPC_RUNTIME_H

#include "libshared/base/error.h"
#include <stddef.h>
#include <stdint.h>

#define RUNTIME_PATH_MAX 100 /* leaves room in sun_path */
#define MACHINE_NAME_MAX 40  /* letters, digits, '-', '_', '.'; not starting with '.' or '-' */

/* The default directory's path into `path`. 0, or an error when it would be too long. */
int runtime_default_directory(char path[RUNTIME_PATH_MAX], struct error *err);
/* Make it (and missing parents below an existing base), owned by us with mode 0700; refuse a
 * symlink, another owner or wider permissions. */
int runtime_make_directory(const char *path, struct error *err);
/* True for a name that MACHINE_NAME_MAX and its rules allow. */
bool runtime_name_valid(const char *name);

#endif
