/* Manual pages in roff (man macros), made from the same tables as the help. */
#ifndef POLYVISOR_CLI_MANUAL_H
#define POLYVISOR_CLI_MANUAL_H

#include "cli/command.h"
#include <stdio.h>

/* vmctl.1: all commands, global options, exit statuses, environment, files. */
void manual_print_global(FILE *file);
/* vmctl-COMMAND.1. */
void manual_print_command(FILE *file, const struct command *command);
/* The error codes and exit statuses as a Markdown table, for docs/errors.md. */
void manual_print_errors(FILE *file);

#endif
