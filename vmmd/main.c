/* vmmd: owns machines, starts and watches their processes, serves vmctl. */
#include "libshared/base/error.h"
#include "libshared/base/log.h"
#include "libshared/base/scheduling.h"
#include "libshared/ipc/runtime.h"
#include "vmmd/cleanup.h"
#include "vmmd/notify.h"
#include "vmmd/spawn.h"
#include "vmmd/supervisor.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPARES_S     10u
#define SPARES_MAX_S 86400u

struct options {
    char directory[RUNTIME_PATH_MAX];
    int leash_fd; /* --private, or -1 */
    unsigned spare_s;
    bool done; /* --help and --version say all */
};

static const char usage[] =
    "usage: vmmd [--runtime-dir DIR] [--private FD] [--spares SECONDS] [--log LEVEL]\n"
    "\n"
    "The supervisor of virtual machines. Stays in the foreground; control it with vmctl.\n"
    "\n"
    "  --runtime-dir DIR  where its sockets are (default: $POLYVISOR_RUNTIME_DIR, or\n"
    "                     /run/polyvisor for root, or $XDG_RUNTIME_DIR/polyvisor)\n"
    "  --private FD       serve one client: stop everything and end when the other end of this\n"
    "                     inherited pipe (or socket, which then gets a byte when the control\n"
    "                     socket is there) is closed, and leave no file behind\n"
    "  --spares SECONDS   a device that has run for so long gets a process that stands by to take\n"
    "                     its place (0: once it has died, for the next time; default: 10)\n"
    "  --log LEVEL        error, warning, info or debug, on standard error (default: warning)\n"
    "  --version          print the version\n";

static int parse_descriptor(const char *text, int *fd, struct error *err)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (end == text || *end || number < 3 || number > INT_MAX || fcntl((int)number, F_GETFD) < 0) {
        return error_set(err, ERROR_USAGE, 0, "--private needs an open descriptor, not '%s'", text);
    }
    *fd = (int)number;
    return 0;
}

static int parse_spares(const char *text, unsigned *seconds, struct error *err)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || number > SPARES_MAX_S) {
        return error_set(err, ERROR_USAGE, 0, "--spares takes 0 to %u seconds, not '%s'",
                         SPARES_MAX_S, text);
    }
    *seconds = (unsigned)number;
    return 0;
}

static int parse_level(const char *text, struct error *err)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (!strcmp(text, levels[i])) {
            setenv("POLYVISOR_LOG", text, 1); /* for the children too */
            return 0;
        }
    }
    error_set(err, ERROR_USAGE, 0, "unknown log level '%s'", text);
    error_hint(err, "error, warning, info or debug");
    return -ERROR_USAGE;
}

static int parse_options(int argc, char **argv, struct options *options, struct error *err)
{
    static const struct option known[] = {
        {"runtime-dir", required_argument, NULL, 'r'},
        {"private", required_argument, NULL, 'p'},
        {"log", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {"spares", required_argument, NULL, 's'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    int option, result = 0;

    *options = (struct options){.leash_fd = -1, .spare_s = SPARES_S};
    opterr = 0;
    while (!result && (option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'r':
            if (strlen(optarg) >= RUNTIME_PATH_MAX) {
                result = error_set(err, ERROR_USAGE, 0, "--runtime-dir: at most %d characters",
                                   RUNTIME_PATH_MAX - 1);
            } else {
                strcpy(options->directory, optarg);
            }
            break;
        case 'p':
            result = parse_descriptor(optarg, &options->leash_fd, err);
            break;
        case 's':
            result = parse_spares(optarg, &options->spare_s, err);
            break;
        case 'l':
            result = parse_level(optarg, err);
            break;
        case 'h':
        case 'V':
            fputs(option == 'h' ? usage : "vmmd " POLYVISOR_VERSION "\n", stdout);
            options->done = true;
            return 0;
        default:
            result = error_set(err, ERROR_USAGE, 0, "unknown option or missing argument: '%s'",
                               argv[optind - 1]);
            error_hint(err, "see vmmd --help");
        }
    }
    if (!result && optind < argc) {
        result = error_set(err, ERROR_USAGE, 0, "unexpected argument '%s'", argv[optind]);
        error_hint(err, "see vmmd --help");
    }
    if (!result && !options->directory[0]) {
        result = runtime_default_directory(options->directory, err);
    }
    return result;
}

/* Descriptors 0 to 2 exist, no other reaches a child by accident, there may be many, and a client
 * that went away or a file that may not grow is an error code, not a signal. */
static void prepare_process(void)
{
    struct rlimit limit;
    int fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO && fcntl(fd, F_SETFD, 0) == 0);
    if (fd > STDERR_FILENO) {
        close(fd);
    }
    spawn_protect_descriptors(STDERR_FILENO + 1);
    scheduling_set(
        SCHEDULING_PROMPT); /* guests compute for as long as they may; a death is urgent */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    umask(077);
}

/* The folder of this program: vcpud and devd stand beside it. */
static int find_programs(char path[PATH_MAX], struct error *err)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

    if (length <= 0) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot read /proc/self/exe: %s",
                         strerror(errno));
    }
    path[length] = '\0';
    *strrchr(path, '/') = '\0';
    return 0;
}

/* Own the runtime directory. The descriptor of its lock, or a negative code. */
static int take_directory(const char *directory, struct error *err)
{
    int result = runtime_make_directory(directory, err);

    if (result) {
        return result;
    }
    int lock = cleanup_lock_directory(directory, true);
    if (lock == -EWOULDBLOCK) {
        error_set(err, ERROR_BUSY, 0, "another vmmd runs in '%s'", directory);
        error_hint(err, "use it with vmctl, or choose another directory with --runtime-dir");
        return -ERROR_BUSY;
    }
    if (lock < 0) {
        return error_set(err, ERROR_IO, -lock, "cannot lock '%s': %s", directory, strerror(-lock));
    }
    return lock;
}

/* What vmmds that were killed left behind: here, and in the places of private ones. */
static void clean_up_after_others(const struct options *options)
{
    char path[RUNTIME_PATH_MAX + 16];
    bool is_private = options->leash_fd >= 0;

    cleanup_runtime_directory(options->directory, is_private);
    if (runtime_default_directory(path, NULL) == 0) {
        strcat(path, "/private");
        cleanup_private_directories(path);
    }
    strcpy(path, options->directory);
    if (!is_private) {
        strcat(path, "/private");
        cleanup_private_directories(path);
    } else if (strrchr(path, '/') > path) {
        *strrchr(path, '/') = '\0';
        cleanup_private_directories(path);
    }
}

/* Leave nothing that is of no use any more; machines that are configured stay. */
static void leave_directory(const struct options *options, int lock)
{
    char path[RUNTIME_PATH_MAX + 16];

    cleanup_runtime_directory(options->directory, options->leash_fd >= 0);
    snprintf(path, sizeof(path), "%s/lock", options->directory);
    unlink(path); /* while it is held: who waits for it will see that it is gone */
    close(lock);
    rmdir(options->directory); /* when it is empty */
}

static int report(const struct error *err)
{
    log_error("%s: %s%s%s%s", error_code_text(err->code), err->message, err->hint[0] ? " (" : "",
              err->hint, err->hint[0] ? ")" : "");
    return error_exit_status(err->code);
}

int main(int argc, char **argv)
{
    struct options options;
    struct error err;
    char programs[PATH_MAX];

    log_open("vmmd");
    if (parse_options(argc, argv, &options, &err)) {
        return report(&err);
    }
    if (options.done) {
        return 0;
    }
    log_open("vmmd"); /* again: --log may have changed the level */
    prepare_process();
    if (find_programs(programs, &err)) {
        return report(&err);
    }

    int lock = take_directory(options.directory, &err);
    if (lock < 0) {
        return report(&err);
    }
    clean_up_after_others(&options);

    int status = 0;
    struct supervisor *supervisor = supervisor_open(
        &(struct supervisor_options){
            .directory = options.directory,
            .programs = programs,
            .leash_fd = options.leash_fd,
            .load = options.leash_fd < 0,
            .spare_s = options.spare_s,
        },
        &err);
    if (supervisor) {
        notify_systemd("READY=1");
        if (options.leash_fd >= 0) { /* to who has a pair of sockets there; nobody else hears it */
            send(options.leash_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        supervisor_run(supervisor);
        notify_systemd("STOPPING=1");
        supervisor_close(supervisor);
    } else {
        status = report(&err);
    }
    leave_directory(&options, lock);
    return status;
}
