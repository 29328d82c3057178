/* vmctl cache: the code cache, which outlives every daemon. No vmmd is asked. */
#include "cli/command.h"
#include "cli/output.h"
#include "cli/values.h"
#include "libshared/base/clock.h"
#include "libshared/jit/cache_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IDENTITIES_MAX 64u

struct cache_settings {
    char *directory; /* absolute, or NULL: the default */
};

static const struct option_spec options[] = {
    {.name = "directory",
     .type = &option_folder,
     .argument = "DIR",
     .summary = "the cache to look at, instead of the one that the environment names",
     .offset = offsetof(struct cache_settings, directory)},
    {.name = NULL},
};

static int choose_directory(const struct invocation *invocation, char path[CACHE_DIRECTORY_MAX],
                            struct error *err)
{
    const struct cache_settings *settings = invocation->settings;

    if (settings->directory == NULL) {
        return cache_default_directory(path, err) ? 0 : -(int)err->code;
    }
    if (strlen(settings->directory) >= CACHE_DIRECTORY_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "the path of the cache is too long");
    }
    strcpy(path, settings->directory);
    return 0;
}

/* ---- show ---- */

/* Entries that one compiler on one kind of host made. */
struct identity {
    char folder[32];
    char text[512]; /* what the compiler says of itself, its beginning */
    uint64_t entries, bytes, used_ns;
};

struct survey {
    struct identity identities[IDENTITIES_MAX];
    size_t count;
    uint64_t entries, bytes, unfinished;
};

static void read_identity(const struct cache_file *file, struct identity *identity)
{
    struct cache_entry entry;
    size_t size;
    uint8_t *bytes = cache_read_file(file->folder_fd, file->name, &size);

    if (bytes != NULL && cache_entry_read(&entry, bytes, size) == NULL) {
        snprintf(identity->text, sizeof(identity->text), "%.*s", (int)entry.identity_size,
                 entry.identity);
    }
    free(bytes);
}

static struct identity *find_identity(struct survey *survey, const char *folder)
{
    for (size_t i = 0; i < survey->count; i++) {
        if (strcmp(survey->identities[i].folder, folder) == 0) {
            return &survey->identities[i];
        }
    }
    if (survey->count == IDENTITIES_MAX) {
        return NULL;
    }
    struct identity *identity = &survey->identities[survey->count++];
    snprintf(identity->folder, sizeof(identity->folder), "%s", folder);
    return identity;
}

static bool survey_file(const struct cache_file *file, void *context)
{
    struct survey *survey = context;

    if (!file->is_entry) {
        survey->unfinished++;
        return true;
    }
    survey->entries++;
    survey->bytes += file->bytes;
    struct identity *identity = find_identity(survey, file->folder);
    if (identity != NULL) {
        identity->entries++;
        identity->bytes += file->bytes;
        identity->used_ns = file->used_ns > identity->used_ns ? file->used_ns : identity->used_ns;
        if (identity->text[0] == '\0') {
            read_identity(file, identity);
        }
    }
    return true;
}

/* Files of poisoned/, in the directory's order. */
static json_t *list_poisoned(int directory)
{
    json_t *list = json_array();
    int fd = openat(directory, "poisoned", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (folder == NULL && fd >= 0) {
        close(fd);
    }
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            json_array_append_new(list, output_json_text(entry->d_name));
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return list;
}

static int show_json(const char *path, int directory, const struct survey *survey,
                     struct error *err)
{
    json_t *compilers = json_array();

    for (size_t i = 0; i < survey->count; i++) {
        const struct identity *identity = &survey->identities[i];
        json_array_append_new(compilers, json_pack("{s:o, s:I, s:I, s:I}", "compiler",
                                                   output_json_text(identity->text), "entries",
                                                   (json_int_t)identity->entries, "bytes",
                                                   (json_int_t)identity->bytes, "used_ns",
                                                   (json_int_t)identity->used_ns));
    }
    return output_json(json_pack("{s:o, s:I, s:I, s:I, s:o, s:o}", "directory",
                                 output_json_text(path), "entries", (json_int_t)survey->entries,
                                 "bytes", (json_int_t)survey->bytes, "limit_bytes",
                                 (json_int_t)CACHE_BYTES_DEFAULT, "compilers", compilers,
                                 "poisoned", list_poisoned(directory)),
                       err);
}

static void print_line(const char *label, const char *value)
{
    printf("%-12s", label);
    output_printable(stdout, value);
    putchar('\n');
}

static int show_text(const char *path, int directory, const struct survey *survey,
                     struct error *err)
{
    json_t *poisoned = list_poisoned(directory);
    char bytes[32], limit[32], text[128];

    value_format_size(survey->bytes, bytes, sizeof(bytes));
    value_format_size(CACHE_BYTES_DEFAULT, limit, sizeof(limit));
    print_line("Directory:", path);
    snprintf(text, sizeof(text), "%llu, %s of %s", (unsigned long long)survey->entries, bytes,
             limit);
    print_line("Regions:", text);
    for (size_t i = 0; i < survey->count; i++) {
        const struct identity *identity = &survey->identities[i];
        time_t used = (time_t)(identity->used_ns / NS_PER_S);
        char when[40] = "?";
        struct tm local;
        if (localtime_r(&used, &local) != NULL) {
            strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &local);
        }
        snprintf(text, sizeof(text),
                 "%llu regions, last used %s:", (unsigned long long)identity->entries, when);
        print_line("Compiler:", text);
        snprintf(text, sizeof(text), "%.64s%s", identity->text,
                 strlen(identity->text) > 64 ? "..." : "");
        print_line("", text[0] != '\0' ? text : "(its entries are damaged)");
    }
    for (size_t i = 0; i < json_array_size(poisoned); i++) {
        print_line("Poisoned:", json_string_value(json_array_get(poisoned, i)));
    }
    json_decref(poisoned);
    return output_flush(err);
}

static int show(const struct invocation *invocation, const char *path, int directory,
                struct error *err)
{
    struct survey *survey = calloc(1, sizeof(*survey));

    if (survey == NULL) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    if (directory >= 0) {
        cache_walk(directory, NULL, survey_file, survey);
    }
    int status = invocation->globals->json ? show_json(path, directory, survey, err)
                                           : show_text(path, directory, survey, err);
    free(survey);
    return status;
}

/* ---- clear and verify ---- */

static int report(const struct invocation *invocation, const char *what,
                  const struct cache_totals *totals, struct error *err)
{
    char bytes[32];

    if (invocation->globals->json) {
        return output_json(json_pack("{s:I, s:I, s:I, s:I}", "entries", (json_int_t)totals->entries,
                                     "bytes", (json_int_t)totals->bytes, "removed",
                                     (json_int_t)totals->removed, "removed_bytes",
                                     (json_int_t)totals->removed_bytes),
                           err);
    }
    if (!invocation->globals->quiet) {
        value_format_size(totals->removed_bytes, bytes, sizeof(bytes));
        if (strcmp(what, "verify") == 0) {
            printf("%llu regions are sound\n", (unsigned long long)totals->entries);
        }
        if (totals->removed != 0 || strcmp(what, "clear") == 0) {
            printf("%llu regions removed, %s\n", (unsigned long long)totals->removed, bytes);
        }
    }
    return output_flush(err);
}

static int clear(const struct invocation *invocation, const char *path, int directory,
                 struct error *err)
{
    struct cache_totals totals = {0};
    (void)path;

    if (directory >= 0) {
        cache_clear(directory, &totals);
    }
    return report(invocation, "clear", &totals, err);
}

static void tell_defect(const char *folder, const char *name, const char *defect, void *context)
{
    const struct invocation *invocation = context;

    if (!invocation->globals->quiet && !invocation->globals->json) {
        printf("%s/%s: %s\n", folder, name, defect);
    }
}

static int verify(const struct invocation *invocation, const char *path, int directory,
                  struct error *err)
{
    struct cache_totals totals = {0};

    if (directory >= 0) {
        cache_verify(directory, &totals, tell_defect, (void *)invocation);
    }
    int status = report(invocation, "verify", &totals, err);
    if (status == 0 && totals.removed != 0) {
        error_set(err, ERROR_IO, 0, "%llu damaged regions were in the cache '%.100s'",
                  (unsigned long long)totals.removed, path);
        error_hint(err, "they are removed, and are compiled again when they are needed; when it "
                        "goes on, look at the disk");
        return -ERROR_IO;
    }
    return status;
}

/* ---- the command ---- */

/* Do `work` in the cache's directory; with -1 as `directory` where nothing was ever cached. */
static int in_cache(const struct invocation *invocation,
                    int (*work)(const struct invocation *invocation, const char *path,
                                int directory, struct error *err),
                    struct error *err)
{
    char path[CACHE_DIRECTORY_MAX];
    int status = choose_directory(invocation, path, err);

    if (status != 0) {
        return status;
    }
    int directory = cache_open_directory(path, false, err);
    if (directory < 0 && err->code != ERROR_NOT_FOUND) {
        return -(int)err->code;
    }
    status = work(invocation, path, directory, err);
    if (directory >= 0) {
        close(directory);
    }
    return status;
}

static int run_show(const struct invocation *invocation, struct error *err)
{
    return in_cache(invocation, show, err);
}

static int run_clear(const struct invocation *invocation, struct error *err)
{
    return in_cache(invocation, clear, err);
}

static int run_verify(const struct invocation *invocation, struct error *err)
{
    return in_cache(invocation, verify, err);
}

static const struct command_action actions[] = {
    {"show", "", 0, 0, run_show},
    {"clear", "", 0, 0, run_clear},
    {"verify", "", 0, 0, run_verify},
    {.name = NULL},
};

const struct command command_cache = {
    .name = "cache",
    .summary = "show, clear or verify the cache of compiled code",
    .description =
        "What the optimising compiler makes of hot guest code is kept on disk, so that the next "
        "machine with such code starts with it. It is shared by all daemons of a user, and "
        "bounded: "
        "what was not used for longest goes first. Machines may run meanwhile; they are not "
        "disturbed.\n"
        "show prints where it is, how much is in it, by which compilers, and regions that have "
        "killed the compiler ('jitd --replay FILE' shows one). clear removes everything. verify "
        "reads every region and removes damaged ones; if there were any it fails with the code "
        "'io'.\n"
        "The cache is in $POLYVISOR_CACHE_DIR, else $XDG_CACHE_HOME/polyvisor, else "
        "/var/cache/polyvisor for root and ~/.cache/polyvisor for others.\n",
    .options = options,
    .settings_size = sizeof(struct cache_settings),
    .positional = POSITIONAL_ACTION,
    .actions = actions,
    .examples = {{"vmctl cache show", "Where the cache is and what is in it"},
                 {"vmctl cache verify", "Read all of it; remove what is damaged"},
                 {"vmctl --json cache show", "The same as show, for programs"}},
};
