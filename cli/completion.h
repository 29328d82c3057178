/* Completion scripts for shells, made from the same tables as the help. */
#ifndef POLYVISOR_CLI_COMPLETION_H
#define POLYVISOR_CLI_COMPLETION_H

#include "cli/command.h"
#include <stdio.h>

void completion_print_bash(FILE *file);
void completion_print_zsh(FILE *file);

#endif
