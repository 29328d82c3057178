#include "libshared/port/setting.h"

#include "libshared/base/words.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(enum error_code code, const char *what, const char *word, struct error *err)
{
    error_set(err, code, 0, "--console-port: %s '%.100s'", what, word);
    error_hint(err,
               "--console-port NAME[,path=FILE][,console]: NAME is 1 to %u letters, digits, "
               "'.', '_' and '-'",
               PORT_NAME_MAX);
    return -(int)code;
}

static int parse_name(const char *name, enum error_code code, struct port_setting *setting,
                      struct error *err)
{
    size_t length = strlen(name);
    bool valid = length >= 1 && length <= PORT_NAME_MAX && isalnum((unsigned char)name[0]);

    for (size_t i = 0; i < length && valid; i++) {
        valid = isalnum((unsigned char)name[i]) || strchr("._-", name[i]);
    }
    if (!valid) {
        return refuse(code, "not a name:", name, err);
    }
    if (strcmp(name, PORT_NAME_FIRST) == 0) {
        return refuse(code, "every machine has the port", name, err);
    }
    memcpy(setting->name, name, length + 1);
    return 0;
}

static int parse_word(const char *word, enum error_code code, struct port_setting *setting,
                      struct error *err)
{
    if (strcmp(word, "console") == 0) {
        setting->console = true;
        return 0;
    }
    if (strncmp(word, "path=", 5) == 0) {
        size_t length = strlen(word + 5);
        if (length == 0 || length > PORT_PATH_MAX) {
            return refuse(code, length ? "the path is too long:" : "the path is empty:", word, err);
        }
        if (setting->path[0]) {
            return refuse(code, "a second path:", word, err);
        }
        memcpy(setting->path, word + 5, length + 1);
        return 0;
    }
    return refuse(code, "unknown word", word, err);
}

int port_setting_parse(const char *text, enum error_code code, struct port_setting *setting,
                       struct error *err)
{
    char *word = malloc(strlen(text) + 1);

    if (word && strlen(text) > PORT_TEXT_MAX) {
        free(word);
        return refuse(code, "too long:", text, err);
    }
    if (!word) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    memset(setting, 0, sizeof(*setting));
    const char *rest = words_next(text, word);
    int status = parse_name(word, code, setting, err);
    while (rest && status == 0) {
        rest = words_next(rest, word);
        status = parse_word(word, code, setting, err);
    }
    free(word);
    return status;
}

char *port_setting_format(const struct port_setting *setting)
{
    char path[2 * PORT_PATH_MAX + 1], *text = NULL;

    words_quote(path, setting->path);
    return asprintf(&text, "%s%s%s%s", setting->name, path[0] ? ",path=" : "", path,
                    setting->console ? ",console" : "") < 0
               ? NULL
               : text;
}
