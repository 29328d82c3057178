#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* ---- Text ---- */

static bool is_control(unsigned char byte)
{
    return byte < 0x20 || byte == 0x7f;
}

/* 0xc2 0x80 to 0xc2 0x9f are control characters in UTF-8. */
static bool is_wide_control(const char *text)
{
    return (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] >= 0x80 &&
           (unsigned char)text[1] < 0xa0;
}

void output_printable(FILE *file, const char *text)
{
    for (; *text != '\0'; text++) {
        bool wide_control = is_wide_control(text);

        putc(is_control((unsigned char)*text) || wide_control ? '?' : *text, file);
        text += wide_control;
    }
}

json_t *output_json_text(const char *text)
{
    json_t *value = json_string(text);

    if (value == NULL) {
        char *copy = strdup(text);

        for (char *byte = copy; byte != NULL && *byte != '\0'; byte++) {
            if ((unsigned char)*byte >= 0x80) {
                *byte = '?';
            }
        }
        value = copy != NULL ? json_string(copy) : NULL;
        free(copy);
    }
    return value;
}

/* What is left of control characters: JSON's own escapes end at 0x1f. */
static void print_json(FILE *file, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == 0x7f) {
            fputs("\\u007f", file);
        } else if (is_wide_control(text)) {
            fprintf(file, "\\u00%02x", (unsigned char)*++text);
        } else {
            putc(*text, file);
        }
    }
    putc('\n', file);
}

/* ---- Errors and status ---- */

static void print_error_json(const struct error *err)
{
    json_t *object = json_pack(
        "{s:{s:s, s:o, s:o, s:o, s:i, s:i}}", "error", "code", error_code_text(err->code),
        "message", output_json_text(err->message), "hint", output_json_text(err->hint), "component",
        output_json_text(err->component[0] != '\0' ? err->component : "vmctl"), "cause", err->cause,
        "exit_status", error_exit_status(err->code));
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;

    if (text != NULL) {
        print_json(stderr, text);
    } else {
        fputs("{\"error\":{\"code\":\"internal\",\"message\":\"out of memory\",\"hint\":\"\","
              "\"component\":\"vmctl\",\"cause\":12,\"exit_status\":70}}\n",
              stderr);
    }
    free(text);
    json_decref(object);
}

void output_error(const struct error *err, bool json)
{
    fflush(stdout);
    if (json) {
        print_error_json(err);
        return;
    }
    fputs("vmctl: error: ", stderr);
    output_printable(stderr, err->message);
    if (err->component[0] != '\0' && strcmp(err->component, "vmctl") != 0 &&
        strcmp(err->component, "vmmd") != 0) {
        fputs(" (", stderr);
        output_printable(stderr, err->component);
        fputc(')', stderr);
    }
    fprintf(stderr, " [%s]\n", error_code_text(err->code));
    if (err->hint[0] != '\0') {
        fputs("  hint: ", stderr);
        output_printable(stderr, err->hint);
        fputc('\n', stderr);
    }
}

/* One write, so that lines of several processes do not mix. A terminal in raw mode does not return
 * the carriage by itself. */
static void print_line(const char *format, va_list arguments)
{
    struct termios modes;
    bool raw = tcgetattr(STDERR_FILENO, &modes) == 0 && (modes.c_oflag & OPOST) == 0;
    char text[512];
    int length = vsnprintf(text, sizeof(text), format, arguments);

    for (char *byte = text; length >= 0 && *byte != '\0'; byte++) {
        if (is_wide_control(byte)) {
            *byte++ = '?';
            *byte = '?';
        } else if (is_control((unsigned char)*byte) && *byte != '\n') {
            *byte = '?'; /* of a guest, an image ... */
        }
    }
    if (length >= 0) {
        fprintf(stderr, "polyvisor: %s%s\n", text, raw ? "\r" : "");
        fflush(stderr);
    }
}

void output_status(const struct globals *globals, const char *format, ...)
{
    va_list arguments;

    if (globals->quiet || globals->json || !isatty(STDERR_FILENO)) {
        return;
    }
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

void output_warning(const struct globals *globals, const char *format, ...)
{
    va_list arguments;

    if (globals->json) {
        return;
    }
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

/* ---- Results ---- */

int output_flush(struct error *err)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return error_set(err, ERROR_IO, errno, "cannot write to standard output: %s",
                         strerror(errno));
    }
    return 0;
}

static int dump_json(json_t *value, size_t flags, struct error *err)
{
    char *text = value != NULL ? json_dumps(value, flags) : NULL;

    json_decref(value);
    if (text == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    print_json(stdout, text);
    free(text);
    return output_flush(err);
}

int output_json(json_t *value, struct error *err)
{
    return dump_json(value, JSON_INDENT(2), err);
}

int output_json_line(json_t *value, struct error *err)
{
    return dump_json(value, JSON_COMPACT, err);
}

/* ---- Tables ---- */

void output_table_open(struct output_table *table, size_t columns)
{
    *table = (struct output_table){.columns = columns};
}

void output_table_add(struct output_table *table, const char *cell)
{
    char **items = realloc(table->items, (table->cells + 1) * sizeof(*items));
    char *copy = strdup(cell);

    if (items == NULL || copy == NULL) {
        table->failed = true;
        table->items = items != NULL ? items : table->items;
        free(copy);
        return;
    }
    items[table->cells++] = copy;
    table->items = items;
}

/* Blanks are printed before a cell, not behind one: none ends a line. */
static void print_cells(const struct output_table *table, const size_t *widths, FILE *file)
{
    size_t blanks = 0;

    for (size_t i = 0; i < table->cells; i++) {
        size_t column = i % table->columns, length = strlen(table->items[i]);

        if (length > 0) {
            fprintf(file, "%*s", (int)blanks, "");
            output_printable(file, table->items[i]);
            blanks = 0;
        }
        blanks += widths[column] - length + 2;
        if (column == table->columns - 1) {
            fputc('\n', file);
            blanks = 0;
        }
    }
}

int output_table_print(struct output_table *table, FILE *file, struct error *err)
{
    size_t *widths = calloc(table->columns, sizeof(*widths));
    bool failed = table->failed || widths == NULL;

    for (size_t i = 0; i < table->cells && !failed; i++) {
        size_t length = strlen(table->items[i]);
        size_t *width = &widths[i % table->columns];

        *width = length > *width ? length : *width;
    }
    if (!failed) {
        print_cells(table, widths, file);
    }
    for (size_t i = 0; i < table->cells; i++) {
        free(table->items[i]);
    }
    free(table->items);
    free(widths);
    *table = (struct output_table){.columns = table->columns};
    return failed ? error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory") : output_flush(err);
}
