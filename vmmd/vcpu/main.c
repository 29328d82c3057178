/*
 * vcpud: executes one virtual machine's guest.
 *
 * Started by vmmd with one argument, the path of the control socket to bind, and with its
 * descriptors named in the environment (libshared/ipc/fdlist.h). It owns no file, no network and no
 * child; all it ever opens are the sockets that vmmd and the device processes connect to.
 */
#include "libshared/base/log.h"
#include "libshared/base/scheduling.h"
#include "libshared/ipc/fdlist.h"
#include "vmmd/vcpu/confine.h"
#include "vmmd/vcpu/control.h"
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "vcpud/<machine>", from the directory that the control socket is in. */
static void name_process(const char *path, char *name, size_t size)
{
    const char *file = strrchr(path, '/');
    const char *directory = path;
    for (const char *p = path; file && p < file; p++) {
        if (*p == '/') {
            directory = p + 1;
        }
    }
    if (file && directory < file) {
        snprintf(name, size, "vcpud/%.*s", (int)(file - directory), directory);
    } else {
        snprintf(name, size, "vcpud");
    }
}

/* Ending signals are taken by the main loop; all threads inherit that they are blocked. */
static void set_signals(void)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* A CPU's thread allocates tens of thousands of small blocks. In an arena of its own the library
 * would ask the kernel for each page of them (mprotect). */
static void set_allocator(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TOP_PAD, 1 << 20);
}

int main(int argc, char *argv[])
{
    static struct fdlist descriptors;
    struct error err = {0};
    char name[64];

    if (argc != 2 || argv[1][0] == '-' || argv[1][0] == '\0') {
        fprintf(stderr, "usage: vcpud <control socket>\n"
                        "vcpud is started by vmmd; see vmctl --help.\n");
        return error_exit_status(ERROR_USAGE);
    }
    name_process(argv[1], name, sizeof(name));
    log_open(name);
    set_signals();
    set_allocator();

    if (fdlist_inherit(&descriptors) != 0) {
        log_error("the inherited descriptors are malformed");
        return error_exit_status(ERROR_PROTOCOL);
    }
    /* Nothing below needs more than this, and all of it comes before the first guest byte. */
    if (confine_process(argv[1], &err) != 0) {
        log_error("%s", err.message);
        return error_exit_status(err.code);
    }
    /* A device's process that takes over waits for our sockets, behind the guest's threads: the
     * library's thread, which is started here, serves them. */
    scheduling_set(SCHEDULING_PROMPT);
    struct control *control = control_open(argv[1], &descriptors, &err);
    scheduling_set(SCHEDULING_ORDINARY);
    if (!control) {
        log_error("%s", err.message);
        return error_exit_status(err.code);
    }
    fdlist_tell(&descriptors, "bound");
    control_confine_with(control, confine_seal);
    /* From here on vmmd configures, starts and stops the guest. */
    int result = control_loop(control);
    control_close(control);
    return result == 0 ? EXIT_SUCCESS : error_exit_status(ERROR_INTERNAL);
}
