/* What a vmmd that was killed leaves behind: found, verified, removed; and nothing else touched. */
#include "tests/unit/suite.h"
#include "vmmd/cleanup.h"
#include "vmmd/record.h"
#include "vmmd/spawn.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[64];

static void make_base(void)
{
    strcpy(base, "/tmp/pv-cleanup.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
}

static void remove_base(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    ck_assert_int_eq(system(command), 0);
}

static const char *below(const char *name)
{
    static char paths[4][192];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", base, name);
    return path;
}

static bool exists(const char *name)
{
    struct stat status;
    return lstat(below(name), &status) == 0;
}

static void make_socket(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", below(name));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static void make_file(const char *name)
{
    int fd = open(below(name), O_WRONLY | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static pid_t start_sleeper(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/bin/sleep", "sleep", "1000", (char *)NULL);
        _exit(127);
    }
    /* Until it is what it will be. */
    char link[64], target[256];
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
    ssize_t length;
    do {
        length = readlink(link, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
    } while (!strstr(target, "sleep"));
    return pid;
}

static bool was_killed(pid_t pid)
{
    int status = 0;

    if (waitpid(pid, &status, WNOHANG) == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return false;
    }
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* A record of one process, written to the directory `name`. */
static void write_record(const char *name, const char *program, pid_t pid, uint64_t start_time)
{
    Polyvisor__MachineRecord record = POLYVISOR__MACHINE_RECORD__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    Polyvisor__ProcessRecord process = POLYVISOR__PROCESS_RECORD__INIT;
    Polyvisor__ProcessRecord *list = &process;

    process.role = "devd/disk0";
    process.program = (char *)program;
    process.pid = pid;
    process.start_time = start_time;
    config.name = "one";
    record.config = &config;
    record.n_processes = 1;
    record.processes = &list;
    ck_assert_int_eq(record_write(below(name), &record), 0);
}

/* A runtime directory "run" with one machine in it. */
static void make_machine(pid_t pid)
{
    mkdir(below("run"), 0700);
    mkdir(below("run/vms"), 0700);
    mkdir(below("run/vms/one"), 0700);
    make_socket("run/control.sock");
    make_socket("run/vms/one/vcpud.sock");
    make_file("run/vms/one/state.new");
    write_record("run/vms/one", "sleep", pid, process_start_time(pid));
}

START_TEST(start_times_are_those_of_the_kernel)
{
    pid_t first = start_sleeper();
    uint64_t time = process_start_time(first);

    ck_assert_int_gt(time, 0);
    ck_assert_int_eq(process_start_time(first), time);
    ck_assert_int_ge(time, process_start_time(getppid()));
    ck_assert_int_ge(time, process_start_time(1));
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    ck_assert_int_eq(process_start_time(first), 0);
}
END_TEST

START_TEST(records_come_back)
{
    make_machine(getpid());
    Polyvisor__MachineRecord *record = record_read(below("run/vms/one"));
    ck_assert_ptr_nonnull(record);
    ck_assert_str_eq(record->config->name, "one");
    ck_assert(record_is_current(record));
    record->boot_id[0] ^= 1;
    ck_assert(!record_is_current(record));
    polyvisor__machine_record__free_unpacked(record, NULL);
    ck_assert_ptr_null(record_read(below("run/vms")));
    ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(damaged_records_are_refused)
{
    make_machine(getpid());
    struct stat status;
    char path[192];
    strcpy(path, below("run/vms/one/state"));
    ck_assert_int_eq(stat(path, &status), 0);
    /* Every truncation, then every byte of the header changed. */
    for (off_t size = status.st_size - 1; size >= 0; size--) {
        ck_assert_int_eq(truncate(path, size), 0);
        ck_assert_ptr_null(record_read(below("run/vms/one")));
        ck_assert_int_eq(errno, EBADMSG);
    }
    for (off_t at = 0; at < 12; at++) {
        uint8_t byte;
        write_record("run/vms/one", "sleep", getpid(), 1);
        int fd = open(below("run/vms/one/state"), O_RDWR);
        ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x40;
        ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        ck_assert_ptr_null(record_read(below("run/vms/one")));
    }
}
END_TEST

START_TEST(processes_of_an_earlier_life_are_killed)
{
    pid_t pid = start_sleeper();

    make_machine(pid);
    cleanup_runtime_directory(below("run"), false);
    ck_assert(was_killed(pid));
    ck_assert(!exists("run/control.sock"));
    ck_assert(!exists("run/vms/one/vcpud.sock"));
    ck_assert(!exists("run/vms/one/state.new"));
    ck_assert(exists("run/vms/one/state")); /* the machine is still configured */
}
END_TEST

START_TEST(a_process_that_only_has_the_pid_is_not_touched)
{
    pid_t pid = start_sleeper();

    make_machine(pid);
    write_record("run/vms/one", "sleep", pid, process_start_time(pid) + 1);
    cleanup_runtime_directory(below("run"), false);
    ck_assert_int_eq(kill(pid, 0), 0);
    write_record("run/vms/one", "devd", pid, process_start_time(pid));
    cleanup_runtime_directory(below("run"), false);
    ck_assert(!was_killed(pid));
}
END_TEST

START_TEST(nonsense_pids_are_not_touched)
{
    static const int64_t pids[] = {0, -1, 1, INT64_MAX, INT64_MIN, INT64_C(1) << 32};
    Polyvisor__MachineRecord record = POLYVISOR__MACHINE_RECORD__INIT;
    Polyvisor__ProcessRecord process = POLYVISOR__PROCESS_RECORD__INIT;
    Polyvisor__ProcessRecord *list = &process;

    mkdir(below("run"), 0700);
    record.n_processes = 1;
    record.processes = &list;
    process.program = "init";
    for (size_t i = 0; i < sizeof(pids) / sizeof(pids[0]); i++) {
        process.pid = pids[i];
        ck_assert_int_eq(cleanup_kill_processes(&record), 0);
    }
}
END_TEST

START_TEST(a_directory_has_one_lock)
{
    mkdir(below("run"), 0700);
    ck_assert_int_eq(cleanup_lock_directory(below("run"), false), -ENOENT);
    int lock = cleanup_lock_directory(below("run"), true);
    ck_assert_int_ge(lock, 0);
    ck_assert_int_eq(cleanup_lock_directory(below("run"), true), -EWOULDBLOCK);
    close(lock);
    lock = cleanup_lock_directory(below("run"), false);
    ck_assert_int_ge(lock, 0);
    close(lock);
}
END_TEST

/* A pid that no process has. */
static pid_t dead_pid(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return pid;
}

START_TEST(private_directories_without_an_owner_are_removed)
{
    char owned[64], orphan[64], locked[64];
    pid_t pid = start_sleeper();
    pid_t gone = dead_pid();

    snprintf(owned, sizeof(owned), "private/%d-0000000a", (int)getpid());
    snprintf(orphan, sizeof(orphan), "private/%d-0000000b", (int)gone);
    snprintf(locked, sizeof(locked), "private/%d-0000000c", (int)gone);
    mkdir(below("private"), 0700);
    mkdir(below(owned), 0700);
    mkdir(below(locked), 0700);
    int lock = cleanup_lock_directory(below(locked), true);
    make_machine(pid);
    ck_assert_int_eq(rename(below("run"), below(orphan)), 0);
    make_file("private/stray");

    cleanup_private_directories(below("private"));
    ck_assert(!exists(orphan));
    ck_assert(was_killed(pid));
    ck_assert(exists(owned));
    ck_assert(exists(locked));
    close(lock);
    cleanup_private_directories(below("private"));
    ck_assert(!exists(locked));
    ck_assert(exists(owned));
    cleanup_private_directories(below("absent"));
}
END_TEST

START_TEST(a_shared_folder_is_not_believed)
{
    char orphan[64];
    pid_t pid = start_sleeper();

    snprintf(orphan, sizeof(orphan), "private/%d-0000000b", (int)dead_pid());
    mkdir(below("private"), 0700);
    make_machine(pid);
    ck_assert_int_eq(rename(below("run"), below(orphan)), 0);
    chmod(below("private"), 0777);
    cleanup_private_directories(below("private"));
    ck_assert(exists(orphan));
    ck_assert(!was_killed(pid));
}
END_TEST

/* The folder that was given as a runtime directory, and its neighbours, may hold anything. */
START_TEST(what_vmmd_did_not_make_is_not_removed)
{
    static const char *const others[] = {
        "thesis.txt", "bus",     "docs/thesis.txt",      "2024-photos/cat.jpg",
        "notes/lock", "run/bus", "run/vms/one/disk.img", "run/vms/linked/state"};
    pid_t pid = start_sleeper();

    make_machine(pid);
    mkdir(below("docs"), 0700);
    mkdir(below("notes"), 0700);
    mkdir(below("2024-photos"), 0700);
    ck_assert_int_eq(symlink("../../docs", below("run/vms/linked")), 0);
    make_file("docs/state");
    make_socket("bus");
    make_socket("run/bus");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (!exists(others[i])) {
            make_file(others[i]);
        }
    }
    char link[64];
    snprintf(link, sizeof(link), "%d-0000000a", (int)dead_pid());
    ck_assert_int_eq(symlink("docs", below(link)), 0);

    cleanup_runtime_directory(below("run"), true);
    cleanup_private_directories(base);
    ck_assert(was_killed(pid));
    ck_assert(!exists("run/control.sock"));
    ck_assert(!exists("run/vms/one/state"));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_msg(exists(others[i]), "%s was removed", others[i]);
    }
    ck_assert(!exists("docs/lock"));
    ck_assert(exists("docs/state"));
}
END_TEST

START_TEST(a_process_waits_at_the_gate)
{
    char *argv[] = {"touch", (char *)below("ran"), NULL};
    struct fdlist list = {0};
    struct spawn_gate gate;
    pid_t pid;
    int pidfd, status;

    ck_assert_int_eq(spawn_gate_open(&gate), 0);
    ck_assert_int_eq(spawn_process(&gate, "/usr/bin/touch", argv, &list, &pid, &pidfd), 0);
    ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0);
    ck_assert(!exists("ran"));
    spawn_gate_release(&gate);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(exists("ran"));
    spawn_gate_close(&gate);
    close(pidfd);
}
END_TEST

START_TEST(a_process_whose_gate_closes_leaves)
{
    char *argv[] = {"touch", (char *)below("ran"), NULL};
    struct fdlist list = {0};
    struct spawn_gate gate;
    pid_t pids[2];
    int pidfds[2], status;

    ck_assert_int_eq(spawn_gate_open(&gate), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(spawn_process(&gate, "/usr/bin/touch", argv, &list, &pids[i], &pidfds[i]),
                         0);
    }
    spawn_gate_close(&gate);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_int_ne(status, 0);
        close(pidfds[i]);
    }
    ck_assert(!exists("ran"));
}
END_TEST

START_TEST(a_process_has_only_what_it_was_given)
{
    static const char script[] =
        "echo x >&$GIVEN; cat /dev/stdin >>\"$OUT\"; "
        "test $(ps -o sid= $$) = $$ && echo leader >>\"$OUT\"; "
        "env | grep ^POLYVISOR_FDS >>\"$OUT\"; exec ls /proc/self/fd >>\"$OUT\"";
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    struct fdlist list = {0};
    struct spawn_gate gate;
    char number[16], text[256] = "", expected[64];
    int ends[2], pidfd;
    pid_t pid;

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    int secret = open("/etc/passwd", O_RDONLY); /* as another library might have opened it */
    spawn_protect_descriptors(3);
    snprintf(number, sizeof(number), "%d", ends[1]);
    setenv("GIVEN", number, 1);
    setenv("OUT", below("out"), 1);
    fdlist_add(&list, ends[1], "pipe");
    ck_assert_int_eq(spawn_gate_open(&gate), 0);
    ck_assert_int_eq(spawn_process(&gate, "/bin/sh", argv, &list, &pid, &pidfd), 0);
    spawn_gate_release(&gate);
    spawn_gate_close(&gate);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(read(ends[0], text, 2), 2);
    FILE *out = fopen(below("out"), "r");
    size_t length = fread(text, 1, sizeof(text) - 1, out);
    text[length] = '\0';
    fclose(out);
    /* Three standard ones, the directory that ls reads, the pipe. */
    snprintf(expected, sizeof(expected), "leader\nPOLYVISOR_FDS=pipe=%d\n0\n1\n2\n3\n%d\n", ends[1],
             ends[1]);
    ck_assert_str_eq(text, expected);
    close(secret);
    close(ends[0]);
    close(ends[1]);
    close(pidfd);
}
END_TEST

/* A guest that writes where its disk's file may not grow to gets an error, and keeps the disk. */
START_TEST(a_process_survives_the_limit_of_file_sizes)
{
    char *argv[] = {"sh", "-c", "ulimit -f 0; echo x >\"$OUT\"; exit 7", NULL};
    struct fdlist list = {0};
    struct spawn_gate gate;
    int pidfd, status;
    pid_t pid;

    setenv("OUT", below("out"), 1);
    ck_assert_int_eq(spawn_gate_open(&gate), 0);
    ck_assert_int_eq(spawn_process(&gate, "/bin/sh", argv, &list, &pid, &pidfd), 0);
    spawn_gate_release(&gate);
    spawn_gate_close(&gate);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 7);
    close(pidfd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmmd: clean-up");
    TCase *tests = tcase_create("clean-up");

    tcase_add_checked_fixture(tests, make_base, remove_base);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, start_times_are_those_of_the_kernel);
    tcase_add_test(tests, records_come_back);
    tcase_add_test(tests, damaged_records_are_refused);
    tcase_add_test(tests, processes_of_an_earlier_life_are_killed);
    tcase_add_test(tests, a_process_that_only_has_the_pid_is_not_touched);
    tcase_add_test(tests, nonsense_pids_are_not_touched);
    tcase_add_test(tests, a_directory_has_one_lock);
    tcase_add_test(tests, private_directories_without_an_owner_are_removed);
    tcase_add_test(tests, a_shared_folder_is_not_believed);
    tcase_add_test(tests, what_vmmd_did_not_make_is_not_removed);
    tcase_add_test(tests, a_process_waits_at_the_gate);
    tcase_add_test(tests, a_process_whose_gate_closes_leaves);
    tcase_add_test(tests, a_process_has_only_what_it_was_given);
    tcase_add_test(tests, a_process_survives_the_limit_of_file_sizes);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
