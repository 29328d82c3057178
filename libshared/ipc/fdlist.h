/*
 * Descriptors a daemon gets from vmmd at exec, by name.
 *
 * vmmd passes them as "name=number" words in one environment variable, POLYVISOR_FDS; the child
 * takes each once by name. Names in use:
 *   vcpud: ram, codemap, kernel, initrd, firmware (the last three when given), perf-map (a file to
 *          append to, when wanted), handover (libshared/ipc/handover.h), dev.<id>.state,
 *          dev.<id>.kick.<n>, dev.<id>.call.<n>, dev.<id>.reply
 *   devd:  ram, codemap, state, kick.<n>, call.<n>, reply, backend, backing.<n> (of disks: what
 *          lies under the image), console, console-memory (a network disk's backend is
 *          libshared/nbd/channel.h)
 *   connectd: channel (libshared/nbd/channel.h), old (the connection before, if there was one)
 *   jitd:  journal (libshared/jit/journal.h), leash (its end of file: vmmd is gone)
 * `<id>` is the device id of the machine's configuration ("serial0", "disk0"). virtio devices have
 * kick.0 to kick.<queue_count - 1> and call.0 to call.<queue_count>; plain MMIO devices kick.0,
 * call.0 and reply. `backend` is there for disks, `console` (a listening socket) and
 * `console-memory` for consoles.
 *
 * vmmd runs `vcpud PATH` and `devd --control PATH --id ID --kind KIND`, where PATH is the
 * control socket that the process binds. Standard input is /dev/null, standard output and error
 * are vmmd's standard error.
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
/* Close what nobody has taken. */
void fdlist_close(struct fdlist *list);

#endif
