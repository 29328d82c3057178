#include "vmmd/cleanup.h"

#include "libshared/base/log.h"
#include "libshared/ipc/runtime.h"
#include "vmmd/record.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLEANUP_WAIT_MS 5000
#define CLEANUP_PATH    512

/* The name of the program that a process runs, without " (deleted)" (a rebuilt program). */
static bool cleanup_program_of(pid_t pid, char name[CLEANUP_PATH])
{
    static const char deleted[] = " (deleted)";
    char link[64], target[CLEANUP_PATH];

    snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
    ssize_t length = readlink(link, target, sizeof(target) - 1);
    if (length <= 0) {
        return false;
    }
    target[length] = '\0';
    size_t tail = sizeof(deleted) - 1;
    if ((size_t)length > tail && !strcmp(target + length - tail, deleted)) {
        target[(size_t)length - tail] = '\0';
    }
    const char *slash = strrchr(target, '/');
    snprintf(name, CLEANUP_PATH, "%s", slash ? slash + 1 : target);
    return true;
}

static bool cleanup_kill_process(const Polyvisor__ProcessRecord *process)
{
    char program[CLEANUP_PATH];
    pid_t pid = (pid_t)process->pid;

    if (process->pid <= 1 || pid != process->pid) {
        return false;
    }
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        return false;
    }
    /* Looked at after the pidfd was opened: what is seen is what will be killed. Before its exec
     * a process still is a copy of vmmd, but then it leaves by itself. */
    bool ours = process->start_time && process_start_time(pid) == process->start_time &&
                cleanup_program_of(pid, program) && !strcmp(program, process->program);
    if (ours && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) == 0) {
        struct pollfd end = {.fd = pidfd, .events = POLLIN};
        log_info("killed %s (pid %ld) of an earlier vmmd", process->role, (long)pid);
        if (poll(&end, 1, CLEANUP_WAIT_MS) != 1) {
            log_warning("process %ld of an earlier vmmd does not end", (long)pid);
        }
    }
    close(pidfd);
    return ours;
}

unsigned cleanup_kill_processes(const Polyvisor__MachineRecord *record)
{
    unsigned killed = 0;

    for (size_t i = 0; i < record->n_processes && record_is_current(record); i++) {
        killed += cleanup_kill_process(record->processes[i]);
    }
    return killed;
}

/* A directory itself, never what a link of its name leads to. */
static DIR *cleanup_open_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (!directory && fd >= 0) {
        close(fd);
    }
    return directory;
}

static bool cleanup_entry_is_directory(DIR *directory, const char *name)
{
    struct stat status;

    return fstatat(dirfd(directory), name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

/* What is in the way of the next vmmd. A runtime directory may be one that others use too, and a
 * folder of any name may have been given as one: only what vmmd makes is removed. */
static bool cleanup_is_machine_file(const char *name, mode_t mode, bool everything)
{
    static const char suffix[] = ".sock";
    size_t length = strlen(name), tail = sizeof(suffix) - 1;

    if (S_ISSOCK(mode)) {
        return length > tail && !strcmp(name + length - tail, suffix);
    }
    return S_ISREG(mode) &&
           (!strcmp(name, RECORD_FILE ".new") || (everything && !strcmp(name, RECORD_FILE)));
}

void cleanup_machine_directory(const char *path, bool everything)
{
    DIR *directory = cleanup_open_directory(path);

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat status;
        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            cleanup_is_machine_file(entry->d_name, status.st_mode, everything)) {
            unlinkat(dirfd(directory), entry->d_name, 0);
        }
    }
    if (directory) {
        closedir(directory);
    }
    if (everything) {
        rmdir(path);
    }
}

static void cleanup_socket(const char *directory, const char *name)
{
    char path[CLEANUP_PATH];
    struct stat status;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode)) {
        unlink(path);
    }
}

void cleanup_runtime_directory(const char *path, bool everything)
{
    char machines[CLEANUP_PATH], one[CLEANUP_PATH + NAME_MAX + 2];

    snprintf(machines, sizeof(machines), "%s/vms", path);
    DIR *directory = cleanup_open_directory(machines);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!runtime_name_valid(entry->d_name) ||
            !cleanup_entry_is_directory(directory, entry->d_name)) {
            continue;
        }
        snprintf(one, sizeof(one), "%s/%s", machines, entry->d_name);
        Polyvisor__MachineRecord *record = record_read(one);
        if (record) {
            cleanup_kill_processes(record);
            polyvisor__machine_record__free_unpacked(record, NULL);
        }
        cleanup_machine_directory(one, everything);
    }
    if (directory) {
        closedir(directory);
    }
    rmdir(machines); /* when it is empty */
    cleanup_socket(path, "control.sock");
    cleanup_socket(path, "events.sock");
    cleanup_socket(path, "jitd.sock");
}

int cleanup_lock_directory(const char *path, bool create)
{
    char name[CLEANUP_PATH];
    struct stat held, named;

    snprintf(name, sizeof(name), "%s/lock", path);
    for (;;) {
        int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
        if (fd < 0) {
            return -errno;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            int result = -errno;
            close(fd);
            return result;
        }
        /* A vmmd that ends removes the file it has locked: the lock counts only while the file
         * is the one of that name. */
        if (fstat(fd, &held) == 0 && stat(name, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            return fd;
        }
        close(fd);
    }
}

/* Whether a private vmmd's directory has that name, PID-8 hexadecimal digits, and the process,
 * which made it, is gone. */
static bool cleanup_is_orphan(const char *name)
{
    char *end;
    long pid = strtol(name, &end, 10);

    if (name[0] < '0' || name[0] > '9' || *end != '-' || strlen(end + 1) != 8 ||
        strspn(end + 1, "0123456789abcdef") != 8) {
        return false;
    }
    return pid > 0 && pid <= INT_MAX && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static void cleanup_private_directory(const char *path)
{
    char name[CLEANUP_PATH + 8];
    int lock = cleanup_lock_directory(path, true);

    if (lock < 0) {
        return;
    }
    log_info("removing '%s' of a vmmd that is gone", path);
    cleanup_runtime_directory(path, true);
    snprintf(name, sizeof(name), "%s/lock", path);
    unlink(name);
    close(lock);
    rmdir(path);
}

void cleanup_private_directories(const char *parent)
{
    struct stat status;
    char path[CLEANUP_PATH];

    /* Only what is ours alone: in a shared folder another user could have put a record there. */
    if (lstat(parent, &status) < 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
        (status.st_mode & 077)) {
        return;
    }
    DIR *directory = cleanup_open_directory(parent);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (cleanup_is_orphan(entry->d_name) &&
            cleanup_entry_is_directory(directory, entry->d_name) &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", parent, entry->d_name) < sizeof(path)) {
            cleanup_private_directory(path);
        }
    }
    if (directory) {
        closedir(directory);
    }
}
