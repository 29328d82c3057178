#include "agent/power.h"

#include <dirent.h>
#include <errno.h>
#include <mntent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KERNEL_THREAD 0x00200000u /* proc(5): PF_KTHREAD of the flags */
#define PATIENCE_MS   3000        /* for processes that were asked to end */
#define LOOK_MS       20
#define MOUNTS_MAX    64u
/* systemd's SIGRTMIN+4, counted from the kernel's first one that libraries leave alone. */
#define SYSTEMD_POWER_OFF 38

static const struct {
    const char *program;
    int command;
} ways[] = {
    [POWER_OFF] = {"poweroff", RB_POWER_OFF},
    [POWER_REBOOT] = {"reboot", RB_AUTOBOOT},
};

/* ---- With an init ---- */

/* The signals that a line of /proc/1/status names. */
static uint64_t signals_of_init(const char *title)
{
    FILE *file = fopen("/proc/1/status", "re");
    size_t length = strlen(title);
    uint64_t mask = 0;
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, title, length) == 0) {
            mask = strtoull(line + length, NULL, 16);
        }
    }
    if (file) {
        fclose(file);
    }
    return mask;
}

/* A script's name is its interpreter's. */
static bool is_called_init(void)
{
    FILE *file = fopen("/proc/1/cmdline", "re");
    char line[256] = "";

    if (file) {
        line[fread(line, 1, sizeof(line) - 1, file)] = '\0';
        fclose(file);
    }
    const char *slash = strrchr(line, '/');
    return strncmp(slash ? slash + 1 : line, "init", 4) == 0; /* "init [2]", too */
}

/* Whether process 1 can be asked to end the machine. A shell or script cannot: the signal that
 * `poweroff` sends is nothing to it, and no error either. */
static bool has_init(void)
{
    static const char *const doors[] = {"/run/systemd/system", "/run/initctl", "/dev/initctl",
                                        "/run/openrc", "/run/runit"};
    static const int signals[] = {SIGUSR1, SIGUSR2, SIGPWR, SYSTEMD_POWER_OFF};
    /* Those that are read from a descriptor are blocked. Those that busybox waits for are neither,
     * to the eye: hence its name. */
    uint64_t heeded = signals_of_init("SigCgt:") | signals_of_init("SigBlk:");

    for (unsigned i = 0; i < sizeof(doors) / sizeof(doors[0]); i++) {
        if (access(doors[i], F_OK) == 0) {
            return true;
        }
    }
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (heeded & UINT64_C(1) << (signals[i] - 1)) {
            return true;
        }
    }
    return is_called_init() ||
           access("/proc/1/status", F_OK) != 0; /* nothing is known: leave it to its programs */
}

static int run_program(const char *program)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        execlp(program, program, (char *)NULL);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* ---- Without one ---- */

/* The session of a process, or -1: it is gone, or one of the kernel's. */
static long session_of(pid_t pid)
{
    char name[64], line[512];
    long session = -1;
    unsigned flags = 0;

    snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(name, "re");
    if (file && fgets(line, sizeof(line), file)) {
        char *behind = strrchr(line, ')'), state;
        if (!behind ||
            sscanf(behind + 1, " %c %*d %*d %ld %*d %*d %u", &state, &session, &flags) != 3 ||
            state == 'Z' || flags & KERNEL_THREAD) {
            session = -1;
        }
    }
    if (file) {
        fclose(file);
    }
    return session;
}

/* Send all processes a signal (0: none) but us and ours, and those of process 1's session: a script
 * that runs as process 1 may end with its children, and the kernel would panic. How many. */
static unsigned signal_others(int number)
{
    long spared = session_of(1);
    DIR *processes = opendir("/proc");
    unsigned count = 0;

    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        long session = pid > 1 && pid != getpid() && pid != getppid() ? session_of(pid) : -1;
        if (session >= 0 && session != spared) {
            count++;
            kill(pid, number);
        }
    }
    if (processes) {
        closedir(processes);
    }
    return count;
}

static void end_processes(void)
{
    static const struct timespec look = {.tv_nsec = LOOK_MS * 1000000};

    signal_others(SIGTERM);
    signal_others(SIGCONT);
    for (unsigned waited = 0; signal_others(0) && waited < PATIENCE_MS; waited += LOOK_MS) {
        nanosleep(&look, NULL);
    }
    signal_others(SIGKILL);
}

/* Read-only, and so clean: the last mounted first. What is still being written to stays. */
static void end_file_systems(void)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    char *folders[MOUNTS_MAX];
    unsigned count = 0;

    sync();
    for (struct mntent *entry; mounts && count < MOUNTS_MAX && (entry = getmntent(mounts));) {
        folders[count] = strdup(entry->mnt_dir);
        count += folders[count] != NULL;
    }
    if (mounts) {
        endmntent(mounts);
    }
    while (count > 0) {
        mount(NULL, folders[--count], NULL, MS_REMOUNT | MS_RDONLY, NULL);
        free(folders[count]);
    }
    sync();
}

int power_end(enum power_way way)
{
    if (has_init()) {
        return run_program(ways[way].program);
    }
    end_processes();
    end_file_systems();
    reboot(ways[way].command);
    fprintf(stderr, "%s: %s\n", ways[way].program, strerror(errno));
    return 1;
}
