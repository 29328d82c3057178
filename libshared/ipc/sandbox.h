/*
 * Confinement of a process to its job, in two steps.
 *
 * sandbox_isolate comes first in main, before any thread and any socket: no new privileges, and
 * namespaces of its own, so that the file system is nothing but one directory, and there is
 * no network and no System V object. An unprivileged process uses a user namespace for it.
 * sandbox_seal comes when everything is opened, connected, mapped and started: privileges go, and a
 * filter (seccomp, for all threads) leaves the system calls that serving takes. What is not
 * on the list fails with EPERM.
 *
 * A host may lack a part (a container without user namespaces, a kernel without seccomp): that is
 * logged and the process goes on. A part that the host has and that fails is an error: nothing
 * starts unconfined by accident. POLYVISOR_UNCONFINED=1 in the environment turns all of it off, for
 * debuggers. What is in force is told by the kernel: `vmctl show` reads it from /proc.
 *
 * A program with a sanitizer in it gives up new privileges, and that is all.
 */
#ifndef POLYVISOR_IPC_SANDBOX_H
#define POLYVISOR_IPC_SANDBOX_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <sys/types.h>

struct sandbox_isolation {
    const char *directory; /* absolute; all of the file system that is left. Sockets in it can be
                              made and connected to; where the kernel has Landlock, no more. */
    const char *const
        *hidden;             /* names in it that are taken out of view, NULL at the end; or NULL */
    const char *const *also; /* absolute paths of files and folders that stay in view as well, NULL
                                at the end; may be NULL. Those that do not exist are left out. */
    bool keep_user; /* root stays root, for the sake of files that it owns, without capabilities */
    bool network;   /* keep the host's network */
    /* Absolute, or NULL: a folder that is seen as SANDBOX_SHARE, with all that is mounted below it,
     * without devices, programs and set-id bits; and beside it, as SANDBOX_LINKS, the links to the
     * process's own descriptors. */
    const char *share;
    bool share_read_only;
};

#define SANDBOX_SHARE         "/polyvisor-share"
#define SANDBOX_LINKS         "/polyvisor-links"
#define SANDBOX_LINKS_OUTSIDE "/proc/self/fd" /* where there is no file system of its own */

/* Whom a process that is root becomes. */
struct sandbox_user {
    uid_t uid;
    gid_t gid;
};

enum sandbox_job {
    SANDBOX_DEVICE,       /* descriptors it has, memory without execution, threads */
    SANDBOX_NETWORK,      /* the same, and sockets */
    SANDBOX_UNIX_SOCKETS, /* the same as a device, and Unix sockets to connect */
    SANDBOX_SHARES,       /* the same as a device, and files in what is left of the file system */
    SANDBOX_PROCESSOR,    /* vcpud */
    SANDBOX_COMPILER,     /* jitd: descriptors it has, files in its directory */
    SANDBOX_CONNECTOR,    /* connectd: the same, and sockets */
    SANDBOX_PEER,         /* a device with descriptors that it has or is sent, and nothing else */
};

/* 0, or a negative error code with *err set. */
int sandbox_isolate(const struct sandbox_isolation *isolation, struct error *err);
/* `user`: NULL for nobody. */
int sandbox_seal(enum sandbox_job job, const struct sandbox_user *user, struct error *err);
/* Whether they do anything: POLYVISOR_UNCONFINED and sanitizers turn them off. */
bool sandbox_confines(void);

#endif
