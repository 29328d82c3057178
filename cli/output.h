/*
 * What vmctl prints. Results go to standard output, as text or JSON; errors and status lines go
 * to standard error. Text from other processes is made printable first: it may hold terminal
 * control sequences.
 */
#ifndef POLYVISOR_CLI_OUTPUT_H
#define POLYVISOR_CLI_OUTPUT_H

#include "cli/command.h"
#include <jansson.h>
#include <stdio.h>

/* Print an error as vmctl does: "vmctl: error: MESSAGE [CODE]" and its hint, or as a JSON object.
 */
void output_error(const struct error *err, bool json);

/* A line "polyvisor: ..." for people who watch: only when standard error is a terminal and neither
 * --quiet nor --json was given. */
void output_status(const struct globals *globals, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Say more than a status line: printed even when nobody seems to watch. */
void output_warning(const struct globals *globals, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Print a JSON value and a newline, and release it. 0 or a negative code with *err set. */
int output_json(json_t *value, struct error *err);
/* The same, on one line. */
int output_json_line(json_t *value, struct error *err);

/* Text of another process for a terminal: control characters become '?'. */
void output_printable(FILE *file, const char *text);
/* A JSON string; bytes that are not UTF-8 are replaced. */
json_t *output_json_text(const char *text);

/* Push what standard output holds back. 0, or ERROR_IO when it took less than was written. */
int output_flush(struct error *err);

/* A table with aligned columns. Rows hold `columns` cells each. */
struct output_table {
    size_t columns;
    size_t cells;
    char **items;
    bool failed; /* memory ran out */
};
void output_table_open(struct output_table *table, size_t columns);
void output_table_add(struct output_table *table, const char *cell); /* copied */
/* Print and release. 0 or a negative code with *err set. */
int output_table_print(struct output_table *table, FILE *file, struct error *err);

#endif
