#include "cli/image/seed.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIME_HEAD 4096u

/* ---- The option ---- */

static void release(void *target)
{
    struct seed_setting *setting = target;

    free(setting->user_data);
    free(setting->meta_data);
    free(setting->network_config);
    memset(setting, 0, sizeof(*setting));
}

static int parse_word(const struct option_spec *option, const char *word,
                      struct seed_setting *setting, struct error *err)
{
    char **target = &setting->user_data;

    if (strncmp(word, "meta-data=", 10) == 0) {
        target = &setting->meta_data;
        word += 10;
    } else if (strncmp(word, "network-config=", 15) == 0) {
        target = &setting->network_config;
        word += 15;
    } else if (strncmp(word, "user-data=", 10) == 0) {
        word += 10;
    }
    if (*word == '\0' || *target != NULL) {
        error_set(err, ERROR_USAGE, 0, "--%s: a file is missing, or there is one too many",
                  option->name);
        error_hint(err, "--%s %s", option->name, option->argument);
        return -ERROR_USAGE;
    }
    *target = options_absolute_path(option->name, word, err);
    return *target != NULL ? 0 : -ERROR_USAGE;
}

static int parse(const struct option_spec *option, const char *value, void *target,
                 struct error *err)
{
    struct seed_setting *setting = target;
    char *text = strdup(value), *rest = text;
    int status = text != NULL ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");

    release(setting);
    for (char *word; status == 0 && (word = strsep(&rest, ",")) != NULL;) {
        status = parse_word(option, word, setting, err);
    }
    if (status == 0 && setting->user_data == NULL) {
        error_set(err, ERROR_USAGE, 0, "--%s: user-data is missing", option->name);
        error_hint(err, "--%s %s", option->name, option->argument);
        status = -ERROR_USAGE;
    }
    free(text);
    return status;
}

const struct option_type option_cloud_init = {
    .takes_value = true, .completion = OPTION_COMPLETE_FILE, .parse = parse, .release = release};

/* ---- What cloud-init makes nothing of ---- */

/* It tells what user-data are by how they begin; what begins in no such way it passes over without
 * a word that anybody sees. */
static bool begins_as_user_data(const char *bytes, size_t size)
{
    static const char *const beginnings[] = {
        "#cloud-config", "#!",           "#include", "#cloud-boothook",
        "#part-handler", "## template:", "\x1f\x8b"};
    static const char mime[] = "mime-version:"; /* anywhere in what may be its head */

    while (size > 0 && strchr(" \t\r\n", *bytes) != NULL) {
        bytes++;
        size--;
    }
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        size_t length = strlen(beginnings[i]);
        if (size >= length && strncasecmp(bytes, beginnings[i], length) == 0) {
            return true;
        }
    }
    for (size_t at = 0; at < MIME_HEAD && at + sizeof(mime) - 1 <= size; at++) {
        if (strncasecmp(bytes + at, mime, sizeof(mime) - 1) == 0) {
            return true;
        }
    }
    return size == 0;
}

/* The number of the first line of YAML that a tab indents, which it must not; 0: none. */
static unsigned line_with_tab(const char *bytes, size_t size)
{
    unsigned number = 1;

    for (size_t at = 0; at < size; number++) {
        const char *end = memchr(bytes + at, '\n', size - at);
        size_t length = (end != NULL ? (size_t)(end - bytes) : size) - at;
        size_t white = 0;

        while (white < length && strchr(" \t\r", bytes[at + white]) != NULL) {
            white++;
        }
        if (length > 0 && bytes[at] == '\t' && white < length && bytes[at + white] != '#') {
            return number;
        }
        at += length + 1;
    }
    return 0;
}

static int check_text(const char *name, const char *path, const char *bytes, size_t size,
                      struct error *err)
{
    bool user_data = strcmp(name, "user-data") == 0;

    if (user_data && !begins_as_user_data(bytes, size)) {
        error_set(
            err, ERROR_CONFIG, 0,
            "cloud-init would take '%.200s' for nothing: its first line does not say what it is",
            path);
        error_hint(err, "begin it with the line #cloud-config, or with #! and a program");
        return -ERROR_CONFIG;
    }
    bool yaml = !user_data || (size > 13 && strncasecmp(bytes, "#cloud-config", 13) == 0);
    unsigned line = yaml ? line_with_tab(bytes, size) : 0;
    if (line != 0) {
        error_set(err, ERROR_CONFIG, 0, "line %u of '%.200s' begins with a tab, which YAML forbids",
                  line, path);
        error_hint(err, "indent with spaces");
        return -ERROR_CONFIG;
    }
    return 0;
}

/* ---- The disk ---- */

static int archive_failed(struct archive *archive, struct error *err)
{
    error_set(err, ERROR_IO, archive_errno(archive), "cannot make the cloud-init disk: %s",
              archive_error_string(archive));
    error_hint(err, "TMPDIR names the folder of temporary files");
    return -ERROR_IO;
}

static int add_file(struct archive *archive, const char *name, const char *bytes, size_t size,
                    struct error *err)
{
    struct archive_entry *entry = archive_entry_new();
    int status = 0;

    if (entry == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0600);
    archive_entry_set_size(entry, (la_int64_t)size);
    archive_entry_set_mtime(entry, time(NULL), 0);
    if (archive_write_header(archive, entry) != ARCHIVE_OK ||
        archive_write_data(archive, bytes, size) != (la_ssize_t)size) {
        status = archive_failed(archive, err);
    }
    archive_entry_free(entry);
    return status;
}

/* A whole file, to be freed; NULL with *err set. */
static char *read_file(const char *path, size_t *size, struct error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *bytes = NULL;

    if (fd < 0 || fstat(fd, &info) < 0) {
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_IO, errno,
                  "cannot open '%.200s': %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode) || info.st_size > SEED_FILE_MAX) {
        error_set(err, ERROR_CONFIG, 0, "'%.200s' is no file of at most 16 MiB", path);
    } else {
        bytes = malloc((size_t)info.st_size + 1);
        ssize_t count = bytes != NULL ? read(fd, bytes, (size_t)info.st_size) : -1;
        if (count < 0) {
            error_set(err, ERROR_IO, errno, "cannot read '%.200s': %s", path, strerror(errno));
            free(bytes);
            bytes = NULL;
        }
        *size = count > 0 ? (size_t)count : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return bytes;
}

static int add_path(struct archive *archive, const char *name, const char *path, struct error *err)
{
    size_t size = 0;
    char *bytes = read_file(path, &size, err);

    if (bytes == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_IO;
    }
    int status = check_text(name, path, bytes, size, err);
    status = status == 0 ? add_file(archive, name, bytes, size, err) : status;
    free(bytes);
    return status;
}

static int add_files(struct archive *archive, const struct seed_setting *setting, const char *name,
                     struct error *err)
{
    char meta_data[160];
    int length = snprintf(meta_data, sizeof(meta_data), "instance-id: %.60s-%lld\n", name,
                          (long long)time(NULL));
    int status = add_path(archive, "user-data", setting->user_data, err);

    if (status == 0) {
        status = setting->meta_data != NULL
                     ? add_path(archive, "meta-data", setting->meta_data, err)
                     : add_file(archive, "meta-data", meta_data, (size_t)length, err);
    }
    if (status == 0 && setting->network_config != NULL) {
        status = add_path(archive, "network-config", setting->network_config, err);
    }
    return status;
}

int seed_make(const struct seed_setting *setting, const char *name, const char *path,
              struct error *err)
{
    struct archive *archive = archive_write_new();
    int status = 0;

    if (archive == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        status = error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", path, strerror(errno));
    } else if (archive_write_set_format_iso9660(archive) != ARCHIVE_OK ||
               archive_write_set_format_option(archive, "iso9660", "volume-id", "cidata") !=
                   ARCHIVE_OK ||
               archive_write_open_fd(archive, fd) != ARCHIVE_OK) {
        status = archive_failed(archive, err);
    } else {
        status = add_files(archive, setting, name, err);
        if (archive_write_close(archive) != ARCHIVE_OK && status == 0) {
            status = archive_failed(archive, err);
        }
    }
    archive_write_free(archive);
    if (fd >= 0) {
        close(fd);
        if (status != 0) {
            unlink(path);
        }
    }
    return status;
}
