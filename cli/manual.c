#include "cli/manual.h"

#include "cli/help.h"

#include <ctype.h>

/* Text for roff: no character of it may be taken for a request. */
static void print_text(FILE *file, const char *text)
{
    bool line_start = true;

    for (; *text != '\0'; text++) {
        if (*text == '\\') {
            fputs("\\e", file);
        } else if (*text == '-') {
            fputs("\\-", file);
        } else if (*text == '\n') {
            fputs(text[1] != '\0' ? "\n.PP" : "", file);
            fputc('\n', file);
            line_start = true;
            continue;
        } else {
            fputs(line_start && (*text == '.' || *text == '\'') ? "\\&" : "", file);
            fputc(*text, file);
        }
        line_start = false;
    }
}

static void print_line(FILE *file, const char *text)
{
    print_text(file, text);
    fputc('\n', file);
}

static void print_header(FILE *file, const char *name, const char *summary)
{
    char title[64];
    size_t length = 0;

    for (; name[length] != '\0' && length < sizeof(title) - 1; length++) {
        title[length] = (char)toupper((unsigned char)name[length]);
    }
    title[length] = '\0';
    fputs(".TH ", file);
    print_text(file, title);
    /* Words are options and paths: neither hyphens nor wide blanks between them. */
    fprintf(file, " 1 \"\" \"polyvisor %s\" \"polyvisor manual\"\n.nh\n.ad l\n.SH NAME\n",
            POLYVISOR_VERSION);
    print_text(file, name);
    fputs(" \\- ", file);
    print_line(file, summary);
}

static void print_options(FILE *file, const char *title, const struct option_spec *options,
                          const struct command *shadowing)
{
    bool any = false;

    for (const struct option_spec *option = options; option->name != NULL; option++) {
        char notes[160];

        if (shadowing != NULL && help_is_shadowed(shadowing, option)) {
            continue;
        }
        fprintf(file, "%s", any ? "" : ".SH ");
        fprintf(file, "%s", any ? "" : title);
        fprintf(file, "%s.TP\n", any ? "" : "\n");
        any = true;
        if (option->letter != 0) {
            fprintf(file, "\\fB\\-%c\\fR, ", option->letter);
        }
        fputs("\\fB\\-\\-", file);
        print_text(file, option->name);
        fputs("\\fR", file);
        if (option->argument != NULL) {
            fputs("=\\fI", file);
            print_text(file, option->argument);
            fputs("\\fR", file);
        }
        fputc('\n', file);
        help_option_notes(option, notes, sizeof(notes));
        print_text(file, option->summary);
        if (notes[0] != '\0') {
            fputs(" (", file);
            print_text(file, notes);
            fputc(')', file);
        }
        fputs(".\n", file);
    }
}

struct exit_status {
    int status;
    const char *code, *meaning;
};

static const struct exit_status exit_statuses[] = {
#define X(name, text, number, meaning) {number, text, meaning},
    ERROR_CODES(X)
#undef X
};
#define EXIT_STATUS_COUNT (sizeof(exit_statuses) / sizeof(exit_statuses[0]))

static void print_exit_statuses(FILE *file)
{
    fputs(
        ".SH EXIT STATUS\n"
        "Every error has a code that never changes, printed in brackets after the message and as\n"
        "\\fIcode\\fR with \\-\\-json, and an exit status:\n",
        file);
    for (size_t i = 0; i < EXIT_STATUS_COUNT; i++) {
        fprintf(file, ".TP\n\\fB%d\\fR (", exit_statuses[i].status);
        print_text(file, exit_statuses[i].code);
        fputs(")\n", file);
        print_text(file, exit_statuses[i].meaning);
        fputs(".\n", file);
    }
    fputs(".TP\n\\fB128 + N\\fR\nended by signal N: 129 SIGHUP, 130 SIGINT, 131 SIGQUIT, 143 "
          "SIGTERM.\n",
          file);
}

static void print_examples(FILE *file, const struct command *command)
{
    if (command->examples[0].line == NULL) {
        return;
    }
    fputs(".SH EXAMPLES\n", file);
    for (size_t i = 0; i < COMMAND_EXAMPLES_MAX && command->examples[i].line != NULL; i++) {
        fputs(".TP\n", file);
        print_text(file, command->examples[i].text);
        fputs(":\n.nf\n", file);
        print_line(file, command->examples[i].line);
        fputs(".fi\n", file);
    }
}

void manual_print_command(FILE *file, const struct command *command)
{
    char name[64];

    snprintf(name, sizeof(name), "vmctl-%s", command->name);
    print_header(file, name, command->summary);
    fputs(".SH SYNOPSIS\n", file);
    if (command->run != NULL) {
        fprintf(file, "\\fBvmctl %s\\fR ", command->name);
        print_line(file, command->usage);
    }
    for (const struct command_action *action = command->actions;
         command->run == NULL && action->name != NULL; action++) {
        fprintf(file, "%s\\fBvmctl %s\\fR [OPTION...] \\fB%s\\fR ",
                action == command->actions ? "" : ".br\n", command->name, action->name);
        print_line(file, action->usage);
    }
    fputs(".SH DESCRIPTION\n", file);
    print_text(file, command->description);
    print_options(file, "OPTIONS", command->options, NULL);
    print_options(file, "OPTIONS OF EVERY COMMAND", global_options, command);
    print_examples(file, command);
    print_exit_statuses(file);
    fputs(".SH SEE ALSO\n.BR vmctl (1),\n.BR vmmd (8)\n", file);
}

void manual_print_global(FILE *file)
{
    print_header(file, "vmctl", "run virtual machines of another architecture");
    fputs(
        ".SH SYNOPSIS\n\\fBvmctl\\fR [OPTION...] \\fICOMMAND\\fR [ARGUMENT...]\n.SH DESCRIPTION\n"
        "vmctl boots and manages virtual machines whose instruction set is not the host's. "
        "\\fBvmctl\n"
        "run\\fR needs nothing but itself; the other commands talk to a running\n.BR vmmd (8).\n"
        "Options may stand before and after the command and its arguments; \"\\-\\-\" ends them.\n"
        ".SH COMMANDS\n",
        file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, ".TP\n\\fB%s\\fR ", commands[i]->name);
        print_line(file, commands[i]->usage != NULL ? commands[i]->usage : "ACTION [ARGUMENT...]");
        print_text(file, commands[i]->summary);
        fprintf(file, "; see\n.BR vmctl\\-%s (1).\n", commands[i]->name);
    }
    print_options(file, "OPTIONS OF EVERY COMMAND", global_options, NULL);
    fputs(
        ".SH OUTPUT\n"
        "Results go to standard output, errors and status lines to standard error. With "
        "\\-\\-json\n"
        "results are JSON objects, and an error is one line\n.nf\n"
        "{\"error\":{\"code\",\"message\",\"hint\",\"component\",\"cause\",\"exit_status\"}}\n.fi\n"
        "on standard error. Members may be added; none is renamed or removed.\n",
        file);
    print_exit_statuses(file);
    fputs(
        ".SH ENVIRONMENT\n.TP\n\\fBPOLYVISOR_RUNTIME_DIR\\fR\n"
        "the runtime directory, when \\-\\-runtime\\-dir is not given.\n"
        ".TP\n\\fBPOLYVISOR_LOG\\fR\nhow much vmmd and its processes say: error, warning, info or "
        "debug.\n"
        ".SH FILES\n.TP\n\\fI/run/polyvisor\\fR, \\fI$XDG_RUNTIME_DIR/polyvisor\\fR\n"
        "the runtime directory of root and of a user: the sockets of vmmd and its machines.\n"
        ".SH SEE ALSO\n.BR vmmd (8)",
        file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, ",\n.BR vmctl\\-%s (1)", commands[i]->name);
    }
    fputc('\n', file);
}

void manual_print_errors(FILE *file)
{
    fputs("| code | exit status | meaning |\n|---|---|---|\n", file);
    for (size_t i = 0; i < EXIT_STATUS_COUNT; i++) {
        fprintf(file, "| `%s` | %d | %s |\n", exit_statuses[i].code, exit_statuses[i].status,
                exit_statuses[i].meaning);
    }
}
