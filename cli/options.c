#include "cli/options.h"

#include "cli/suggest.h"
#include "cli/values.h"
#include "libshared/ipc/runtime.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Types of values ---- */

static int parse_flag(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    (void)option;
    (void)value;
    (void)err;
    *(bool *)target = true;
    return 0;
}

static int parse_text(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    (void)option;
    (void)err;
    *(const char **)target = value;
    return 0;
}

/* True when the `length` bytes at `value` are one of the words between the bars of `choices`. */
static bool is_choice(const char *choices, const char *value, size_t length)
{
    for (const char *word = choices; word != NULL; word = strchr(word, '|')) {
        word += *word == '|';
        if (strncmp(word, value, length) == 0 && (word[length] == '|' || word[length] == '\0')) {
            return length > 0;
        }
    }
    return false;
}

static int parse_choice(const struct option_spec *option, const char *value, void *target,
                        struct error *err)
{
    if (!is_choice(option->choices, value, strlen(value))) {
        error_set(err, ERROR_USAGE, 0, "--%s: unknown value '%s'", option->name, value);
        error_hint(err, "one of %s", option->choices);
        return -ERROR_USAGE;
    }
    *(const char **)target = value;
    return 0;
}

static int parse_name(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    if (!runtime_name_valid(value)) {
        error_set(err, ERROR_USAGE, 0, "--%s: '%s' is not a machine name", option->name, value);
        error_hint(err,
                   "up to %d letters, digits, '-', '_' and '.', starting with neither '-' nor '.'",
                   MACHINE_NAME_MAX);
        return -ERROR_USAGE;
    }
    *(const char **)target = value;
    return 0;
}

char *options_absolute_path(const char *option, const char *path, struct error *err)
{
    char directory[PATH_MAX];
    char *absolute = NULL;
    int length = 0;

    if (*path == '\0') {
        error_set(err, ERROR_USAGE, 0, "--%s: the path is empty", option);
        return NULL;
    }
    if (*path == '/') {
        length = asprintf(&absolute, "%s", path);
    } else if (getcwd(directory, sizeof(directory)) != NULL) {
        length = asprintf(&absolute, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, path);
    } else {
        error_set(err, ERROR_IO, errno, "--%s: the working directory cannot be read", option);
        return NULL;
    }
    if (length < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    if (length >= PATH_MAX) {
        error_set(err, ERROR_USAGE, ENAMETOOLONG, "--%s: the path is too long", option);
        free(absolute);
        return NULL;
    }
    return absolute;
}

static int parse_path(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    char *absolute = options_absolute_path(option->name, value, err);

    if (absolute == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_USAGE;
    }
    free(*(char **)target);
    *(char **)target = absolute;
    return 0;
}

static void release_path(void *target)
{
    free(*(char **)target);
    *(char **)target = NULL;
}

static int parse_number(const struct option_spec *option, const char *value, void *target,
                        struct error *err)
{
    uint64_t number = 0;
    int status = value_parse_number(value, 0, UINT32_MAX, &number);

    if (status != 0) {
        return error_set(err, ERROR_USAGE, 0, "--%s: '%s' is %s", option->name, value,
                         status == -ERANGE ? "too large" : "not a number");
    }
    *(uint32_t *)target = (uint32_t)number;
    return 0;
}

static int parse_size(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    int status = value_parse_size(value, target);

    if (status != 0) {
        error_set(err, ERROR_USAGE, 0, "--%s: '%s' is %s", option->name, value,
                  status == -ERANGE ? "too large" : "not a size");
        error_hint(err, "a size is a number of bytes, or one followed by K, M, G or T: 512M");
        return -ERROR_USAGE;
    }
    return 0;
}

static int parse_duration(const struct option_spec *option, const char *value, void *target,
                          struct error *err)
{
    int status = value_parse_duration(value, target);

    if (status != 0) {
        error_set(err, ERROR_USAGE, 0, "--%s: '%s' is %s", option->name, value,
                  status == -ERANGE ? "too long" : "not a duration");
        error_hint(
            err, "a duration is a number of seconds, or one followed by ms, s or m; at most a day");
        return -ERROR_USAGE;
    }
    return 0;
}

const struct option_type option_flag = {.parse = parse_flag};
const struct option_type option_text = {.takes_value = true, .parse = parse_text};
const struct option_type option_choice = {.takes_value = true, .parse = parse_choice};
const struct option_type option_name = {.takes_value = true, .parse = parse_name};
const struct option_type option_file = {.takes_value = true,
                                        .completion = OPTION_COMPLETE_FILE,
                                        .parse = parse_path,
                                        .release = release_path};
const struct option_type option_folder = {.takes_value = true,
                                          .completion = OPTION_COMPLETE_DIRECTORY,
                                          .parse = parse_path,
                                          .release = release_path};
const struct option_type option_number = {.takes_value = true, .parse = parse_number};
const struct option_type option_size = {.takes_value = true, .parse = parse_size};
const struct option_type option_duration = {.takes_value = true, .parse = parse_duration};

/* ---- Scopes ---- */

static void *target_of(const struct option_scope *scope, const struct option_spec *option)
{
    return (char *)scope->settings + option->offset;
}

int options_set_defaults(const struct option_scope *scope, struct error *err)
{
    for (const struct option_spec *option = scope->options; option->name != NULL; option++) {
        if (option->default_value != NULL) {
            int status =
                option->type->parse(option, option->default_value, target_of(scope, option), err);

            if (status != 0) {
                return status;
            }
        }
    }
    return 0;
}

void options_release(const struct option_scope *scope)
{
    for (const struct option_spec *option = scope->options; option->name != NULL; option++) {
        if (option->type->release != NULL) {
            option->type->release(target_of(scope, option));
        }
    }
}

/* ---- The parser ---- */

struct parser {
    const struct option_scope *scopes;
    size_t scope_count;
    struct arguments *arguments;
    const char *command;
};

/* The option called `name` (its first `length` bytes), or by `letter` when name is NULL. */
static const struct option_spec *find_option(const struct parser *parser, const char *name,
                                             size_t length, char letter,
                                             const struct option_scope **scope)
{
    for (size_t i = 0; i < parser->scope_count; i++) {
        const struct option_spec *option = parser->scopes[i].options;

        for (; option->name != NULL; option++) {
            bool found = name == NULL ? option->letter == letter
                                      : strncmp(option->name, name, length) == 0 &&
                                            option->name[length] == '\0';
            if (found) {
                *scope = &parser->scopes[i];
                return option;
            }
        }
    }
    return NULL;
}

static int unknown_option(const struct parser *parser, const char *text, struct error *err)
{
    const char *best = NULL;
    char word[64];
    size_t length = strcspn(text, "=");

    error_set(err, ERROR_USAGE, 0, "unknown option %.*s", (int)(length < 200 ? length : 200), text);
    if (text[1] == '-' && length - 2 < sizeof(word)) {
        snprintf(word, sizeof(word), "%.*s", (int)(length - 2), text + 2);
        for (size_t i = 0; i < parser->scope_count; i++) {
            const struct option_spec *option = parser->scopes[i].options;

            for (; option->name != NULL; option++) {
                best = suggest_nearer(word, best, option->name);
            }
        }
    }
    if (best != NULL) {
        error_hint(err, "did you mean --%s?", best);
    } else if (parser->command != NULL) {
        error_hint(err, "'vmctl %s --help' lists the options", parser->command);
    } else {
        error_hint(err, "'vmctl --help' lists the options and commands");
    }
    return -ERROR_USAGE;
}

/* True when a word that should be a value is more likely the next option. */
static bool looks_like_option(const struct parser *parser, const char *word)
{
    const struct option_scope *scope = NULL;

    return strncmp(word, "--", 2) == 0 &&
           find_option(parser, word + 2, strcspn(word + 2, "="), 0, &scope) != NULL;
}

/* Read the value of `option`; `attached` is what followed "=", or NULL. */
static int take_value(const struct parser *parser, const struct option_spec *option,
                      const char *attached, const char **value, struct error *err)
{
    struct arguments *arguments = parser->arguments;

    if (attached != NULL) {
        *value = attached;
        return 0;
    }
    if (arguments->next >= arguments->count ||
        looks_like_option(parser, arguments->items[arguments->next])) {
        error_set(err, ERROR_USAGE, 0, "option --%s needs a value", option->name);
        error_hint(err, "--%s=%s", option->name, option->argument);
        return -ERROR_USAGE;
    }
    *value = arguments->items[arguments->next++];
    return 0;
}

static int parse_long(const struct parser *parser, const char *text, struct error *err)
{
    const char *name = text + 2;
    size_t length = strcspn(name, "=");
    const char *attached = name[length] == '=' ? name + length + 1 : NULL;
    const struct option_scope *scope = NULL;
    const struct option_spec *option = find_option(parser, name, length, 0, &scope);
    const char *value = NULL;

    if (option == NULL) {
        return unknown_option(parser, text, err);
    }
    if (!option->type->takes_value) {
        if (attached != NULL) {
            return error_set(err, ERROR_USAGE, 0, "option --%s takes no value", option->name);
        }
    } else {
        int status = take_value(parser, option, attached, &value, err);

        if (status != 0) {
            return status;
        }
    }
    return option->type->parse(option, value, target_of(scope, option), err);
}

/* "-q" or several letters in one word; a letter that takes a value uses the rest of the word. */
static int parse_letters(const struct parser *parser, const char *text, struct error *err)
{
    for (const char *letter = text + 1; *letter != '\0'; letter++) {
        const struct option_scope *scope = NULL;
        const struct option_spec *option = find_option(parser, NULL, 0, *letter, &scope);
        const char *value = NULL;
        int status = 0;

        if (option == NULL) {
            const char word[] = {'-', *letter, '\0'};

            return unknown_option(parser, letter == text + 1 ? text : word, err);
        }
        if (option->type->takes_value) {
            status = take_value(parser, option, letter[1] != '\0' ? letter + 1 : NULL, &value, err);
        }
        if (status == 0) {
            status = option->type->parse(option, value, target_of(scope, option), err);
        }
        if (status != 0 || option->type->takes_value) {
            return status;
        }
    }
    return 0;
}

int options_parse(const struct option_scope *scopes, size_t scope_count,
                  struct arguments *arguments, const char *command, const char **positionals,
                  size_t *positional_count, struct error *err)
{
    const struct parser parser = {scopes, scope_count, arguments, command};
    bool only_positionals = false;

    while (arguments->next < arguments->count) {
        const char *word = arguments->items[arguments->next];
        int status = 0;

        if (only_positionals || word[0] != '-' || word[1] == '\0') {
            if (positionals == NULL) {
                return 0;
            }
            positionals[(*positional_count)++] = word;
            arguments->next++;
            continue;
        }
        arguments->next++;
        if (strcmp(word, "--") == 0) {
            only_positionals = true;
        } else if (word[1] == '-') {
            status = parse_long(&parser, word, err);
        } else {
            status = parse_letters(&parser, word, err);
        }
        if (status != 0) {
            return status;
        }
    }
    return 0;
}
