/*
 * What the agent does itself, in a process of its own with the streams of a command: files, so that
 * a guest needs no program for them, and the end of the machine.
 */
#include "agent/command.h"
#include "agent/power.h"
#include "agent/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int copy(int from, int to)
{
    static char bytes[64 << 10];
    ssize_t count;

    while ((count = read(from, bytes, sizeof(bytes))) != 0) {
        if (count < 0 && errno != EINTR) {
            return -1;
        }
        for (ssize_t done = 0; done < count;) {
            ssize_t part = write(to, bytes + done, (size_t)(count - done));
            if (part < 0 && errno != EINTR) {
                return -1;
            }
            done += part > 0 ? part : 0;
        }
    }
    return 0;
}

/* The file appears whole, or not at all. */
static int put(const char *path, const char *mode)
{
    size_t length = strlen(path);
    char *beside = malloc(length + 16);
    struct stat info;

    if (!beside) {
        return failed(path);
    }
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        /* A device, or a pipe: what is behind it gets the bytes. */
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd < 0 || copy(STDIN_FILENO, fd) < 0 ? failed(path) : 0;
    }
    snprintf(beside, length + 16, "%s.XXXXXX", path);
    int fd = mkstemp(beside);
    if (fd < 0) {
        return failed(path);
    }
    if (copy(STDIN_FILENO, fd) < 0 || fchmod(fd, (mode_t)strtoul(mode, NULL, 8) & 07777) < 0 ||
        fsync(fd) < 0 || close(fd) < 0 || rename(beside, path) < 0) {
        int status = failed(path);
        unlink(beside);
        return status;
    }
    return 0;
}

static int get(const char *path)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) < 0) {
        return failed(path);
    }
    if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        return failed(path);
    }
    return copy(fd, STDOUT_FILENO) < 0 ? failed(path) : 0;
}

/* "folder", "file" or nothing. */
static int kind(const char *path)
{
    struct stat info;

    if (stat(path, &info) == 0) {
        puts(S_ISDIR(info.st_mode) ? "folder" : "file");
    }
    return 0;
}

/* ---- PCI devices that come and go ---- */

static int write_one(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        return failed(path);
    }
    int result = write(fd, "1", 1) == 1 ? 0 : failed(path);
    close(fd);
    return result;
}

/* A kernel without hotplug sees a new device when it looks for it. */
static int rescan(void)
{
    return write_one("/sys/bus/pci/rescan");
}

/* Its driver lets go of the device at `address` ("0000:00:04.0"). One that is not there has been
 * let go of. */
static int eject(const char *address)
{
    char path[128];

    if (strspn(address, "0123456789abcdef:.") != strlen(address) || strlen(address) > 16 ||
        address[0] == '.') {
        errno = EINVAL;
        return failed(address);
    }
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", address);
    if (access(path, F_OK) < 0) {
        return 0;
    }
    sync(); /* what is mounted loses as little as can be */
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", address);
    return write_one(path);
}

/* ---- All of them ---- */

static int run_put(char *const *arguments, const struct agent *agent)
{
    (void)agent;
    return put(arguments[1], arguments[2]);
}

static int run_get(char *const *arguments, const struct agent *agent)
{
    (void)agent;
    return get(arguments[1]);
}

static int run_kind(char *const *arguments, const struct agent *agent)
{
    (void)agent;
    return kind(arguments[1]);
}

static int run_status(char *const *arguments, const struct agent *agent)
{
    (void)arguments;
    return status_print(agent);
}

static int run_rescan(char *const *arguments, const struct agent *agent)
{
    (void)arguments, (void)agent;
    return rescan();
}

static int run_eject(char *const *arguments, const struct agent *agent)
{
    (void)agent;
    return eject(arguments[1]);
}

static int run_poweroff(char *const *arguments, const struct agent *agent)
{
    (void)arguments, (void)agent;
    return power_end(POWER_OFF);
}

static int run_reboot(char *const *arguments, const struct agent *agent)
{
    (void)arguments, (void)agent;
    return power_end(POWER_REBOOT);
}

static const struct builtin {
    const char *name;
    unsigned words; /* itself counted */
    bool in_guest;  /* it changes the machine, which must be a guest */
    int (*run)(char *const *arguments, const struct agent *agent);
} builtins[] = {
    {"put", 3, false, run_put},          {"get", 2, false, run_get},
    {"kind", 2, false, run_kind},        {"status", 1, false, run_status},
    {"rescan", 1, true, run_rescan},     {"eject", 2, true, run_eject},
    {"poweroff", 1, true, run_poweroff}, {"reboot", 1, true, run_reboot},
};

int builtin_run(char *const *arguments, const struct agent *agent)
{
    unsigned words = 0;

    while (arguments[words]) {
        words++;
    }
    for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++) {
        const struct builtin *builtin = &builtins[i];
        if (strcmp(arguments[0], builtin->name) != 0 || words < builtin->words) {
            continue;
        }
        if (builtin->in_guest && !agent->in_guest) {
            fprintf(stderr, "'%s' is for guests only\n", builtin->name);
            return 1;
        }
        int result = builtin->run(arguments, agent);
        return fflush(stdout) == 0 ? result : failed("output");
    }
    fprintf(stderr, "this agent does not know '%s'\n", arguments[0]);
    return 2;
}
