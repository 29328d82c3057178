#include "vmmd/cleanup.h"

#include "libshared/base/log.h"
#include "libshared/ipc/runtime.h"
#include "vmmd/record.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

/* Remove the files of a directory, all or only the sockets and unfinished records. */
static void cleanup_files(const char *path, bool everything)
{
    static const char unfinished[] = RECORD_FILE ".new";
    DIR *directory = opendir(path);

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat status;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        if (everything || S_ISSOCK(status.st_mode) || !strcmp(entry->d_name, unfinished)) {
            unlinkat(dirfd(directory), entry->d_name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
        }
    }
    if (directory) {
        closedir(directory);
    }
}

void cleanup_machine_directory(const char *path, bool everything)
{
    cleanup_files(path, everything);
    if (everything) {
        rmdir(path);
    }
}

void cleanup_runtime_directory(const char *path, bool everything)
{
    char machines[CLEANUP_PATH], one[CLEANUP_PATH + NAME_MAX + 2];

    snprintf(machines, sizeof(machines), "%s/vms", path);
    DIR *directory = opendir(machines);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!runtime_name_valid(entry->d_name)) {
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
    cleanup_files(path, false);
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

static bool cleanup_owner_lives(const char *name)
{
    char *end;
    long pid = strtol(name, &end, 10);

    return end != name && *end == '-' && pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
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
    DIR *directory = opendir(parent);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.' || cleanup_owner_lives(entry->d_name) ||
            (size_t)snprintf(path, sizeof(path), "%s/%s", parent, entry->d_name) >= sizeof(path)) {
            continue;
        }
        int lock = cleanup_lock_directory(path, true);
        if (lock < 0) {
            continue;
        }
        log_info("removing '%s' of a vmmd that is gone", path);
        cleanup_runtime_directory(path, true);
        cleanup_files(path, true);
        close(lock);
        rmdir(path);
    }
    if (directory) {
        closedir(directory);
    }
}
