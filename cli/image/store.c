#include "cli/image/store.h"

#include "cli/options.h"
#include "libshared/ipc/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int too_long(struct error *err)
{
    return error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path of the store is too long");
}

int store_data_directory(const char *variable, const char *kind, char path[PATH_MAX],
                         struct error *err)
{
    const char *own = getenv(variable), *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    int length;

    if (own != NULL && own[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s", own);
    } else if (data != NULL && data[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s/polyvisor/%s", data, kind);
    } else if (geteuid() == 0) {
        length = snprintf(path, PATH_MAX, "/var/lib/polyvisor/%s", kind);
    } else if (home != NULL && home[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s/.local/share/polyvisor/%s", home, kind);
    } else {
        error_set(err, ERROR_CONFIG, 0, "there is no place for %s: HOME is not set", kind);
        error_hint(err, "name a folder with %s", variable);
        return -ERROR_CONFIG;
    }
    return length < PATH_MAX ? 0 : too_long(err);
}

int store_make_folders(char path[PATH_MAX], unsigned mode, struct error *err)
{
    int status = 0;

    for (char *slash = path; status == 0 && slash != NULL;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
        if (mkdir(path, slash != NULL ? 0755 : mode) < 0 && errno != EEXIST) {
            status = error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                               "cannot make '%.200s': %s", path, strerror(errno));
        }
        if (slash != NULL) {
            *slash = '/';
        }
    }
    return status;
}

int store_directory(char path[PATH_MAX], struct error *err)
{
    return store_data_directory("POLYVISOR_IMAGE_DIR", "images", path, err);
}

int store_make_directory(char path[PATH_MAX], struct error *err)
{
    int status = store_directory(path, err);

    return status == 0 ? store_make_folders(path, 0755, err) : status;
}

int store_path(const char *name, char path[PATH_MAX], struct error *err)
{
    char directory[PATH_MAX];

    if (!runtime_name_valid(name)) {
        error_set(err, ERROR_USAGE, 0, "'%.80s' is not a name for an image", name);
        error_hint(err,
                   "up to %d letters, digits, '-', '_' and '.', starting with neither '-' nor "
                   "'.'; a path has a slash",
                   MACHINE_NAME_MAX);
        return -ERROR_USAGE;
    }
    int status = store_directory(directory, err);
    if (status != 0) {
        return status;
    }
    return snprintf(path, PATH_MAX, "%s/%s" STORE_SUFFIX, directory, name) < PATH_MAX
               ? 0
               : too_long(err);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length > tail && strcmp(text + length - tail, end) == 0;
}

int store_resolve(const char *text, char path[PATH_MAX], struct error *err)
{
    bool is_path =
        strchr(text, '/') != NULL || ends_with(text, STORE_SUFFIX) || ends_with(text, ".raw");

    if (!is_path && runtime_name_valid(text)) {
        int status = store_path(text, path, err);
        if (status != 0 || access(path, F_OK) == 0) {
            return status;
        }
    }
    char *absolute = options_absolute_path("image", text, err);
    if (absolute == NULL) {
        return -ERROR_USAGE;
    }
    int length = snprintf(path, PATH_MAX, "%s", absolute);
    free(absolute);
    if (length >= PATH_MAX) {
        return too_long(err);
    }
    if (access(path, F_OK) != 0) {
        error_set(err, ERROR_NOT_FOUND, errno, "there is no image '%.200s'", text);
        error_hint(err,
                   "'vmctl image list' shows those with a name; 'vmctl image build' makes one");
        return -ERROR_NOT_FOUND;
    }
    return 0;
}

/* ---- All of them ---- */

static int is_image(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && ends_with(entry->d_name, STORE_SUFFIX);
}

int store_walk(int (*visit)(void *context, const char *name, const char *path, struct error *err),
               void *context, struct error *err)
{
    char directory[PATH_MAX], path[PATH_MAX];
    struct dirent **entries = NULL;
    int status = store_directory(directory, err);

    if (status != 0) {
        return status;
    }
    int count = scandir(directory, &entries, is_image, alphasort);
    if (count < 0 && errno != ENOENT) {
        return error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_IO, errno,
                         "cannot read '%.200s': %s", directory, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        char *name = entries[i]->d_name;
        if (status == 0 &&
            snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path)) {
            name[strlen(name) - strlen(STORE_SUFFIX)] = '\0';
            status = visit(context, name, path, err);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}
