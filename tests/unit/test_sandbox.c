/* What a confined process can and cannot do any more. Each test confines a child of its own and
 * looks at what the child reports. */
#include "libshared/ipc/sandbox.h"
#include "libshared/ipc/sandbox_internal.h"
#include "tests/escape/escapes.c"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/polyvisor-test-XXXXXX";
static const char *const also[] = {"/etc/hosts", "/usr/share", "/nonexistent", NULL};
static const char *const hidden[] = {"hidden.sock", "absent.sock", NULL};
static pid_t bystander; /* another process of ours, to be left alone */

/* A try returns 0 when what it tried worked, otherwise errno. */
typedef int attempt(void);

/* Run in a child that was confined for `job`; its result. 200: confinement itself failed. */
static int confined(enum sandbox_job job, attempt *try)
{
    pid_t child = fork();
    if (child == 0) {
        struct sandbox_isolation isolation = {.directory = directory,
                                              .hidden = hidden,
                                              .also = also,
                                              .keep_user = job == SANDBOX_COMPILER,
                                              .network = job == SANDBOX_NETWORK};
        struct error err;
        if (sandbox_isolate(&isolation, &err) < 0 || sandbox_seal(job, NULL, &err) < 0) {
            fprintf(stderr, "%s\n", err.message);
            _exit(200);
        }
        _exit(try());
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "it ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static int open_in_directory(void)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/file", directory);
    return result_of(open(path, O_RDONLY));
}

/* Whether the kernel restricts what is done with files, besides which are seen. */
static bool paths_are_restricted(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 2;
}

static int connect_to(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
    return fd < 0 ? 1 : result_of(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int connect_to_hidden(void)
{
    return connect_to("hidden.sock");
}

static int connect_to_other(void)
{
    return connect_to("other.sock");
}

static int make_name_in_directory(void)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/made", directory);
    return result_of(mkdir(path, 0700));
}

static int rename_in_directory(void)
{
    char from[80], to[80];
    snprintf(from, sizeof(from), "%s/other.sock", directory);
    snprintf(to, sizeof(to), "%s/file", directory);
    return result_of(rename(from, to));
}

static int open_what_stays(void)
{
    int result = result_of(open("/etc/hosts", O_RDONLY));
    return result ? result : result_of(open("/usr/share", O_RDONLY | O_DIRECTORY));
}

static int create_file(void)
{
    return result_of(open("/tmp/escaped", O_WRONLY | O_CREAT, 0600));
}

static int make_socket(void)
{
    return result_of(socket(AF_INET, SOCK_STREAM, 0));
}

static int make_process(void)
{
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        _exit(0);
    }
    return result_of(child);
}

static int signal_other(void)
{
    return result_of(kill(bystander, 0));
}

static int trace_other(void)
{
    return result_of(ptrace(PTRACE_ATTACH, bystander, NULL, NULL));
}

static int read_other(void)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {&bystander, 1};
    return result_of(process_vm_readv(bystander, &local, 1, &remote, 1, 0));
}

static int new_namespace(void)
{
    return result_of(unshare(CLONE_NEWUSER));
}

static int control_terminal(void)
{
    return result_of(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, ""));
}

static const struct {
    const char *what;
    attempt *try;
} forbidden[] = {
    {"open a file of the host", open_password_file},
    {"open a file in its directory", open_in_directory},
    {"create a file", create_file},
    {"make a network socket", make_socket},
    {"make a Unix socket", make_unix_socket},
    {"make a process", make_process},
    {"run a program", run_program},
    {"signal another process", signal_other},
    {"trace another process", trace_other},
    {"read another process", read_other},
    {"map executable memory", map_executable},
    {"make memory executable", make_executable},
    {"become root", become_root},
    {"mount", mount_something},
    {"make a namespace", new_namespace},
    {"type into a terminal", control_terminal},
};

/* The long list, which a real devd tries, too (tests/integration/test_escape.sh). */
START_TEST(test_every_way_out_is_shut)
{
    const enum sandbox_job jobs[] = {SANDBOX_DEVICE, SANDBOX_PROCESSOR};
    ck_assert_msg(confined(jobs[_i % 2], escape_attempts[_i / 2].try) != 0, "job %d can %s", _i % 2,
                  escape_attempts[_i / 2].what);
}
END_TEST

START_TEST(test_device_cannot)
{
    ck_assert_msg(confined(SANDBOX_DEVICE, forbidden[_i].try) != 0, "it can %s",
                  forbidden[_i].what);
}
END_TEST

START_TEST(test_processor_cannot)
{
    ck_assert_msg(confined(SANDBOX_PROCESSOR, forbidden[_i].try) != 0, "it can %s",
                  forbidden[_i].what);
}
END_TEST

static void *thread_main(void *argument)
{
    return argument;
}

static int make_thread(void)
{
    pthread_t thread;
    void *result = NULL;
    int number = 7;
    if (pthread_create(&thread, NULL, thread_main, &number) || pthread_join(thread, &result)) {
        return 1;
    }
    return result == &number ? 0 : 2;
}

static int use_memory_and_pipes(void)
{
    int ends[2];
    char *memory = malloc(10 << 20);
    char byte = 0;
    if (!memory || pipe2(ends, O_CLOEXEC) < 0) {
        return 1;
    }
    memset(memory, 1, 10 << 20);
    bool moved = write(ends[1], memory, 1) == 1 && read(ends[0], &byte, 1) == 1;
    free(memory);
    return moved && byte == 1 ? 0 : 2;
}

static attempt *const allowed[] = {make_thread, use_memory_and_pipes};

START_TEST(test_device_can)
{
    ck_assert_int_eq(confined(SANDBOX_DEVICE, allowed[_i]), 0);
}
END_TEST

START_TEST(test_network_device_has_sockets)
{
    ck_assert_int_eq(confined(SANDBOX_NETWORK, make_socket), 0);
    ck_assert_int_ne(confined(SANDBOX_NETWORK, open_password_file), 0);
}
END_TEST

START_TEST(test_unix_sockets_and_no_others)
{
    ck_assert_int_eq(confined(SANDBOX_UNIX_SOCKETS, make_unix_socket), 0);
    ck_assert_int_ne(confined(SANDBOX_UNIX_SOCKETS, make_socket), 0);
    ck_assert_int_ne(confined(SANDBOX_UNIX_SOCKETS, open_password_file), 0);
    ck_assert_int_ne(confined(SANDBOX_DEVICE, make_unix_socket), 0);
}
END_TEST

START_TEST(test_compiler_has_its_directory)
{
    /* For its sockets: vmmd's records are there, too. */
    ck_assert_int_eq(confined(SANDBOX_COMPILER, connect_to_other), 0);
    ck_assert_int_ne(confined(SANDBOX_COMPILER, connect_to_hidden), 0);
    if (paths_are_restricted()) {
        ck_assert_int_eq(confined(SANDBOX_COMPILER, open_in_directory), EACCES);
        ck_assert_int_eq(confined(SANDBOX_COMPILER, make_name_in_directory), EACCES);
        ck_assert_int_eq(confined(SANDBOX_COMPILER, rename_in_directory), EACCES);
        ck_assert_int_eq(confined(SANDBOX_CONNECTOR, open_in_directory), EACCES);
    }
    ck_assert_int_ne(confined(SANDBOX_COMPILER, open_password_file), 0);
    ck_assert_int_eq(confined(SANDBOX_COMPILER, open_what_stays), 0);
    ck_assert_int_ne(confined(SANDBOX_COMPILER, make_process), 0);
    ck_assert_int_eq(confined(SANDBOX_COMPILER, make_unix_socket), 0);
    ck_assert_int_ne(confined(SANDBOX_COMPILER, make_socket), 0);
    ck_assert_int_ne(confined(SANDBOX_COMPILER, change_mode), 0); /* of a device of the host's */
    ck_assert_int_ne(confined(SANDBOX_COMPILER, map_executable), 0);
}
END_TEST

static int count_interfaces(void)
{
    int fd = open("/proc/net/dev", O_RDONLY);
    return fd < 0 ? errno : 0;
}

START_TEST(test_nothing_else_is_in_view)
{
    ck_assert_int_ne(confined(SANDBOX_COMPILER, count_interfaces), 0);
}
END_TEST

static int isolate_nowhere(void)
{
    struct sandbox_isolation isolation = {.directory = "/nonexistent/place"};
    struct error err;
    return sandbox_isolate(&isolation, &err) == -ERROR_PERMISSION && err.hint[0] ? 0 : 1;
}

START_TEST(test_failure_is_told)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(isolate_nowhere());
    }
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    chmod(address.sun_path, 0666); /* root becomes nobody */
    ck_assert_int_eq(listen(fd, 64), 0);
    return fd;
}

static void set_up(void)
{
    char path[80];
    ck_assert_ptr_nonnull(mkdtemp(directory));
    chmod(directory, 0755);
    snprintf(path, sizeof(path), "%s/file", directory);
    close(open(path, O_WRONLY | O_CREAT, 0644));
    listen_at("hidden.sock");
    listen_at("other.sock");
    bystander = fork();
    if (bystander == 0) {
        pause();
        _exit(0);
    }
}

static void tear_down(void)
{
    static const char *const names[] = {"file", "hidden.sock", "other.sock"};
    char path[80];
    kill(bystander, SIGKILL);
    waitpid(bystander, NULL, 0);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

int main(void)
{
    const int forbidden_count = sizeof(forbidden) / sizeof(forbidden[0]);
    const int allowed_count = sizeof(allowed) / sizeof(allowed[0]);
    if (SANDBOX_SANITIZED) {
        puts("skip - confinement: a program with sanitizers does not confine itself");
        return EXIT_SUCCESS;
    }
    Suite *suite = suite_create("sandbox");
    TCase *tests = tcase_create("confined");
    tcase_add_unchecked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_device_cannot, 0, forbidden_count);
    tcase_add_loop_test(tests, test_processor_cannot, 0, forbidden_count);
    tcase_add_loop_test(tests, test_every_way_out_is_shut, 0, 2 * (int)escape_count);
    tcase_add_loop_test(tests, test_device_can, 0, allowed_count);
    tcase_add_test(tests, test_network_device_has_sockets);
    tcase_add_test(tests, test_unix_sockets_and_no_others);
    tcase_add_test(tests, test_compiler_has_its_directory);
    tcase_add_test(tests, test_nothing_else_is_in_view);
    tcase_add_test(tests, test_failure_is_told);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
