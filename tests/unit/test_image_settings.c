/* What people write about images, where they are kept, and the disk for cloud-init. */
#include "cli/image/build.h"
#include "cli/image/scratch.h"
#include "cli/image/seed.h"
#include "cli/image/store.h"
#include "tests/unit/suite.h"

#include <archive.h>
#include <archive_entry.h>
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static void set_up(void)
{
    strcpy(folder, "/tmp/test-image-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void tear_down(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static char *in_folder(const char *name)
{
    static char paths[16][128];
    static unsigned next;
    char *path = paths[next++ % 16];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* ---- image build ---- */

START_TEST(test_source)
{
    static const char *const wrong[] = {"",          "debian",         "debian:",     ":trixie",
                                        "trixie",    "debian:Trixie",  "debian:a/b",  "debian:a b",
                                        "debian:-x", "debian:tri;xie", "debian:../x", NULL};
    char suite[BUILD_SUITE_MAX + 1];
    struct error err;

    ck_assert_int_eq(image_build_parse_source("debian:trixie", suite, &err), 0);
    ck_assert_str_eq(suite, "trixie");
    ck_assert_int_eq(image_build_parse_source("fedora:42", suite, &err), -ERROR_UNSUPPORTED);
    for (size_t i = 0; wrong[i] != NULL; i++) {
        int status = image_build_parse_source(wrong[i], suite, &err);
        ck_assert_msg(status == -ERROR_USAGE || status == -ERROR_UNSUPPORTED, "%s", wrong[i]);
    }
    ck_assert_int_eq(
        image_build_parse_source("debian:aaaaaaaaaabbbbbbbbbbccccccccccddd", suite, &err),
        -ERROR_USAGE);
}
END_TEST

START_TEST(test_packages)
{
    static const char *const wrong[] = {"a",    "vim, git", "vim,,git",   ",vim", "Vim",
                                        "-vim", "vim;id",   "vim/trixie", "x=1",  NULL};
    struct error err;
    char *list = image_build_parse_packages("vim,g++,libc6-dev", NULL, &err);

    ck_assert_str_eq(list, "vim g++ libc6-dev");
    free(list);
    list = image_build_parse_packages("vim", "openssh-server", &err);
    ck_assert_str_eq(list, "vim openssh-server");
    free(list);
    list = image_build_parse_packages(NULL, "openssh-server", &err);
    ck_assert_str_eq(list, "openssh-server");
    free(list);
    list = image_build_parse_packages(NULL, NULL, &err);
    ck_assert_str_eq(list, "");
    free(list);
    for (size_t i = 0; wrong[i] != NULL; i++) {
        ck_assert_msg(image_build_parse_packages(wrong[i], NULL, &err) == NULL, "%s", wrong[i]);
        ck_assert_int_eq(err.code, ERROR_USAGE);
    }
}
END_TEST

START_TEST(test_hostname)
{
    char longest[BUILD_HOSTNAME_MAX + 2];

    ck_assert(image_build_hostname_valid("a"));
    ck_assert(image_build_hostname_valid("build-1"));
    ck_assert(!image_build_hostname_valid(""));
    ck_assert(!image_build_hostname_valid("-a"));
    ck_assert(!image_build_hostname_valid("a-"));
    ck_assert(!image_build_hostname_valid("a.b"));
    ck_assert(!image_build_hostname_valid("a b"));
    memset(longest, 'a', sizeof(longest));
    longest[BUILD_HOSTNAME_MAX + 1] = '\0';
    ck_assert(!image_build_hostname_valid(longest));
    longest[BUILD_HOSTNAME_MAX] = '\0';
    ck_assert(image_build_hostname_valid(longest));
}
END_TEST

START_TEST(test_report)
{
    char progress[] = "progress\t3\t10\tlibc6", bare[] = "stage", empty[] = "";
    char error[] = "error\tio\tno space\tremove\tsomething";
    struct build_report report;

    image_build_parse_report(progress, &report);
    ck_assert_str_eq(report.kind, "progress");
    ck_assert_str_eq(report.words[0], "3");
    ck_assert_str_eq(report.words[1], "10");
    ck_assert_str_eq(report.words[2], "libc6");
    image_build_parse_report(bare, &report);
    ck_assert_str_eq(report.kind, "stage");
    ck_assert_str_eq(report.words[0], "");
    image_build_parse_report(empty, &report);
    ck_assert_str_eq(report.kind, "");
    image_build_parse_report(error, &report);
    ck_assert_str_eq(report.words[0], "io");
    ck_assert_str_eq(report.words[2], "remove\tsomething");
}
END_TEST

/* ---- The store ---- */

static int note_name(void *context, const char *name, const char *path, struct error *err)
{
    char *names = context;

    (void)err;
    ck_assert_int_eq(access(path, F_OK), 0);
    strcat(names, name);
    strcat(names, " ");
    return strcmp(name, "stop") == 0;
}

START_TEST(test_store)
{
    char path[PATH_MAX], names[64] = "";
    struct error err;

    setenv("POLYVISOR_IMAGE_DIR", in_folder("a/b"), 1);
    ck_assert_int_eq(store_walk(note_name, names, &err), 0);
    ck_assert_str_eq(names, "");
    ck_assert_int_eq(store_make_directory(path, &err), 0);
    ck_assert_str_eq(path, in_folder("a/b"));
    ck_assert_int_eq(store_path("web", path, &err), 0);
    ck_assert_str_eq(path, in_folder("a/b/web.img"));
    ck_assert_int_eq(store_path("../web", path, &err), -ERROR_USAGE);
    ck_assert_int_eq(store_resolve("web", path, &err), -ERROR_NOT_FOUND);
    write_text(in_folder("a/b/web.img"), "x");
    write_text(in_folder("a/b/.hidden.img"), "x");
    write_text(in_folder("a/b/other.txt"), "x");
    write_text(in_folder("a/b/also.img"), "x");
    ck_assert_int_eq(store_resolve("web", path, &err), 0);
    ck_assert_str_eq(path, in_folder("a/b/web.img"));
    ck_assert_int_eq(store_walk(note_name, names, &err), 0);
    ck_assert_str_eq(names, "also web ");
    write_text(in_folder("a/b/stop.img"), "x");
    names[0] = '\0';
    ck_assert_int_eq(store_walk(note_name, names, &err), 1);
    ck_assert_str_eq(names, "also stop ");
    /* A path is a path, whatever is in the store. */
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(store_resolve("./web", path, &err), -ERROR_NOT_FOUND);
    write_text(in_folder("file.img"), "x");
    ck_assert_int_eq(store_resolve("file.img", path, &err), 0);
    write_text(in_folder("plain"), "x");
    ck_assert_int_eq(store_resolve("plain", path, &err), 0);
    ck_assert_int_eq(store_resolve(in_folder("plain"), path, &err), 0);
    ck_assert_str_eq(path, in_folder("plain"));
    ck_assert_int_eq(chdir("/"), 0);
    unsetenv("POLYVISOR_IMAGE_DIR");
    setenv("XDG_DATA_HOME", folder, 1);
    ck_assert_int_eq(store_directory(path, &err), 0);
    ck_assert_str_eq(path, in_folder("polyvisor/images"));
}
END_TEST

/* ---- Scratch folders and copies ---- */

START_TEST(test_scratch)
{
    struct scratch first = {0}, second = {0};
    char left[SCRATCH_PATH_MAX + 32], command[2 * SCRATCH_PATH_MAX];
    struct error err;

    setenv("POLYVISOR_CACHE_DIR", in_folder("cache"), 1);
    ck_assert_int_eq(scratch_open(&first, &err), 0);
    snprintf(left, sizeof(left), "%s/file", first.path);
    write_text(left, "x");
    /* What a dead command left goes once it is old; what lives stays, and what is young. */
    snprintf(command, sizeof(command),
             "cd %s/cache/scratch && mkdir -p old/a young && touch old/lock young/lock old/a/x && "
             "chmod 500 old/a && touch -d '2 hours ago' old %s",
             folder, first.path);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(scratch_open(&second, &err), 0);
    ck_assert_int_eq(access(left, F_OK), 0);
    ck_assert_int_eq(access(in_folder("cache/scratch/young"), F_OK), 0);
    ck_assert_int_ne(access(in_folder("cache/scratch/old"), F_OK), 0);
    ck_assert_str_ne(first.path, second.path);
    snprintf(left, sizeof(left), "%s", first.path);
    scratch_close(&first);
    ck_assert_int_ne(access(left, F_OK), 0);
    scratch_close(&first);
    scratch_close(&second);
}
END_TEST

START_TEST(test_copy_keeps_holes)
{
    struct stat from, to;
    char bytes[4096], read_back[4096];
    struct error err;
    int fd = open(in_folder("from"), O_RDWR | O_CREAT | O_EXCL, 0600);

    memset(bytes, 'x', sizeof(bytes));
    ck_assert_int_eq(ftruncate(fd, 64 << 20), 0);
    ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), 5 << 20), sizeof(bytes));
    ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), (64 << 20) - 4096), sizeof(bytes));
    close(fd);
    ck_assert_int_eq(scratch_copy(in_folder("from"), in_folder("to"), &err), 0);
    ck_assert_int_eq(stat(in_folder("from"), &from), 0);
    ck_assert_int_eq(stat(in_folder("to"), &to), 0);
    ck_assert_int_eq(from.st_size, to.st_size);
    ck_assert_int_le(to.st_blocks, from.st_blocks + 4096);
    fd = open(in_folder("to"), O_RDONLY);
    ck_assert_int_eq(pread(fd, read_back, sizeof(read_back), 5 << 20), sizeof(read_back));
    ck_assert_mem_eq(bytes, read_back, sizeof(bytes));
    ck_assert_int_eq(pread(fd, read_back, sizeof(read_back), 6 << 20), sizeof(read_back));
    ck_assert_int_eq(read_back[17], 0);
    close(fd);
    ck_assert_int_eq(scratch_copy(in_folder("from"), in_folder("to"), &err), -ERROR_IO);
    ck_assert_int_eq(scratch_copy(in_folder("none"), in_folder("new"), &err), -ERROR_IO);
    ck_assert_int_ne(access(in_folder("new"), F_OK), 0);
}
END_TEST

/* ---- cloud-init ---- */

static int parse_seed(const char *text, struct seed_setting *setting, struct error *err)
{
    const struct option_spec option = {.name = "cloud-init", .argument = "FILE"};

    return option_cloud_init.parse(&option, text, setting, err);
}

START_TEST(test_seed_setting)
{
    static const char *const wrong[] = {"", "meta-data=x", "a,b", "a,meta-data=", "a,", NULL};
    struct seed_setting setting = {0};
    struct error err;

    ck_assert_int_eq(parse_seed("/a,network-config=/c,meta-data=/b", &setting, &err), 0);
    ck_assert_str_eq(setting.user_data, "/a");
    ck_assert_str_eq(setting.meta_data, "/b");
    ck_assert_str_eq(setting.network_config, "/c");
    ck_assert_int_eq(parse_seed("user-data=/x", &setting, &err), 0);
    ck_assert_str_eq(setting.user_data, "/x");
    ck_assert_ptr_null(setting.meta_data);
    for (size_t i = 0; wrong[i] != NULL; i++) {
        ck_assert_int_eq(parse_seed(wrong[i], &setting, &err), -ERROR_USAGE);
    }
    option_cloud_init.release(&setting);
}
END_TEST

/* The files of a disk as "NAME=CONTENT;", sorted by nothing. */
static void read_disk(const char *path, char *text, size_t room)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;

    text[0] = '\0';
    archive_read_support_format_iso9660(archive);
    ck_assert_int_eq(archive_read_open_filename(archive, path, 10240), ARCHIVE_OK);
    while (archive_read_next_header(archive, &entry) == ARCHIVE_OK) {
        char bytes[512] = "";
        if (archive_entry_filetype(entry) == AE_IFREG) {
            ck_assert_int_ge(archive_read_data(archive, bytes, sizeof(bytes) - 1), 0);
            snprintf(text + strlen(text), room - strlen(text), "%s=%s;",
                     archive_entry_pathname(entry), bytes);
        }
    }
    archive_read_free(archive);
}

START_TEST(test_seed_disk)
{
    struct seed_setting setting = {.user_data = in_folder("u"), .network_config = in_folder("n")};
    char text[2048], label[6];
    struct error err;

    write_text(setting.user_data, "#cloud-config\n");
    ck_assert_int_eq(seed_make(&setting, "web", in_folder("seed"), &err), -ERROR_NOT_FOUND);
    ck_assert_int_ne(access(in_folder("seed"), F_OK), 0);
    write_text(setting.network_config, "version: 2\n");
    ck_assert_int_eq(seed_make(&setting, "web", in_folder("seed"), &err), 0);
    read_disk(in_folder("seed"), text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "user-data=#cloud-config\n;"));
    ck_assert_ptr_nonnull(strstr(text, "network-config=version: 2\n;"));
    ck_assert_ptr_nonnull(strstr(text, "meta-data=instance-id: web-"));
    /* ISO 9660, 8.4.7: the volume's identifier, in the primary descriptor. */
    int fd = open(in_folder("seed"), O_RDONLY);
    ck_assert_int_eq(pread(fd, label, 6, 16 * 2048 + 40), 6);
    close(fd);
    ck_assert_int_eq(strncasecmp(label, "cidata", 6), 0);
    ck_assert_int_eq(seed_make(&setting, "web", in_folder("seed"), &err), -ERROR_IO); /* is there */
    setting.user_data = folder;
    ck_assert_int_eq(seed_make(&setting, "web", in_folder("seed2"), &err), -ERROR_CONFIG);
}
END_TEST

START_TEST(test_seed_of_nothing)
{
    static const struct {
        const char *user_data;
        bool fine;
    } cases[] = {
        {"#cloud-config\nhostname: x\n", true},
        {"\n  #Cloud-Config\na: |\n  \tb\n\t\n\t# c\n", true},
        {"#!/bin/sh\n\techo\n", true},
        {"", true},
        {"Subject: x\nMIME-Version: 1.0\n", true},
        {"\x1f\x8b\x08", true},
        {"## template: jinja\n#cloud-config\n", true},
        {"hostname: x\n", false},
        {"# cloud-config\n", false},
        {"#cloud-confi", false},
        {"#cloud-config\nusers:\n\t- x\n", false},
        {"#cloud-config\n\tx", false},
    };
    char user_data[256], network_config[256];
    struct seed_setting setting = {.user_data = user_data};
    struct error err;

    snprintf(user_data, sizeof(user_data), "%s", in_folder("u"));
    snprintf(network_config, sizeof(network_config), "%s", in_folder("n"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text(setting.user_data, cases[i].user_data);
        ck_assert_msg(seed_make(&setting, "web", in_folder("seed"), &err) ==
                          (cases[i].fine ? 0 : -ERROR_CONFIG),
                      "%s", cases[i].user_data);
        ck_assert_int_eq(access(in_folder("seed"), F_OK) == 0, cases[i].fine);
        unlink(in_folder("seed"));
    }
    write_text(setting.user_data, "#!/bin/sh\n");
    setting.network_config = network_config;
    write_text(setting.network_config, "version: 2\nethernets:\n\teth0: {}\n");
    ck_assert_int_eq(seed_make(&setting, "web", in_folder("seed"), &err), -ERROR_CONFIG);
    ck_assert_ptr_nonnull(strstr(err.message, "line 3 "));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_settings");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, test_source);
    tcase_add_test(tcase, test_packages);
    tcase_add_test(tcase, test_hostname);
    tcase_add_test(tcase, test_report);
    tcase_add_test(tcase, test_store);
    tcase_add_test(tcase, test_scratch);
    tcase_add_test(tcase, test_copy_keeps_holes);
    tcase_add_test(tcase, test_seed_setting);
    tcase_add_test(tcase, test_seed_disk);
    tcase_add_test(tcase, test_seed_of_nothing);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
