#include "libshared/share/setting.h"

#include "libshared/base/values.h"
#include "libshared/base/words.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID_MAX UINT32_C(0xfffffffe) /* the last one means "none" to chown(2) */

static const char *const cache_names[] = {
    [SHARE_CACHE_AUTO] = "auto", [SHARE_CACHE_ALWAYS] = "always", [SHARE_CACHE_NEVER] = "never"};
#define CACHES (sizeof(cache_names) / sizeof(cache_names[0]))

const char *share_cache_name(enum share_cache cache)
{
    return cache_names[cache];
}

static int refuse(enum error_code code, const char *what, const char *word, struct error *err)
{
    error_set(err, code, 0, "--share: %s '%.100s'", what, word);
    error_hint(err,
               "--share DIR:TAG[,readonly][,cache=auto|always|never][,uid=N][,gid=N]: TAG at most "
               "%d bytes",
               SHARE_TAG_MAX);
    return -(int)code;
}

static int parse_place(const char *word, enum error_code code, struct share_setting *setting,
                       struct error *err)
{
    const char *colon = strrchr(word, ':');

    if (!colon || colon == word || !colon[1]) {
        return refuse(code, "no directory and tag in", word, err);
    }
    size_t path = (size_t)(colon - word), tag = strlen(colon + 1);
    if (path > SHARE_PATH_MAX || tag > SHARE_TAG_MAX) {
        return refuse(code,
                      tag > SHARE_TAG_MAX ? "the tag is too long:" : "the path is too long:", word,
                      err);
    }
    for (const char *at = colon + 1; *at; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f) {
            return refuse(code, "the tag has a space or control character:", word, err);
        }
    }
    memcpy(setting->path, word, path);
    memcpy(setting->tag, colon + 1, tag);
    return 0;
}

static bool read_id(const char *text, uint32_t *id)
{
    uint64_t value = 0;
    bool valid = value_parse_number(text, 0, ID_MAX, &value) == 0;

    *id = (uint32_t)value;
    return valid;
}

static int parse_word(const char *word, enum error_code code, struct share_setting *setting,
                      struct error *err)
{
    if (strcmp(word, "readonly") == 0) {
        setting->read_only = true;
        return 0;
    }
    if (strncmp(word, "cache=", 6) == 0) {
        for (unsigned i = 0; i < CACHES; i++) {
            if (strcmp(word + 6, cache_names[i]) == 0) {
                setting->cache = (enum share_cache)i;
                return 0;
            }
        }
        return refuse(code, "unknown cache mode", word + 6, err);
    }
    if (strncmp(word, "uid=", 4) == 0 || strncmp(word, "gid=", 4) == 0) {
        return read_id(word + 4, word[0] == 'u' ? &setting->uid : &setting->gid)
                   ? 0
                   : refuse(code, "not a number of a user or group:", word, err);
    }
    return refuse(code, "unknown word", word, err);
}

int share_setting_parse(const char *text, enum error_code code, struct share_setting *setting,
                        struct error *err)
{
    char *word = malloc(strlen(text) + 1);

    if (!word) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    memset(setting, 0, sizeof(*setting));
    const char *rest = words_next(text, word);
    int status = parse_place(word, code, setting, err);
    while (rest && status == 0) {
        rest = words_next(rest, word);
        status = parse_word(word, code, setting, err);
    }
    free(word);
    return status;
}

char *share_setting_format(const struct share_setting *setting)
{
    char path[2 * SHARE_PATH_MAX + 1], tag[2 * SHARE_TAG_MAX + 1], *text = NULL;

    words_quote(path, setting->path);
    words_quote(tag, setting->tag);
    return asprintf(&text, "%s:%s%s,cache=%s,uid=%u,gid=%u", path, tag,
                    setting->read_only ? ",readonly" : "", cache_names[setting->cache],
                    setting->uid, setting->gid) < 0
               ? NULL
               : text;
}
