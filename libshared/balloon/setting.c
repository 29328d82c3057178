#include "libshared/balloon/setting.h"

#include "libshared/base/values.h"
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static int refuse(enum error_code code, const char *what, const char *text, struct error *err)
{
    error_set(err, code, 0, "--balloon: %s '%.60s'", what, text);
    error_hint(err,
               "--balloon off, or on[,memory=SIZE][,deflate-on-oom=on|off][,reporting=on|off]");
    return -(int)code;
}

static bool read_size(const char *text, uint64_t *bytes)
{
    return value_parse_size(text, bytes) == 0 && *bytes > 0;
}

static const struct {
    const char *name; /* with its equals sign */
    size_t offset;    /* in struct balloon_setting */
} switches[] = {
    {"deflate-on-oom=", offsetof(struct balloon_setting, deflate_on_oom)},
    {"reporting=", offsetof(struct balloon_setting, reporting)},
};

static int parse_switch(const char *word, enum error_code code, struct balloon_setting *setting,
                        struct error *err)
{
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        size_t length = strlen(switches[i].name);
        if (strncmp(word, switches[i].name, length) == 0) {
            bool on = strcmp(word + length, "on") == 0;
            *(bool *)((char *)setting + switches[i].offset) = on;
            return on || strcmp(word + length, "off") == 0
                       ? 0
                       : refuse(code, "neither on nor off:", word, err);
        }
    }
    return refuse(code, "unknown word", word, err);
}

static int parse_word(const char *word, enum error_code code, struct balloon_setting *setting,
                      struct error *err)
{
    if (strcmp(word, "on") == 0) {
        return 0;
    }
    if (strncmp(word, "memory=", 7) == 0) {
        return read_size(word + 7, &setting->memory) ? 0 : refuse(code, "no size:", word + 7, err);
    }
    return parse_switch(word, code, setting, err);
}

int balloon_setting_parse(const char *text, enum error_code code, struct balloon_setting *setting,
                          struct error *err)
{
    char words[BALLOON_SETTING_MAX], *rest = words, *word;
    int status = 0;

    *setting = (struct balloon_setting){.present = true, .deflate_on_oom = true, .reporting = true};
    if (strcmp(text, "off") == 0) {
        *setting = (struct balloon_setting){0};
        return 0;
    }
    if (strlen(text) >= sizeof(words)) {
        return refuse(code, "too many words in", text, err);
    }
    strcpy(words, text);
    while (text[0] && status == 0 && (word = strsep(&rest, ","))) {
        status = parse_word(word, code, setting, err);
    }
    return status;
}

void balloon_setting_format(const struct balloon_setting *setting, char text[BALLOON_SETTING_MAX])
{
    if (!setting->present) {
        strcpy(text, "off");
        return;
    }
    int length =
        snprintf(text, BALLOON_SETTING_MAX, "on,deflate-on-oom=%s,reporting=%s",
                 setting->deflate_on_oom ? "on" : "off", setting->reporting ? "on" : "off");
    if (setting->memory) {
        snprintf(text + length, BALLOON_SETTING_MAX - (size_t)length, ",memory=%" PRIu64,
                 setting->memory);
    }
}
