#include "tests/lockstep/reference.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void run_child(const char *emulator, const char *runner, int input, int output)
{
    /* A child of a test that died must not stay: end of file on its input ends it. */
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    execlp(emulator, emulator, "-cpu", "rv64,zba=true,zbb=true,zbs=true", runner, (char *)NULL);
    perror(emulator);
    _exit(127);
}

int reference_start(struct reference *reference, const char *emulator, const char *runner)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) < 0) {
        return -errno;
    }
    if (pipe2(from, O_CLOEXEC) < 0) {
        int error = -errno;
        close(to[0]);
        close(to[1]);
        return error;
    }
    pid_t pid = fork();
    if (pid == 0) {
        run_child(emulator, runner, to[0], from[1]);
    }
    int error = -errno;
    close(to[0]);
    close(from[1]);
    if (pid < 0) {
        close(to[1]);
        close(from[0]);
        return error;
    }
    signal(SIGPIPE, SIG_IGN); /* its death shows as a failed write */
    *reference = (struct reference){.pid = pid, .to = to[1], .from = from[0]};
    return 0;
}

bool reference_submit(struct reference *reference, const struct stream_request *request)
{
    const char *bytes = (const char *)request;
    for (size_t done = 0; done < sizeof(*request);) {
        ssize_t count = write(reference->to, bytes + done, sizeof(*request) - done);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

bool reference_result(struct reference *reference, struct stream_result *result)
{
    char *bytes = (char *)result;
    for (size_t done = 0; done < sizeof(*result);) {
        ssize_t count = read(reference->from, bytes + done, sizeof(*result) - done);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            return false;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

int reference_stop(struct reference *reference)
{
    int status = 0;
    close(reference->to);
    close(reference->from);
    waitpid(reference->pid, &status, 0);
    return status;
}
