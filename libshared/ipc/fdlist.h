/*
 * Descriptors a daemon gets from vmmd at exec, by name.
 *
 * vmmd passes them as "name=number" words in one environment variable, POLYVISOR_FDS; the child
 * takes each once by name. Names in use:
 *   vcpud: ram, codemap; kernel, initrd, firmware (those that are given); perf-map (a file
 *          to append to, when wanted); handover (libshared/ipc/handover.h); of each device
 *          dev.<id>.state, dev.<id>.kick.<n>, dev.<id>.call.<n>, dev.<id>.reply
 *   devd:  ram, codemap, state, kick.<n>, call.<n>, reply, and of its kind
 *          backend: a disk's image, a share's folder, the socket of a card or of the vsock; for
 *            links and network disks one of messages (libshared/net/link.h,
 *            libshared/nbd/channel.h)
 *          backing.<n>: what lies under a disk's image
 *          console (a listening socket), console-memory: of the device's own console
 *          port.<n>, port-plain.<n> (listening sockets), port-memory.<n>: of its console ports
 *          share-state, keep-in, keep-out: what a share's process leaves to the next
 *          standby: a pipe to read a byte from before anything else (vmmd/spare.h)
 *   connectd: channel (libshared/nbd/channel.h), old (the connection before, if there was one)
 *   jitd:  journal (libshared/jit/journal.h), leash (its end of file: vmmd is gone)
 *   all:   bound: a pipe to write a byte to when the control socket is bound (but not for a
 * standby) vcpud, devd: transports: a pipe; vcpud writes a byte when it has bound the sockets of
 * all virtio devices that it was configured with, and devd waits for it before it connects
 * `<id>` is the device id of the machine's configuration ("serial0", "disk0"). virtio devices have
 * kick.0 to kick.<queue_count - 1> and call.0 to call.<queue_count>; plain MMIO devices kick.0,
 * call.0 and reply.
 *
 * vmmd runs `vcpud PATH`, `devd --control PATH --id ID --kind KIND` and `jitd --control PATH`,
 * where PATH is the control socket that the process binds, and `connectd FOLDER URI`. Standard
 * input is /dev/null, standard output and error are vmmd's standard error.
 */
#ifndef POLYVISOR_IPC_FDLIST_H
#define POLYVISOR_IPC_FDLIST_H

#include <stddef.h>

#define FDLIST_ENVIRONMENT "POLYVISOR_FDS"
#define FDLIST_MAX         512

struct fdlist {
    size_t count;
    struct fdlist_entry {
        char name[48];
        int fd;
    } entries[FDLIST_MAX];
};

/* Parent side: add a descriptor under a name (formatted). 0, -ENOSPC or -ENAMETOOLONG. The list
 * does not own the descriptors. */
int fdlist_add(struct fdlist *list, int fd, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
/* Parent side: "POLYVISOR_FDS=..." for the child's environment, allocated; NULL without memory. */
char *fdlist_environment(const struct fdlist *list);
/* Child side: read the environment, set close-on-exec on each, and unset the variable. 0 or
 * -EINVAL on a malformed value or a number that is not an open descriptor. */
int fdlist_inherit(struct fdlist *list);
/* Child side: the descriptor of that name, removed from the list and now the caller's; -ENOENT
 * when there is none. */
int fdlist_take(struct fdlist *list, const char *name, ...) __attribute__((format(printf, 2, 3)));
/* Child side: take that pipe, write a byte to it, close it; nothing when there is none. */
void fdlist_tell(struct fdlist *list, const char *name);
/* Close what nobody has taken. */
void fdlist_close(struct fdlist *list);

#endif
