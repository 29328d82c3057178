/* vmctl help: about all commands, one command, or in other forms (manual pages, completions). */
#include "cli/help.h"
#include "cli/completion.h"
#include "cli/manual.h"
#include "cli/output.h"

#include <string.h>

struct help_settings {
    bool manual;
    bool errors;
    const char *completion;
};

static const struct option_spec options[] = {
    {.name = "man",
     .type = &option_flag,
     .summary = "print the manual page, for man(1) or 'man -l -'",
     .offset = offsetof(struct help_settings, manual)},
    {.name = "errors",
     .type = &option_flag,
     .summary = "print the error codes and their exit statuses",
     .offset = offsetof(struct help_settings, errors)},
    {.name = "completion",
     .type = &option_choice,
     .argument = "SHELL",
     .choices = "bash|zsh",
     .summary = "print a completion script for a shell",
     .offset = offsetof(struct help_settings, completion)},
    {.name = NULL},
};

static int print_errors_json(struct error *err)
{
    json_t *codes = json_array();

    for (unsigned row = 0; row < ERROR_CODE_COUNT; row++) {
        enum error_code code = error_code_at(row);

        json_array_append_new(codes, json_pack("{s:s, s:i, s:s}", "code", error_code_text(code),
                                               "exit_status", error_exit_status(code), "meaning",
                                               error_code_meaning(code)));
    }
    return output_json(json_pack("{s:o}", "errors", codes), err);
}

static void print_names(void)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        puts(commands[i]->name);
    }
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct help_settings *settings = invocation->settings;
    const struct command *about = NULL;

    if (invocation->positional_count > 0) {
        about = command_require(invocation->positionals[0], err);
        if (about == NULL) {
            return -ERROR_USAGE;
        }
    }
    if (settings->errors && invocation->globals->json) {
        return print_errors_json(err);
    }
    if (settings->errors) {
        manual_print_errors(stdout);
    } else if (settings->completion != NULL && strcmp(settings->completion, "bash") == 0) {
        completion_print_bash(stdout);
    } else if (settings->completion != NULL) {
        completion_print_zsh(stdout);
    } else if (settings->manual && about != NULL) {
        manual_print_command(stdout, about);
    } else if (settings->manual) {
        manual_print_global(stdout);
    } else if (about != NULL) {
        help_print_command(stdout, about);
    } else if (invocation->globals->quiet) {
        print_names();
    } else {
        help_print_global(stdout);
    }
    return output_flush(err);
}

const struct command command_help = {
    .name = "help",
    .summary = "explain a command",
    .usage = "[OPTION...] [COMMAND]",
    .description = "Without a command, lists all of them; with --quiet, their names only. The "
                   "manual pages and completion scripts "
                   "that 'make install' puts in place come from here, too.\n",
    .options = options,
    .settings_size = sizeof(struct help_settings),
    .positional = POSITIONAL_COMMAND,
    .positionals_min = 0,
    .positionals_max = 1,
    .examples = {{"vmctl help run", "What 'vmctl run' does and takes"},
                 {"vmctl help --man run | man -l -", "Its manual page"},
                 {"source <(vmctl help --completion bash)", "Completion in this shell"}},
    .run = run,
};
