/* Help, manual pages, completions and docs/errors.md all say what the tables say. */
#include "cli/completion.h"
#include "cli/help.h"
#include "cli/manual.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct printed {
    FILE *file;
    char *text;
    size_t size;
};

static FILE *begin(struct printed *printed)
{
    printed->file = open_memstream(&printed->text, &printed->size);
    ck_assert_ptr_nonnull(printed->file);
    return printed->file;
}

static const char *end(struct printed *printed)
{
    fclose(printed->file);
    return printed->text;
}

static bool shows(const char *text, const char *format, const char *word)
{
    char wanted[128];

    snprintf(wanted, sizeof(wanted), format, word);
    return strstr(text, wanted) != NULL;
}

static size_t count_options(const struct option_spec *options)
{
    size_t count = 0;

    while (options[count].name != NULL) {
        count++;
    }
    return count;
}

/* Either the command itself is run, or one of its actions. */
static void check_actions(const struct command *command)
{
    ck_assert_int_eq(command->actions != NULL, command->positional == POSITIONAL_ACTION);
    ck_assert_int_eq(command->run == NULL, command->usage == NULL);
    for (const struct command_action *action = command->actions;
         command->run == NULL && action->name != NULL; action++) {
        ck_assert_msg(action->run != NULL && action->usage != NULL && action->least <= action->most,
                      "%s %s", command->name, action->name);
    }
}

START_TEST(tables_are_well_formed)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        const struct command *command = commands[i];

        ck_assert_ptr_eq(command_find(command->name), command);
        ck_assert(command->summary[0] != '\0');
        check_actions(command);
        ck_assert_msg(command->description[strlen(command->description) - 1] == '\n', "%s",
                      command->name);
        ck_assert_msg(command->examples[0].line != NULL, "%s has no example", command->name);
        ck_assert_uint_le(command->positionals_min, command->positionals_max);
        ck_assert_int_eq(command->positionals_max > 0 || command->run == NULL,
                         command->positional != POSITIONAL_NONE);
        for (size_t j = 0; j < count_options(command->options); j++) {
            const struct option_spec *option = &command->options[j];

            ck_assert_msg((option->argument != NULL) == option->type->takes_value, "%s --%s",
                          command->name, option->name);
            ck_assert_msg((option->choices != NULL) == (option->type == &option_choice), "%s --%s",
                          command->name, option->name);
            ck_assert_uint_lt(option->offset, command->settings_size);
            for (size_t k = 0; k < j; k++) {
                ck_assert_str_ne(option->name, command->options[k].name);
            }
        }
    }
}
END_TEST

START_TEST(defaults_can_be_parsed)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        void *settings = calloc(1, commands[i]->settings_size + 1);
        struct option_scope scope = {commands[i]->options, settings};
        struct error err = {0};

        ck_assert_msg(options_set_defaults(&scope, &err) == 0, "%s: %s", commands[i]->name,
                      err.message);
        options_release(&scope);
        free(settings);
    }
}
END_TEST

/* Without line breaks and indentation; to be freed. */
static char *in_one_line(const char *text)
{
    char *line = malloc(strlen(text) + 1);
    size_t used = 0;

    for (; *text != '\0'; text++) {
        bool blank = *text == ' ' || *text == '\n';
        if (!blank || used == 0 || line[used - 1] != ' ') {
            line[used++] = blank ? ' ' : *text;
        }
    }
    line[used] = '\0';
    return line;
}

START_TEST(help_cuts_nothing_off)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        struct printed printed;

        help_print_command(begin(&printed), commands[i]);
        char *text = in_one_line(end(&printed));
        for (size_t j = 0; j < count_options(commands[i]->options); j++) {
            char *summary = in_one_line(commands[i]->options[j].summary);
            ck_assert_msg(strstr(text, summary) != NULL, "%s --%s", commands[i]->name,
                          commands[i]->options[j].name);
            free(summary);
        }
        free(text);
        free(printed.text);
    }
}
END_TEST

START_TEST(help_names_everything)
{
    struct printed printed;

    help_print_global(begin(&printed));
    const char *text = end(&printed);
    for (size_t i = 0; commands[i] != NULL; i++) {
        ck_assert(shows(text, "\n  %s ", commands[i]->name));
        ck_assert(shows(text, " %s\n", commands[i]->summary));
    }
    for (size_t i = 0; i < count_options(global_options); i++) {
        ck_assert(shows(text, "--%s", global_options[i].name));
    }
    free(printed.text);

    for (size_t i = 0; commands[i] != NULL; i++) {
        help_print_command(begin(&printed), commands[i]);
        text = end(&printed);
        ck_assert(shows(text, "Usage: vmctl %s ", commands[i]->name));
        for (size_t j = 0; j < count_options(commands[i]->options); j++) {
            ck_assert(shows(text, "--%s", commands[i]->options[j].name));
        }
        for (const char *line = text; line != NULL; line = strchr(line + 1, '\n')) {
            const char *line_end = strchr(line + 1, '\n');

            /* Examples may be longer: they are to be copied. */
            if (line_end != NULL && strncmp(line, "\n  vmctl", 8) != 0) {
                ck_assert_msg(line_end - line <= 81, "%s: %.*s", commands[i]->name,
                              (int)(line_end - line), line);
            }
        }
        free(printed.text);
    }
}
END_TEST

START_TEST(an_option_of_a_command_shadows_the_global_one)
{
    struct printed printed;

    help_print_command(begin(&printed), &command_stop);
    const char *text = end(&printed);
    const char *first = strstr(text, "--timeout");
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(strstr(first + 1, "--timeout="));
    free(printed.text);
}
END_TEST

START_TEST(notes_name_choices_and_default)
{
    const struct option_spec both = {.choices = "a|b|c", .default_value = "b"};
    const struct option_spec neither = {.choices = NULL};
    const struct option_spec one = {.choices = "a"};
    char text[160];

    help_option_notes(&both, text, sizeof(text));
    ck_assert_str_eq(text, "one of a, b or c; default: b");
    help_option_notes(&neither, text, sizeof(text));
    ck_assert_str_eq(text, "");
    help_option_notes(&one, text, sizeof(text));
    ck_assert_str_eq(text, "one of a");
}
END_TEST

/* Every line that begins with a control character is a request we mean. */
static void check_roff(const char *text, const char *name)
{
    static const char *const requests[] = {".TH ",  ".nh\n", ".ad l\n", ".SH ",  ".TP\n",
                                           ".PP\n", ".BR ",  ".nf\n",   ".fi\n", ".br\n"};

    for (const char *line = text; line != NULL && *line != '\0';) {
        bool known = *line != '.' && *line != '\'';

        for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
            known |= strncmp(line, requests[i], strlen(requests[i])) == 0;
        }
        ck_assert_msg(known, "%s: %.40s", name, line);
        ck_assert_msg(*line != '\n', "%s: an empty line", name);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
}

/* A name as roff text has it. */
static void dashed(char *text, size_t capacity, const char *name)
{
    size_t length = 0;

    for (; *name != '\0' && length + 3 < capacity; name++) {
        if (*name == '-') {
            text[length++] = '\\';
        }
        text[length++] = *name;
    }
    text[length] = '\0';
}

START_TEST(manual_pages_name_everything)
{
    struct printed printed;
    char name[64];

    manual_print_global(begin(&printed));
    const char *text = end(&printed);
    check_roff(text, "vmctl");
    ck_assert_int_eq(strncmp(text, ".TH VMCTL 1 ", 12), 0);
    for (size_t i = 0; commands[i] != NULL; i++) {
        ck_assert(shows(text, ".BR vmctl\\-%s (1)", commands[i]->name));
    }
    for (unsigned row = 0; row < ERROR_CODE_COUNT; row++) {
        enum error_code code = error_code_at(row);
        char status[32];

        dashed(name, sizeof(name), error_code_text(code));
        snprintf(status, sizeof(status), "\\fB%d\\fR (", error_exit_status(code));
        ck_assert_ptr_nonnull(strstr(text, status));
        ck_assert(shows(text, "(%s)\n", name));
    }
    free(printed.text);
    for (size_t i = 0; commands[i] != NULL; i++) {
        manual_print_command(begin(&printed), commands[i]);
        text = end(&printed);
        check_roff(text, commands[i]->name);
        for (size_t j = 0; j < count_options(commands[i]->options); j++) {
            dashed(name, sizeof(name), commands[i]->options[j].name);
            ck_assert(shows(text, "\\fB\\-\\-%s\\fR", name));
        }
        ck_assert(shows(text, "%s", ".SH EXIT STATUS"));
        free(printed.text);
    }
}
END_TEST

START_TEST(completions_name_everything)
{
    struct printed bash, zsh;

    completion_print_bash(begin(&bash));
    completion_print_zsh(begin(&zsh));
    end(&bash);
    end(&zsh);
    for (size_t i = 0; commands[i] != NULL; i++) {
        ck_assert(shows(bash.text, "    %s) options='", commands[i]->name));
        ck_assert(shows(zsh.text, "    %s)\n", commands[i]->name));
        for (size_t j = 0; j < count_options(commands[i]->options); j++) {
            ck_assert(shows(bash.text, " --%s", commands[i]->options[j].name));
            ck_assert(shows(zsh.text, "--%s", commands[i]->options[j].name));
        }
    }
    ck_assert(shows(bash.text, "%s", "'riscv64 arm64 x86_64'"));
    ck_assert(shows(zsh.text, "%s", ":(riscv64 arm64 x86_64)"));
    free(bash.text);
    free(zsh.text);
}
END_TEST

START_TEST(the_document_of_errors_is_up_to_date)
{
    static char document[65536];
    struct printed printed;
    FILE *file = fopen("docs/errors.md", "r");

    ck_assert_msg(file != NULL, "run this in the root of the source tree");
    document[fread(document, 1, sizeof(document) - 1, file)] = '\0';
    fclose(file);
    manual_print_errors(begin(&printed));
    ck_assert_msg(strstr(document, end(&printed)) != NULL,
                  "docs/errors.md lacks the table of 'vmctl help --errors'");
    free(printed.text);
}
END_TEST

START_TEST(unknown_commands_get_a_suggestion)
{
    struct error err = {0};

    ck_assert_ptr_null(command_require("strat", &err));
    ck_assert_int_eq(err.code, ERROR_USAGE);
    ck_assert_str_eq(err.message, "unknown command 'strat'");
    ck_assert_str_eq(err.hint, "did you mean 'vmctl start'?");
    ck_assert_ptr_null(command_require("frobnicate", &err));
    ck_assert_str_eq(err.hint, "'vmctl help' lists the commands");
    ck_assert_ptr_eq(command_require("run", &err), &command_run);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_help");
    TCase *tests = tcase_create("all");

    tcase_add_test(tests, tables_are_well_formed);
    tcase_add_test(tests, defaults_can_be_parsed);
    tcase_add_test(tests, help_names_everything);
    tcase_add_test(tests, help_cuts_nothing_off);
    tcase_add_test(tests, an_option_of_a_command_shadows_the_global_one);
    tcase_add_test(tests, notes_name_choices_and_default);
    tcase_add_test(tests, manual_pages_name_everything);
    tcase_add_test(tests, completions_name_everything);
    tcase_add_test(tests, the_document_of_errors_is_up_to_date);
    tcase_add_test(tests, unknown_commands_get_a_suggestion);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
