/* What the process of a shared directory can do if it is taken over: work in that directory, and
 * nothing else. Each try runs in a process that was confined as that one is. */
#include "libshared/ipc/sandbox.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SYS_FCHMODAT2 452 /* the same everywhere */

static char base[32], directory[64], share[64];
static int inside; /* the shared directory, in the child */

/* 0 when what was tried worked, otherwise errno. */
typedef int attempt(void);

static int result_of(long value)
{
    return value < 0 ? errno : 0;
}

static int confined(bool read_only, attempt *try)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct sandbox_isolation isolation = {.directory = directory,
                                              .keep_user = true,
                                              .share = share,
                                              .share_read_only = read_only};
        struct error err;
        if (sandbox_isolate(&isolation, &err) < 0) {
            fprintf(stderr, "%s\n", err.message);
            _exit(200);
        }
        inside = open(SANDBOX_SHARE, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (inside < 0) { /* no namespaces here: nothing to be seen */
            _exit(201);
        }
        if (sandbox_seal(SANDBOX_SHARES, NULL, &err) < 0) {
            _exit(200);
        }
        _exit(try());
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "it ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static int open_passwords(void)
{
    return result_of(open("/etc/passwd", O_RDONLY));
}

static int open_above(void)
{
    return result_of(openat(inside, "../etc/passwd", O_RDONLY));
}

static int open_above_by_link(void)
{
    return result_of(openat(inside, "way/secret", O_RDONLY));
}

static int open_processes(void)
{
    return result_of(open(SANDBOX_LINKS "/../../1/environ", O_RDONLY));
}

static int open_device(void)
{
    return result_of(openat(inside, "null", O_RDONLY));
}

static int make_device(void)
{
    return result_of(mknodat(inside, "device", S_IFCHR | 0666, makedev(1, 3)));
}

static int set_user_id(void)
{
    return result_of(fchmodat(inside, "file", 04755, 0));
}

static int set_group_id(void)
{
    return result_of(fchmodat(inside, "file", 02755, 0));
}

/* The newer call, which has flags. */
static int set_ids_by_other_call(void)
{
    return result_of(syscall(SYS_FCHMODAT2, inside, "file", 06755, 0));
}

static int set_ids_of_descriptor(void)
{
    return result_of(fchmod(openat(inside, "file", O_RDWR), 06755));
}

static int give_away(void)
{
    return result_of(fchownat(inside, "file", 1, 1, 0));
}

/* The file's right to do things that only root may. */
static int give_capabilities(void)
{
    const uint32_t all[5] = {VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, ~0u, 0, ~0u, 0};
    char path[64];
    snprintf(path, sizeof(path), "%s/file", SANDBOX_SHARE);
    return result_of(setxattr(path, "security.capability", all, sizeof(all), 0));
}

static int make_by_openat2(unsigned mode)
{
    const struct open_how how = {.flags = O_RDWR | O_CREAT | O_EXCL, .mode = mode};
    return result_of(syscall(SYS_openat2, inside, "program", &how, sizeof(how)));
}

/* Not to be run by its group, so that it keeps the bit when it gets contents. */
static int make_for_later_by_openat2(void)
{
    return make_by_openat2(02644);
}

static int make_unseen_set_user_id(void)
{
    return make_by_openat2(06755);
}

static int make_set_user_id(void)
{
    return result_of(openat(inside, "program", O_WRONLY | O_CREAT | O_EXCL, 04755));
}

static int make_set_group_id(void)
{
    return result_of(openat(inside, "program", O_WRONLY | O_CREAT | O_EXCL, 02755));
}

static int make_nameless_set_user_id(void)
{
    return result_of(openat(inside, ".", O_WRONLY | O_TMPFILE, 04755));
}

static int make_node_set_user_id(void)
{
    int result = result_of(mknodat(inside, "program", S_IFREG | 04755, 0));
    return result ? result_of(mknodat(inside, "program", S_IFREG | 02755, 0)) : 0;
}

static int make_socket(void)
{
    return result_of(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int make_process(void)
{
    return result_of(fork());
}

static int run_program(void)
{
    return result_of(execl("/bin/true", "true", (char *)NULL));
}

/* vmmd takes up its machines by the records in their folders. */
static int write_record(void)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/state", directory);
    return result_of(open(path, O_WRONLY));
}

/* Opening it to write the next record would wait for ever. */
static int make_pipe_for_record(void)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/state.new", directory);
    return result_of(mknod(path, S_IFIFO | 0666, 0));
}

static int rename_over_record(void)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/state", directory);
    int result = result_of(renameat(inside, "forged", AT_FDCWD, path));
    return result ? result : result_of(linkat(inside, "file", AT_FDCWD, path, 0));
}

static int remove_record(void)
{
    int folder = open(directory, O_PATH | O_DIRECTORY);
    return result_of(unlinkat(folder, "state", 0));
}

static const struct {
    const char *what;
    attempt *try;
} in_machine[] = {
    {"write the machine's record", write_record},
    {"make a pipe of its name", make_pipe_for_record},
    {"put another in its place", rename_over_record},
    {"remove it", remove_record},
};

START_TEST(test_the_machine_s_folder)
{
    bool restricted = syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 2;
    int result = confined(false, in_machine[_i].try);
    ck_assert_msg(result != 0 || !sandbox_confines() || !restricted, "it could %s",
                  in_machine[_i].what);
    ck_assert_int_ne(result, 200);
}
END_TEST

static const struct {
    const char *what;
    attempt *try;
} forbidden[] = {
    {"open a file of the host", open_passwords},
    {"open a file above the directory", open_above},
    {"open a file behind a link", open_above_by_link},
    {"look at other processes", open_processes},
    {"open a device", open_device},
    {"make a device", make_device},
    {"set a set-uid bit", set_user_id},
    {"set a set-gid bit", set_group_id},
    {"set both by fchmodat2", set_ids_by_other_call},
    {"set both by fchmod", set_ids_of_descriptor},
    {"give a file away", give_away},
    {"give it capabilities", give_capabilities},
    {"make a file with a set-uid bit", make_set_user_id},
    {"make one with a mode that a filter cannot see", make_unseen_set_user_id},
    {"make one that a list of access completes", make_for_later_by_openat2},
    {"make a file with a set-gid bit", make_set_group_id},
    {"make one without a name", make_nameless_set_user_id},
    {"make one as a node", make_node_set_user_id},
    {"make a socket", make_socket},
    {"make a process", make_process},
    {"run a program", run_program},
};

START_TEST(test_forbidden)
{
    int result = confined(false, forbidden[_i].try);
    ck_assert_msg(result != 0 || !sandbox_confines(), "it could %s", forbidden[_i].what);
    ck_assert_int_ne(result, 200);
}
END_TEST

static int work(void)
{
    char path[64], text[8] = "";
    int fd = openat(inside, "file", O_PATH | O_NOFOLLOW);

    snprintf(path, sizeof(path), "%s/%d", SANDBOX_LINKS, fd);
    int again = open(path, O_RDWR);
    if (fd < 0 || again < 0 || read(again, text, sizeof(text)) != 4 || chmod(path, 0640) == 0) {
        return 1; /* chmod by that call is none that it may use */
    }
    return fchmodat(AT_FDCWD, path, 0640, 0) < 0 || mkdirat(inside, "new", 0755) < 0 ||
                   renameat(inside, "forged", inside, "new/moved") < 0 ||
                   linkat(inside, "new/moved", inside, "forged", 0) < 0 ||
                   unlinkat(inside, "new/moved", 0) < 0 ||
                   renameat(inside, "new", inside, "newer") < 0 ||
                   unlinkat(inside, "newer", AT_REMOVEDIR) < 0 ||
                   mknodat(inside, "fifo", S_IFIFO | 0600, 0) < 0 || unlinkat(inside, "fifo", 0) < 0
               ? 2
               : 0;
}

START_TEST(test_it_can_work)
{
    int result = confined(false, work);
    ck_assert_msg(result == 0 || result == 201 || !sandbox_confines(), "%d", result);
}
END_TEST

static int write_file(void)
{
    return result_of(openat(inside, "file", O_WRONLY));
}

START_TEST(test_read_only)
{
    int result = confined(true, write_file);
    ck_assert_msg(result == EROFS || result == 201 || !sandbox_confines(), "%d", result);
}
END_TEST

static void setup(void)
{
    char path[128];

    strcpy(base, "/tmp/polyvisor-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    chmod(base, 0755);
    snprintf(directory, sizeof(directory), "%s/machine", base);
    snprintf(share, sizeof(share), "%s/share", base);
    ck_assert_int_eq(mkdir(directory, 0755), 0);
    ck_assert_int_eq(mkdir(share, 0755), 0);
    snprintf(path, sizeof(path), "%s/secret", base);
    close(open(path, O_WRONLY | O_CREAT, 0644));
    snprintf(path, sizeof(path), "%s/state", directory);
    close(open(path, O_WRONLY | O_CREAT, 0666));
    snprintf(path, sizeof(path), "%s/forged", share);
    close(open(path, O_WRONLY | O_CREAT, 0666));
    chmod(directory, 0777); /* the tests' user is the machine's */
    chmod(share, 0777);
    snprintf(path, sizeof(path), "%s/way", share);
    ck_assert_int_eq(symlink("..", path), 0);
    snprintf(path, sizeof(path), "%s/null", share);
    ck_assert(mknod(path, S_IFCHR | 0666, makedev(1, 3)) == 0 || geteuid() != 0);
    snprintf(path, sizeof(path), "%s/file", share);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    ck_assert_int_eq(write(fd, "text", 4), 4);
    close(fd);
}

static void teardown(void)
{
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", base);
    ck_assert_int_eq(system(command), 0);
}

int main(void)
{
    Suite *suite = suite_create("sandbox_share");
    TCase *test = tcase_create("share");

    tcase_add_checked_fixture(test, setup, teardown);
    tcase_set_timeout(test, 120);
    tcase_add_loop_test(test, test_forbidden, 0, sizeof(forbidden) / sizeof(forbidden[0]));
    tcase_add_loop_test(test, test_the_machine_s_folder, 0,
                        sizeof(in_machine) / sizeof(in_machine[0]));
    tcase_add_test(test, test_it_can_work);
    tcase_add_test(test, test_read_only);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
