#include "libshared/jit/cache_files.h"

#include "libshared/base/clock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* A writer is done within milliseconds. */
#define ABANDONED_NS (300 * NS_PER_S)

/* ---- directories ---- */

static bool set_path(char path[CACHE_DIRECTORY_MAX], const char *base, const char *rest,
                     struct error *err)
{
    if (base[0] != '/' ||
        (size_t)snprintf(path, CACHE_DIRECTORY_MAX, "%s%s", base, rest) >= CACHE_DIRECTORY_MAX) {
        error_set(err, ERROR_CONFIG, 0, "the cache's directory '%.100s' is %s", base,
                  base[0] == '/' ? "too long" : "not absolute");
        error_hint(err, "set POLYVISOR_CACHE_DIR to another");
        return false;
    }
    return true;
}

bool cache_default_directory(char path[CACHE_DIRECTORY_MAX], struct error *err)
{
    const struct {
        const char *variable, *rest;
    } places[] = {{"POLYVISOR_CACHE_DIR", ""}, {"XDG_CACHE_HOME", "/polyvisor"}};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = getenv(places[i].variable);
        if (value && value[0]) {
            return set_path(path, value, places[i].rest, err);
        }
    }
    const char *home = getenv("HOME");
    if (geteuid() == 0 || !home || !home[0]) {
        return set_path(path, "/var/cache/polyvisor", "", err);
    }
    return set_path(path, home, "/.cache/polyvisor", err);
}

static void make_parents(const char *path)
{
    char part[CACHE_DIRECTORY_MAX];

    for (size_t i = 1; path[i] && i < sizeof(part); i++) {
        if (path[i] == '/') {
            memcpy(part, path, i);
            part[i] = '\0';
            mkdir(part, 0755);
        }
    }
}

int cache_open_directory(const char *path, bool make, struct error *err)
{
    struct stat status;

    if (make) {
        make_parents(path);
        mkdir(path, 0700);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        enum error_code code = errno == ENOENT                     ? ERROR_NOT_FOUND
                               : errno == EACCES || errno == EPERM ? ERROR_PERMISSION
                                                                   : ERROR_IO;
        error_set(err, code, errno, "cannot open the code cache '%s': %s", path, strerror(errno));
        error_hint(err, "POLYVISOR_CACHE_DIR chooses another directory");
        goto fail;
    }
    if (status.st_uid != geteuid() || (status.st_mode & 022)) {
        error_set(err, ERROR_PERMISSION, 0, "the code cache '%s' %s", path,
                  status.st_uid != geteuid() ? "belongs to another user"
                                             : "may be written by others");
        error_hint(err, "what is in it gets executed: make it yours alone, or choose another with "
                        "POLYVISOR_CACHE_DIR");
        goto fail;
    }
    return fd;

fail:
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static DIR *open_folder(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (!folder && fd >= 0) {
        close(fd);
    }
    return folder;
}

/* ---- names ---- */

void cache_folder_name(const char *identity, size_t size, char name[17])
{
    snprintf(name, 17, "%016" PRIx64, (uint64_t)XXH3_64bits(identity, size));
}

void cache_file_name(uint64_t fingerprint, const struct cache_key *key, char name[CACHE_NAME_MAX])
{
    int length = snprintf(name, CACHE_NAME_MAX, "%016" PRIx64 "-", fingerprint);

    for (size_t i = 0; i < sizeof(key->bytes); i++) {
        snprintf(name + length + 2 * i, 3, "%02x", key->bytes[i]);
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(const char *text, size_t bytes, uint8_t *out)
{
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(text[2 * i]), low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool parse_name(const char *name, struct cache_file *file)
{
    uint8_t head[8];

    if (strlen(name) != 16 + 1 + 32 || name[16] != '-' || !parse_hex(name, 8, head) ||
        !parse_hex(name + 17, 16, file->key.bytes)) {
        return false;
    }
    file->fingerprint = 0;
    for (size_t i = 0; i < sizeof(head); i++) {
        file->fingerprint = file->fingerprint << 8 | head[i];
    }
    return true;
}

static bool is_folder_name(const char *name)
{
    uint8_t hash[8];

    return strlen(name) == 16 && parse_hex(name, sizeof(hash), hash);
}

/* ---- all of them ---- */

/* False: the visitor has seen enough. */
static bool walk_folder(int code, const char *identity,
                        bool (*visit)(const struct cache_file *file, void *context), void *context)
{
    DIR *folder = open_folder(code, identity);
    char path[32];
    bool go_on = true;

    snprintf(path, sizeof(path), "code/%s", identity);
    for (struct dirent *entry; folder && go_on && (entry = readdir(folder));) {
        struct cache_file file = {
            .folder = path, .name = entry->d_name, .folder_fd = dirfd(folder)};
        struct stat status;
        file.is_entry = parse_name(entry->d_name, &file);
        if (!file.is_entry &&
            (entry->d_name[0] != '.' || entry->d_name[1] < '0' || entry->d_name[1] > '9')) {
            continue; /* nothing of ours */
        }
        if (fstatat(file.folder_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(status.st_mode)) {
            continue;
        }
        /* File systems that count their blocks later say 0 for a new file. */
        uint64_t blocks = (uint64_t)status.st_blocks * 512, size = (uint64_t)status.st_size;
        file.bytes = blocks > size ? blocks : (size + 4095) & ~UINT64_C(4095);
        file.used_ns =
            (uint64_t)status.st_mtim.tv_sec * NS_PER_S + (uint64_t)status.st_mtim.tv_nsec;
        go_on = visit(&file, context);
    }
    if (folder) {
        closedir(folder);
    }
    return go_on;
}

void cache_walk(int directory, const char *only,
                bool (*visit)(const struct cache_file *file, void *context), void *context)
{
    DIR *code = open_folder(directory, "code");

    if (code && only) {
        walk_folder(dirfd(code), only, visit, context);
    }
    for (struct dirent *entry; code && !only && (entry = readdir(code));) {
        if (is_folder_name(entry->d_name) &&
            !walk_folder(dirfd(code), entry->d_name, visit, context)) {
            break;
        }
    }
    if (code) {
        closedir(code);
    }
}

uint8_t *cache_read_file(int folder, const char *name, size_t *size)
{
    struct stat status;
    uint8_t *bytes = NULL;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size < 0 ||
        (uint64_t)status.st_size > CACHE_ENTRY_MAX) {
        errno = EFBIG;
        goto out;
    }
    *size = (size_t)status.st_size;
    bytes = malloc(*size + 1);
    for (size_t done = 0; bytes && done < *size;) {
        ssize_t got = read(fd, bytes + done, *size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            *size = done; /* its length is found to be wrong */
            break;
        }
        done += (size_t)got;
    }
out:;
    int saved = errno;
    close(fd);
    errno = saved;
    return bytes;
}

/* ---- eviction ---- */

struct eviction {
    int directory;
    uint64_t now;
    struct cache_totals *totals;
    struct eviction_file {
        char folder[24], name[CACHE_NAME_MAX];
        uint64_t bytes, used_ns;
    } * files;
    size_t count, room;
};

static void remove_file(const struct cache_file *file, struct cache_totals *totals)
{
    if (unlinkat(file->folder_fd, file->name, 0) == 0) {
        totals->removed++;
        totals->removed_bytes += file->bytes;
    }
}

static bool eviction_note(const struct cache_file *file, void *context)
{
    struct eviction *eviction = context;

    if (!file->is_entry) {
        if (file->used_ns + ABANDONED_NS < eviction->now) {
            unlinkat(file->folder_fd, file->name, 0);
        }
        return true;
    }
    eviction->totals->entries++;
    eviction->totals->bytes += file->bytes;
    if (eviction->count == eviction->room) {
        size_t room = eviction->room ? 2 * eviction->room : 1024;
        void *files = realloc(eviction->files, room * sizeof(*eviction->files));
        if (!files) {
            return true; /* it will not be the one that goes */
        }
        eviction->files = files;
        eviction->room = room;
    }
    struct eviction_file *to = &eviction->files[eviction->count++];
    snprintf(to->folder, sizeof(to->folder), "%s", file->folder);
    snprintf(to->name, sizeof(to->name), "%s", file->name);
    to->bytes = file->bytes;
    to->used_ns = file->used_ns;
    return true;
}

static int compare_use(const void *a, const void *b)
{
    uint64_t first = ((const struct eviction_file *)a)->used_ns;
    uint64_t second = ((const struct eviction_file *)b)->used_ns;

    return first < second ? -1 : first > second;
}

static void eviction_remove(struct eviction *eviction, uint64_t bytes_max)
{
    struct cache_totals *totals = eviction->totals;
    uint64_t bytes_goal = bytes_max - bytes_max / 8, files_goal = CACHE_FILES_MAX / 8 * 7;
    char path[128];

    qsort(eviction->files, eviction->count, sizeof(*eviction->files), compare_use);
    for (size_t i = 0; i < eviction->count; i++) {
        const struct eviction_file *file = &eviction->files[i];
        if (totals->bytes <= bytes_goal && totals->entries <= files_goal) {
            break;
        }
        snprintf(path, sizeof(path), "%s/%s", file->folder, file->name);
        if (unlinkat(eviction->directory, path, 0) == 0 || errno == ENOENT) {
            totals->removed++;
            totals->removed_bytes += file->bytes;
            totals->entries--;
            totals->bytes -= file->bytes;
            unlinkat(eviction->directory, file->folder, AT_REMOVEDIR); /* if that was its last */
        }
    }
}

void cache_evict(int directory, uint64_t bytes_max, struct cache_totals *totals)
{
    struct eviction eviction = {
        .directory = directory, .now = clock_realtime_ns(), .totals = totals};
    int lock = openat(directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    /* Where the file system has no locks it is done at once by several: nothing breaks. */
    bool alone = lock >= 0 && (flock(lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK);

    memset(totals, 0, sizeof(*totals));
    cache_walk(directory, NULL, eviction_note, &eviction);
    if (alone && (totals->bytes > bytes_max || totals->entries > CACHE_FILES_MAX)) {
        eviction_remove(&eviction, bytes_max);
    }
    if (lock >= 0) {
        close(lock);
    }
    free(eviction.files);
}

/* ---- what people ask for ---- */

static bool clear_file(const struct cache_file *file, void *context)
{
    if (file->is_entry) {
        remove_file(file, context);
    } else {
        unlinkat(file->folder_fd, file->name, 0);
    }
    return true;
}

static void clear_regions(int directory, const char *name)
{
    DIR *folder = open_folder(directory, name);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        size_t length = strlen(entry->d_name);
        if (length > 7 && !strcmp(entry->d_name + length - 7, ".region")) {
            unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    if (folder) {
        closedir(folder);
    }
}

void cache_clear(int directory, struct cache_totals *totals)
{
    memset(totals, 0, sizeof(*totals));
    cache_walk(directory, NULL, clear_file, totals);
    clear_regions(directory, "poisoned");
    clear_regions(directory, "wanted");
    DIR *code = open_folder(directory, "code");
    for (struct dirent *entry; code && (entry = readdir(code));) {
        if (is_folder_name(entry->d_name)) {
            unlinkat(dirfd(code), entry->d_name, AT_REMOVEDIR); /* when it is empty */
        }
    }
    if (code) {
        closedir(code);
    }
}

struct verification {
    struct cache_totals *totals;
    void (*tell)(const char *folder, const char *name, const char *defect, void *context);
    void *context;
};

/* Whether an entry is where one of its kind is looked for. */
static const char *judge_place(const struct cache_file *file, const struct cache_entry *entry)
{
    char folder[17];

    cache_folder_name(entry->identity, entry->identity_size, folder);
    return strcmp(file->folder + sizeof("code/") - 1, folder) ||
                   entry->fingerprint != file->fingerprint ||
                   memcmp(&entry->key, &file->key, sizeof(entry->key))
               ? "it has another entry's name"
               : NULL;
}

static bool verify_file(const struct cache_file *file, void *context)
{
    struct verification *verification = context;
    struct cache_entry entry;
    size_t size;

    if (!file->is_entry) {
        return true;
    }
    uint8_t *bytes = cache_read_file(file->folder_fd, file->name, &size);
    if (!bytes && errno == ENOENT) {
        return true;
    }
    const char *defect =
        bytes ? cache_entry_read(&entry, bytes, size) : "it cannot be read or is too long";
    if (!defect) {
        defect = judge_place(file, &entry);
    }
    if (!defect) {
        verification->totals->entries++;
        verification->totals->bytes += file->bytes;
    } else {
        remove_file(file, verification->totals);
        if (verification->tell) {
            verification->tell(file->folder, file->name, defect, verification->context);
        }
    }
    free(bytes);
    return true;
}

void cache_verify(int directory, struct cache_totals *totals,
                  void (*tell)(const char *folder, const char *name, const char *defect,
                               void *context),
                  void *context)
{
    struct verification verification = {.totals = totals, .tell = tell, .context = context};

    memset(totals, 0, sizeof(*totals));
    cache_walk(directory, NULL, verify_file, &verification);
}
