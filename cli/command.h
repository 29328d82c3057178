/*
 * A vmctl command: one file in cli/commands/, which defines one `struct command` and is named in
 * the list below. The struct describes the command completely: parsing, help, manual pages and
 * shell completions are made from it.
 */
#ifndef POLYVISOR_CLI_COMMAND_H
#define POLYVISOR_CLI_COMMAND_H

#include "cli/options.h"
#include "libshared/ipc/runtime.h"

/* Every command, in the order of help. */
#define COMMANDS(X)                                                                                \
    X(run)                                                                                         \
    X(create)                                                                                      \
    X(start)                                                                                       \
    X(stop)                                                                                        \
    X(kill)                                                                                        \
    X(rm)                                                                                          \
    X(list)                                                                                        \
    X(show)                                                                                        \
    X(console)                                                                                     \
    X(exec)                                                                                        \
    X(agent)                                                                                       \
    X(cp)                                                                                          \
    X(events)                                                                                      \
    X(link)                                                                                        \
    X(disk)                                                                                        \
    X(image)                                                                                       \
    X(balloon)                                                                                     \
    X(memory)                                                                                      \
    X(stats)                                                                                       \
    X(disas)                                                                                       \
    X(device)                                                                                      \
    X(cache)                                                                                       \
    X(version)                                                                                     \
    X(shutdown)                                                                                    \
    X(help)

/* Options that every command takes. */
struct globals {
    bool json;
    bool quiet;
    bool help;
    bool version;
    char *runtime_directory; /* as given, absolute; NULL = the default */
    uint32_t timeout_ms;     /* for one answer of vmmd */
};

extern const struct option_spec global_options[];

/* One parsed command line. */
struct invocation {
    const struct command *command;
    const struct globals *globals;
    char runtime_directory[RUNTIME_PATH_MAX]; /* of the vmmd to talk to */
    void *settings;                           /* command->settings_size bytes, filled */
    const char **positionals;
    size_t positional_count;
};

enum positional_kind {
    POSITIONAL_NONE,
    POSITIONAL_MACHINE,
    POSITIONAL_NEW_MACHINE,
    POSITIONAL_COMMAND,
    POSITIONAL_FILE,
    POSITIONAL_ACTION,       /* one of command->actions */
    POSITIONAL_COMMAND_LINE, /* a command of the guest and its arguments */
};

/* A word that a command's first argument can be. */
struct command_action {
    const char *name;
    const char *usage;    /* what follows it: operands, those that may be left out in [] */
    unsigned least, most; /* how many operands; the rest of `usage` is an example of options */
    /* As command->run; the action itself is the first of the positionals. */
    int (*run)(const struct invocation *invocation, struct error *err);
};

struct command_example {
    const char *line; /* without the prompt */
    const char *text; /* what it does, a sentence without a full stop */
};

#define COMMAND_EXAMPLES_MAX 6

struct command {
    const char *name;
    const char *summary;               /* a clause, for lists of commands */
    const char *usage;                 /* what follows "vmctl NAME"; NULL: its actions say it */
    const char *description;           /* sentences; paragraphs end with "\n" */
    const struct option_spec *options; /* ends with a NULL name; may be empty, not NULL */
    size_t settings_size;
    enum positional_kind positional;
    const struct command_action *actions; /* of POSITIONAL_ACTION; ends with a NULL name */
    unsigned positionals_min, positionals_max;
    struct command_example examples[COMMAND_EXAMPLES_MAX]; /* ends with a NULL line */
    /* Do it. Returns vmctl's exit status (0 or more), or a negative code with *err set. NULL: one
     * of the actions, which also say how many positionals there are. */
    int (*run)(const struct invocation *invocation, struct error *err);
};

/* For commands without options of their own. */
extern const struct option_spec no_options[];

#define X(name) extern const struct command command_##name;
COMMANDS(X)
#undef X

/* All commands, ended by NULL. */
extern const struct command *const commands[];

/* The command of that name, or NULL. */
const struct command *command_find(const char *name);
/* The same, but sets *err with a suggestion when there is none. */
const struct command *command_require(const char *name, struct error *err);

/* What to run for these positionals, which are checked: their number, and the name of a machine to
 * be made. NULL with *err set when they are wrong. */
typedef int command_run_fn(const struct invocation *invocation, struct error *err);
command_run_fn *command_choose(const struct invocation *invocation, struct error *err);

#endif
