/* The second step: privileges go, and a filter leaves the system calls that serving takes. */
#include "libshared/base/log.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/ipc/sandbox_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Nobody's: what root becomes. */
#define NOBODY 65534

static int failed(struct error *err, const char *what, int cause)
{
    error_set(err, ERROR_PERMISSION, cause, "cannot confine the process: %s: %s", what,
              strerror(cause));
    error_hint(err, "POLYVISOR_UNCONFINED=1 runs without confinement");
    return -ERROR_PERMISSION;
}

/* --- privileges ------------------------------------------------------------------------------ */

/* Root becomes nobody (or whom it was told), and loses its capabilities with that; the C library
 * does it for all threads. Others lost theirs when they were isolated. */
static int drop_privileges(const struct sandbox_user *user, struct error *err)
{
    const struct sandbox_user nobody = {NOBODY, NOBODY};

    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct present[2] = {{0}};

    if (geteuid() != 0 || syscall(SYS_capget, &header, present) < 0 || !present[0].effective) {
        return 0;
    }
    user = user ? user : &nobody;
    if (setgroups(0, NULL) < 0 || setresgid(user->gid, user->gid, user->gid) < 0 ||
        setresuid(user->uid, user->uid, user->uid) < 0) {
        if (errno == EPERM || errno == EINVAL) { /* one user is all there is in this container */
            log_warning("the process stays root: %s", strerror(errno));
            return 0;
        }
        return failed(err, "its user", errno);
    }
    return 0;
}

/* --- the filter ------------------------------------------------------------------------------ */

/* For everybody: descriptors that are there, memory, time, threads' ends. */
static const int COMMON[] = {
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(preadv),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwrite64),
    SCMP_SYS(pwritev),
    SCMP_SYS(pwritev2),
    SCMP_SYS(close),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(sync_file_range),
    SCMP_SYS(fallocate),
    SCMP_SYS(ftruncate),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(select),
    SCMP_SYS(pselect6),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(pipe2),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(mincore),
    SCMP_SYS(membarrier),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(uname),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

static const int SOCKETS[] = {
    SCMP_SYS(socket),     SCMP_SYS(bind),     SCMP_SYS(connect),  SCMP_SYS(listen),
    SCMP_SYS(socketpair), SCMP_SYS(sendmmsg), SCMP_SYS(recvmmsg),
};

/* In the one directory that is left of the file system. Not fchmod: who keeps its user may own what
 * its descriptors lead to outside of it, /dev/null for one. */
static const int FILES[] = {
    SCMP_SYS(open),      SCMP_SYS(openat),     SCMP_SYS(rename),     SCMP_SYS(renameat),
    SCMP_SYS(renameat2), SCMP_SYS(unlink),     SCMP_SYS(unlinkat),   SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),   SCMP_SYS(stat),       SCMP_SYS(lstat),      SCMP_SYS(statx),
    SCMP_SYS(access),    SCMP_SYS(faccessat),  SCMP_SYS(faccessat2), SCMP_SYS(getdents64),
    SCMP_SYS(flock),     SCMP_SYS(link),       SCMP_SYS(linkat),     SCMP_SYS(utimensat),
    SCMP_SYS(readlink),  SCMP_SYS(readlinkat), SCMP_SYS(getcwd),     SCMP_SYS(statfs),
    SCMP_SYS(fstatfs),
};

static int allow_list(scmp_filter_ctx filter, const int *calls, size_t count)
{
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
        if (result == -EDOM || result == -EACCES) {
            result = 0; /* this architecture has no such call, or it is allowed already */
        }
    }
    return result;
}
#define ALLOW_LIST(filter, calls) allow_list((filter), (calls), sizeof(calls) / sizeof((calls)[0]))

/* Memory that is never executable. */
static int allow_memory(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp no_execute = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, no_execute);
    return result ? result
                  : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, no_execute);
}

/* What concerns nobody but us. The rest of fcntl has the kernel send any signal to any process when
 * a descriptor is ready, and affinity tells which processes there are. */
static int allow_descriptors(scmp_filter_ctx filter)
{
    const int commands[] = {F_DUPFD,     F_DUPFD_CLOEXEC, F_GETFD,      F_SETFD,
                            F_GETFL,     F_GETLK,         F_SETLK,      F_SETLKW,
                            F_OFD_GETLK, F_OFD_SETLK,     F_OFD_SETLKW, F_GET_SEALS};
    int result = 0;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                                  SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)commands[i], 0));
    }
    if (result == 0) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 2,
                                  SCMP_A1(SCMP_CMP_EQ, F_SETFL, 0),
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, O_ASYNC, 0));
    }
    return result ? result
                  : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_getaffinity), 1,
                                     SCMP_A0(SCMP_CMP_EQ, 0, 0));
}

/* Threads, not processes. clone3 keeps its flags where a filter cannot look: the C library
 * takes clone when it is told that there is no clone3. */
static int allow_threads(scmp_filter_ctx filter)
{
    int result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return result ? result
                  : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                     SCMP_A0(SCMP_CMP_MASKED_EQ,
                                             CLONE_THREAD | CLONE_NEWUSER | CLONE_NEWNS,
                                             CLONE_THREAD));
}

/* Signals to ourselves (abort), names of our threads, and the size of what waits in a descriptor.
 */
static int allow_particular(scmp_filter_ctx filter)
{
    const unsigned long controls[] = {FIONREAD, FIONBIO, FIOCLEX};
    int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                  SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    if (result == 0) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                                  SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
    }
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]) && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                  SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, controls[i]));
    }
    return result;
}

/* Closing a bound nanomsg socket deletes its file, and nothing else will do but success or that the
 * file is gone. vmmd deletes it with the machine's folder. */
static int pretend_unlinked(scmp_filter_ctx filter)
{
    int result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(unlinkat), 0);
    int older = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(unlink), 0);
    return result || older == -EDOM ? result : older;
}

int sandbox_pretend_unlinked(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int result = filter ? pretend_unlinked(filter) : -ENOMEM;

    result = result ? result : seccomp_load(filter);
    seccomp_release(filter);
    errno = -result;
    return result ? -1 : 0;
}

/* Disks work on rings that were made before, and that can do nothing else (devd/block/uring.h). */
static const int RINGS[] = {
    SCMP_SYS(io_uring_enter),
};

/* Those of the host, in what is left of its file system. */
static int allow_unix_sockets(scmp_filter_ctx filter)
{
    int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    return result ? result : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(connect), 0);
}

/* By directories and descriptors that it has. */
static const int SHARES[] = {
    SCMP_SYS(statx),     SCMP_SYS(readlinkat),  SCMP_SYS(symlinkat),
    SCMP_SYS(linkat),    SCMP_SYS(mkdirat),     SCMP_SYS(renameat2),
    SCMP_SYS(utimensat), SCMP_SYS(fstatfs),     SCMP_SYS(getdents64),
    SCMP_SYS(syncfs),    SCMP_SYS(setxattr),    SCMP_SYS(getxattr),
    SCMP_SYS(listxattr), SCMP_SYS(removexattr), SCMP_SYS(copy_file_range),
    SCMP_SYS(renameat), /* the C library's renameat2 without flags */
};

/* Files without set-id bits, no devices. So there is no openat2, which has its mode where a filter
 * cannot look: a file that it made with a set-gid bit, without the right to run it, would keep the
 * bit when it gets contents, and an access list (an attribute, by setxattr) could add that right.
 * Removing is for directories that it has: what nanomsg wants to remove by its path is pretended,
 * as for the others. */
static int allow_shares(scmp_filter_ctx filter)
{
    const mode_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK};
    const mode_t set_id = S_ISUID | S_ISGID;
    int result = ALLOW_LIST(filter, SHARES);

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]) && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mknodat), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT | set_id, types[i]));
    }
    if (result == 0) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                                  SCMP_A3(SCMP_CMP_MASKED_EQ, set_id, 0));
    }
    if (result == 0) {
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fchmodat), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, set_id, 0));
    }
    if (result == 0) {
        result = seccomp_rule_add(
            filter, SCMP_ACT_ALLOW, SCMP_SYS(unlinkat), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_C(0x80000000), 0)); /* not AT_FDCWD */
    }
    if (result == 0) {
        result = seccomp_rule_add(
            filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(unlinkat), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_C(0x80000000), UINT32_C(0x80000000)));
    }
    int older = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(unlink), 0);
    return result || older == -EDOM ? result : older;
}

static int fill_filter(scmp_filter_ctx filter, enum sandbox_job job)
{
    int result = ALLOW_LIST(filter, COMMON);
    result = result ? result : allow_memory(filter);
    result = result ? result : allow_descriptors(filter);
    result = result ? result : allow_threads(filter);
    result = result ? result : allow_particular(filter);
    if (result == 0 && job == SANDBOX_DEVICE) {
        result = ALLOW_LIST(filter, RINGS);
    }
    if (result == 0 && (job == SANDBOX_NETWORK || job == SANDBOX_CONNECTOR)) {
        result = ALLOW_LIST(filter, SOCKETS);
    }
    if (result == 0 && (job == SANDBOX_UNIX_SOCKETS || job == SANDBOX_COMPILER)) {
        result = allow_unix_sockets(filter);
    }
    if (result == 0) {
        bool files = job == SANDBOX_COMPILER || job == SANDBOX_CONNECTOR;
        result = files                   ? ALLOW_LIST(filter, FILES)
                 : job == SANDBOX_SHARES ? allow_shares(filter)
                                         : pretend_unlinked(filter);
    }
    return result;
}

static int load_filter(enum sandbox_job job, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter) {
        return failed(err, "a filter for system calls", ENOMEM);
    }
    /* All threads, those of libraries too. */
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    result = result ? result : fill_filter(filter, job);
    result = result ? result : seccomp_load(filter);
    seccomp_release(filter);
    if (result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP) {
        log_warning("this host's kernel has no seccomp filters: system calls are not filtered");
        return 0;
    }
    return result ? failed(err, "a filter for system calls", -result) : 0;
}

int sandbox_seal(enum sandbox_job job, const struct sandbox_user *user, struct error *err)
{
    if (!sandbox_confines()) {
        return 0;
    }
    int result = drop_privileges(user, err);
    return result < 0 ? result : load_filter(job, err);
}
