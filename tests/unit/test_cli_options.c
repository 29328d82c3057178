/* vmctl's command line: numbers, sizes, durations, options from tables, suggestions. */
#include "cli/command.h"
#include "cli/machine_options.h"
#include "cli/suggest.h"
#include "cli/values.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Values ---- */

START_TEST(sizes_are_read_exactly)
{
    static const struct {
        const char *text;
        int status;
        uint64_t bytes;
    } cases[] = {
        {"0", 0, 0},
        {"1", 0, 1},
        {"4096", 0, 4096},
        {"64K", 0, 64u << 10},
        {"64k", 0, 64u << 10},
        {"512M", 0, 512u << 20},
        {"2G", 0, UINT64_C(2) << 30},
        {"1T", 0, UINT64_C(1) << 40},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"16777215T", 0, UINT64_C(16777215) << 40},
        {"16777216T", -ERANGE, 0},
        {"18014398509481983K", 0, UINT64_C(18014398509481983) << 10},
        {"18014398509481984K", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"M", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1 M", -EINVAL, 0},
        {"1MB", -EINVAL, 0},
        {"1MiB", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1e3", -EINVAL, 0},
        {"512M,", -EINVAL, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 77;

        ck_assert_msg(value_parse_size(cases[i].text, &bytes) == cases[i].status, "'%s'",
                      cases[i].text);
        ck_assert_msg(bytes == (cases[i].status == 0 ? cases[i].bytes : 77), "'%s'", cases[i].text);
    }
}
END_TEST

START_TEST(durations_are_read_exactly)
{
    static const struct {
        const char *text;
        int status;
        uint32_t milliseconds;
    } cases[] = {
        {"0", 0, 0},
        {"10", 0, 10000},
        {"10s", 0, 10000},
        {"250ms", 0, 250},
        {"2m", 0, 120000},
        {"86400", 0, 86400000},
        {"86401", -ERANGE, 0},
        {"1441m", -ERANGE, 0},
        {"1440m", 0, 86400000},
        {"4294967297ms", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {"1h", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
        {"99999999999999999999999s", -ERANGE, 0},
        {"99999999999999999999999x", -EINVAL, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t milliseconds = 77;

        ck_assert_msg(value_parse_duration(cases[i].text, &milliseconds) == cases[i].status, "'%s'",
                      cases[i].text);
        ck_assert_uint_eq(milliseconds, cases[i].status == 0 ? cases[i].milliseconds : 77);
    }
}
END_TEST

START_TEST(numbers_keep_their_range)
{
    uint64_t number = 0;

    ck_assert_int_eq(value_parse_number("1", 1, 8, &number), 0);
    ck_assert_int_eq(value_parse_number("8", 1, 8, &number), 0);
    ck_assert_uint_eq(number, 8);
    ck_assert_int_eq(value_parse_number("0", 1, 8, &number), -ERANGE);
    ck_assert_int_eq(value_parse_number("9", 1, 8, &number), -ERANGE);
    ck_assert_int_eq(value_parse_number("18446744073709551617", 0, UINT64_MAX, &number), -ERANGE);
    ck_assert_int_eq(value_parse_number("8x", 1, 8, &number), -EINVAL);
    ck_assert_int_eq(value_parse_number("", 0, 8, &number), -EINVAL);
    ck_assert_uint_eq(number, 8);
}
END_TEST

START_TEST(values_are_shown_for_people)
{
    char text[32];

    value_format_size(0, text, sizeof(text));
    ck_assert_str_eq(text, "0 B");
    value_format_size(UINT64_C(512) << 20, text, sizeof(text));
    ck_assert_str_eq(text, "512 MiB");
    value_format_size(UINT64_C(1536) << 20, text, sizeof(text));
    ck_assert_str_eq(text, "1.5 GiB");
    value_format_size(UINT64_MAX, text, sizeof(text));
    ck_assert_str_eq(text, "16.0 EiB");
    value_format_duration(0, text, sizeof(text));
    ck_assert_str_eq(text, "0s");
    value_format_duration(65, text, sizeof(text));
    ck_assert_str_eq(text, "1m 05s");
    value_format_duration(2 * 3600 + 180, text, sizeof(text));
    ck_assert_str_eq(text, "2h 03m");
    value_format_duration(5 * 86400 + 4 * 3600, text, sizeof(text));
    ck_assert_str_eq(text, "5d 04h");
}
END_TEST

/* ---- Suggestions ---- */

START_TEST(distances_count_edits)
{
    ck_assert_uint_eq(suggest_distance("", ""), 0);
    ck_assert_uint_eq(suggest_distance("", "abc"), 3);
    ck_assert_uint_eq(suggest_distance("memory", "memory"), 0);
    ck_assert_uint_eq(suggest_distance("memroy", "memory"), 1);
    ck_assert_uint_eq(suggest_distance("memry", "memory"), 1);
    ck_assert_uint_eq(suggest_distance("meemory", "memory"), 1);
    ck_assert_uint_eq(suggest_distance("kitten", "sitting"), 3);
    char word[100] = {0};
    memset(word, 'a', sizeof(word) - 1);
    ck_assert_uint_eq(suggest_distance(word, "a"), 64);
    ck_assert_uint_eq(suggest_distance("a", word), 64);
}
END_TEST

static const char *suggestion(const char *word)
{
    static const char *const known[] = {"memory", "kernel", "cpus", "start", "stats", "rm"};
    const char *best = NULL;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        best = suggest_nearer(word, best, known[i]);
    }
    return best;
}

START_TEST(suggestions_are_near)
{
    ck_assert_str_eq(suggestion("memroy"), "memory");
    ck_assert_str_eq(suggestion("mem"), "memory");
    ck_assert_str_eq(suggestion("kernal"), "kernel");
    ck_assert_str_eq(suggestion("cpu"), "cpus");
    ck_assert_str_eq(suggestion("stat"), "stats");
    ck_assert_str_eq(suggestion("mr"), "rm");
    ck_assert_ptr_null(suggestion("frobnicate"));
    ck_assert_ptr_null(suggestion("xyz"));
    ck_assert_ptr_null(suggestion(""));
}
END_TEST

/* ---- The parser ---- */

struct settings {
    bool flag, other;
    const char *text, *choice, *name;
    char *file;
    uint32_t number, duration;
    uint64_t size;
};

static const struct option_spec table[] = {
    {.name = "flag",
     .letter = 'f',
     .type = &option_flag,
     .offset = offsetof(struct settings, flag)},
    {.name = "other",
     .letter = 'o',
     .type = &option_flag,
     .offset = offsetof(struct settings, other)},
    {.name = "text",
     .letter = 't',
     .type = &option_text,
     .argument = "TEXT",
     .offset = offsetof(struct settings, text)},
    {.name = "choice",
     .type = &option_choice,
     .argument = "C",
     .choices = "one|three|two",
     .default_value = "two",
     .offset = offsetof(struct settings, choice)},
    {.name = "name",
     .type = &option_name,
     .argument = "N",
     .offset = offsetof(struct settings, name)},
    {.name = "file",
     .type = &option_file,
     .argument = "F",
     .offset = offsetof(struct settings, file)},
    {.name = "number",
     .type = &option_number,
     .argument = "N",
     .default_value = "7",
     .offset = offsetof(struct settings, number)},
    {.name = "duration",
     .type = &option_duration,
     .argument = "T",
     .offset = offsetof(struct settings, duration)},
    {.name = "size",
     .type = &option_size,
     .argument = "S",
     .default_value = "1M",
     .offset = offsetof(struct settings, size)},
    {.name = NULL},
};

#define WORDS_MAX 16

struct parsed {
    struct settings settings;
    const char *positionals[WORDS_MAX];
    size_t count;
    struct error err;
    int status;
};

/* Parse words up to a NULL. */
static void parse(struct parsed *parsed, const char *const *words)
{
    struct option_scope scope = {table, &parsed->settings};
    struct arguments arguments = {.items = (char **)words};

    while (words[arguments.count] != NULL) {
        arguments.count++;
    }
    memset(parsed, 0, sizeof(*parsed));
    ck_assert_int_eq(options_set_defaults(&scope, NULL), 0);
    parsed->status = options_parse(&scope, 1, &arguments, "test", parsed->positionals,
                                   &parsed->count, &parsed->err);
}
#define PARSE(parsed, ...) parse(parsed, (const char *const[]){__VA_ARGS__, NULL})

static void release(struct parsed *parsed)
{
    struct option_scope scope = {table, &parsed->settings};

    options_release(&scope);
}

START_TEST(options_take_all_forms)
{
    struct parsed parsed;

    PARSE(&parsed, "a", "--text=x=y", "b", "-fo", "--size", "2G", "--", "--flag");
    ck_assert_int_eq(parsed.status, 0);
    ck_assert_str_eq(parsed.settings.text, "x=y");
    ck_assert(parsed.settings.flag && parsed.settings.other);
    ck_assert_uint_eq(parsed.settings.size, UINT64_C(2) << 30);
    ck_assert_uint_eq(parsed.settings.number, 7);
    ck_assert_str_eq(parsed.settings.choice, "two");
    ck_assert_uint_eq(parsed.count, 3);
    ck_assert_str_eq(parsed.positionals[0], "a");
    ck_assert_str_eq(parsed.positionals[1], "b");
    ck_assert_str_eq(parsed.positionals[2], "--flag");

    PARSE(&parsed, "-fttail", "-", "--text=");
    ck_assert_int_eq(parsed.status, 0);
    ck_assert_str_eq(parsed.settings.text, "");
    ck_assert_uint_eq(parsed.count, 1);

    PARSE(&parsed, "--number", "1", "--number", "2", "--text", "-x");
    ck_assert_int_eq(parsed.status, 0);
    ck_assert_uint_eq(parsed.settings.number, 2);
    ck_assert_str_eq(parsed.settings.text, "-x");
}
END_TEST

START_TEST(paths_become_absolute)
{
    struct parsed parsed;
    char *here = getcwd(NULL, 0);

    PARSE(&parsed, "--file", "sub/x", "--file=/a/../b", "--file", "y");
    ck_assert_int_eq(parsed.status, 0);
    ck_assert_mem_eq(parsed.settings.file, here, strlen(here));
    ck_assert_str_eq(parsed.settings.file + strlen(here), "/y");
    release(&parsed);
    ck_assert_ptr_null(parsed.settings.file);
    PARSE(&parsed, "--file=");
    ck_assert_int_eq(parsed.status, -ERROR_USAGE);
    char *lengthy = malloc(10000);
    memset(lengthy, 'x', 9999);
    lengthy[9999] = '\0';
    PARSE(&parsed, "--file", lengthy);
    ck_assert_int_eq(parsed.status, -ERROR_USAGE);
    release(&parsed);
    free(lengthy);
    free(here);
}
END_TEST

START_TEST(bad_options_say_what_is_wrong)
{
    static const struct {
        const char *words[3];
        const char *message, *hint;
    } cases[] = {
        {{"--flga"}, "unknown option --flga", "did you mean --flag?"},
        {{"--sise=3"}, "unknown option --sise", "did you mean --size?"},
        {{"--zzzzzz"}, "unknown option --zzzzzz", "'vmctl test --help'"},
        {{"-z"}, "unknown option -z", "'vmctl test --help'"},
        {{"-fz"}, "unknown option -z", "'vmctl test --help'"},
        {{"--flag=yes"}, "option --flag takes no value", ""},
        {{"--text"}, "option --text needs a value", "--text=TEXT"},
        {{"--text", "--size=3"}, "option --text needs a value", "--text=TEXT"},
        {{"-t"}, "option --text needs a value", "--text=TEXT"},
        {{"--choice=four"}, "--choice: unknown value 'four'", "one of one|three|two"},
        {{"--choice=thre"}, "--choice: unknown value 'thre'", "one of"},
        {{"--choice="}, "--choice: unknown value ''", "one of"},
        {{"--name=../x"}, "--name: '../x' is not a machine name", "letters"},
        {{"--number=x"}, "--number: 'x' is not a number", ""},
        {{"--number=4294967296"}, "--number: '4294967296' is too large", ""},
        {{"--size=0x1"}, "--size: '0x1' is not a size", "512M"},
        {{"--size=99999999T"}, "--size: '99999999T' is too large", "512M"},
        {{"--duration=soon"}, "--duration: 'soon' is not a duration", "seconds"},
        {{"--=3"}, "unknown option --", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct parsed parsed;

        parse(&parsed, cases[i].words);
        ck_assert_int_eq(parsed.status, -ERROR_USAGE);
        ck_assert_int_eq(parsed.err.code, ERROR_USAGE);
        ck_assert_str_eq(parsed.err.message, cases[i].message);
        ck_assert_msg(strstr(parsed.err.hint, cases[i].hint) != NULL, "%s: %s", cases[i].message,
                      parsed.err.hint);
        release(&parsed);
    }
}
END_TEST

/* ---- Machines ---- */

static const struct option_spec machine_table[] = {MACHINE_OPTIONS, {.name = NULL}};

static int parse_machine(struct machine_settings *settings, struct error *err,
                         const char *const *words)
{
    struct option_scope scope = {machine_table, settings};
    struct arguments arguments = {.items = (char **)words};

    while (words[arguments.count] != NULL) {
        arguments.count++;
    }
    memset(settings, 0, sizeof(*settings));
    ck_assert_int_eq(options_set_defaults(&scope, err), 0);
    return options_parse(&scope, 1, &arguments, "run", NULL, NULL, err);
}
#define PARSE_MACHINE(settings, err, ...)                                                          \
    parse_machine(settings, err, (const char *const[]){__VA_ARGS__, NULL})

static void release_machine(struct machine_settings *settings)
{
    struct option_scope scope = {machine_table, settings};

    options_release(&scope);
}

START_TEST(machines_have_defaults)
{
    struct machine_settings settings;
    struct machine_config_message message;
    struct error err;

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--kernel", "/k"), 0);
    ck_assert_int_eq(machine_settings_check(&settings, "run", &err), 0);
    machine_config_build(&settings, "m", &message);
    ck_assert_str_eq(message.config.name, "m");
    ck_assert_str_eq(message.config.arch, "riscv64");
    ck_assert_str_eq(message.config.engine, "auto");
    ck_assert_str_eq(message.config.irqchip, "auto");
    ck_assert_str_eq(message.config.kernel, "/k");
    ck_assert_str_eq(message.config.initrd, "");
    ck_assert_str_eq(message.config.append, "");
    ck_assert_uint_eq(message.config.cpus, 1);
    ck_assert_uint_eq(message.config.memory_bytes, 512u << 20);
    ck_assert_uint_eq(message.config.n_disks, 0);
    ck_assert_uint_eq(message.config.n_net, 0);
    release_machine(&settings);
}
END_TEST

/* Memory cannot grow while a machine runs: who wants that is told so, not given less. */
START_TEST(memory_has_one_size)
{
    static const struct {
        const char *text;
        enum error_code code;
        uint64_t bytes;
    } cases[] = {
        {"256M", ERROR_OK, 256u << 20},
        {"256M,max=256M", ERROR_OK, 256u << 20},
        {"256M,max=512M", ERROR_UNSUPPORTED, 0},
        {"256M,max=128M", ERROR_USAGE, 0},
        {"256M,max=", ERROR_USAGE, 0},
        {"256M,", ERROR_USAGE, 0},
        {"256M,min=1M", ERROR_USAGE, 0},
        {",max=1G", ERROR_USAGE, 0},
        {"max=1G", ERROR_USAGE, 0},
        {"256M,max=1G,max=2G", ERROR_USAGE, 0},
        {"0000000000000000000000000000000000001M,max=1G", ERROR_USAGE, 0},
        {"", ERROR_USAGE, 0},
    };
    struct machine_settings settings;
    struct error err;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int status = PARSE_MACHINE(&settings, &err, "--kernel", "/k", "--memory", cases[i].text);
        ck_assert_msg(status == (cases[i].code ? -(int)cases[i].code : 0), "'%s'", cases[i].text);
        ck_assert(status || settings.memory_bytes == cases[i].bytes);
        ck_assert(!status || err.hint[0]);
        release_machine(&settings);
    }
}
END_TEST

START_TEST(the_machine_option_takes_words)
{
    static const char *const wrong[] = {"", "aia", "irqchip=", "irqchip=gic", "irqchip=aia,"};
    struct machine_settings settings;
    struct machine_config_message message;
    struct error err;

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--kernel", "/k", "--machine", "irqchip=plic"),
                     0);
    machine_config_build(&settings, "m", &message);
    ck_assert_str_eq(message.config.irqchip, "plic");
    release_machine(&settings);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--machine", wrong[i]), -ERROR_USAGE);
        ck_assert_int_ne(err.hint[0], '\0');
        release_machine(&settings);
    }
}
END_TEST

START_TEST(machines_need_something_to_boot)
{
    struct machine_settings settings;
    struct error err;

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--cpus", "2"), 0);
    ck_assert_int_eq(machine_settings_check(&settings, "run", &err), -ERROR_USAGE);
    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--firmware", "/f", "--initrd", "/i"), 0);
    ck_assert_int_eq(machine_settings_check(&settings, "run", &err), -ERROR_USAGE);
    release_machine(&settings);
}
END_TEST

START_TEST(disks_are_described_by_words)
{
    struct machine_settings settings;
    struct machine_config_message message;
    struct error err;

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--disk", "path=/a", "--disk",
                                   "path=/with,,comma,format=qcow2,readonly", "--disk",
                                   "readonly=off,path=/c,format=raw,readonly=on"),
                     0);
    machine_config_build(&settings, "m", &message);
    ck_assert_uint_eq(message.config.n_disks, 3);
    ck_assert_str_eq(message.config.disks[0]->path, "/a");
    ck_assert_str_eq(message.config.disks[0]->format, "");
    ck_assert(!message.config.disks[0]->read_only);
    ck_assert_str_eq(message.config.disks[1]->path, "/with,comma");
    ck_assert_str_eq(message.config.disks[1]->format, "qcow2");
    ck_assert(message.config.disks[1]->read_only);
    ck_assert(message.config.disks[2]->read_only);
    release_machine(&settings);
}
END_TEST

START_TEST(disks_have_settings)
{
    struct machine_settings settings;
    struct machine_config_message message;
    struct error err;

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--disk",
                                   "path=/a,cache=writeback,cache=none,serial=A,,B,queues=4,"
                                   "werror=enospc,aio=threads",
                                   "--disk", "path=/b"),
                     0);
    machine_config_build(&settings, "name", &message);
    ck_assert_str_eq(message.config.disks[0]->cache, "none"); /* the last one counts */
    ck_assert_str_eq(message.config.disks[0]->serial, "A,B");
    ck_assert_uint_eq(message.config.disks[0]->queues, 4);
    ck_assert_str_eq(message.config.disks[0]->werror, "enospc");
    ck_assert_str_eq(message.config.disks[0]->aio, "threads");
    ck_assert_str_eq(message.config.disks[1]->cache, "");
    ck_assert_uint_eq(message.config.disks[1]->queues, 0);
    release_machine(&settings);
}
END_TEST

START_TEST(bad_disks_and_networks_are_refused)
{
    static const char *const cases[][2] = {
        {"--disk", "/a"},
        {"--disk", ""},
        {"--disk", "path="},
        {"--disk", "readonly"},
        {"--disk", "path=/a,format=vmdk"},
        {"--disk", "path=/a,readonly=yes"},
        {"--disk", "path=/a,cache=unsafe"},
        {"--disk", "path=/a,cache="},
        {"--disk", "path=/a,cache=write"},
        {"--disk", "path=/a,werror=stop"},
        {"--disk", "path=/a,aio=native"},
        {"--disk", "path=/a,queues=0"},
        {"--disk", "path=/a,queues=9"},
        {"--disk", "path=/a,queues=many"},
        {"--disk", "path=/a,"},
        {"--net", "bridge"},
        {"--net", ""},
        {"--net", "user,"},
        {"--net", "user,mac=1"},
        {"--net", "user,hostfwd=tcp::0-:22"},
        {"--net", "user,hostfwd=tcp::65536-:22"},
        {"--net", "user,hostfwd=tcp::22"},
        {"--net", "user,hostfwd=tcp:22-:22"},
        {"--net", "user,hostfwd=sctp::22-:22"},
        {"--net", "user,hostfwd=tcp:localhost:22-:22"},
        {"--net", "user,hostfwd=tcp::22-:"},
        {"--net", "user,hostfwd="},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct machine_settings settings;
        struct error err = {0};

        ck_assert_msg(PARSE_MACHINE(&settings, &err, cases[i][0], cases[i][1]) == -ERROR_USAGE,
                      "%s", cases[i][1]);
        ck_assert_int_eq(err.code, ERROR_USAGE);
        release_machine(&settings);
    }
}
END_TEST

START_TEST(networks_are_handed_on)
{
    struct machine_settings settings;
    struct machine_config_message message;
    struct error err;
    const char *rules = "user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-:53";

    ck_assert_int_eq(PARSE_MACHINE(&settings, &err, "--net", "user", "--net", rules), 0);
    machine_config_build(&settings, "m", &message);
    ck_assert_uint_eq(message.config.n_net, 2);
    ck_assert_str_eq(message.config.net[1], rules);
    release_machine(&settings);
}
END_TEST

START_TEST(there_is_a_limit_of_disks)
{
    struct machine_settings settings;
    const char *words[2 * (MACHINE_DISKS_MAX + 1) + 1] = {0};
    struct error err;

    for (size_t i = 0; i <= MACHINE_DISKS_MAX; i++) {
        words[2 * i] = "--disk";
        words[2 * i + 1] = "path=/x";
    }
    ck_assert_int_eq(parse_machine(&settings, &err, words), -ERROR_CONFIG);
    release_machine(&settings);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_options");
    TCase *tests = tcase_create("all");

    tcase_add_test(tests, sizes_are_read_exactly);
    tcase_add_test(tests, durations_are_read_exactly);
    tcase_add_test(tests, numbers_keep_their_range);
    tcase_add_test(tests, values_are_shown_for_people);
    tcase_add_test(tests, distances_count_edits);
    tcase_add_test(tests, suggestions_are_near);
    tcase_add_test(tests, options_take_all_forms);
    tcase_add_test(tests, paths_become_absolute);
    tcase_add_test(tests, bad_options_say_what_is_wrong);
    tcase_add_test(tests, machines_have_defaults);
    tcase_add_test(tests, memory_has_one_size);
    tcase_add_test(tests, the_machine_option_takes_words);
    tcase_add_test(tests, machines_need_something_to_boot);
    tcase_add_test(tests, disks_are_described_by_words);
    tcase_add_test(tests, disks_have_settings);
    tcase_add_test(tests, bad_disks_and_networks_are_refused);
    tcase_add_test(tests, networks_are_handed_on);
    tcase_add_test(tests, there_is_a_limit_of_disks);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
