#include "cli/help.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH  80
#define COLUMN 26 /* where descriptions of options start */

/* Print words of `text` up to the width, each line after `indent` blanks; the first line has
 * `used` columns already. A newline in the text ends a paragraph. */
static void print_wrapped(FILE *file, const char *text, int indent, int used)
{
    int column = used;

    for (const char *word = text; *word != '\0';) {
        int length = (int)strcspn(word, " \n");

        if (column > indent && column + 1 + length > WIDTH) {
            fprintf(file, "\n%*s", indent, "");
            column = indent;
        }
        column += fprintf(file, "%s%.*s", column > indent ? " " : "", length, word);
        word += length;
        if (*word == '\n' && word[1] != '\0') {
            fprintf(file, "\n\n%*s", indent, "");
            column = indent;
        }
        word += *word != '\0';
    }
    fputc('\n', file);
}

void help_option_notes(const struct option_spec *option, char *text, size_t capacity)
{
    char choices[96] = "";
    size_t used = 0;

    for (const char *word = option->choices; word != NULL && used < sizeof(choices);) {
        const char *bar = strchr(word, '|');
        int length = bar != NULL ? (int)(bar - word) : (int)strlen(word);
        const char *joint = word == option->choices ? "one of " : bar != NULL ? ", " : " or ";

        used +=
            (size_t)snprintf(choices + used, sizeof(choices) - used, "%s%.*s", joint, length, word);
        word = bar != NULL ? bar + 1 : NULL;
    }
    const char *value = option->default_value;
    snprintf(text, capacity, "%s%s%s%s", choices, choices[0] != '\0' && value != NULL ? "; " : "",
             value != NULL ? "default: " : "", value != NULL ? value : "");
}

bool help_is_shadowed(const struct command *command, const struct option_spec *global)
{
    for (const struct option_spec *own = command->options; own->name != NULL; own++) {
        if (strcmp(own->name, global->name) == 0) {
            return true;
        }
    }
    return false;
}

static void print_option(FILE *file, const struct option_spec *option)
{
    char notes[160], letter[8] = "    ", *text = NULL;

    if (option->letter != 0) {
        snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    }
    int used =
        fprintf(file, "  %s--%s%s%s", letter, option->name, option->argument != NULL ? "=" : "",
                option->argument != NULL ? option->argument : "");
    help_option_notes(option, notes, sizeof(notes));
    if (notes[0] != '\0' && asprintf(&text, "%s (%s)", option->summary, notes) < 0) {
        text = NULL; /* the summary alone, then */
    }
    if (used + 2 > COLUMN) {
        fprintf(file, "\n%*s", COLUMN, "");
    } else {
        fprintf(file, "%*s", COLUMN - used, "");
    }
    print_wrapped(file, text != NULL ? text : option->summary, COLUMN, COLUMN);
    free(text);
}

static void print_options(FILE *file, const char *title, const struct option_spec *options,
                          const struct command *shadowing)
{
    bool any = false;

    for (const struct option_spec *option = options; option->name != NULL; option++) {
        if (shadowing != NULL && help_is_shadowed(shadowing, option)) {
            continue;
        }
        if (!any) {
            fprintf(file, "\n%s:\n", title);
            any = true;
        }
        print_option(file, option);
    }
}

void help_print_global(FILE *file)
{
    fputs("Usage: vmctl [OPTION...] COMMAND [ARGUMENT...]\n\n"
          "Run virtual machines of another architecture.\n\nCommands:\n",
          file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    print_options(file, "Options of every command", global_options, NULL);
    fputs("\n'vmctl COMMAND --help' says more about a command. Exit statuses: 'man vmctl', or\n"
          "'vmctl help --errors'.\n",
          file);
}

void help_print_command(FILE *file, const struct command *command)
{
    if (command->run != NULL) {
        fprintf(file, "Usage: vmctl %s %s\n", command->name, command->usage);
    } else {
        const char *label = "Usage:";

        for (const struct command_action *action = command->actions; action->name; action++) {
            fprintf(file, "%-6s vmctl %s [OPTION...] %s %s\n", label, command->name, action->name,
                    action->usage);
            label = "";
        }
    }
    fputc('\n', file);
    print_wrapped(file, command->description, 0, 0);
    print_options(file, "Options", command->options, NULL);
    print_options(file, "Options of every command", global_options, command);
    if (command->examples[0].line != NULL) {
        fputs("\nExamples:\n", file);
    }
    for (size_t i = 0; i < COMMAND_EXAMPLES_MAX && command->examples[i].line != NULL; i++) {
        fprintf(file, "  # %s\n  %s\n", command->examples[i].text, command->examples[i].line);
    }
}
