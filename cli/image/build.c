#include "cli/image/build.h"

#include "cli/image/scratch.h"
#include "cli/image/share.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "libshared/agent/protocol.h"
#include "libshared/base/clock.h"
#include "libshared/jit/cache_files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPORT_FD       3
#define REPORT_MAX      2048
#define SPACE_NEEDED    (UINT64_C(2) << 30)
#define END_LIMIT_MS    20000
#define SHOW_SLICE_NS   (200 * NS_PER_MS)
#define CPUS_MAX        4
#define ENVIRONMENT_MAX 24

/* ---- What people write ---- */

int image_build_parse_source(const char *text, char suite[BUILD_SUITE_MAX + 1], struct error *err)
{
    const char *colon = strchr(text, ':');
    size_t length = colon != NULL ? strlen(colon + 1) : 0;

    if (colon == NULL || length == 0 || length > BUILD_SUITE_MAX ||
        strspn(colon + 1, "abcdefghijklmnopqrstuvwxyz0123456789-") != length || colon[1] == '-') {
        error_set(err, ERROR_USAGE, 0, "'%.80s' says not what to build", text);
        error_hint(err, "DISTRIBUTION:SUITE, as in debian:trixie");
        return -ERROR_USAGE;
    }
    if (strncmp(text, "debian:", strlen("debian:")) != 0) {
        error_set(err, ERROR_UNSUPPORTED, 0, "no images of '%.*s' are built", (int)(colon - text),
                  text);
        error_hint(err, "debian is what there is, as in debian:trixie");
        return -ERROR_UNSUPPORTED;
    }
    memcpy(suite, colon + 1, length + 1);
    return 0;
}

/* Debian Policy 5.6.7. */
static bool package_valid(const char *name, size_t length)
{
    return length >= 2 && islower((unsigned char)name[0]) + isdigit((unsigned char)name[0]) > 0 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.") >= length;
}

char *image_build_parse_packages(const char *text, const char *more, struct error *err)
{
    size_t room = (text != NULL ? strlen(text) : 0) + (more != NULL ? strlen(more) : 0) + 2;
    char *list = calloc(1, room);

    if (list == NULL) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    for (const char *at = text; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, ",");
        if (!package_valid(at, length)) {
            error_set(err, ERROR_USAGE, 0, "--packages: '%.*s' is not the name of a package",
                      (int)(length < 80 ? length : 80), at);
            error_hint(err, "names separated by commas, without spaces: vim,git");
            free(list);
            return NULL;
        }
        strncat(list, at, length);
        at += length;
        at += *at == ',';
        if (*at != '\0') {
            strcat(list, " ");
        }
    }
    if (more != NULL) {
        strcat(list, list[0] != '\0' ? " " : "");
        strcat(list, more);
    }
    return list;
}

bool image_build_hostname_valid(const char *name)
{
    size_t length = strlen(name);

    return length > 0 && length <= BUILD_HOSTNAME_MAX && name[0] != '-' &&
           name[length - 1] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") ==
               length;
}

/* ---- What the recipe says ---- */

void image_build_parse_report(char *line, struct build_report *report)
{
    *report = (struct build_report){.kind = line, .words = {"", "", ""}};
    for (size_t i = 0; i < 3; i++) {
        char *tab = strchr(line, '\t');
        if (tab == NULL) {
            return;
        }
        *tab = '\0';
        line = tab + 1;
        report->words[i] = line;
    }
}

static const struct stage {
    const char *name, *text;
} stages[] = {
    {"wait", "waiting for another build"},
    {"lists", "fetching lists of packages"},
    {"download", "fetching packages"},
    {"disk", "making the disk"},
    {"unpack", "unpacking packages"},
    {"filesystem", "making the file system"},
    {"configure", "configuring packages in a machine"},
    {"packages", "installing the packages that were asked for"},
    {"script", "running the script"},
    {"finish", "finishing"},
};

struct work {
    const struct image_build *build;
    const struct globals *globals;
    struct scratch scratch;
    struct signals signals;
    char log[SCRATCH_PATH_MAX + 64];
    pid_t pid;
    int pidfd, reports;
    int signal; /* that told us to end */
    char line[REPORT_MAX];
    size_t length;
    char stage[32];
    bool shown; /* a line of progress that no line feed has ended */
    uint64_t shown_ns;
    struct error error; /* that the recipe told of */
};

static void end_line(struct work *work)
{
    if (work->shown) {
        fputs("\r\033[K", stderr);
        work->shown = false;
    }
}

static void tell_json(struct work *work, const struct build_report *report)
{
    struct error ignored;
    json_t *object = json_pack("{s:o}", "stage", output_json_text(work->stage));

    if (strcmp(report->kind, "progress") == 0) {
        json_object_set_new(object, "done", json_integer(atoll(report->words[0])));
        json_object_set_new(object, "total", json_integer(atoll(report->words[1])));
        if (report->words[2][0] != '\0') {
            json_object_set_new(object, "what", output_json_text(report->words[2]));
        }
    }
    output_json_line(object, &ignored);
}

static void tell_stage(struct work *work, const struct build_report *report)
{
    const char *text = report->words[0];

    snprintf(work->stage, sizeof(work->stage), "%s", text);
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        text = strcmp(stages[i].name, report->words[0]) == 0 ? stages[i].text : text;
    }
    if (work->globals->json) {
        tell_json(work, report);
    } else {
        end_line(work);
        output_status(work->globals, "%s", text);
    }
}

static void show_progress(const struct build_report *report)
{
    long long done = atoll(report->words[0]), total = atoll(report->words[1]);

    if (report->words[2][0] == '\0' && total > 0) {
        double part = done < 0 || done > total ? 1 : (double)done / (double)total;
        fprintf(stderr, "\r\033[K  %.0f %%", 100 * part);
        return;
    }
    fprintf(stderr, "\r\033[K  %lld of %lld ", done, total);
    output_printable(stderr, report->words[2]);
}

/* A line that the next one overwrites, a few times a second. */
static void tell_progress(struct work *work, const struct build_report *report)
{
    uint64_t now = clock_monotonic_ns();
    bool last = strcmp(report->words[0], report->words[1]) == 0;

    if (now - work->shown_ns < SHOW_SLICE_NS && !last) {
        return;
    }
    work->shown_ns = now;
    if (work->globals->json) {
        tell_json(work, report);
    } else if (!work->globals->quiet && isatty(STDERR_FILENO)) {
        show_progress(report);
        fflush(stderr);
        work->shown = true;
    }
}

static void handle_report(struct work *work)
{
    struct build_report report;

    image_build_parse_report(work->line, &report);
    if (strcmp(report.kind, "stage") == 0) {
        tell_stage(work, &report);
    } else if (strcmp(report.kind, "progress") == 0) {
        tell_progress(work, &report);
    } else if (strcmp(report.kind, "error") == 0) {
        error_set(&work->error, error_code_parse(report.words[0]), 0, "%s", report.words[1]);
        if (report.words[2][0] != '\0') {
            error_hint(&work->error, "%s", report.words[2]);
        }
    }
}

static void read_reports(struct work *work)
{
    char bytes[4096];
    ssize_t count;

    while ((count = read(work->reports, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            if (bytes[i] == '\n') {
                work->line[work->length] = '\0';
                work->length = 0;
                handle_report(work);
            } else if (work->length < sizeof(work->line) - 1) {
                work->line[work->length++] = bytes[i];
            }
        }
    }
}

/* ---- Its process ---- */

static char *variable(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *text = malloc(size);

    if (text != NULL) {
        snprintf(text, size, "%s=%s", name, value);
    }
    return text;
}

/* Our environment with the build's variables before it (the first of a name counts). */
static char **make_environment(const struct work *work, const char *agent, const char *own,
                               const char *password, const char *cache)
{
    const struct image_build *build = work->build;
    char size[32], cpus[16], agent_version[16];
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    size_t count = 0, set = 0;

    snprintf(size, sizeof(size), "%llu", (unsigned long long)build->size);
    snprintf(cpus, sizeof(cpus), "%ld", online < 1 ? 1 : online > CPUS_MAX ? CPUS_MAX : online);
    snprintf(agent_version, sizeof(agent_version), "%u", AGENT_VERSION);
    const char *const pairs[][2] = {
        {"PV_ARCH", build->arch},
        {"PV_SUITE", build->suite},
        {"PV_SIZE", size},
        {"PV_HOSTNAME", build->hostname},
        {"PV_CACHE", cache},
        {"PV_VMCTL", own},
        {"PV_AGENT", agent},
        {"PV_CPUS", cpus},
        {"PV_MIRROR", build->mirror},
        {"PV_PACKAGES", build->packages},
        {"PV_SCRIPT", build->script},
        {"PV_SSH_KEY", build->ssh_key},
        {"PV_PASSWORD_FILE", password},
        {"PV_VERSION", POLYVISOR_VERSION},
        {"PV_AGENT_VERSION", agent_version},
    };
    while (environ[count] != NULL) {
        count++;
    }
    char **list = calloc(count + ENVIRONMENT_MAX, sizeof(*list));
    if (list == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        list[set++] = variable(pairs[i][0], pairs[i][1] != NULL ? pairs[i][1] : "");
    }
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], "PV_", 3) != 0) {
            list[set++] = strdup(environ[i]);
        }
    }
    for (size_t i = 0; i < set; i++) {
        if (list[i] == NULL) {
            list[i] = strdup("PV_NONE=");
        }
    }
    return list;
}

static void free_environment(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        free(list[i]);
    }
    free(list);
}

/* Start it, in a process group of its own so that all of it can be ended together. 0 or errno. */
static int spawn(struct work *work, const char *recipe, char **environment)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int pipe_fds[2];
    char *arguments[] = {(char *)recipe, work->scratch.path, NULL};

    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return errno;
    }
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, work->log,
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], REPORT_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, REPORT_FD + 1);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    int cause = posix_spawn(&work->pid, recipe, &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(pipe_fds[1]);
    if (cause != 0) {
        close(pipe_fds[0]);
        return cause;
    }
    work->reports = pipe_fds[0];
    fcntl(work->reports, F_SETFL, O_NONBLOCK);
    work->pidfd = (int)syscall(SYS_pidfd_open, work->pid, 0);
    return 0;
}

/* Stay until it has ended. Its exit status as waitpid(2) has it. */
static int follow(struct work *work)
{
    uint64_t give_up_ns = 0;
    int status = 0;

    for (;;) {
        struct pollfd watched[] = {{.fd = work->pidfd, .events = POLLIN},
                                   {.fd = work->reports, .events = POLLIN},
                                   {.fd = work->signals.fd, .events = POLLIN}};
        poll(watched, 3, 1000);
        read_reports(work);
        if (waitpid(work->pid, &status, WNOHANG) == work->pid) {
            break;
        }
        int signal = watched[2].revents != 0 ? signals_take(&work->signals) : 0;
        if (signals_end(signal) && work->signal == 0) {
            work->signal = signal;
            give_up_ns = clock_monotonic_ns() + END_LIMIT_MS * NS_PER_MS;
            kill(-work->pid, SIGTERM);
        } else if (signal == SIGTSTP) {
            kill(-work->pid, SIGSTOP);
            signals_suspend();
            kill(-work->pid, SIGCONT);
        }
        if (give_up_ns != 0 && clock_monotonic_ns() > give_up_ns) {
            kill(-work->pid, SIGKILL);
        }
    }
    kill(-work->pid, SIGTERM); /* what it may have left */
    read_reports(work);
    end_line(work);
    return status;
}

/* ---- From start to end ---- */

static int write_password(const struct work *work, char *path, size_t room, struct error *err)
{
    const char *password = work->build->password;

    path[0] = '\0';
    if (password == NULL) {
        return 0;
    }
    snprintf(path, room, "%s/password", work->scratch.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t length = strlen(password);
    bool written =
        fd >= 0 && write(fd, password, length) == (ssize_t)length && write(fd, "\n", 1) == 1;
    int cause = errno;
    if (fd >= 0) {
        close(fd);
    }
    return written ? 0
                   : error_set(err, ERROR_IO, cause, "cannot write '%.200s': %s", path,
                               strerror(cause));
}

static int check_space(const struct work *work, struct error *err)
{
    struct statvfs info;

    if (statvfs(work->scratch.path, &info) == 0 &&
        (uint64_t)info.f_bavail * info.f_frsize < SPACE_NEEDED) {
        error_set(err, ERROR_IO, ENOSPC, "no space to build in: '%.200s' has less than 2 GiB left",
                  work->scratch.path);
        error_hint(err, "remove something, or choose another folder with POLYVISOR_CACHE_DIR");
        return -ERROR_IO;
    }
    return 0;
}

/* The folder that is kept between builds, and the place of the log. */
static int prepare(struct work *work, char cache[CACHE_DIRECTORY_MAX + 16], struct error *err)
{
    char base[CACHE_DIRECTORY_MAX];

    int status = scratch_open(&work->scratch, err);
    if (status != 0 || !cache_default_directory(base, err)) {
        return status != 0 ? status : -(int)err->code;
    }
    snprintf(cache, CACHE_DIRECTORY_MAX + 16, "%s/images", base);
    if (mkdir(cache, 0700) < 0 && errno != EEXIST) {
        return error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", cache, strerror(errno));
    }
    snprintf(work->log, sizeof(work->log), "%s/build-%d.log", cache, (int)getpid());
    unlink(work->log);
    return check_space(work, err);
}

/* The finished disk gets its place, whole or not at all. */
static int put_in_place(const struct work *work, struct error *err)
{
    char made[SCRATCH_PATH_MAX + 16], beside[PATH_MAX + 8];
    const char *output = work->build->output;

    snprintf(made, sizeof(made), "%s/disk.img", work->scratch.path);
    if (work->build->password != NULL) {
        chmod(made, 0600);
    }
    if (rename(made, output) == 0) {
        return 0;
    }
    if (errno != EXDEV) {
        return error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                         "cannot put the image in '%.200s': %s", output, strerror(errno));
    }
    snprintf(beside, sizeof(beside), "%s.new", output);
    unlink(beside);
    int status = scratch_copy(made, beside, err);
    if (status == 0 && rename(beside, output) < 0) {
        status =
            error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", output, strerror(errno));
        unlink(beside);
    }
    return status;
}

static int finish(struct work *work, int ended, struct error *err)
{
    if (work->signal != 0) {
        unlink(work->log);
        return 128 + work->signal;
    }
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) {
        int status = put_in_place(work, err);
        unlink(work->log);
        return status;
    }
    if (work->error.code == ERROR_OK) {
        error_set(&work->error, ERROR_IO, 0, "building the image failed (%s %d)",
                  WIFSIGNALED(ended) ? "signal" : "status",
                  WIFSIGNALED(ended) ? WTERMSIG(ended) : WEXITSTATUS(ended));
    }
    *err = work->error;
    size_t length = strlen(err->hint);
    snprintf(err->hint + length, sizeof(err->hint) - length, "%sthe log is %s",
             length != 0 ? "; " : "", work->log);
    return -(int)err->code;
}

static int build_it(struct work *work, struct error *err)
{
    char recipe[PATH_MAX], agent[PATH_MAX], own[PATH_MAX], name[64];
    char cache[CACHE_DIRECTORY_MAX + 16], password[SCRATCH_PATH_MAX + 16];
    int status = prepare(work, cache, err);

    snprintf(name, sizeof(name), "agent/%s/polyvisor-agent", work->build->arch);
    if (status == 0) {
        status = share_path("image/build-image", recipe, err);
    }
    if (status == 0) {
        status = share_path(name, agent, err);
    }
    if (status == 0) {
        status = share_own_program(own, err);
    }
    if (status == 0) {
        status = write_password(work, password, sizeof(password), err);
    }
    if (status != 0) {
        return status;
    }
    char **environment = make_environment(work, agent, own, password[0] ? password : NULL, cache);
    int cause = environment != NULL ? spawn(work, recipe, environment) : ENOMEM;
    free_environment(environment);
    if (cause != 0) {
        return error_set(err, ERROR_IO, cause, "cannot start %.200s: %s", recipe, strerror(cause));
    }
    int ended = follow(work);
    close(work->reports);
    close(work->pidfd);
    return finish(work, ended, err);
}

int image_build_run(const struct image_build *build, const struct invocation *invocation,
                    struct error *err)
{
    struct work *work = calloc(1, sizeof(*work));

    if (work == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    work->build = build;
    work->globals = invocation->globals;
    int status = signals_open(&work->signals, err);
    if (status == 0) {
        status = build_it(work, err);
        scratch_close(&work->scratch);
        signals_close(&work->signals);
    }
    free(work);
    return status;
}
