#include "libshared/vsock/setting.h"

#include "libshared/base/values.h"
#include "libshared/base/words.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(enum error_code code, const char *what, const char *word, struct error *err)
{
    error_set(err, code, 0, "--vsock: %s '%.100s'", what, word);
    error_hint(err, "--vsock path=FILE[,cid=N]: N from 3, FILE at most %d bytes from the root on",
               VSOCK_PATH_MAX);
    return -(int)code;
}

static bool read_cid(const char *text, uint32_t *cid)
{
    uint64_t value = 0;
    bool valid = value_parse_number(text, VSOCK_CID_HOST + 1, VSOCK_CID_MAX, &value) == 0;

    *cid = (uint32_t)value;
    return valid;
}

static int parse_word(const char *word, enum error_code code, struct vsock_setting *setting,
                      struct error *err)
{
    if (strncmp(word, "path=", 5) == 0) {
        size_t length = strlen(word + 5);
        if (length == 0 || length > VSOCK_PATH_MAX) {
            return refuse(code, length ? "the path is too long:" : "the path is empty:", word, err);
        }
        memcpy(setting->path, word + 5, length + 1);
        return 0;
    }
    if (strncmp(word, "cid=", 4) == 0) {
        return read_cid(word + 4, &setting->cid) ? 0
                                                 : refuse(code, "not a context id:", word + 4, err);
    }
    return refuse(code, "unknown word", word, err);
}

int vsock_setting_parse(const char *text, enum error_code code, struct vsock_setting *setting,
                        struct error *err)
{
    char *word = malloc(strlen(text) + 1);
    int status = 0;

    if (!word) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    *setting = (struct vsock_setting){.cid = VSOCK_CID_DEFAULT};
    for (const char *rest = text; rest && status == 0;) {
        rest = words_next(rest, word);
        status = parse_word(word, code, setting, err);
    }
    free(word);
    return status == 0 && !setting->path[0] ? refuse(code, "no path in", text, err) : status;
}

char *vsock_setting_format(const struct vsock_setting *setting)
{
    char path[2 * VSOCK_PATH_MAX + 1], *text = NULL;

    words_quote(path, setting->path);
    return asprintf(&text, "path=%s,cid=%u", path, setting->cid) < 0 ? NULL : text;
}
