#include "cli/vmctl.h"

#include "cli/help.h"
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Errors in the options themselves are reported in the form that was asked for. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

static int choose_directory(struct invocation *invocation, struct error *err)
{
    const char *given = invocation->globals->runtime_directory;

    if (given == NULL) {
        return runtime_default_directory(invocation->runtime_directory, err);
    }
    if (strlen(given) >= RUNTIME_PATH_MAX) {
        return error_set(err, ERROR_CONFIG, ENAMETOOLONG,
                         "the path of the runtime directory is longer than %d bytes",
                         RUNTIME_PATH_MAX - 1);
    }
    memcpy(invocation->runtime_directory, given, strlen(given) + 1);
    return 0;
}

/* Parse the rest of the line for a command and run it. */
static int run_command(const struct command *command, struct arguments *arguments,
                       struct globals *globals, struct error *err)
{
    struct invocation invocation = {.command = command, .globals = globals};
    struct option_scope scopes[] = {{command->options, NULL}, {global_options, globals}};
    int status = 0;

    invocation.settings = calloc(1, command->settings_size + 1);
    invocation.positionals = calloc(arguments->count + 1, sizeof(*invocation.positionals));
    scopes[0].settings = invocation.settings;
    if (invocation.settings == NULL || invocation.positionals == NULL) {
        status = error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        goto out;
    }
    status = options_set_defaults(&scopes[0], err);
    if (status == 0) {
        status = options_parse(scopes, 2, arguments, command->name, invocation.positionals,
                               &invocation.positional_count, err);
    }
    if (status == 0 && globals->help) {
        help_print_command(stdout, command);
        status = output_flush(err);
        goto out;
    }
    if (status == 0 && globals->version) {
        printf("vmctl %s\n", POLYVISOR_VERSION);
        status = output_flush(err);
        goto out;
    }
    command_run_fn *run = status == 0 ? command_choose(&invocation, err) : NULL;
    if (status == 0) {
        status = run != NULL ? choose_directory(&invocation, err) : -ERROR_USAGE;
    }
    if (status == 0) {
        status = run(&invocation, err);
    }
out:
    if (invocation.settings != NULL) {
        options_release(&scopes[0]);
    }
    free(invocation.settings);
    free(invocation.positionals);
    return status;
}

static int dispatch(struct arguments *arguments, struct globals *globals, struct error *err)
{
    const struct option_scope scope = {global_options, globals};
    int status = options_set_defaults(&scope, err);

    if (status == 0) {
        status = options_parse(&scope, 1, arguments, NULL, NULL, NULL, err);
    }
    if (status != 0) {
        return status;
    }
    if (arguments->next < arguments->count) {
        const struct command *command = command_require(arguments->items[arguments->next], err);

        arguments->next++;
        return command != NULL ? run_command(command, arguments, globals, err) : -ERROR_USAGE;
    }
    if (globals->version) {
        printf("vmctl %s\n", POLYVISOR_VERSION);
        return output_flush(err);
    }
    if (globals->help) {
        help_print_global(stdout);
        return output_flush(err);
    }
    error_set(err, ERROR_USAGE, 0, "a command is missing");
    error_hint(err, "'vmctl help' lists the commands");
    return -ERROR_USAGE;
}

int vmctl_main(int argc, char **argv)
{
    struct globals globals = {0};
    const struct option_scope scope = {global_options, &globals};
    struct arguments arguments = {.items = argv, .count = (size_t)argc, .next = argc > 0};
    struct error err = {0};
    int status = dispatch(&arguments, &globals, &err);

    if (status < 0) {
        output_error(&err, wants_json(argc, argv));
        status = error_exit_status(err.code);
    }
    options_release(&scope);
    return status;
}
