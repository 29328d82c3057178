#include "vmmd/spare.h"

#include "vmmd/record.h"
#include "vmmd/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void spare_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

int spare_hold_namespace(pid_t pid)
{
    char path[48];

    snprintf(path, sizeof(path), "/proc/%ld/ns/mnt", (long)pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int spare_start(struct spare *spare, const char *program, char *const argv[],
                const struct fdlist *list, int legacy_fd)
{
    struct fdlist with_pipe = *list;
    struct spawn_gate gate;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        int result = -errno;
        spare_close(legacy_fd);
        return result;
    }
    int result = fdlist_add(&with_pipe, ends[0], SPARE_DESCRIPTOR);
    result = result ? result : spawn_gate_open(&gate);
    if (!result) {
        result = spawn_process(&gate, program, argv, &with_pipe, &spare->pid, &spare->pidfd);
        if (legacy_fd >= 0) {
            close(legacy_fd); /* it waits with the other one; once it runs its program, that goes */
            legacy_fd = -1;
        }
        spawn_gate_release(&gate);
        spawn_gate_close(&gate);
    }
    close(ends[0]);
    spare_close(legacy_fd);
    if (result) {
        close(ends[1]);
        spare->pid = 0;
        return result;
    }
    spare->pipe_fd = ends[1];
    spare->start_time = process_start_time(spare->pid);
    spare->recorded = false;
    return 0;
}

bool spare_take(struct spare *spare, pid_t *pid, int *pidfd, int *pipe_fd)
{
    siginfo_t info = {0};

    if (!spare->pid) {
        return false;
    }
    /* Not through /proc, which would make its end slower: see reaper.h. */
    if (waitid(P_PIDFD, (id_t)spare->pidfd, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) < 0 ||
        info.si_pid != 0) {
        spare_discard(spare);
        return false;
    }
    *pid = spare->pid;
    *pidfd = spare->pidfd;
    *pipe_fd = spare->pipe_fd;
    spare->pid = 0;
    return true;
}

void spare_release(int pipe_fd)
{
    /* The pipe is empty: this does not wait. Should the process have ended, its pidfd tells. */
    while (write(pipe_fd, "", 1) < 0 && errno == EINTR) {
    }
    close(pipe_fd);
}

void spare_discard(struct spare *spare)
{
    siginfo_t info;

    if (!spare->pid) {
        return;
    }
    pidfd_send_signal(spare->pidfd, SIGKILL, NULL, 0);
    waitid(P_PIDFD, (id_t)spare->pidfd, &info, WEXITED);
    close(spare->pidfd);
    close(spare->pipe_fd);
    spare->pid = 0;
}
