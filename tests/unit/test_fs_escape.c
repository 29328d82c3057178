/* What a hostile guest may try against a shared directory, and that it gets nowhere. Some tests
 * need nothing but a message; in others the host's side changes what a name stands for meanwhile.
 */
#include "tests/unit/fs_host.h"
#include "tests/unit/suite.h"
#include <linux/falloc.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static struct fs_host host;

static void setup(void)
{
    host_begin(&host);
    host_file(&host, "share/file", "contents");
    ck_assert_int_eq(mkdir(host_path(&host, "share/dir"), 0755), 0);
    host_file(&host, "share/dir/inner", "inner");
}

static void teardown(void)
{
    ck_assert_str_eq(host_text(&host, "outside/secret"), "secret");
    host_end(&host);
}

static void make_link(const char *target, const char *name)
{
    ck_assert_int_eq(symlink(target, host_path(&host, "share/%s", name)), 0);
}

/* ---- Names ---- */

static const char *const bad_names[] = {
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "../outside/secret",
    "dir/inner",
    "dir/../../outside",
    "./file",
    "file/",
    "..//",
    "a/b",
};
#define BAD_NAMES (sizeof(bad_names) / sizeof(bad_names[0]))

START_TEST(test_no_operation_takes_a_path)
{
    const char *name = bad_names[_i];
    const struct fuse_mkdir_in make = {.mode = 0755};
    const struct fuse_mknod_in node = {.mode = S_IFREG | 0644};
    const struct fuse_create_in create = {.flags = O_CREAT | O_RDWR, .mode = 0644};
    const struct fuse_rename_in rename = {.newdir = 1};
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    const struct fuse_link_in link = {.oldnodeid = file};

    ck_assert_int_eq(SEND(&host, FUSE_LOOKUP, 1, TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_MKDIR, 1, BYTES(make), TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_MKNOD, 1, BYTES(node), TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_CREATE, 1, BYTES(create), TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_SYMLINK, 1, TEXT(name), TEXT("target")), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_RMDIR, 1, TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(link), TEXT(name)), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_RENAME, 1, BYTES(rename), TEXT(name), TEXT("new")), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_RENAME, 1, BYTES(rename), TEXT("file"), TEXT(name)), -EINVAL);
    ck_assert_str_eq(host_text(&host, "share/file"), "contents");
}
END_TEST

START_TEST(test_overlong_and_endless_names_are_refused)
{
    char name[300];
    const struct fuse_mkdir_in make = {.mode = 0755};

    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    ck_assert_int_eq(SEND(&host, FUSE_LOOKUP, 1, TEXT(name)), -ENAMETOOLONG);
    ck_assert_int_eq(SEND(&host, FUSE_MKDIR, 1, BYTES(make), TEXT(name)), -ENAMETOOLONG);
    name[255] = '\0';
    ck_assert_int_eq(SEND(&host, FUSE_LOOKUP, 1, TEXT(name)), -ENOENT);
    /* Without an end. */
    ck_assert_int_eq(SEND(&host, FUSE_LOOKUP, 1, (const void *)"file", (size_t)4), -EINVAL);
    ck_assert_int_eq(SEND(&host, FUSE_SYMLINK, 1, TEXT("one"), (const void *)"two", (size_t)3),
                     -EINVAL);
}
END_TEST

/* ---- Links ---- */

static const char *const targets[] = {
    "/etc/passwd",     "../outside/secret",        "/proc/self/root/etc/passwd",
    "/proc/self/fd/0", "dir/../../outside/secret", "loop",
};

START_TEST(test_links_are_never_followed)
{
    uint64_t handle;
    int status;

    make_link(targets[_i], "loop");
    uint64_t link = host_lookup(&host, 1, "loop", NULL);
    ck_assert_int_eq(S_ISLNK(REPLY(&host, struct fuse_entry_out)->attr.mode), 1);
    ck_assert_int_eq(host_open_node(&host, link, O_RDONLY, &handle), -ELOOP);
    ck_assert_int_eq(host_open_node(&host, link, O_RDWR | O_TRUNC, &handle), -ELOOP);
    ck_assert_int_eq(host_open_node(&host, link, O_RDONLY | O_DIRECTORY, &handle) < 0, 1);
    ck_assert_uint_eq(host_lookup(&host, link, "passwd", &status), 0);
    ck_assert_int_eq(status < 0, 1);
    const struct fuse_setattr_in size = {.valid = FATTR_SIZE};
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, link, BYTES(size)), -EINVAL);
    const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777};
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, link, BYTES(mode)) < 0, 1);
    ck_assert_int_eq(SEND(&host, FUSE_READLINK, link), 0);
    ck_assert_int_eq(memcmp(REPLY(&host, char), targets[_i], strlen(targets[_i])), 0);
}
END_TEST

START_TEST(test_a_directory_behind_a_link_is_none)
{
    int status;
    uint64_t handle;

    make_link("../outside", "way");
    uint64_t way = host_lookup(&host, 1, "way", NULL);
    ck_assert_uint_eq(host_lookup(&host, way, "secret", &status), 0);
    ck_assert_int_eq(status, -ENOTDIR);
    ck_assert_int_eq(host_mkdir(&host, way, "new"), -ENOTDIR);
    ck_assert_int_eq(host_rename(&host, 1, "file", way, "file", 0), -ENOTDIR);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, way, TEXT("secret")), -ENOTDIR);
    ck_assert_int_eq(host_open_node(&host, way, O_DIRECTORY, &handle), -ENOTDIR);
}
END_TEST

START_TEST(test_creating_through_a_link_is_refused)
{
    uint64_t node, handle;

    make_link("../outside/new", "dangling");
    make_link("../outside/secret", "secret");
    ck_assert_int_eq(host_create(&host, 1, "dangling", O_RDWR, 0644, &node, &handle), -EEXIST);
    ck_assert_int_eq(host_create(&host, 1, "secret", O_RDWR | O_TRUNC, 0644, &node, &handle),
                     -EEXIST);
    ck_assert(!host_exists(&host, "outside/new"));
}
END_TEST

START_TEST(test_a_directory_replaced_by_a_link_is_not_entered)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    int status;

    ck_assert_int_eq(rename(host_path(&host, "share/dir"), host_path(&host, "share/elsewhere")), 0);
    make_link("../outside", "dir");
    ck_assert_uint_eq(host_lookup(&host, dir, "secret", &status), 0);
    ck_assert_int_eq(status, -ENOENT); /* it is still the directory it was */
    ck_assert_uint_ne(host_lookup(&host, dir, "inner", NULL), 0);
    host_replace(&host); /* which finds it by its name only */
    ck_assert_uint_eq(host_lookup(&host, dir, "secret", &status), 0);
    ck_assert_int_eq(status, -ESTALE);
}
END_TEST

START_TEST(test_a_file_replaced_by_a_link_is_not_opened)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle;

    host_replace(&host);
    ck_assert_int_eq(unlink(host_path(&host, "share/file")), 0);
    make_link("../outside/secret", "file");
    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), -ESTALE);
    /* Nor what somebody else put there. */
    ck_assert_int_eq(unlink(host_path(&host, "share/file")), 0);
    ck_assert_int_eq(link(host_path(&host, "outside/secret"), host_path(&host, "share/file")), 0);
    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), -ESTALE);
}
END_TEST

START_TEST(test_a_directory_moved_out_leads_no_further)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    int status;

    ck_assert_int_eq(rename(host_path(&host, "share/dir"), host_path(&host, "outside/dir")), 0);
    ck_assert_uint_eq(host_lookup(&host, dir, "..", &status), 0);
    ck_assert_int_eq(status, -EINVAL);
    ck_assert_uint_eq(host_lookup(&host, dir, "secret", &status), 0);
    host_replace(&host);
    ck_assert_uint_eq(host_lookup(&host, dir, "inner", &status), 0);
    ck_assert_int_eq(status, -ESTALE);
}
END_TEST

START_TEST(test_a_hard_link_to_something_unknown_is_refused)
{
    const uint64_t forged[] = {0, 2, 77, UINT64_C(1) << 32 | 1, UINT64_MAX, SHARE_NODES_MAX};

    for (unsigned i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        const struct fuse_link_in in = {.oldnodeid = forged[i]};
        ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(in), TEXT("name")), -ESTALE);
    }
    const struct fuse_link_in root = {.oldnodeid = 1};
    ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(root), TEXT("name")), -EPERM);
}
END_TEST

/* ---- Special files and modes ---- */

START_TEST(test_devices_cannot_be_made)
{
    const mode_t types[] = {S_IFCHR, S_IFBLK, S_IFDIR, S_IFLNK};

    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        const struct fuse_mknod_in in = {.mode = types[i] | 0666, .rdev = 0x103};
        ck_assert_int_eq(SEND(&host, FUSE_MKNOD, 1, BYTES(in), TEXT("null")), -EPERM);
    }
    ck_assert(!host_exists(&host, "share/null"));
    ck_assert_int_eq(host_rename(&host, 1, "file", 1, "white", 4 /* RENAME_WHITEOUT */), -EINVAL);
}
END_TEST

START_TEST(test_special_files_are_not_opened)
{
    uint64_t handle;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    ck_assert_int_eq(mkfifo(host_path(&host, "share/fifo"), 0666), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", host_path(&host, "share/socket"));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    bool device = mknod(host_path(&host, "share/device"), S_IFCHR | 0666, makedev(1, 5)) == 0;
    const char *const names[] = {"fifo", "socket", device ? "device" : "fifo"};
    for (unsigned i = 0; i < 3; i++) {
        uint64_t node = host_lookup(&host, 1, names[i], NULL);
        ck_assert_uint_eq(REPLY(&host, struct fuse_entry_out)->attr.rdev, 0);
        ck_assert_int_eq(host_open_node(&host, node, O_RDONLY, &handle), -ENXIO);
        ck_assert_int_eq(host_open_node(&host, node, O_WRONLY, &handle), -ENXIO);
        const struct fuse_setattr_in size = {.valid = FATTR_SIZE};
        ck_assert_int_eq(SEND(&host, FUSE_SETATTR, node, BYTES(size)), -EINVAL);
    }
    uint64_t node;
    ck_assert_int_eq(host_create(&host, 1, "fifo", O_RDONLY, 0644, &node, &handle), -EEXIST);
    close(fd);
}
END_TEST

static mode_t host_mode(const char *name)
{
    struct stat status;
    ck_assert_int_eq(lstat(host_path(&host, "%s", name), &status), 0);
    return status.st_mode & 07777;
}

START_TEST(test_set_id_bits_do_not_pass)
{
    const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = S_IFREG | 06755};
    const struct fuse_mknod_in node = {.mode = S_IFREG | 06755};
    uint64_t file = host_lookup(&host, 1, "file", NULL), made, handle;

    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, file, BYTES(mode)), 0);
    ck_assert_uint_eq(host_mode("share/file"), 0755);
    ck_assert_int_eq(SEND(&host, FUSE_MKNOD, 1, BYTES(node), TEXT("node")), 0);
    ck_assert_uint_eq(host_mode("share/node"), 0755);
    ck_assert_int_eq(host_create(&host, 1, "created", O_RDWR, 06755, &made, &handle), 0);
    ck_assert_uint_eq(host_mode("share/created"), 0755);
    /* Nor the other way. */
    ck_assert_int_eq(chmod(host_path(&host, "share/file"), 06755), 0);
    ck_assert_int_eq(host_getattr(&host, file), 0);
    ck_assert_uint_eq(REPLY(&host, struct fuse_attr_out)->attr.mode, S_IFREG | 0755);
}
END_TEST

/* A guest sees which directories hand on their group, changes what it likes of others, and makes
 * none itself. */
START_TEST(test_a_directory_s_group_is_the_host_s)
{
    const struct fuse_setattr_in same = {.valid = FATTR_MODE, .mode = S_IFDIR | 02775};
    const struct fuse_setattr_in other = {.valid = FATTR_MODE, .mode = S_IFDIR | 02700};
    const struct fuse_setattr_in plain = {.valid = FATTR_MODE, .mode = S_IFDIR | 0750};
    ck_assert_int_eq(mkdir(host_path(&host, "share/directory"), 0755), 0);
    uint64_t directory = host_lookup(&host, 1, "directory", NULL);

    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, directory, BYTES(same)), 0);
    ck_assert_uint_eq(host_mode("share/directory"), 0775);
    ck_assert_int_eq(chmod(host_path(&host, "share/directory"), 02775), 0);
    ck_assert_int_eq(host_getattr(&host, directory), 0);
    ck_assert_uint_eq(REPLY(&host, struct fuse_attr_out)->attr.mode, S_IFDIR | 02775);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, directory, BYTES(same)), 0);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, directory, BYTES(other)), -EPERM);
    ck_assert_uint_eq(host_mode("share/directory"), 02775);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, directory, BYTES(plain)), 0);
    ck_assert_uint_eq(host_mode("share/directory"), 0750);
}
END_TEST

START_TEST(test_owners_are_not_given_away)
{
    const struct fuse_setattr_in in = {.valid = FATTR_UID | FATTR_GID, .uid = 1234, .gid = 1234};
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    struct stat before, after;

    stat(host_path(&host, "share/file"), &before);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, file, BYTES(in)), 0);
    stat(host_path(&host, "share/file"), &after);
    ck_assert_uint_eq(before.st_uid, after.st_uid);
    ck_assert_uint_eq(REPLY(&host, struct fuse_attr_out)->attr.uid, 0);
}
END_TEST

static const char *const hidden[] = {
    "security.capability", "trusted.x", "system.posix_acl_access", "user.", "user", ""};

START_TEST(test_attributes_that_mean_something_are_refused)
{
    const struct {
        uint32_t size, flags;
    } set = {.size = 1};
    const struct fuse_getxattr_in get = {.size = 100};
    uint64_t file = host_lookup(&host, 1, "file", NULL);

    ck_assert_int_lt(SEND(&host, FUSE_SETXATTR, file, BYTES(set), TEXT(hidden[_i]), TEXT("")), 0);
    ck_assert_int_lt(SEND(&host, FUSE_GETXATTR, file, BYTES(get), TEXT(hidden[_i])), 0);
    ck_assert_int_lt(SEND(&host, FUSE_REMOVEXATTR, file, TEXT(hidden[_i])), 0);
}
END_TEST

START_TEST(test_attributes_are_as_long_as_they_are)
{
    const struct {
        uint32_t size, flags;
    } set = {.size = 5000};
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    ck_assert_int_eq(SEND(&host, FUSE_SETXATTR, file, BYTES(set), TEXT("user.a"), TEXT("abc")),
                     -E2BIG);
}
END_TEST

/* ---- Forged numbers ---- */

START_TEST(test_forged_files_are_unknown)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL), handle;
    const uint64_t forged[] = {
        0,          dir + 1,         dir + (UINT64_C(1) << 32), dir | UINT64_C(1) << 63,
        UINT64_MAX, SHARE_NODES_MAX, SHARE_NODES_MAX + 1,       UINT64_C(1) << 32 | 1};
    int status;

    for (unsigned i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        ck_assert_int_eq(host_getattr(&host, forged[i]), -ESTALE);
        ck_assert_uint_eq(host_lookup(&host, forged[i], "inner", &status), 0);
        ck_assert_int_eq(status, -ESTALE);
        ck_assert_int_eq(host_open_node(&host, forged[i], O_RDONLY, &handle), -ESTALE);
        ck_assert_int_eq(host_mkdir(&host, forged[i], "new"), -ESTALE);
        ck_assert_int_eq(host_rename(&host, 1, "file", forged[i], "new", 0), -ESTALE);
        host_forget(&host, forged[i], 1);
    }
    ck_assert_int_eq(host_getattr(&host, dir), 0);
}
END_TEST

START_TEST(test_forgotten_files_are_unknown)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL);

    host_lookup(&host, 1, "file", NULL);
    host_forget(&host, file, 1);
    ck_assert_int_eq(host_getattr(&host, file), 0);
    host_forget(&host, file, UINT64_MAX);
    ck_assert_int_eq(host_getattr(&host, file), -ESTALE);
    ck_assert_uint_ne(host_lookup(&host, 1, "file", NULL), file); /* a new number */
    host_forget(&host, 1, UINT64_MAX);
    ck_assert_int_eq(host_getattr(&host, 1), 0); /* the root stays */
}
END_TEST

START_TEST(test_forged_handles_are_refused)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), dir = host_lookup(&host, 1, "dir", NULL);
    uint64_t handle, listing;
    int status;

    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), 0);
    ck_assert_int_eq(host_open_node(&host, dir, O_DIRECTORY, &listing), 0);
    const uint64_t forged[] = {0, handle + 100, handle + (UINT64_C(1) << 32), UINT64_MAX, listing};
    for (unsigned i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        ck_assert_ptr_null(host_read(&host, file, forged[i], &status));
        ck_assert_int_eq(status, -EBADF);
        ck_assert_int_eq(host_write(&host, file, forged[i], 0, "x"), -EBADF);
    }
    const struct fuse_read_in in = {.fh = handle, .size = 4096};
    ck_assert_int_eq(SEND(&host, FUSE_READDIR, dir, BYTES(in)), -EBADF);
    ck_assert_ptr_null(host_read(&host, dir, handle, &status)); /* another file's */
    ck_assert_int_eq(status, -EBADF);
    ck_assert_int_eq(host_write(&host, file, handle, 0, "x"), -EBADF); /* not opened for that */
    ck_assert_int_eq(host_release(&host, file, handle, false), 0);
    ck_assert_ptr_null(host_read(&host, file, handle, &status));
    ck_assert_int_eq(status, -EBADF);
    ck_assert_int_eq(host_release(&host, file, handle, false), 0);
}
END_TEST

/* ---- Malformed ---- */

START_TEST(test_every_message_may_be_short)
{
    static const uint8_t zeros[128];

    for (uint32_t opcode = 0; opcode < 60; opcode++) {
        for (size_t size = 0; size < sizeof(zeros); size += 4) {
            if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) {
                continue;
            }
            SEND(&host, opcode, 1, (const void *)zeros, size);
        }
    }
    const uint32_t unknown[] = {0, 7, 31, 46 + 2, 49, 52, 4096, 1048576, UINT32_MAX};
    for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        ck_assert_int_eq(SEND(&host, unknown[i], 1, (const void *)zeros, sizeof(zeros)), -ENOSYS);
    }
    ck_assert_str_eq(host_text(&host, "share/file"), "contents");
}
END_TEST

START_TEST(test_lengths_and_positions_are_checked)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle;

    ck_assert_int_eq(host_open_node(&host, file, O_RDWR, &handle), 0);
    const struct fuse_write_in more = {.fh = handle, .size = 100};
    ck_assert_int_eq(SEND(&host, FUSE_WRITE, file, BYTES(more), TEXT("few")), -EINVAL);
    const struct fuse_write_in far = {.fh = handle, .size = 1, .offset = UINT64_MAX};
    ck_assert_int_eq(SEND(&host, FUSE_WRITE, file, BYTES(far), TEXT("x")), -EINVAL);
    const struct fuse_read_in read = {.fh = handle, .size = UINT32_MAX, .offset = UINT64_MAX - 5};
    ck_assert_int_eq(SEND(&host, FUSE_READ, file, BYTES(read)), -EINVAL);
    const struct fuse_lseek_in seek = {.fh = handle, .whence = SEEK_SET};
    ck_assert_int_eq(SEND(&host, FUSE_LSEEK, file, BYTES(seek)), -EINVAL);
    const struct fuse_fallocate_in collapse = {
        .fh = handle, .length = 4096, .mode = FALLOC_FL_COLLAPSE_RANGE};
    ck_assert_int_eq(SEND(&host, FUSE_FALLOCATE, file, BYTES(collapse)), -EOPNOTSUPP);
    const struct fuse_setattr_in times = {.valid = FATTR_ATIME, .atimensec = UTIME_NOW};
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, file, BYTES(times)), -EINVAL);
    const struct fuse_copy_file_range_in copy = {
        .fh_in = handle, .fh_out = 99, .nodeid_out = file, .len = UINT64_MAX};
    ck_assert_int_eq(SEND(&host, FUSE_COPY_FILE_RANGE, file, BYTES(copy)), -EBADF);
    const struct fuse_batch_forget_in forget = {.count = UINT32_MAX};
    SEND(&host, FUSE_BATCH_FORGET, 0, BYTES(forget));
    ck_assert_str_eq(host_text(&host, "share/file"), "contents");
}
END_TEST

START_TEST(test_odd_flags_of_open_do_nothing)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), dir = host_lookup(&host, 1, "dir", NULL);
    uint64_t handle;

    ck_assert_int_eq(host_open_node(&host, file, O_RDWR | O_APPEND | O_CREAT | O_EXCL, &handle), 0);
    ck_assert_int_eq(host_write(&host, file, handle, 0, "C"), 0); /* not at the end */
    ck_assert_str_eq(host_text(&host, "share/file"), "Contents");
    const struct fuse_open_in in = {.flags = O_PATH | O_DIRECTORY};
    ck_assert_int_eq(SEND(&host, FUSE_OPEN, dir, BYTES(in)), -EISDIR);
    const struct fuse_open_in file_as_dir = {.flags = 0};
    ck_assert_int_eq(SEND(&host, FUSE_OPENDIR, file, BYTES(file_as_dir)), -ENOTDIR);
}
END_TEST

START_TEST(test_nothing_before_a_session)
{
    host_end(&host);
    host_begin(&host);
    ck_assert_int_eq(SEND(&host, FUSE_DESTROY, 0), 0);
    ck_assert_int_eq(host_getattr(&host, 1), -EIO);
    ck_assert_int_eq(SEND(&host, FUSE_LOOKUP, 1, TEXT("file")), -EIO);
    struct fuse_init_in old = {.major = 7, .minor = 12};
    ck_assert_int_eq(SEND(&host, FUSE_INIT, 0, BYTES(old)), -EPROTO);
    struct fuse_init_in ancient = {.major = 6, .minor = 40};
    ck_assert_int_eq(SEND(&host, FUSE_INIT, 0, BYTES(ancient)), -EPROTO);
    struct fuse_init_in future = {.major = 8};
    ck_assert_int_eq(SEND(&host, FUSE_INIT, 0, BYTES(future)), 0);
    ck_assert_uint_eq(REPLY(&host, struct fuse_init_out)->major, 7);
    ck_assert_int_eq(host_getattr(&host, 1), -EIO);
}
END_TEST

START_TEST(test_a_new_session_knows_nothing_of_the_old)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle;
    int status;

    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), 0);
    host_introduce(&host);
    ck_assert_int_eq(host_getattr(&host, file), -ESTALE);
    ck_assert_ptr_null(host_read(&host, file, handle, &status));
}
END_TEST

/* ---- Read-only ---- */

START_TEST(test_a_read_only_share_is_not_changed)
{
    const struct fuse_setattr_in set = {.valid = FATTR_MODE, .mode = 0};
    const struct {
        uint32_t size, flags;
    } xattr = {.size = 1};
    uint64_t node, handle;

    fs_destroy(host.fs);
    host.setting.read_only = true;
    host_serve(&host);
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    ck_assert_int_eq(host_open_node(&host, file, O_RDWR, &handle), -EROFS);
    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY | O_TRUNC, &handle), -EROFS);
    ck_assert_int_eq(host_create(&host, 1, "new", O_RDWR, 0644, &node, &handle), -EROFS);
    ck_assert_int_eq(host_mkdir(&host, 1, "new"), -EROFS);
    ck_assert_int_eq(SEND(&host, FUSE_SYMLINK, 1, TEXT("new"), TEXT("file")), -EROFS);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("file")), -EROFS);
    ck_assert_int_eq(host_rename(&host, 1, "file", 1, "new", 0), -EROFS);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, file, BYTES(set)), -EROFS);
    ck_assert_int_eq(SEND(&host, FUSE_SETXATTR, file, BYTES(xattr), TEXT("user.a"), TEXT("")),
                     -EROFS);
    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), 0);
    ck_assert_int_eq(host_write(&host, file, handle, 0, "x"), -EROFS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fs_escape");
    TCase *test = tcase_create("escapes");

    tcase_add_checked_fixture(test, setup, teardown);
    tcase_set_timeout(test, 120);
    tcase_add_loop_test(test, test_no_operation_takes_a_path, 0, BAD_NAMES);
    tcase_add_test(test, test_overlong_and_endless_names_are_refused);
    tcase_add_loop_test(test, test_links_are_never_followed, 0,
                        sizeof(targets) / sizeof(targets[0]));
    tcase_add_test(test, test_a_directory_behind_a_link_is_none);
    tcase_add_test(test, test_creating_through_a_link_is_refused);
    tcase_add_test(test, test_a_directory_replaced_by_a_link_is_not_entered);
    tcase_add_test(test, test_a_file_replaced_by_a_link_is_not_opened);
    tcase_add_test(test, test_a_directory_moved_out_leads_no_further);
    tcase_add_test(test, test_a_hard_link_to_something_unknown_is_refused);
    tcase_add_test(test, test_devices_cannot_be_made);
    tcase_add_test(test, test_special_files_are_not_opened);
    tcase_add_test(test, test_set_id_bits_do_not_pass);
    tcase_add_test(test, test_a_directory_s_group_is_the_host_s);
    tcase_add_test(test, test_owners_are_not_given_away);
    tcase_add_loop_test(test, test_attributes_that_mean_something_are_refused, 0,
                        sizeof(hidden) / sizeof(hidden[0]));
    tcase_add_test(test, test_attributes_are_as_long_as_they_are);
    tcase_add_test(test, test_forged_files_are_unknown);
    tcase_add_test(test, test_forgotten_files_are_unknown);
    tcase_add_test(test, test_forged_handles_are_refused);
    tcase_add_test(test, test_every_message_may_be_short);
    tcase_add_test(test, test_lengths_and_positions_are_checked);
    tcase_add_test(test, test_odd_flags_of_open_do_nothing);
    tcase_add_test(test, test_nothing_before_a_session);
    tcase_add_test(test, test_a_new_session_knows_nothing_of_the_old);
    tcase_add_test(test, test_a_read_only_share_is_not_changed);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
