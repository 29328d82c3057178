#include "libshared/base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct error_code_row {
    const char *text;
    int exit_status;
    const char *meaning;
} error_code_table[] = {
#define X(name, text, exit_status, meaning) [ERROR_ORDINAL_##name] = {text, exit_status, meaning},
    ERROR_CODES(X)
#undef X
};

static const struct error_code_row *error_code_row(enum error_code code)
{
    unsigned ordinal = code == ERROR_OK ? 0 : (unsigned)code - ERROR_CODE_BASE;
    if (ordinal >= ERROR_CODE_COUNT || (ordinal == 0 && code != ERROR_OK)) {
        ordinal = ERROR_ORDINAL_INTERNAL;
    }
    return &error_code_table[ordinal];
}

/* Messages quote file names and guest input: one line, whatever is in them. */
static void error_flatten(char *text)
{
    for (; *text; text++) {
        unsigned char byte = (unsigned char)text[0], next = (unsigned char)text[1];
        bool wide = byte == 0xc2 && next >= 0x80 && next < 0xa0; /* terminals obey these too */
        if (byte < 0x20 || byte == 0x7f || wide) {
            text[0] = '?';
            text[wide] = '?';
        }
    }
}

int error_set(struct error *err, enum error_code code, int cause, const char *message, ...)
{
    va_list arguments;

    if (!err) {
        return -(int)code;
    }
    /* Formatted aside first: an argument may be a member of `err` itself. */
    char text[sizeof(err->message)] = {0}; /* so that equal errors are equal bytes */
    va_start(arguments, message);
    vsnprintf(text, sizeof(text), message, arguments);
    va_end(arguments);
    error_flatten(text);

    error_clear(err);
    err->code = code;
    err->cause = cause;
    memcpy(err->message, text, sizeof(text));
    return -(int)code;
}

void error_hint(struct error *err, const char *hint, ...)
{
    va_list arguments;

    if (!err) {
        return;
    }
    va_start(arguments, hint);
    vsnprintf(err->hint, sizeof(err->hint), hint, arguments);
    va_end(arguments);
    error_flatten(err->hint);
}

void error_component(struct error *err, const char *component)
{
    if (err && !err->component[0]) {
        snprintf(err->component, sizeof(err->component), "%s", component);
        error_flatten(err->component);
    }
}

void error_clear(struct error *err)
{
    if (err) {
        memset(err, 0, sizeof(*err));
    }
}

const char *error_code_text(enum error_code code)
{
    return error_code_row(code)->text;
}

const char *error_code_meaning(enum error_code code)
{
    return error_code_row(code)->meaning;
}

int error_exit_status(enum error_code code)
{
    return error_code_row(code)->exit_status;
}

enum error_code error_code_at(unsigned row)
{
    return row == 0 ? ERROR_OK : (enum error_code)(ERROR_CODE_BASE + row);
}

enum error_code error_code_parse(const char *text)
{
    for (unsigned row = 0; row < ERROR_CODE_COUNT; row++) {
        if (text && !strcmp(error_code_table[row].text, text)) {
            return error_code_at(row);
        }
    }
    return ERROR_INTERNAL;
}
