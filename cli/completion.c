#include "cli/completion.h"

#include "cli/help.h"

#include <string.h>

/* ---- bash ---- */

static void print_words(FILE *file, const struct option_spec *options,
                        const struct command *shadowing)
{
    for (const struct option_spec *option = options; option->name != NULL; option++) {
        if (shadowing == NULL || !help_is_shadowed(shadowing, option)) {
            fprintf(file, " --%s", option->name);
        }
    }
}

/* "a|b" as words. */
static void print_choices(FILE *file, const char *choices)
{
    for (const char *c = choices; *c != '\0'; c++) {
        fputc(*c == '|' ? ' ' : *c, file);
    }
}

static void print_actions(FILE *file, const struct command *command)
{
    for (const struct command_action *action = command->actions; action->name != NULL; action++) {
        fprintf(file, "%s%s", action == command->actions ? "" : " ", action->name);
    }
}

/* What may follow an option that takes a value. */
static void print_bash_value(FILE *file, const struct option_spec *option)
{
    if (!option->type->takes_value) {
        return;
    }
    fprintf(file, "    --%s) ", option->name);
    if (option->choices != NULL) {
        fputs("COMPREPLY=($(compgen -W '", file);
        print_choices(file, option->choices);
        fputs("' -- \"$current\")); return ;;\n", file);
    } else if (option->type->completion == OPTION_COMPLETE_NOTHING) {
        fputs("return ;;\n", file);
    } else {
        fprintf(file, "_vmctl_files %s; return ;;\n",
                option->type->completion == OPTION_COMPLETE_DIRECTORY ? "-d" : "-f");
    }
}

static void print_bash_values(FILE *file)
{
    fputs("    case $previous in\n", file);
    for (const struct option_spec *option = global_options; option->name != NULL; option++) {
        print_bash_value(file, option);
    }
    /* An option of one name means one thing in every command; the first command says it. */
    for (size_t i = 0; commands[i] != NULL; i++) {
        for (const struct option_spec *own = commands[i]->options; own->name != NULL; own++) {
            bool said = false;

            for (size_t j = 0; j < i && !said; j++) {
                said = help_is_shadowed(commands[j], own);
            }
            for (const struct option_spec *all = global_options; all->name != NULL; all++) {
                said |= strcmp(all->name, own->name) == 0;
            }
            if (!said) {
                print_bash_value(file, own);
            }
        }
    }
    fputs("    esac\n", file);
}

/* The functions that complete words, and the head of the one that bash calls. */
static void print_bash_head(FILE *file)
{
    fputs("# bash completion for vmctl; made by 'vmctl help --completion bash'.\n\n"
          "_vmctl_files() {\n"
          "    compopt -o filenames 2>/dev/null\n"
          "    local prefix=\n"
          "    # --disk path=FILE\n"
          "    case $current in path=*) prefix=path= current=${current#path=} ;; esac\n"
          "    mapfile -t COMPREPLY < <(compgen \"$1\" -P \"$prefix\" -- \"$current\")\n"
          "}\n\n"
          "_vmctl_machines() {\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$(vmctl --timeout 1 -q list 2>/dev/null)\" -- "
          "\"$current\")\n"
          "}\n\n"
          "_vmctl() {\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
          "    local command= word options=\n"
          "    COMPREPLY=()\n"
          "    # \"=\" is a word of its own for bash: --arch = riscv64\n"
          "    if [ \"$current\" = = ]; then\n"
          "        current=\n"
          "    elif [ \"$previous\" = = ]; then\n"
          "        previous=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "        if [ \"$previous\" = path ]; then _vmctl_files -f; return; fi\n"
          "    fi\n",
          file);
}

static void print_command_names(FILE *file, const char *joint)
{
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, "%s%s", i == 0 ? "" : joint, commands[i]->name);
    }
}

/* Which command the line has, and its options. */
static void print_bash_options(FILE *file)
{
    fputs(
        "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        case $word in\n        ",
        file);
    print_command_names(file, "|");
    fputs(") command=$word; break ;;\n        esac\n    done\n    case $command in\n", file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, "    %s) options='", commands[i]->name);
        print_words(file, commands[i]->options, NULL);
        print_words(file, global_options, commands[i]);
        fputs("' ;;\n", file);
    }
    fputs("    *) options='", file);
    print_words(file, global_options, NULL);
    fputs("' ;;\n    esac\n"
          "    case $current in -*)\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
          "        return ;;\n    esac\n",
          file);
}

/* What is neither an option nor an option's value. */
static void print_bash_positionals(FILE *file)
{
    bool first = true;

    fputs("    case $command in\n    '' | help) mapfile -t COMPREPLY < <(compgen -W '", file);
    print_command_names(file, " ");
    fputs("' -- \"$current\") ;;\n    ", file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i]->positional == POSITIONAL_MACHINE) {
            fprintf(file, "%s%s", first ? "" : " | ", commands[i]->name);
            first = false;
        }
    }
    fputs(") _vmctl_machines ;;\n", file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i]->positional == POSITIONAL_FILE) {
            fprintf(file, "    %s) mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;\n",
                    commands[i]->name);
        }
        if (commands[i]->positional == POSITIONAL_ACTION) {
            fprintf(file, "    %s) mapfile -t COMPREPLY < <(compgen -W '", commands[i]->name);
            print_actions(file, commands[i]);
            fputs("' -- \"$current\") ;;\n", file);
        }
    }
    fputs("    esac\n", file);
}

void completion_print_bash(FILE *file)
{
    print_bash_head(file);
    print_bash_values(file);
    print_bash_options(file);
    print_bash_positionals(file);
    fputs("}\n\ncomplete -F _vmctl vmctl\n", file);
}

/* ---- zsh ---- */

/* Text inside '...[...]' of _arguments: no quote, no bracket, no colon. */
static void print_zsh_text(FILE *file, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            fputs("'\\''", file);
        } else if (strchr("[]:\\", *text) != NULL) {
            fprintf(file, "\\%c", *text);
        } else {
            fputc(*text, file);
        }
    }
}

static void print_zsh_option(FILE *file, const struct option_spec *option, const char *end)
{
    static const char *const actions[] = {
        [OPTION_COMPLETE_NOTHING] = " ",
        [OPTION_COMPLETE_FILE] = "_files",
        [OPTION_COMPLETE_DIRECTORY] = "_files -/",
    };
    fprintf(file, "        '%s--%s%s[", option->type->collects ? "*" : "", option->name,
            option->type->takes_value ? "=" : "");
    print_zsh_text(file, option->summary);
    fputc(']', file);
    if (option->type->takes_value) {
        fputs(":value:", file);
        if (option->choices != NULL) {
            fputc('(', file);
            print_choices(file, option->choices);
            fputc(')', file);
        } else {
            fputs(actions[option->type->completion], file);
        }
    }
    fprintf(file, "'%s\n", end);
}

static void print_zsh_command(FILE *file, const struct command *command)
{
    static const char *const positionals[] = {
        [POSITIONAL_NONE] = "",
        [POSITIONAL_MACHINE] = "        '*:machine:_vmctl_machines'\n",
        [POSITIONAL_NEW_MACHINE] = "        '*:new name: '\n",
        [POSITIONAL_COMMAND] = "        '*:command:_vmctl_commands'\n",
        [POSITIONAL_FILE] = "        '*:file:_files'\n",
        [POSITIONAL_ACTION] = "",
        [POSITIONAL_COMMAND_LINE] = "        '*:command of the guest: '\n",
    };
    fprintf(file, "    %s)\n        rules=(\n", command->name);
    for (const struct option_spec *option = command->options; option->name != NULL; option++) {
        print_zsh_option(file, option, "");
    }
    for (const struct option_spec *option = global_options; option->name != NULL; option++) {
        if (!help_is_shadowed(command, option)) {
            print_zsh_option(file, option, "");
        }
    }
    if (command->positional == POSITIONAL_ACTION) {
        fputs("        '1:action:(", file);
        print_actions(file, command);
        fputs(")'\n", file);
    }
    fprintf(file, "%s        ) ;;\n", positionals[command->positional]);
}

void completion_print_zsh(FILE *file)
{
    fputs("#compdef vmctl\n# zsh completion for vmctl; made by 'vmctl help --completion zsh'.\n\n"
          "_vmctl_machines() {\n"
          "    local -a machines\n"
          "    machines=(${(f)\"$(vmctl --timeout 1 -q list 2>/dev/null)\"})\n"
          "    compadd -a machines\n"
          "}\n\n"
          "_vmctl_commands() {\n    local -a names\n    names=(\n",
          file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        fprintf(file, "        '%s:", commands[i]->name);
        print_zsh_text(file, commands[i]->summary);
        fputs("'\n", file);
    }
    fputs("    )\n    _describe command names\n}\n\n"
          "_vmctl() {\n    local -a rules\n    local context state state_descr line result=1\n"
          "    typeset -A opt_args\n"
          "    _arguments -C \\\n",
          file);
    for (const struct option_spec *option = global_options; option->name != NULL; option++) {
        fputs("    ", file);
        print_zsh_option(file, option, " \\");
    }
    fputs("        '1:command:_vmctl_commands' \\\n        '*::argument:->arguments' && result=0\n"
          "    [[ $state = arguments ]] || return $result\n"
          "    case $line[1] in\n",
          file);
    for (size_t i = 0; commands[i] != NULL; i++) {
        print_zsh_command(file, commands[i]);
    }
    fputs("    *) return 1 ;;\n    esac\n    _arguments $rules && result=0\n    return "
          "$result\n}\n\n_vmctl \"$@\"\n",
          file);
}
