/* The server of a shared directory dies at every step of what it does, and another goes on: by what
 * is in the state, and by what vmmd kept. */
#include "tests/unit/fs_host.h"
#include "tests/unit/suite.h"

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
    host_end(&host);
}

/* The request that was sent last comes again, to another server: it was not answered. */
static void again(bool repeated)
{
    host.again = repeated;
    if (repeated) {
        host_replace(&host);
    }
}

START_TEST(test_numbers_and_handles_stay)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    uint64_t inner = host_lookup(&host, dir, "inner", NULL), handle;
    int status;

    ck_assert_int_eq(host_open_node(&host, inner, O_RDWR, &handle), 0);
    host_replace(&host);
    ck_assert_str_eq(host_read(&host, inner, handle, &status), "inner");
    ck_assert_int_eq(host_write(&host, inner, handle, 5, "most"), 0);
    ck_assert_str_eq(host_text(&host, "share/dir/inner"), "innermost");
    ck_assert_uint_eq(host_lookup(&host, dir, "inner", NULL), inner);
    ck_assert_int_eq(host_getattr(&host, dir), 0);
    host_replace(&host);
    ck_assert_int_eq(host_release(&host, inner, handle, false), 0);
    host_forget(&host, inner, 2);
    ck_assert_int_eq(host_getattr(&host, inner), -ESTALE);
}
END_TEST

START_TEST(test_names_follow_renames)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    uint64_t inner = host_lookup(&host, dir, "inner", NULL), handle;
    char name[256];
    int status;

    memset(name, 'n', 255);
    name[255] = '\0';
    ck_assert_int_eq(host_open_node(&host, inner, O_RDONLY, &handle), 0);
    ck_assert_int_eq(host_rename(&host, dir, "inner", dir, name, 0), 0);
    ck_assert_int_eq(host_rename(&host, 1, "dir", 1, "elsewhere", 0), 0);
    ck_assert_int_eq(host_mkdir(&host, 1, "dir"), 0);
    host_replace(&host);
    ck_assert_str_eq(host_read(&host, inner, handle, &status), "inner");
    ck_assert_int_eq(host_rename(&host, 1, "dir", 1, "elsewhere", 2 /* exchange */), 0);
    host_replace(&host);
    ck_assert_str_eq(host_read(&host, inner, handle, &status), "inner");
}
END_TEST

START_TEST(test_open_files_without_a_name_stay)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle;
    int status;

    ck_assert_int_eq(host_open_node(&host, file, O_RDWR, &handle), 0);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("file")), 0);
    ck_assert(!host_exists(&host, "share/file"));
    for (unsigned i = 0; i < 3; i++) {
        host_replace(&host);
        ck_assert_str_eq(host_read(&host, file, handle, &status), "contents");
        ck_assert_int_eq(host_getattr(&host, file), 0);
    }
    ck_assert_int_eq(host_write(&host, file, handle, 0, "C"), 0);
    ck_assert_str_eq(host_read(&host, file, handle, &status), "Contents");
    /* The same for one that another takes the name of. */
    uint64_t dir = host_lookup(&host, 1, "dir", NULL),
             inner = host_lookup(&host, dir, "inner", NULL);
    uint64_t other;
    host_file(&host, "share/new", "new");
    ck_assert_int_eq(host_open_node(&host, inner, O_RDONLY, &other), 0);
    ck_assert_int_eq(host_rename(&host, 1, "new", dir, "inner", 0), 0);
    host_replace(&host);
    ck_assert_str_eq(host_read(&host, inner, other, &status), "inner");
    ck_assert_str_eq(host_text(&host, "share/dir/inner"), "new");
    ck_assert_int_eq(host_release(&host, inner, other, false), 0);
    ck_assert_int_eq(host_release(&host, file, handle, false), 0);
}
END_TEST

START_TEST(test_a_file_that_never_had_a_name)
{
    const struct fuse_create_in in = {.flags = O_RDWR, .mode = S_IFREG | 0600};
    int status;

    ck_assert_int_eq(SEND(&host, FUSE_TMPFILE, 1, BYTES(in)), 0);
    uint64_t node = REPLY(&host, struct fuse_entry_out)->nodeid;
    struct fuse_open_out out;
    memcpy(&out, REPLY(&host, uint8_t) + sizeof(struct fuse_entry_out), sizeof(out));
    ck_assert_int_eq(host_write(&host, node, out.fh, 0, "nameless"), 0);
    host_replace(&host);
    ck_assert_str_eq(host_read(&host, node, out.fh, &status), "nameless");
    const struct fuse_link_in link = {.oldnodeid = node};
    ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(link), TEXT("named")), 0);
    ck_assert_str_eq(host_text(&host, "share/named"), "nameless");
}
END_TEST

/* As git does it; root may open everything, so the mode is no obstacle to it. */
START_TEST(test_open_files_that_their_mode_closed_stay)
{
    uint64_t node, handle, second, other;
    const struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = S_IFREG | 0444};

    ck_assert_int_eq(host_create(&host, 1, "object", O_RDWR | O_EXCL, 0444, &node, &handle), 0);
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    ck_assert_int_eq(host_open_node(&host, file, O_RDWR, &second), 0);
    ck_assert_int_eq(SEND(&host, FUSE_SETATTR, file, BYTES(mode)), 0);
    host_replace(&host);
    ck_assert_int_eq(host_write(&host, node, handle, 0, "object"), 0);
    ck_assert_int_eq(host_write(&host, file, second, 0, "C"), 0);
    ck_assert_str_eq(host_text(&host, "share/object"), "object");
    ck_assert_str_eq(host_text(&host, "share/file"), "Contents");
    other = geteuid() == 0 ? 0 : (uint64_t)host_open_node(&host, node, O_RDWR, &handle);
    ck_assert(geteuid() == 0 || (int64_t)other == -EACCES);
}
END_TEST

START_TEST(test_many_are_kept_and_let_go)
{
    enum { FILES = 300 };
    static uint64_t nodes[FILES], handles[FILES];
    char name[32];
    int status;

    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        ck_assert_int_eq(host_create(&host, 1, name, O_RDWR, 0644, &nodes[i], &handles[i]), 0);
        ck_assert_int_eq(host_write(&host, nodes[i], handles[i], 0, name), 0);
        ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT(name)), 0);
        if (i >= 100) { /* at most a hundred at once */
            ck_assert_int_eq(host_release(&host, nodes[i - 100], handles[i - 100], false), 0);
            host_forget(&host, nodes[i - 100], 1);
        }
        if (i % 50 == 49) {
            host_replace(&host);
        }
    }
    for (unsigned i = FILES - 100; i < FILES; i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        ck_assert_str_eq(host_read(&host, nodes[i], handles[i], &status), name);
    }
}
END_TEST

START_TEST(test_more_files_than_descriptors)
{
    enum { FILES = 400 };
    static uint64_t nodes[FILES];
    char name[32];

    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "dir/file-%u", i);
        host_file(&host, host_path(&host, "share/%s", name) + strlen(host.base) + 1, name);
    }
    uint64_t dir = host_lookup(&host, 1, "dir", NULL), handle;
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        nodes[i] = host_lookup(&host, dir, name, NULL);
    }
    for (unsigned i = 0; i < FILES; i++) {
        int status;
        snprintf(name, sizeof(name), "dir/file-%u", i);
        ck_assert_int_eq(host_open_node(&host, nodes[i], O_RDONLY, &handle), 0);
        ck_assert_str_eq(host_read(&host, nodes[i], handle, &status), name);
        ck_assert_int_eq(host_release(&host, nodes[i], handle, false), 0);
    }
}
END_TEST

/* ---- Requests that come again ---- */

START_TEST(test_making_again)
{
    const struct fuse_mkdir_in make = {.mode = 0755};
    const struct fuse_mknod_in node = {.mode = S_IFIFO | 0644};
    uint64_t file = host_lookup(&host, 1, "file", NULL);
    const struct fuse_link_in link = {.oldnodeid = file};

    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_MKDIR, 1, BYTES(make), TEXT("new")), 0);
    }
    again(false);
    ck_assert_int_eq(SEND(&host, FUSE_MKDIR, 1, BYTES(make), TEXT("new")), -EEXIST);
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_MKNOD, 1, BYTES(node), TEXT("fifo")), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_SYMLINK, 1, TEXT("link"), TEXT("target")), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(link), TEXT("hard")), 0);
        ck_assert_uint_eq(REPLY(&host, struct fuse_entry_out)->nodeid, file);
        ck_assert_uint_eq(REPLY(&host, struct fuse_entry_out)->attr.nlink, 2);
    }
    again(false);
    ck_assert_int_eq(SEND(&host, FUSE_LINK, 1, BYTES(link), TEXT("hard")), -EEXIST);
}
END_TEST

START_TEST(test_creating_again)
{
    uint64_t node, handle, first;

    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(host_create(&host, 1, "object", O_RDWR | O_EXCL, 0444, &node, &handle), 0);
    }
    again(false);
    first = handle;
    ck_assert_int_eq(host_write(&host, node, handle, 0, "object"), 0);
    ck_assert_int_eq(host_create(&host, 1, "object", O_RDWR | O_EXCL, 0444, &node, &handle),
                     -EEXIST);
    ck_assert_str_eq(host_text(&host, "share/object"), "object");
    /* The handle that the first life made is gone: nobody was told of it. */
    ck_assert_uint_eq(first >> 32, 1);
}
END_TEST

START_TEST(test_removing_again)
{
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("file")), 0);
    }
    again(false);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("file")), -ENOENT);
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, dir, TEXT("inner")), 0);
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(SEND(&host, FUSE_RMDIR, 1, TEXT("dir")), 0);
    }
    /* What somebody made meanwhile under that name is not what was to go. */
    again(false);
    host_file(&host, "share/other", "one");
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("other")), 0);
    host_file(&host, "share/keep", "");
    host_file(&host, "share/other", "two");
    again(true);
    ck_assert_int_eq(SEND(&host, FUSE_UNLINK, 1, TEXT("other")), 0);
    struct stat status;
    bool same_inode = stat(host_path(&host, "share/other"), &status) < 0;
    ck_assert(same_inode || strcmp(host_text(&host, "share/other"), "two") == 0);
}
END_TEST

START_TEST(test_renaming_again)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL), file = host_lookup(&host, 1, "file", NULL);

    for (unsigned i = 0; i < 3; i++) {
        again(i);
        ck_assert_int_eq(host_rename(&host, 1, "file", dir, "inner", 0), 0);
    }
    ck_assert_str_eq(host_text(&host, "share/dir/inner"), "contents");
    again(false);
    ck_assert_int_eq(host_rename(&host, 1, "file", dir, "inner", 0), -ENOENT);
    ck_assert_uint_eq(host_lookup(&host, dir, "inner", NULL), file);
    host_file(&host, "share/a", "a");
    host_file(&host, "share/b", "b");
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(host_rename(&host, 1, "a", 1, "b", 2 /* exchange */), 0);
    }
    ck_assert_str_eq(host_text(&host, "share/a"), "b");
    ck_assert_str_eq(host_text(&host, "share/b"), "a");
    again(false);
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        ck_assert_int_eq(host_rename(&host, 1, "b", 1, "c", 1 /* no replacing */), 0);
    }
    again(false);
    ck_assert_int_eq(host_rename(&host, 1, "a", 1, "c", 1), -EEXIST);
}
END_TEST

START_TEST(test_forgetting_again)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL);

    host_lookup(&host, 1, "file", NULL);
    host_lookup(&host, 1, "file", NULL);
    for (unsigned i = 0; i < 3; i++) {
        again(i);
        host_forget(&host, file, 2);
    }
    again(false);
    ck_assert_int_eq(host_getattr(&host, file), 0);
    uint64_t dir = host_lookup(&host, 1, "dir", NULL);
    const struct fuse_batch_forget_in in = {.count = 2};
    const struct fuse_forget_one ones[2] = {{dir, 1}, {file, 1}};
    for (unsigned i = 0; i < 2; i++) {
        again(i);
        SEND(&host, FUSE_BATCH_FORGET, 0, BYTES(in), BYTES(ones));
    }
    again(false);
    ck_assert_int_eq(host_getattr(&host, file), -ESTALE);
    ck_assert_int_eq(host_getattr(&host, dir), -ESTALE);
}
END_TEST

START_TEST(test_releasing_again)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle, other;
    int status;

    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), 0);
    ck_assert_int_eq(host_release(&host, file, handle, false), 0);
    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &other), 0);
    ck_assert_int_eq(host_release(&host, file, handle, false), 0); /* not the other one */
    ck_assert_str_eq(host_read(&host, file, other, &status), "contents");
}
END_TEST

START_TEST(test_a_listing_goes_on)
{
    uint64_t dir = host_lookup(&host, 1, "dir", NULL), handle;
    unsigned seen = 0;
    char name[32];

    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "share/dir/more-%u", i);
        host_file(&host, name, "");
    }
    ck_assert_int_eq(host_open_node(&host, dir, O_DIRECTORY, &handle), 0);
    struct fuse_read_in in = {.fh = handle, .size = 1000};
    for (;;) {
        ck_assert_int_eq(SEND(&host, FUSE_READDIRPLUS, dir, BYTES(in)), 0);
        size_t bytes = host.reply_bytes - sizeof(struct fuse_out_header), at = 0;
        if (bytes == 0) {
            break;
        }
        while (at < bytes) {
            struct fuse_direntplus *entry = (void *)(REPLY(&host, uint8_t) + at);
            seen += entry->dirent.namelen > 2;
            in.offset = entry->dirent.off;
            at += FUSE_DIRENTPLUS_SIZE(entry);
        }
        host_replace(&host);
    }
    ck_assert_uint_eq(seen, 101);
}
END_TEST

/* What the state holds is checked where a wrong value could lead out of it. */
START_TEST(test_a_damaged_state_is_survived)
{
    uint64_t file = host_lookup(&host, 1, "file", NULL), handle;
    uint8_t bytes[4096];

    ck_assert_int_eq(host_open_node(&host, file, O_RDONLY, &handle), 0);
    fs_destroy(host.fs);
    memset(bytes, 0xff, sizeof(bytes));
    off_t nodes = offsetof(struct share_state, nodes),
          handles = offsetof(struct share_state, handles);
    ck_assert_int_eq(pwrite(host.state, bytes, 1024, nodes + 256), 1024);
    ck_assert_int_eq(pwrite(host.state, bytes, 64, handles + 32), 64);
    ck_assert_int_eq(pwrite(host.state, bytes, 4, offsetof(struct share_state, node_end)), 4);
    host_serve(&host);
    host_getattr(&host, file);
    host_introduce(&host);
    ck_assert_uint_ne(host_lookup(&host, 1, "file", NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fs_recovery");
    TCase *test = tcase_create("recovery");

    tcase_add_checked_fixture(test, setup, teardown);
    tcase_set_timeout(test, 120);
    tcase_add_test(test, test_numbers_and_handles_stay);
    tcase_add_test(test, test_names_follow_renames);
    tcase_add_test(test, test_open_files_without_a_name_stay);
    tcase_add_test(test, test_a_file_that_never_had_a_name);
    tcase_add_test(test, test_open_files_that_their_mode_closed_stay);
    tcase_add_test(test, test_many_are_kept_and_let_go);
    tcase_add_test(test, test_more_files_than_descriptors);
    tcase_add_test(test, test_making_again);
    tcase_add_test(test, test_creating_again);
    tcase_add_test(test, test_removing_again);
    tcase_add_test(test, test_renaming_again);
    tcase_add_test(test, test_forgetting_again);
    tcase_add_test(test, test_releasing_again);
    tcase_add_test(test, test_a_listing_goes_on);
    tcase_add_test(test, test_a_damaged_state_is_survived);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
