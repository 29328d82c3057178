#include "cli/command.h"

#include "cli/suggest.h"

#include <stdio.h>
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

/* Operand number `index` of a usage, which may be one that must not be left out. */
static const char *operand_name(const char *usage, size_t index, int *length)
{
    for (const char *word = usage;; word += strspn(word, " ")) {
        *length = (int)strcspn(word, " ");
        if (*word != '[' && strncmp(word, "--", 2) != 0 && index-- == 0) {
            return *length > 0 ? word : NULL;
        }
        if (*length == 0) {
            return NULL;
        }
        word += *length;
    }
}

/* Are there as many operands as there must be? `usage` says what they are. */
static bool check_count(const char *place, const char *usage, const char *const *operands,
                        size_t count, const unsigned bounds[2], struct error *err)
{
    int length = 0;

    if (count >= bounds[0] && count <= bounds[1]) {
        return true;
    }
    if (count > bounds[1]) {
        error_set(err, ERROR_USAGE, 0, "%s: too many arguments, from '%.80s' on", place,
                  operands[bounds[1]]);
    } else {
        const char *name = operand_name(usage, count, &length);
        error_set(err, ERROR_USAGE, 0, "%s: %.*s is missing", place, name ? length : 11,
                  name ? name : "an argument");
    }
    error_hint(err, "usage: vmctl %s%s%s", place, *usage ? " " : "", usage);
    return false;
}

/* The action that the first positional names. */
static const struct command_action *find_action(const struct invocation *invocation,
                                                struct error *err)
{
    const struct command *command = invocation->command;
    const char *wanted = invocation->positional_count > 0 ? invocation->positionals[0] : NULL;
    const char *best = NULL;
    char names[128] = "";
    size_t used = 0;

    for (const struct command_action *action = command->actions; action->name; action++) {
        if (wanted && strcmp(action->name, wanted) == 0) {
            return action;
        }
        best = wanted ? suggest_nearer(wanted, best, action->name) : NULL;
        const char *joint = used == 0 ? "" : action[1].name ? ", " : " or ";
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", joint, action->name);
        used = used < sizeof(names) ? used : sizeof(names) - 1;
    }
    if (!wanted) {
        error_set(err, ERROR_USAGE, 0, "%s: what to do is missing", command->name);
    } else {
        error_set(err, ERROR_USAGE, 0, "%s: '%.40s' is none of its actions", command->name, wanted);
    }
    if (best) {
        error_hint(err, "did you mean 'vmctl %s %s'?", command->name, best);
    } else {
        error_hint(err, "vmctl %s %s", command->name, names);
    }
    return NULL;
}

command_run_fn *command_choose(const struct invocation *invocation, struct error *err)
{
    const struct command *command = invocation->command;

    if (!command->run) {
        const struct command_action *action = find_action(invocation, err);
        char place[64];

        if (!action) {
            return NULL;
        }
        snprintf(place, sizeof(place), "%s %s", command->name, action->name);
        return check_count(place, action->usage, invocation->positionals + 1,
                           invocation->positional_count - 1,
                           (const unsigned[]){action->least, action->most}, err)
                   ? action->run
                   : NULL;
    }
    if (!check_count(command->name, command->usage, invocation->positionals,
                     invocation->positional_count,
                     (const unsigned[]){command->positionals_min, command->positionals_max}, err)) {
        return NULL;
    }
    if (command->positional == POSITIONAL_NEW_MACHINE &&
        !runtime_name_valid(invocation->positionals[0])) {
        error_set(err, ERROR_USAGE, 0, "'%.80s' is not a machine name", invocation->positionals[0]);
        error_hint(err,
                   "up to %d letters, digits, '-', '_' and '.', starting with neither '-' nor '.'",
                   MACHINE_NAME_MAX);
        return NULL;
    }
    return command->run;
}
