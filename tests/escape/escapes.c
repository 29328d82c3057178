#include "tests/escape/escapes.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int result_of(long value)
{
    return value < 0 ? errno : 0;
}

/* System calls as the kernel sees them: the C library may do something else under their names. */
#define CALL(...) result_of(syscall(__VA_ARGS__))

/* ---- Files ---- */

static int open_password_file(void)
{
    return CALL(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
}

static int open_root(void)
{
    return CALL(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
}

static int open_process_list(void)
{
    return CALL(SYS_openat, AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY, 0);
}

static int open_by_other_call(void)
{
    unsigned long how[3] = {O_RDONLY, 0, 0};
    return CALL(SYS_openat2, AT_FDCWD, "/", how, sizeof(how));
}

static int open_by_handle(void)
{
    unsigned char handle[64] = {8};
    return CALL(SYS_open_by_handle_at, AT_FDCWD, handle, O_RDONLY);
}

static int make_file(void)
{
    return CALL(SYS_openat, AT_FDCWD, "/escaped", O_WRONLY | O_CREAT, 0600);
}

static int make_directory(void)
{
    return CALL(SYS_mkdirat, AT_FDCWD, "/escaped", 0700);
}

static int rename_file(void)
{
    return CALL(SYS_renameat2, AT_FDCWD, "/a", AT_FDCWD, "/b", 0);
}

static int link_file(void)
{
    return CALL(SYS_symlinkat, "/etc/passwd", AT_FDCWD, "/escaped");
}

static int list_directory(void)
{
    char entries[512];
    return CALL(SYS_getdents64, 0, entries, sizeof(entries));
}

static int make_memory_file(void)
{
    return CALL(SYS_memfd_create, "escaped", 0);
}

static int watch_files(void)
{
    return CALL(SYS_inotify_init1, 0);
}

static int change_mode(void)
{
    return CALL(SYS_fchmod, 0, 0777);
}

static int change_root(void)
{
    return CALL(SYS_chroot, "/");
}

/* ---- Sockets ---- */

static int make_internet_socket(void)
{
    return CALL(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

static int make_unix_socket(void)
{
    return CALL(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static int make_netlink_socket(void)
{
    return CALL(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
}

static int make_socket_pair(void)
{
    int ends[2];
    return CALL(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, ends);
}

static int connect_somewhere(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/dbus/system_bus_socket"};
    return CALL(SYS_connect, 0, &address, sizeof(address));
}

static int bind_somewhere(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0escaped"};
    return CALL(SYS_bind, 0, &address, sizeof(address));
}

/* ---- Processes ---- */

static int ended_child(long child)
{
    if (child == 0) {
        _exit(0);
    }
    return result_of(child);
}

static int fork_process(void)
{
    return ended_child(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
}

static int clone_process(void)
{
    unsigned long arguments[11] = {[4] = SIGCHLD};
    return ended_child(syscall(SYS_clone3, arguments, sizeof(arguments)));
}

static int run_program(void)
{
    char *const arguments[] = {"true", NULL};
    return CALL(SYS_execve, "/bin/true", arguments, NULL);
}

static int run_descriptor(void)
{
    char *const arguments[] = {"true", NULL};
    return CALL(SYS_execveat, 0, "", arguments, NULL, 0x1000 /* AT_EMPTY_PATH */);
}

static int trace_parent(void)
{
    return result_of(ptrace(PTRACE_ATTACH, 1, NULL, NULL));
}

static int be_traced(void)
{
    return result_of(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int read_process(void)
{
    char byte;
    struct iovec {
        void *base;
        size_t size;
    } local = {&byte, 1}, remote = {&byte, 1};
    return CALL(SYS_process_vm_readv, 1, &local, 1, &remote, 1, 0);
}

static int write_process(void)
{
    char byte = 0;
    struct iovec {
        void *base;
        size_t size;
    } local = {&byte, 1}, remote = {&byte, 1};
    return CALL(SYS_process_vm_writev, 1, &local, 1, &remote, 1, 0);
}

static int signal_first(void)
{
    return CALL(SYS_kill, 1, 0);
}

static int signal_all(void)
{
    return CALL(SYS_kill, -1, 0);
}

static int signal_thread(void)
{
    return CALL(SYS_tgkill, 1, 1, 0);
}

static int signal_with_data(void)
{
    return CALL(SYS_rt_sigqueueinfo, 1, SIGUSR1, NULL);
}

/* A descriptor's owner is signalled when something arrives on it; by any signal one likes. */
static int own_descriptor(void)
{
    return CALL(SYS_fcntl, 0, F_SETOWN, 1);
}

static int choose_signal(void)
{
    return CALL(SYS_fcntl, 0, F_SETSIG, SIGKILL);
}

static int signal_on_input(void)
{
    int on = 1;
    return CALL(SYS_ioctl, 0, FIOASYNC, &on);
}

static int find_process(void)
{
    return CALL(SYS_pidfd_open, 1, 0);
}

static int take_descriptor(void)
{
    return CALL(SYS_pidfd_getfd, 0, 0, 0);
}

static int see_parent(void)
{
    return CALL(SYS_getppid) == EPERM ? EPERM : 0;
}

static int see_affinity(void)
{
    unsigned long mask[16];
    return CALL(SYS_sched_getaffinity, 1, sizeof(mask), mask);
}

static int see_priority(void)
{
    return CALL(SYS_getpriority, PRIO_PROCESS, 1);
}

static int compare_processes(void)
{
    return CALL(SYS_kcmp, 1, 1, 0, 0, 0);
}

static int limit_process(void)
{
    struct rlimit limit = {1, 1};
    return CALL(SYS_prlimit64, 1, RLIMIT_NOFILE, &limit, NULL);
}

static int move_other_pages(void)
{
    return CALL(SYS_migrate_pages, 1, 0, NULL, NULL);
}

/* ---- Memory ---- */

static int map_executable(void)
{
    return CALL(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *plain_page(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int make_executable(void)
{
    return CALL(SYS_mprotect, plain_page(), 4096, PROT_READ | PROT_EXEC);
}

static int make_executable_by_key(void)
{
    return CALL(SYS_pkey_mprotect, plain_page(), 4096, PROT_READ | PROT_EXEC, -1);
}

static int read_implies_execute(void)
{
    return CALL(SYS_personality, 0x0400000);
}

static int make_shared_segment(void)
{
    return CALL(SYS_shmget, 0, 4096, 0600 | 01000);
}

static int handle_faults(void)
{
    return CALL(SYS_userfaultfd, 0);
}

/* ---- The kernel's other doors ---- */

static int make_ring(void)
{
    unsigned char parameters[256] = {0};
    return CALL(SYS_io_uring_setup, 4, parameters);
}

static int register_ring(void)
{
    return CALL(SYS_io_uring_register, -1, 0, NULL, 0);
}

static int load_bpf(void)
{
    unsigned char attributes[128] = {0};
    return CALL(SYS_bpf, 0, attributes, sizeof(attributes));
}

static int use_keys(void)
{
    return CALL(SYS_keyctl, 0, -3, 0, 0, 0);
}

static int add_key(void)
{
    return CALL(SYS_add_key, "user", "escaped", "x", 1, -2);
}

static int watch_performance(void)
{
    struct perf_event_attr attributes = {.size = sizeof(attributes)};
    return CALL(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

static int mount_something(void)
{
    return CALL(SYS_mount, "none", "/", "tmpfs", 0, NULL);
}

static int unmount(void)
{
    return CALL(SYS_umount2, "/", 2);
}

static int open_mount(void)
{
    return CALL(SYS_open_tree, AT_FDCWD, "/", 1);
}

static int make_mount(void)
{
    return CALL(SYS_fsopen, "tmpfs", 0);
}

static int pivot(void)
{
    return CALL(SYS_pivot_root, "/", "/");
}

static int new_user_namespace(void)
{
    return CALL(SYS_unshare, CLONE_NEWUSER);
}

static int enter_namespace(void)
{
    return CALL(SYS_setns, 0, 0);
}

static int become_root(void)
{
    return CALL(SYS_setresuid, 0, 0, 0);
}

static int take_capabilities(void)
{
    unsigned head[2] = {0x20080522, 0}, data[6] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
    return CALL(SYS_capset, head, data);
}

static int type_into_terminal(void)
{
    return CALL(SYS_ioctl, 0, TIOCSTI, "");
}

static int write_terminal_mode(void)
{
    return CALL(SYS_ioctl, 2, TIOCSETD, "");
}

static int set_dumpable(void)
{
    return CALL(SYS_prctl, 4 /* PR_SET_DUMPABLE */, 1, 0, 0, 0);
}

static int change_filter(void)
{
    return CALL(SYS_seccomp, 0, 0, NULL);
}

static int read_kernel_log(void)
{
    char text[64];
    return CALL(SYS_syslog, 3, text, sizeof(text));
}

static int load_module(void)
{
    return CALL(SYS_finit_module, 0, "", 0);
}

static int set_clock(void)
{
    return CALL(SYS_clock_settime, 0, NULL);
}

static int raise_limit(void)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    return CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
}

static int real_time(void)
{
    int priority = 1;
    return CALL(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority);
}

static int leave_session(void)
{
    return CALL(SYS_setsid);
}

static int use_local_descriptors(void)
{
    return CALL(SYS_modify_ldt, 0, NULL, 0);
}

const struct escape_attempt escape_attempts[] = {
    {"open a file of the host", open_password_file},
    {"open the root directory", open_root},
    {"open /proc", open_process_list},
    {"open with openat2", open_by_other_call},
    {"open by handle", open_by_handle},
    {"create a file", make_file},
    {"create a directory", make_directory},
    {"rename a file", rename_file},
    {"make a symbolic link", link_file},
    {"list a directory", list_directory},
    {"create a memory file", make_memory_file},
    {"watch files", watch_files},
    {"change a file's mode", change_mode},
    {"change its root", change_root},
    {"make an internet socket", make_internet_socket},
    {"make a Unix socket", make_unix_socket},
    {"make a netlink socket", make_netlink_socket},
    {"make a pair of sockets", make_socket_pair},
    {"connect", connect_somewhere},
    {"bind", bind_somewhere},
    {"fork", fork_process},
    {"fork with clone3", clone_process},
    {"run a program", run_program},
    {"run a descriptor", run_descriptor},
    {"trace another process", trace_parent},
    {"be traced", be_traced},
    {"read another process", read_process},
    {"write another process", write_process},
    {"signal another process", signal_first},
    {"signal all processes", signal_all},
    {"signal another's thread", signal_thread},
    {"queue a signal", signal_with_data},
    {"signal by a descriptor", own_descriptor},
    {"choose that signal", choose_signal},
    {"signal on input", signal_on_input},
    {"open another process", find_process},
    {"take its descriptors", take_descriptor},
    {"see its parent", see_parent},
    {"see who runs (affinity)", see_affinity},
    {"see who runs (priority)", see_priority},
    {"compare processes", compare_processes},
    {"limit another process", limit_process},
    {"move its pages", move_other_pages},
    {"map executable memory", map_executable},
    {"make memory executable", make_executable},
    {"make it so by a key", make_executable_by_key},
    {"make reading executing", read_implies_execute},
    {"make a shared segment", make_shared_segment},
    {"handle page faults", handle_faults},
    {"make an io_uring", make_ring},
    {"register with an io_uring", register_ring},
    {"load BPF", load_bpf},
    {"use keys", use_keys},
    {"add a key", add_key},
    {"watch performance", watch_performance},
    {"mount", mount_something},
    {"unmount", unmount},
    {"open a mount", open_mount},
    {"make a mount", make_mount},
    {"pivot its root", pivot},
    {"make a user namespace", new_user_namespace},
    {"enter a namespace", enter_namespace},
    {"become root", become_root},
    {"take capabilities", take_capabilities},
    {"type into a terminal", type_into_terminal},
    {"change a terminal", write_terminal_mode},
    {"become dumpable", set_dumpable},
    {"change the filter", change_filter},
    {"read the kernel's log", read_kernel_log},
    {"load a module", load_module},
    {"set the clock", set_clock},
    {"raise a limit", raise_limit},
    {"run in real time", real_time},
    {"leave its session", leave_session},
    {"use local descriptors", use_local_descriptors},
};
const size_t escape_count = sizeof(escape_attempts) / sizeof(escape_attempts[0]);
