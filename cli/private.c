#include "cli/private.h"

#include "libshared/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEASH_FD       3 /* of the child */
#define STOP_LIMIT_MS  15000
#define READY_SLICE_MS 50 /* in case that vmmd does not say it */

extern char **environ;

/* vmmd stands beside vmctl where it was built, and in libexec where it was installed. */
static int find_program(char *path, size_t capacity, struct error *err)
{
    static const char *const places[] = {"vmmd", "../libexec/polyvisor/vmmd"};
    char own[4096];
    ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);

    if (length < 0) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot read /proc/self/exe: %s",
                         strerror(errno));
    }
    own[length] = '\0';
    *(strrchr(own, '/') + 1) = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (snprintf(path, capacity, "%s%s", own, places[i]) < (int)capacity &&
            access(path, X_OK) == 0) {
            return 0;
        }
    }
    error_set(err, ERROR_CONNECT, ENOENT, "the program vmmd is missing");
    error_hint(err, "it belongs beside vmctl in %.150s, or in ../libexec/polyvisor", own);
    return -ERROR_CONNECT;
}

/* Standard output is the guest's alone: what vmmd prints goes to standard error. A session of its
 * own keeps the terminal's Ctrl-C and Ctrl-Z away from it. */
static int prepare_spawn(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
                         int leash)
{
    sigset_t none, all;
    int status = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

    sigemptyset(&none);
    sigfillset(&all);
    if (status == 0) {
        status = posix_spawn_file_actions_adddup2(actions, STDERR_FILENO, STDOUT_FILENO);
    }
    if (status == 0) {
        status = posix_spawn_file_actions_adddup2(actions, leash, LEASH_FD);
    }
    if (status == 0) {
        status = posix_spawn_file_actions_addclosefrom_np(actions, LEASH_FD + 1);
    }
    if (status == 0) {
        status = posix_spawnattr_setsigmask(attributes, &none);
    }
    if (status == 0) {
        status = posix_spawnattr_setsigdefault(attributes, &all);
    }
    if (status == 0) {
        status = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                          POSIX_SPAWN_SETSIGDEF);
    }
    return status;
}

static int spawn_vmmd(struct private_vmmd *vmmd, int leash, struct error *err)
{
    char program[4200], number[] = {'0' + LEASH_FD, '\0'};
    char *arguments[] = {"vmmd", "--runtime-dir", vmmd->directory, "--private", number, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int status = find_program(program, sizeof(program), err);

    if (status != 0) {
        return status;
    }
    status = posix_spawn_file_actions_init(&actions);
    if (status == 0) {
        status = posix_spawnattr_init(&attributes);
        if (status == 0) {
            status = prepare_spawn(&actions, &attributes, leash);
            if (status == 0) {
                status =
                    posix_spawn(&vmmd->pid, program, &actions, &attributes, arguments, environ);
            }
            posix_spawnattr_destroy(&attributes);
        }
        posix_spawn_file_actions_destroy(&actions);
    }
    if (status != 0) {
        vmmd->pid = 0;
        return error_set(err, ERROR_INTERNAL, status, "cannot start %.150s: %s", program,
                         strerror(status));
    }
    vmmd->pidfd = (int)syscall(SYS_pidfd_open, vmmd->pid, 0);
    if (vmmd->pidfd < 0) {
        return error_set(err, ERROR_UNSUPPORTED, errno, "no pidfd for vmmd: %s", strerror(errno));
    }
    return 0;
}

/* Start vmmd in vmmd->directory. 0 or a negative code. */
static int launch(struct private_vmmd *vmmd, struct error *err)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        return error_set(err, ERROR_IO, errno, "no pair of sockets: %s", strerror(errno));
    }
    vmmd->leash = ends[1];
    int status = spawn_vmmd(vmmd, ends[0], err);

    close(ends[0]);
    return status;
}

/* Its exit status in words, once it has ended. */
static int ended_early(struct private_vmmd *vmmd, struct error *err)
{
    int status = 0;

    waitpid(vmmd->pid, &status, 0);
    vmmd->pid = 0;
    if (WIFSIGNALED(status)) {
        error_set(err, ERROR_CRASHED, 0, "vmmd was killed by signal %d while it started",
                  WTERMSIG(status));
    } else {
        error_set(err, ERROR_CRASHED, 0, "vmmd ended with status %d while it started",
                  WEXITSTATUS(status));
    }
    error_hint(err, "its own messages on standard error say why");
    return -ERROR_CRASHED;
}

/* Connect as soon as vmmd listens, which it says by a byte through the leash. */
static int wait_ready(struct private_vmmd *vmmd, struct client *client, uint32_t timeout_ms,
                      int interrupt_fd, struct error *err)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
    struct pollfd polls[] = {{.fd = vmmd->pidfd, .events = POLLIN},
                             {.fd = interrupt_fd, .events = POLLIN},
                             {.fd = vmmd->leash, .events = POLLIN}};

    for (;;) {
        poll(polls, 3, READY_SLICE_MS);
        if (polls[0].revents != 0) {
            return ended_early(vmmd, err);
        }
        if (polls[1].revents != 0) {
            return error_set(err, ERROR_CANCELLED, EINTR, "interrupted");
        }
        int status = client_open(client, vmmd->directory, timeout_ms, interrupt_fd, err);
        if (status != -ERROR_CONNECT || clock_monotonic_ns() >= deadline_ns) {
            return status;
        }
        polls[2].fd = polls[2].revents != 0 ? -1 : vmmd->leash; /* it has been said */
    }
}

static int choose_directory(struct private_vmmd *vmmd, const char *base, struct error *err)
{
    char directory[2 * RUNTIME_PATH_MAX];
    uint32_t random = 0;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        return error_set(err, ERROR_IO, errno, "no random number: %s", strerror(errno));
    }
    int length =
        snprintf(directory, sizeof(directory), "%s/private/%d-%08x", base, (int)getpid(), random);
    if (length >= RUNTIME_PATH_MAX) {
        error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path of the runtime directory is too long");
        error_hint(err, "choose one of at most %d bytes with --runtime-dir",
                   RUNTIME_PATH_MAX - 1 - (length - (int)strlen(base)));
        return -ERROR_CONFIG;
    }
    int status = runtime_make_directory(directory, err);
    if (status == 0) {
        memcpy(vmmd->directory, directory, (size_t)length + 1);
    }
    return status;
}

int private_start(struct private_vmmd *vmmd, struct client *client, const char *base,
                  uint32_t timeout_ms, int interrupt_fd, struct error *err)
{
    *vmmd = (struct private_vmmd){.pidfd = -1, .leash = -1};
    int status = choose_directory(vmmd, base, err);

    if (status == 0) {
        status = launch(vmmd, err);
    }
    if (status == 0) {
        status = wait_ready(vmmd, client, timeout_ms, interrupt_fd, err);
    }
    return status;
}

/* Let go and wait for the end. True when it left things behind: it was killed. */
static bool finish(struct private_vmmd *vmmd)
{
    int status = 0;

    if (vmmd->leash >= 0) {
        close(vmmd->leash);
        vmmd->leash = -1;
    }
    if (vmmd->pid != 0) {
        struct pollfd poll_fd = {.fd = vmmd->pidfd, .events = POLLIN};
        int ready = 0;

        do {
            ready = poll(&poll_fd, 1, STOP_LIMIT_MS);
        } while (ready < 0 && errno == EINTR);
        if (ready <= 0) {
            kill(vmmd->pid, SIGKILL);
        }
        while (waitpid(vmmd->pid, &status, 0) < 0 && errno == EINTR) {
        }
        vmmd->pid = 0;
    }
    if (vmmd->pidfd >= 0) {
        close(vmmd->pidfd);
        vmmd->pidfd = -1;
    }
    return WIFSIGNALED(status);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path) != 0 && errno != ENOENT;
}

void private_stop(struct private_vmmd *vmmd)
{
    struct error ignored = {0};

    if (vmmd->directory[0] == '\0') {
        return;
    }
    if (finish(vmmd) && launch(vmmd, &ignored) == 0) {
        finish(vmmd);
    }
    /* vmmd removes what it made; this is for the directory itself, and for a vmmd that could not.
     */
    nftw(vmmd->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    vmmd->directory[0] = '\0';
}
