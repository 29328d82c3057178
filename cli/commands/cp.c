/* vmctl cp: copy files between host and guest. */
#include "cli/guest_session.h"
#include "cli/guest_vsock.h"
#include "cli/output.h"
#include "cli/unpack.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* A guest can send without end: so much of a file system stays free, if that is less than a
 * twentieth of it. */
#define SPARE_BYTES (UINT64_C(256) << 20)
#define LOOK_BYTES  (UINT64_C(1) << 20) /* how often that is looked at */

struct cp_settings {
    bool recursive;
    char *vsock;
    uint64_t limit;
    uint32_t wait_ms;
};

static const struct option_spec options[] = {
    {.name = "recursive",
     .letter = 'r',
     .type = &option_flag,
     .summary = "copy a folder with all that is in it; needs tar in the guest, and to copy there "
                "on the host",
     .offset = offsetof(struct cp_settings, recursive)},
    {.name = "limit",
     .type = &option_size,
     .argument = "SIZE",
     .summary = "from a guest: give up when it sends more than that; without this, when the "
                "host's file system is nearly full",
     .offset = offsetof(struct cp_settings, limit)},
    {.name = "wait",
     .type = &option_duration,
     .argument = "DURATION",
     .default_value = "0",
     .summary = "how long to wait for a guest whose agent is not up yet",
     .offset = offsetof(struct cp_settings, wait_ms)},
    {.name = "vsock",
     .type = &option_file,
     .argument = "FILE",
     .summary = "the machine's vsock, instead of asking vmmd; NAME may then be anything",
     .offset = offsetof(struct cp_settings, vsock)},
    {.name = NULL},
};

struct copy {
    const struct invocation *invocation;
    const struct cp_settings *settings;
    const struct signals *signals;
    char vsock[PATH_MAX];
    const char *from, *to;
    bool to_guest;
    int place;       /* a descriptor of the file system that fills up; -1: none */
    uint64_t looked; /* bytes taken when its room was looked at last */
};

/* ---- What a guest may send ---- */

static bool is_nearly_full(int place)
{
    struct statvfs info;

    if (place < 0 || fstatvfs(place, &info) < 0) {
        return false;
    }
    uint64_t spare = (uint64_t)info.f_blocks * info.f_frsize / 20;
    return (uint64_t)info.f_bavail * info.f_frsize < (spare < SPARE_BYTES ? spare : SPARE_BYTES);
}

/* guest_command.taken: is there to be more of it? */
static int check_taken(void *context, uint64_t taken, struct error *err)
{
    struct copy *copy = context;
    uint64_t limit = copy->settings->limit;

    if (limit != 0 && taken > limit) {
        error_set(err, ERROR_IO, EFBIG, "the guest sends more than the %llu bytes of --limit",
                  (unsigned long long)limit);
        error_hint(err, "give a larger --limit, if you trust the guest");
        return -ERROR_IO;
    }
    if (taken - copy->looked < LOOK_BYTES) {
        return 0;
    }
    copy->looked = taken;
    if (is_nearly_full(copy->place)) {
        error_set(err, ERROR_IO, ENOSPC, "the host's file system of '%.150s' is nearly full",
                  copy->to);
        error_hint(err, "make room, or copy to another file system");
        return -ERROR_IO;
    }
    return 0;
}

/* ---- In the guest ---- */

/* Run it there; anything but success is an error, told by what it said. */
static int in_guest(struct copy *copy, uint32_t flags, const char *const *arguments, int input,
                    int output, struct error *err)
{
    struct guest_outcome outcome = {0};
    const struct guest_command command = {
        .flags = flags,
        .arguments = arguments,
        .input = input,
        .output = {output, STDERR_FILENO},
        .printable = {[AGENT_STDERR] = true},
        .wait_ms = copy->settings->wait_ms,
        .signals = copy->signals,
        .taken = check_taken,
        .taken_context = copy,
    };
    int status = guest_session_run(copy->vsock, &command, &outcome, err);

    if (status == 0 && guest_exit_status(&outcome, arguments[0], err) != 0) {
        if (!outcome.cause) {
            error_set(err, ERROR_GUEST, 0, "the guest could not copy '%.150s'",
                      copy->to_guest ? copy->to : copy->from);
        }
        status = -ERROR_GUEST;
    }
    return status;
}

/* Whether a path of the guest is a folder. */
static int is_guest_folder(struct copy *copy, const char *path, bool *folder, struct error *err)
{
    const char *const arguments[] = {"kind", path, NULL};
    char answer[16] = "";
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make a pipe: %s", strerror(errno));
    }
    int status = in_guest(copy, AGENT_START_BUILTIN, arguments, -1, ends[1], err);
    close(ends[1]);
    if (status == 0 && read(ends[0], answer, sizeof(answer) - 1) < 0) {
        answer[0] = '\0';
    }
    close(ends[0]);
    *folder = strncmp(answer, "folder", 6) == 0;
    return status;
}

/* ---- One file ---- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int host_error(const char *what, const char *path, struct error *err)
{
    return error_set(err, ERROR_IO, errno, "cannot %s '%.150s': %s", what, path, strerror(errno));
}

static int file_to_guest(struct copy *copy, struct error *err)
{
    char target[PATH_MAX], mode[8];
    const char *const arguments[] = {"put", target, mode, NULL};
    struct stat info;
    bool folder = false;
    int fd = open(copy->from, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) < 0) {
        int status = host_error("read", copy->from, err);
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    if (S_ISDIR(info.st_mode)) {
        close(fd);
        error_set(err, ERROR_USAGE, EISDIR, "'%.150s' is a folder", copy->from);
        error_hint(err, "-r copies it with all that is in it");
        return -ERROR_USAGE;
    }
    int status = is_guest_folder(copy, copy->to, &folder, err);
    snprintf(target, sizeof(target), folder ? "%s/%s" : "%s", copy->to, last_part(copy->from));
    snprintf(mode, sizeof(mode), "%o", (unsigned)(info.st_mode & 07777));
    status = status ? status : in_guest(copy, AGENT_START_BUILTIN, arguments, fd, -1, err);
    close(fd);
    return status;
}

/* It appears whole, or not at all. */
static int file_from_guest(struct copy *copy, struct error *err)
{
    const char *const arguments[] = {"get", copy->from, NULL};
    char target[PATH_MAX], beside[PATH_MAX + 8];
    struct stat info;
    bool folder = stat(copy->to, &info) == 0 && S_ISDIR(info.st_mode);
    mode_t mask = umask(0);

    umask(mask);
    if (strcmp(copy->to, "-") == 0) {
        return in_guest(copy, AGENT_START_BUILTIN, arguments, -1, STDOUT_FILENO, err);
    }
    snprintf(target, sizeof(target), folder ? "%s/%s" : "%s", copy->to, last_part(copy->from));
    snprintf(beside, sizeof(beside), "%s.XXXXXX", target);
    int fd = mkostemp(beside, O_CLOEXEC);
    if (fd < 0) {
        return host_error("write", target, err);
    }
    copy->place = fd;
    int status = in_guest(copy, AGENT_START_BUILTIN, arguments, -1, fd, err);
    if (status == 0 && (fchmod(fd, 0666 & ~mask) < 0 || rename(beside, target) < 0)) {
        status = host_error("write", target, err);
    }
    close(fd);
    if (status != 0) {
        unlink(beside);
    }
    return status;
}

/* ---- Folders: what tar makes at one end is unpacked at the other ---- */

/* Start tar of the host, and return the descriptor that it writes to; -1 on error. */
static int start_tar(char *const *arguments, pid_t *child, struct error *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        host_error("make", "a pipe", err);
        return -1;
    }
    *child = fork();
    if (*child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        dup2(ends[1], STDOUT_FILENO);
        execvp("tar", arguments);
        fprintf(stderr, "tar: %s\n", strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    if (*child < 0) {
        host_error("start", "tar", err);
        close(ends[0]);
        return -1;
    }
    return ends[0];
}

/* `what` it was for. */
static int await(pid_t child, int status, const char *what, struct error *err)
{
    int ended = 0;

    while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
    }
    if (status == 0 && (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)) {
        status = error_set(err, ERROR_IO, 0, "%s", what);
    }
    return status;
}

static int folder_to_guest(struct copy *copy, struct error *err)
{
    char *const here[] = {"tar", "-C", (char *)copy->from, "-cf", "-", ".", NULL};
    const char *const there[] = {"tar", "-C", copy->to, "-xf", "-", NULL};
    const char *const make[] = {"mkdir", "-p", copy->to, NULL};
    pid_t child;
    int status = in_guest(copy, 0, make, -1, -1, err);

    if (status != 0) {
        return status;
    }
    int fd = start_tar(here, &child, err);
    if (fd < 0) {
        return -ERROR_IO;
    }
    status = in_guest(copy, 0, there, fd, -1, err);
    close(fd);
    return await(child, status, "tar failed on the host", err);
}

static int folder_from_guest(struct copy *copy, struct error *err)
{
    const char *const there[] = {"tar", "-C", copy->from, "-cf", "-", ".", NULL};
    pid_t child;

    if (mkdir(copy->to, 0777) < 0 && errno != EEXIST) {
        return host_error("make", copy->to, err);
    }
    int fd = unpack_start(copy->to, &child, err);
    if (fd < 0) {
        return fd;
    }
    copy->place = open(copy->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status = in_guest(copy, 0, there, -1, fd, err);
    close(fd);
    if (copy->place >= 0) {
        close(copy->place);
    }
    return await(child, status, "not all that the guest sent could be made", err);
}

/* ---- The command ---- */

/* "NAME:PATH": the path, with the name in `name`. NULL: a path of the host. */
static const char *guest_path(const char *word, char *name, size_t size)
{
    const char *colon = strchr(word, ':');

    if (!colon || word[0] == '/' || word[0] == '.' || colon[1] == '\0' ||
        (size_t)(colon - word) >= size) {
        return NULL;
    }
    snprintf(name, size, "%.*s", (int)(colon - word), word);
    return runtime_name_valid(name) ? colon + 1 : NULL;
}

static int run(const struct invocation *invocation, struct error *err)
{
    struct copy copy = {.invocation = invocation, .settings = invocation->settings, .place = -1};
    char name[MACHINE_NAME_MAX + 1];
    const char *from = guest_path(invocation->positionals[0], name, sizeof(name));
    const char *to = guest_path(invocation->positionals[1], name, sizeof(name));
    struct signals signals;

    if (!from == !to) {
        error_set(err, ERROR_USAGE, 0, "one of the two must be a guest's: NAME:PATH");
        error_hint(err, "vmctl cp FILE NAME:PATH, or vmctl cp NAME:PATH FILE");
        return -ERROR_USAGE;
    }
    copy.to_guest = to != NULL;
    copy.from = from ? from : invocation->positionals[0];
    copy.to = to ? to : invocation->positionals[1];
    int status = guest_vsock_path(invocation, name, copy.settings->vsock, copy.vsock,
                                  sizeof(copy.vsock), err);
    status = status ? status : signals_open(&signals, err);
    if (status != 0) {
        return status;
    }
    copy.signals = &signals;
    if (copy.settings->recursive) {
        status = copy.to_guest ? folder_to_guest(&copy, err) : folder_from_guest(&copy, err);
    } else {
        status = copy.to_guest ? file_to_guest(&copy, err) : file_from_guest(&copy, err);
    }
    signals_close(&signals);
    return status;
}

const struct command command_cp = {
    .name = "cp",
    .summary = "copy files between host and guest",
    .usage = "[OPTION...] FILE NAME:PATH | NAME:PATH FILE",
    .description =
        "Copies one file in either direction; it appears whole or not at all. Into a folder, it "
        "keeps its name; to the host's '-' means standard output. With -r what is in the first "
        "folder is put into the second, which is made; a guest's files come without owners, "
        "set-user bits and devices. The guest must run polyvisor-agent, and the machine must have "
        "a vsock.\n"
        "A guest can send without end, whatever it was asked for: --limit bounds it. Copying stops "
        "in any case before the host's file system is full (256 MiB, or a twentieth of it, stay "
        "free); what came of a tree so far is left.\n",
    .options = options,
    .settings_size = sizeof(struct cp_settings),
    .positional = POSITIONAL_FILE,
    .positionals_min = 2,
    .positionals_max = 2,
    .examples = {{"vmctl cp program build1:/usr/local/bin/", "Bring a program to build1"},
                 {"vmctl cp build1:/var/log/syslog -", "Print a file of build1"},
                 {"vmctl cp -r src build1:/work/src", "Copy a tree"},
                 {"vmctl cp -r --limit 1G build1:/results results",
                  "Take a tree from a guest that is not trusted"}},
    .run = run,
};
