/*
 * Options from tables. A table of `struct option_spec` says what an option is called, how its value
 * is read and where it goes in the caller's settings struct; help, manual pages and shell
 * completions print the same table. Long options take --name=VALUE or --name VALUE, letters stand
 * alone, "--" ends the options, and options may follow positional arguments. When an option is
 * given twice the last one holds, unless its type collects.
 */
#ifndef POLYVISOR_CLI_OPTIONS_H
#define POLYVISOR_CLI_OPTIONS_H

#include "libshared/base/error.h"
#include <stddef.h>
#include <stdint.h>

struct option_spec;

enum option_completion { OPTION_COMPLETE_NOTHING, OPTION_COMPLETE_FILE, OPTION_COMPLETE_DIRECTORY };

struct option_type {
    bool takes_value;
    bool collects; /* may be given several times */
    enum option_completion completion;
    /* Read `value` (NULL for a flag) into `target`. 0, or a negative code with *err set. */
    int (*parse)(const struct option_spec *option, const char *value, void *target,
                 struct error *err);
    void (*release)(void *target); /* frees what parse allocated, or NULL */
};

struct option_spec {
    const char *name; /* without the dashes; NULL ends a table */
    char letter;      /* 'q' for -q, or 0 */
    const struct option_type *type;
    const char *argument;      /* what help calls the value: "SIZE"; NULL for a flag */
    const char *choices;       /* "interp|baseline|auto" for option_choice, else NULL */
    const char *default_value; /* read as if it had been given, and shown; NULL = none */
    const char *summary;       /* a clause without a full stop */
    size_t offset;             /* of the target in the settings struct */
};

extern const struct option_type option_flag;     /* bool */
extern const struct option_type option_text;     /* const char *, borrowed from argv */
extern const struct option_type option_choice;   /* const char *, borrowed from argv */
extern const struct option_type option_name;     /* const char *, a valid machine name */
extern const struct option_type option_file;     /* char *, absolute, owned */
extern const struct option_type option_folder;   /* char *, absolute, owned */
extern const struct option_type option_number;   /* uint32_t */
extern const struct option_type option_size;     /* uint64_t, bytes */
extern const struct option_type option_duration; /* uint32_t, milliseconds */

/* One table and the settings it fills. */
struct option_scope {
    const struct option_spec *options;
    void *settings;
};

/* What is left to read of a command line. */
struct arguments {
    char **items;
    size_t count;
    size_t next;
};

/* Apply every default of a scope. 0 or a negative code with *err set. */
int options_set_defaults(const struct option_scope *scope, struct error *err);

/* Read options from arguments->next on; an option is looked up in the scopes in their order. What
 * is no option is stored in `positionals` (room for arguments->count pointers), or, when
 * `positionals` is NULL, reading stops there. 0 or a negative code (mostly ERROR_USAGE) with *err
 * set. `command` is named in hints: "run", or NULL. */
int options_parse(const struct option_scope *scopes, size_t scope_count,
                  struct arguments *arguments, const char *command, const char **positionals,
                  size_t *positional_count, struct error *err);

/* Free what the settings of a scope own. */
void options_release(const struct option_scope *scope);

/* `path` from the working directory on, without resolving links; the caller frees it. NULL with
 * *err set. `option` is named in the error. */
char *options_absolute_path(const char *option, const char *path, struct error *err);

#endif
