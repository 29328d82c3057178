/* What the guest may keep in mind of a shared directory's files, and what their server keeps open:
 * enough that nobody asks twice, and not so much that the host's changes go unseen or its removed
 * files stay. */
#include "tests/unit/fs_host.h"
#include "tests/unit/suite.h"

#include <dirent.h>
#include <time.h>

#define BRIEF_MOST 20000000u /* nanoseconds */

static struct fs_host host;

static void begin(enum share_cache cache, unsigned known)
{
    host_begin(&host);
    fs_destroy(host.fs);
    host.setting.cache = cache;
    host.known = known;
    host_serve(&host);
    host_introduce(&host);
    ck_assert_int_eq(mkdir(host_path(&host, "share/dir"), 0755), 0);
    host_file(&host, "share/file", "contents");
}

/* The last change of a file was so many seconds ago. */
static void make_older(const char *name, long seconds)
{
    struct timespec times[2];

    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    ck_assert_int_eq(utimensat(AT_FDCWD, host_path(&host, "%s", name), times, 0), 0);
}

/* How many descriptors this process has of a file below the base. */
static unsigned descriptors_of(const char *name)
{
    struct stat wanted, there;
    DIR *all = opendir("/proc/self/fd");
    unsigned count = 0;

    ck_assert_int_eq(stat(host_path(&host, "%s", name), &wanted), 0);
    for (struct dirent *entry; (entry = readdir(all)) != NULL;) {
        count += fstat(atoi(entry->d_name), &there) == 0 && there.st_ino == wanted.st_ino &&
                 there.st_dev == wanted.st_dev;
    }
    closedir(all);
    return count;
}

/* What the guest is told with an open file. */
static uint32_t flags_of_open(uint64_t node)
{
    const struct fuse_open_in in = {.flags = O_RDONLY};

    ck_assert_int_eq(SEND(&host, FUSE_OPEN, node, BYTES(in)), 0);
    struct fuse_open_out out = *REPLY(&host, struct fuse_open_out);
    ck_assert_int_eq(host_release(&host, node, out.fh, false), 0);
    return out.open_flags;
}

/* How many files of the shared directory a listing tells of, beside their names. */
static unsigned told_by_listing(void)
{
    uint64_t handle;
    unsigned count = 0;

    ck_assert_int_eq(host_open_node(&host, 1, O_RDONLY | O_DIRECTORY, &handle), 0);
    const struct fuse_read_in in = {.fh = handle, .size = 65536};
    ck_assert_int_eq(SEND(&host, FUSE_READDIRPLUS, 1, BYTES(in)), 0);
    const uint8_t *at = REPLY(&host, uint8_t), *end = host.reply + host.reply_bytes;
    while (at < end) {
        struct fuse_direntplus entry;
        memcpy(&entry, at, sizeof(entry));
        count += entry.entry_out.nodeid != 0;
        at += FUSE_DIRENTPLUS_SIZE(&entry);
    }
    ck_assert_int_eq(host_release(&host, 1, handle, true), 0);
    return count;
}

START_TEST(names_are_good_for_a_moment)
{
    begin(SHARE_CACHE_AUTO, 1000);
    host_lookup(&host, 1, "file", NULL);
    struct fuse_entry_out entry = *REPLY(&host, struct fuse_entry_out);
    ck_assert_uint_eq(entry.entry_valid + entry.attr_valid, 0);
    ck_assert_uint_gt(entry.entry_valid_nsec, 0);
    ck_assert_uint_gt(entry.attr_valid_nsec, 0);
    ck_assert_uint_le(entry.entry_valid_nsec, BRIEF_MOST);
    ck_assert_uint_le(entry.attr_valid_nsec, BRIEF_MOST);
    host_lookup(&host, 1, "dir", NULL);
    entry = *REPLY(&host, struct fuse_entry_out);
    ck_assert_uint_eq(entry.entry_valid, 1);
    ck_assert_uint_eq(told_by_listing(), 2);
    host_end(&host);
}
END_TEST

START_TEST(or_not_at_all_when_nothing_is_kept)
{
    begin(SHARE_CACHE_NEVER, 1000);
    host_lookup(&host, 1, "file", NULL);
    struct fuse_entry_out entry = *REPLY(&host, struct fuse_entry_out);
    ck_assert_uint_eq(entry.entry_valid + entry.attr_valid, 0);
    ck_assert_uint_eq(entry.entry_valid_nsec + entry.attr_valid_nsec, 0);
    ck_assert_uint_eq(told_by_listing(), 0); /* the guest would forget it at once */
    host_end(&host);
}
END_TEST

START_TEST(a_guest_that_knows_much_keeps_no_more)
{
    uint64_t nodes[8];
    char name[16], path[32];

    begin(SHARE_CACHE_ALWAYS, 4);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        snprintf(path, sizeof(path), "share/%s", name);
        host_file(&host, path, "");
        nodes[i] = host_lookup(&host, 1, name, NULL);
        ck_assert_uint_eq(REPLY(&host, struct fuse_entry_out)->entry_valid > 0, i < 3);
    }
    ck_assert_uint_eq(told_by_listing(), 0);
    for (unsigned i = 0; i < 8; i++) {
        host_forget(&host, nodes[i], 1);
    }
    host_lookup(&host, 1, "file", NULL);
    ck_assert_uint_gt(REPLY(&host, struct fuse_entry_out)->entry_valid, 0);
    host_end(&host);
}
END_TEST

START_TEST(files_that_nobody_uses_are_closed)
{
    uint64_t handle;
    int status;

    begin(SHARE_CACHE_AUTO, 1000);
    uint64_t node = host_lookup(&host, 1, "file", NULL);
    host_lookup(&host, 1, "dir", NULL);
    ck_assert_uint_eq(descriptors_of("share/file"), 1);
    ck_assert(fs_tidy(host.fs)); /* it was used just now */
    ck_assert_uint_eq(descriptors_of("share/file"), 1);
    ck_assert(!fs_tidy(host.fs));
    ck_assert_uint_eq(descriptors_of("share/file"), 0);
    ck_assert_uint_eq(descriptors_of("share/dir"),
                      1); /* the guest may be in it, however it is renamed */
    ck_assert_int_eq(host_getattr(&host, node), 0);
    ck_assert_uint_eq(descriptors_of("share/file"), 1); /* it was found again */
    ck_assert_int_eq(host_open_node(&host, node, O_RDONLY, &handle), 0);
    for (unsigned i = 0; i < 3; i++) {
        fs_tidy(host.fs);
    }
    ck_assert_uint_eq(descriptors_of("share/file"), 2); /* an open one */
    ck_assert_int_eq(unlink(host_path(&host, "share/file")), 0);
    ck_assert_int_eq(host_getattr(&host, node), 0);
    ck_assert_str_eq(host_read(&host, node, handle, &status), "contents");
    host_end(&host);
}
END_TEST

START_TEST(contents_are_kept_while_nobody_can_have_changed_them)
{
    begin(SHARE_CACHE_AUTO, 1000);
    uint64_t node = host_lookup(&host, 1, "file", NULL);
    /* Changed a moment ago: the next change may have the same time. */
    make_older("share/file", 0);
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    make_older("share/file", 60);
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    ck_assert_uint_ne(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    host_file(&host, "share/file", "anything");
    make_older("share/file", 30);
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    make_older("share/file", -3600); /* a clock that is wrong */
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    ck_assert_uint_eq(flags_of_open(node) & FOPEN_KEEP_CACHE, 0);
    host_end(&host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fs_cache");
    TCase *test = tcase_create("cache");

    tcase_set_timeout(test, 120);
    tcase_add_test(test, names_are_good_for_a_moment);
    tcase_add_test(test, or_not_at_all_when_nothing_is_kept);
    tcase_add_test(test, a_guest_that_knows_much_keeps_no_more);
    tcase_add_test(test, files_that_nobody_uses_are_closed);
    tcase_add_test(test, contents_are_kept_while_nobody_can_have_changed_them);
    suite_add_tcase(suite, test);
    return suite_run(suite);
}
