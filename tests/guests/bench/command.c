/* Programs of others as workloads: how long a command takes, and a hash of what it prints. */
#include "bench.h"
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Everything that comes through a pipe, until its end. */
static uint64_t hash_stream(int stream)
{
    static uint8_t buffer[65536];
    uint64_t hash = 0xcbf29ce484222325u;
    ssize_t count;

    while ((count = read(stream, buffer, sizeof(buffer))) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            hash = hash_add(hash, buffer[i]);
        }
    }
    return hash;
}

int run_command(char **command, uint64_t *checksum)
{
    int output[2], status = -1;

    if (pipe(output) != 0) {
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        execvp(command[0], command);
        _exit(127);
    }
    close(output[1]);
    if (child > 0) {
        *checksum = hash_stream(output[0]);
        waitpid(child, &status, 0);
    }
    close(output[0]);
    return status == 0 ? 0 : -1;
}
