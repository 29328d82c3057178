/* Help for people, made from the tables of commands and options. */
#ifndef POLYVISOR_CLI_HELP_H
#define POLYVISOR_CLI_HELP_H

#include "cli/command.h"
#include <stdio.h>

/* `vmctl --help`: every command and the global options. */
void help_print_global(FILE *file);
/* `vmctl COMMAND --help`. */
void help_print_command(FILE *file, const struct command *command);

/* "one of a, b or c; default: b", "may be given several times" ...; "" for most options. */
void help_option_notes(const struct option_spec *option, char *text, size_t capacity);
/* True when a command has an option of its own in place of this global one. */
bool help_is_shadowed(const struct command *command, const struct option_spec *global);

#endif
