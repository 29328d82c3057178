/* The first step: namespaces, and a file system of one directory. */
#include "libshared/ipc/sandbox.h"
#include "libshared/base/log.h"
#include "libshared/ipc/sandbox_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where the new root is put together. Any directory does; every host has this one. */
#define STAGE "/tmp"
/* A folder of the new root, for a moment, and an empty file in it. */
#define NOWHERE "/polyvisor-nowhere"
#define NOTHING NOWHERE "/nothing"

/* Whether the environment asks for no confinement at all. */
static bool sandbox_unconfined(void)
{
    const char *text = getenv("POLYVISOR_UNCONFINED");
    return text && strcmp(text, "1") == 0;
}

bool sandbox_confines(void)
{
    return !sandbox_unconfined() && !SANDBOX_SANITIZED;
}

static int failed(struct error *err, const char *what)
{
    int cause = errno;
    error_set(err, ERROR_PERMISSION, cause, "cannot confine the process: %s: %s", what,
              strerror(cause));
    error_hint(err, "POLYVISOR_UNCONFINED=1 runs without confinement");
    return -ERROR_PERMISSION;
}

/* --- namespaces ------------------------------------------------------------------------------ */

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    ssize_t written = write(fd, text, strlen(text));
    int cause = errno;
    close(fd);
    errno = cause;
    return written == (ssize_t)strlen(text) ? 0 : -1;
}

/* Who we are stays the same inside: files and sockets are ours as before. */
static int map_identity(uid_t uid, gid_t gid)
{
    char users[48], groups[48];

    snprintf(users, sizeof(users), "%u %u 1\n", (unsigned)uid, (unsigned)uid);
    snprintf(groups, sizeof(groups), "%u %u 1\n", (unsigned)gid, (unsigned)gid);
    if (write_text("/proc/self/setgroups", "deny") < 0 && errno != ENOENT) {
        return -1;
    }
    return write_text("/proc/self/uid_map", users) < 0 ? -1
                                                       : write_text("/proc/self/gid_map", groups);
}

/* What the host says when it does not offer something, rather than when we did it wrong. */
static bool host_lacks(int cause)
{
    return cause == EPERM || cause == EACCES || cause == ENOSYS || cause == EINVAL ||
           cause == ENOSPC || cause == EUSERS;
}

/* 1: we are in namespaces of our own; 0: the host has none for us. */
static int enter_namespaces(bool network, struct error *err)
{
    const int flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (network ? 0 : CLONE_NEWNET);
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (uid == 0 && unshare(flags) == 0) {
        return 1;
    }
    if (unshare(flags | CLONE_NEWUSER) < 0) {
        if (host_lacks(errno)) {
            log_warning("this host offers no namespaces (%s): the file system stays in view",
                        strerror(errno));
            return 0;
        }
        return failed(err, "namespaces");
    }
    return map_identity(uid, gid) < 0 ? failed(err, "user namespace") : 1;
}

/* --- the file system ------------------------------------------------------------------------- */

/* Make the folders of `path` (absolute) below the present directory, without its last part unless
 * `whole`. */
static int make_parents(const char *path, bool whole)
{
    char below[PATH_MAX];

    if (path[0] != '/' || strlen(path) + 2 > sizeof(below)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(below, sizeof(below), ".%s", path);
    for (char *slash = strchr(below + 2, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(below, 0755) < 0 && errno != EEXIST) {
            return -1;
        }
        *slash = '/';
    }
    return whole && mkdir(below, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

/* Let what `fd` names be seen at `path` below the present directory. */
static int bind_at(int fd, const char *path)
{
    char source[32], target[PATH_MAX];

    snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
    snprintf(target, sizeof(target), ".%s", path);
    return mount(source, target, NULL, MS_BIND, NULL);
}

static int make_file(const char *path)
{
    char target[PATH_MAX];

    snprintf(target, sizeof(target), ".%s", path);
    int made = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
    if (made < 0) {
        return -1;
    }
    close(made);
    return 0;
}

static int bind_path(int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) < 0 || make_parents(path, S_ISDIR(status.st_mode)) < 0 ||
        (!S_ISDIR(status.st_mode) && make_file(path) < 0)) {
        return -1;
    }
    return bind_at(fd, path);
}

#define FILES_MAX 8

/* What is to stay in view, opened before it goes out of sight. */
struct kept {
    int directory;
    int share; /* or -1 */
    int files[FILES_MAX];
    unsigned count;
};

static int open_kept(const struct sandbox_isolation *isolation, struct kept *kept)
{
    kept->count = 0;
    kept->share = -1;
    if (isolation->share) {
        kept->share = open(isolation->share, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (kept->share < 0) {
            return -1;
        }
    }
    kept->directory = open(isolation->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (kept->directory < 0) {
        return -1;
    }
    for (; isolation->also && isolation->also[kept->count] && kept->count < FILES_MAX;
         kept->count++) {
        kept->files[kept->count] = open(isolation->also[kept->count], O_PATH | O_CLOEXEC);
    }
    return 0;
}

static void close_kept(const struct kept *kept)
{
    close(kept->directory);
    if (kept->share >= 0) {
        close(kept->share);
    }
    for (unsigned i = 0; i < kept->count; i++) {
        if (kept->files[i] >= 0) {
            close(kept->files[i]);
        }
    }
}

/* The share and the links. */
static int bind_share(const struct sandbox_isolation *isolation, int share)
{
    struct mount_attr attributes = {.attr_set =
                                        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    char source[32];

    if (mkdir("." SANDBOX_SHARE, 0755) < 0 || mkdir("." SANDBOX_LINKS, 0755) < 0) {
        return -1;
    }
    snprintf(source, sizeof(source), "/proc/self/fd/%d", share);
    /* With what is mounted below it: the kernel lets nobody uncover that. The device does not go
     * there (fs_open_name). */
    if (mount(source, "." SANDBOX_SHARE, NULL, MS_BIND | MS_REC, NULL) < 0 ||
        mount("/proc/self/fd", "." SANDBOX_LINKS, NULL, MS_BIND, NULL) < 0) {
        return -1;
    }
    if (isolation->share_read_only) {
        attributes.attr_set |= MOUNT_ATTR_RDONLY;
    }
    if (mount_setattr(AT_FDCWD, "." SANDBOX_SHARE, AT_RECURSIVE, &attributes, sizeof(attributes)) <
        0) {
        if (errno != ENOSYS) {
            return -1;
        }
        log_warning("this host's kernel cannot restrict mounts: the share is as its file system");
    }
    return 0;
}

/* Put an empty file in the place of each. It is in a file system that nobody sees otherwise. */
static int hide(const struct sandbox_isolation *isolation)
{
    char target[PATH_MAX];

    if (mkdir("." NOWHERE, 0755) < 0 ||
        mount("polyvisor", "." NOWHERE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k") < 0) {
        return -1;
    }
    int result = make_file(NOTHING);
    for (unsigned i = 0; result == 0 && isolation->hidden[i]; i++) {
        snprintf(target, sizeof(target), ".%s/%s", isolation->directory, isolation->hidden[i]);
        result = mount("." NOTHING, target, NULL, MS_BIND, NULL) < 0 && errno != ENOENT ? -1 : 0;
    }
    return result < 0 || umount2("." NOWHERE, MNT_DETACH) < 0 || rmdir("." NOWHERE) < 0 ? -1 : 0;
}

static int fill_root(const struct sandbox_isolation *isolation, const struct kept *kept)
{
    if (kept->share >= 0 && bind_share(isolation, kept->share) < 0) {
        return -1;
    }
    if (make_parents(isolation->directory, true) < 0 ||
        bind_at(kept->directory, isolation->directory) < 0) {
        return -1;
    }
    for (unsigned i = 0; i < kept->count; i++) {
        if (kept->files[i] >= 0 && bind_path(kept->files[i], isolation->also[i]) < 0) {
            return -1;
        }
    }
    return isolation->hidden ? hide(isolation) : 0;
}

/* With folders that the user can pass whom root becomes, whatever the umask it was started with. */
static int fill_root_for_all(const struct sandbox_isolation *isolation, const struct kept *kept)
{
    mode_t before = umask(022);
    int result = fill_root(isolation, kept);
    umask(before);
    return result;
}

/* The old root goes away altogether, the new one becomes read-only. */
static int change_root(void)
{
    return syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
                   chdir("/") < 0 ||
                   mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                         NULL) < 0
               ? -1
               : 0;
}

static int shrink_file_system(const struct sandbox_isolation *isolation, struct error *err)
{
    struct kept kept;

    if (open_kept(isolation, &kept) < 0) {
        return failed(err, isolation->directory);
    }
    int result = 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("polyvisor", STAGE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,mode=0755") <
            0 ||
        chdir(STAGE) < 0) {
        result = failed(err, "an empty file system");
    } else if (fill_root_for_all(isolation, &kept) < 0) {
        result = failed(err, "its directory");
    } else if (change_root() < 0) {
        result = failed(err, "its root");
    }
    close_kept(&kept);
    return result;
}

/* A user namespace gave us all privileges over itself. (Root mostly keeps its own until the seal:
 * it has sockets to connect that belong to it.) */
static int drop_capabilities(bool keep_user, struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    return (geteuid() != 0 || keep_user) && syscall(SYS_capset, &header, none) < 0
               ? failed(err, "capabilities")
               : 0;
}

int sandbox_isolate(const struct sandbox_isolation *isolation, struct error *err)
{
    if (sandbox_unconfined()) {
        log_warning("runs unconfined, as POLYVISOR_UNCONFINED asks");
        return 0;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return failed(err, "no new privileges");
    }
    int result = SANDBOX_SANITIZED ? 0 : enter_namespaces(isolation->network, err);
    if (result == 1) {
        result = shrink_file_system(isolation, err);
        if (result == 0 && sandbox_restrict_paths(isolation) < 0) {
            result = failed(err, "what is done with files");
        }
        if (result == 0 && !isolation->also && !isolation->share &&
            sandbox_pretend_unlinked() < 0) {
            result = failed(err, "what is done with files");
        }
    }
    return result == 0 ? drop_capabilities(isolation->keep_user, err) : result;
}
