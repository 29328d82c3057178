#include "vmmd/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPAWN_CANNOT_RUN 127

int spawn_gate_open(struct spawn_gate *gate)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    *gate = (struct spawn_gate){.read_fd = ends[0], .write_fd = ends[1]};
    return 0;
}

void spawn_gate_release(struct spawn_gate *gate)
{
    /* A byte each. The pipe is empty and holds 64 KiB: this neither waits nor fails. */
    for (; gate->waiting > 0; gate->waiting--) {
        while (write(gate->write_fd, "", 1) < 0 && errno == EINTR) {
        }
    }
}

void spawn_gate_close(struct spawn_gate *gate)
{
    close(gate->write_fd);
    close(gate->read_fd);
}

/* The environment with `extra` in it, as one allocation; the strings stay where they are. */
static char **spawn_environment(char *extra)
{
    size_t count = 0, kept = 0;

    while (environ[count]) {
        count++;
    }
    char **environment = calloc(count + 2, sizeof(*environment));
    if (!environment) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], FDLIST_ENVIRONMENT "=", sizeof(FDLIST_ENVIRONMENT))) {
            environment[kept++] = environ[i];
        }
    }
    environment[kept] = extra;
    return environment;
}

/* Between fork and exec in a process with threads: nothing but system calls. All signals are
 * blocked on entry, so that none runs vmmd's handlers here. */
static void spawn_child(const struct spawn_gate *gate, const char *program, char *const argv[],
                        char *const environment[], const struct fdlist *list)
{
    struct sigaction standard = {.sa_handler = SIG_DFL}, ignored = {.sa_handler = SIG_IGN};
    sigset_t none;
    char byte;
    ssize_t received;

    close(gate->write_fd); /* or the gate's end would never close */
    setsid();
    for (int number = 1; number < NSIG; number++) {
        sigaction(number, &standard, NULL);
    }
    /* A disk or a memory beyond the limit of file sizes is an I/O error of its own. */
    sigaction(SIGXFSZ, &ignored, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    do {
        received = read(gate->read_fd, &byte, 1);
    } while (received < 0 && errno == EINTR);
    if (received != 1) {
        _exit(SPAWN_CANNOT_RUN);
    }

    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        _exit(SPAWN_CANNOT_RUN);
    }
    for (size_t i = 0; i < list->count; i++) {
        if (fcntl(list->entries[i].fd, F_SETFD, 0) < 0) {
            _exit(SPAWN_CANNOT_RUN);
        }
    }
    execve(program, argv, environment);
    _exit(SPAWN_CANNOT_RUN);
}

int spawn_process(struct spawn_gate *gate, const char *program, char *const argv[],
                  const struct fdlist *list, pid_t *pid, int *pidfd)
{
    sigset_t all, before;
    int result = 0;
    char *descriptors = fdlist_environment(list);
    char **environment = descriptors ? spawn_environment(descriptors) : NULL;

    if (!environment) {
        result = -ENOMEM;
        goto out;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) {
        spawn_child(gate, program, argv, environment, list);
    }
    result = child < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result) {
        goto out;
    }
    /* Nobody else reaps our children: the pid is still this process. */
    int fd = pidfd_open(child, 0);
    if (fd < 0) {
        result = -errno;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        goto out;
    }
    gate->waiting++;
    *pid = child;
    *pidfd = fd;
out:
    free(environment);
    free(descriptors);
    return result;
}

int spawn_process_bound(struct spawn_gate *gate, const char *program, char *const argv[],
                        struct fdlist *list, pid_t *pid, int *pidfd, int *bound_fd)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    int result = fdlist_add(list, ends[1], "bound");
    result = result ? result : spawn_process(gate, program, argv, list, pid, pidfd);
    close(ends[1]);
    if (result) {
        close(ends[0]);
        return result;
    }
    *bound_fd = ends[0];
    return 0;
}

void spawn_protect_descriptors(int first)
{
    if (close_range((unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC) == 0) {
        return;
    }
    DIR *directory = opendir("/proc/self/fd"); /* a host kernel before 5.11 */
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        int fd = atoi(entry->d_name);
        if (fd >= first) {
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
    }
    if (directory) {
        closedir(directory);
    }
}
