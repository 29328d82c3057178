#include "cli/command.h"

#include "cli/suggest.h"

#include <string.h>

const struct option_spec no_options[] = {{.name = NULL}};

const struct option_spec global_options[] = {
    {.name = "json",
     .type = &option_flag,
     .summary = "print results and errors as JSON",
     .offset = offsetof(struct globals, json)},
    {.name = "runtime-dir",
     .type = &option_folder,
     .argument = "DIR",
     .summary = "where vmmd keeps its sockets (default: $POLYVISOR_RUNTIME_DIR, or /run/polyvisor "
                "for root, or $XDG_RUNTIME_DIR/polyvisor, or /tmp/polyvisor-<uid>)",
     .offset = offsetof(struct globals, runtime_directory)},
    {.name = "timeout",
     .type = &option_duration,
     .argument = "TIME",
     .default_value = "10s",
     .summary = "how long to wait for an answer of vmmd",
     .offset = offsetof(struct globals, timeout_ms)},
    {.name = "quiet",
     .letter = 'q',
     .type = &option_flag,
     .summary = "print errors and results only, no status lines",
     .offset = offsetof(struct globals, quiet)},
    {.name = "help",
     .letter = 'h',
     .type = &option_flag,
     .summary = "show help and end",
     .offset = offsetof(struct globals, help)},
    {.name = "version",
     .type = &option_flag,
     .summary = "show the version of vmctl and end",
     .offset = offsetof(struct globals, version)},
    {.name = NULL},
};

const struct command *const commands[] = {
#define X(name) &command_##name,
    COMMANDS(X)
#undef X
        NULL,
};

const struct command *command_find(const char *name)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

const struct command *command_require(const char *name, struct error *err)
{
    const struct command *command = command_find(name);
    const char *best = NULL;

    if (command != NULL) {
        return command;
    }
    for (size_t i = 0; commands[i] != NULL; i++) {
        best = suggest_nearer(name, best, commands[i]->name);
    }
    error_set(err, ERROR_USAGE, 0, "unknown command '%.100s'", name);
    if (best != NULL) {
        error_hint(err, "did you mean 'vmctl %s'?", best);
    } else {
        error_hint(err, "'vmctl help' lists the commands");
    }
    return NULL;
}

const char *command_positional_name(enum positional_kind kind)
{
    static const char *const names[] = {
        [POSITIONAL_NONE] = "",
        [POSITIONAL_MACHINE] = "NAME",
        [POSITIONAL_NEW_MACHINE] = "NAME",
        [POSITIONAL_COMMAND] = "COMMAND",
        [POSITIONAL_FILE] = "FILE",
        [POSITIONAL_ACTION] = "ACTION",
        [POSITIONAL_COMMAND_LINE] = "COMMAND",
    };
    return names[kind];
}
