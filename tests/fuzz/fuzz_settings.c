/*
 * What people write: command lines of a machine, from vmctl's parsers through the message to what
 * vmmd makes of it; and the settings of network cards, vsocks, console ports and limits, which come
 * back from their text unchanged.
 */
#include "cli/machine_options.h"
#include "cli/suggest.h"
#include "cli/values.h"
#include "libshared/ipc/runtime.h"
#include "libshared/limit/setting.h"
#include "libshared/net/setting.h"
#include "libshared/port/setting.h"
#include "libshared/vsock/setting.h"
#include "tests/fuzz/fuzz_input.h"
#include "vmmd/message.h"
#include "vmmd/network.h"
#include "vmmd/validate.h"

#define TEXT_MAX 4000
#define WORDS    64

static const struct option_spec options[] = {MACHINE_OPTIONS, {.name = NULL}};

static const char *take_text(struct fuzz_input *input, char *text, size_t room)
{
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, room - 1, &size);

    memcpy(text, bytes, size);
    text[size] = '\0';
    return text;
}

static void check_error(const struct error *err, int status)
{
    fuzz_require(status == -(int)err->code, "the status is the error's code");
    fuzz_require(strlen(err->message) < sizeof(err->message), "the message ends");
    fuzz_require(err->message[0] != '\0', "an error says something");
}

static void values(struct fuzz_input *input)
{
    char text[TEXT_MAX], again[64];
    uint64_t number = 0, bytes = 0;
    uint32_t milliseconds = 0;
    uint64_t low = fuzz_number(input), high = fuzz_number(input);

    take_text(input, text, sizeof(text));
    if (value_parse_number(text, low, high, &number) == 0) {
        fuzz_require(number >= low && number <= high, "a number is in its range");
    }
    if (value_parse_size(text, &bytes) == 0) {
        value_format_size(bytes, again, sizeof(again));
        fuzz_require(strlen(again) < 32, "a size is short");
    }
    if (value_parse_duration(text, &milliseconds) == 0) {
        fuzz_require(milliseconds <= 86400000, "a duration is at most a day");
        value_format_duration(milliseconds, again, sizeof(again));
    }
    if (runtime_name_valid(text)) {
        fuzz_require(strlen(text) <= MACHINE_NAME_MAX && !strchr(text, '/') && text[0] != '.',
                     "a name is no path");
    }
}

static void net(struct fuzz_input *input)
{
    static struct net_setting setting, again;
    char text[TEXT_MAX];
    struct error err;

    error_clear(&err);
    memset(&setting, 0, sizeof(setting));
    memset(&again, 0, sizeof(again));
    take_text(input, text, sizeof(text));
    int status = net_setting_parse(text, ERROR_CONFIG, &setting, &err);
    if (status != 0) {
        check_error(&err, status);
        return;
    }
    fuzz_require(setting.queues >= 1 && setting.queues <= NET_QUEUES_MAX, "queues in their range");
    fuzz_require(setting.forward_count <= NET_FORWARDS_MAX, "forwards in their range");
    char *written = net_setting_format(&setting);
    fuzz_require(written != NULL, "memory");
    fuzz_require(net_setting_parse(written, ERROR_CONFIG, &again, &err) == 0,
                 "what was written is read");
    fuzz_require(setting.kind == again.kind && setting.mtu == again.mtu &&
                     setting.queues == again.queues && setting.has_mac == again.has_mac &&
                     !memcmp(setting.mac, again.mac, sizeof(again.mac)) &&
                     !strcmp(setting.ifname, again.ifname) && !strcmp(setting.path, again.path) &&
                     setting.forward_count == again.forward_count &&
                     !memcmp(setting.forwards, again.forwards,
                             setting.forward_count * sizeof(again.forwards[0])),
                 "what was written says the same");
    free(written);
}

static void port(struct fuzz_input *input)
{
    struct port_setting setting, again;
    char text[TEXT_MAX];
    struct error err;

    error_clear(&err);
    take_text(input, text, sizeof(text));
    int status = port_setting_parse(text, ERROR_CONFIG, &setting, &err);
    if (status != 0) {
        check_error(&err, status);
        return;
    }
    fuzz_require(strlen(setting.name) >= 1 && strlen(setting.name) <= PORT_NAME_MAX &&
                     strlen(setting.path) <= PORT_PATH_MAX && !strchr(setting.name, '/'),
                 "a name and a path in their ranges");
    char *written = port_setting_format(&setting);
    fuzz_require(written != NULL, "memory");
    fuzz_require(port_setting_parse(written, ERROR_CONFIG, &again, &err) == 0 &&
                     memcmp(&setting, &again, sizeof(again)) == 0,
                 "what was written says the same");
    free(written);
}

static void vsock(struct fuzz_input *input)
{
    struct vsock_setting setting, again;
    char text[TEXT_MAX];
    struct error err;

    error_clear(&err);
    take_text(input, text, sizeof(text));
    int status = vsock_setting_parse(text, ERROR_CONFIG, &setting, &err);
    if (status != 0) {
        check_error(&err, status);
        return;
    }
    fuzz_require(setting.cid > VSOCK_CID_HOST && setting.cid <= VSOCK_CID_MAX &&
                     strlen(setting.path) >= 1 && strlen(setting.path) <= VSOCK_PATH_MAX,
                 "an id and a path in their ranges");
    char *written = vsock_setting_format(&setting);
    fuzz_require(written != NULL, "memory");
    fuzz_require(vsock_setting_parse(written, ERROR_CONFIG, &again, &err) == 0 &&
                     setting.cid == again.cid && !strcmp(setting.path, again.path),
                 "what was written says the same");
    free(written);
}

static void limits(struct fuzz_input *input)
{
    enum limit_device device = fuzz_pick(input, 2) ? LIMIT_NET : LIMIT_DISK;
    struct limits set, again;
    char text[TEXT_MAX], written[LIMIT_TEXT_MAX];
    struct error err;

    error_clear(&err);
    memset(&set, 0, sizeof(set));
    memset(&again, 0, sizeof(again));
    take_text(input, text, sizeof(text));
    int status = limits_parse(device, text, ERROR_CONFIG, &set, &err);
    if (status != 0) {
        check_error(&err, status);
        fuzz_require(memcmp(&set, &again, sizeof(set)) == 0, "all words are taken, or none");
        return;
    }
    limits_format(device, &set, written, sizeof(written));
    fuzz_require(strlen(written) < sizeof(written) - 1, "limits have room");
    fuzz_require(limits_parse(device, written, ERROR_CONFIG, &again, &err) == 0 &&
                     memcmp(&set, &again, sizeof(set)) == 0,
                 "what was written says the same");
}

/* vmctl packs the settings, vmmd unpacks and checks them. */
static void configure(const struct machine_settings *settings, const char *name)
{
    static struct machine_config_message message;
    struct error err;

    error_clear(&err);
    machine_config_build(settings, name, &message);
    Polyvisor__MachineConfig *config =
        (Polyvisor__MachineConfig *)message_copy(&message.config.base);
    if (!config) { /* text that is no UTF-8 */
        return;
    }
    int status = config_validate_form(config, "/run/polyvisor", &err);
    if (status != 0) {
        check_error(&err, status);
    } else {
        fuzz_require(config->cpus >= 1 && config->cpus <= CONFIG_CPUS_MAX, "CPUs in their range");
        fuzz_require(config->n_disks <= CONFIG_DISKS_MAX, "disks in their range");
        fuzz_require(config->n_net <= CONFIG_NETS_MAX, "cards in their range");
        for (size_t i = 0; i < config->n_net; i++) {
            struct net_setting setting;
            fuzz_require(net_setting_parse(config->net[i], ERROR_CONFIG, &setting, &err) == 0 &&
                             setting.has_mac,
                         "a completed card is complete");
        }
    }
    polyvisor__machine_config__free_unpacked(config, NULL);
}

/* A command line, a word a line. */
static void command_line(struct fuzz_input *input)
{
    char text[TEXT_MAX], name[TEXT_MAX], *words[WORDS];
    const char *positionals[WORDS];
    size_t positional_count = 0;
    struct machine_settings settings = {0};
    struct option_scope scope = {.options = options, .settings = &settings};
    struct arguments arguments = {.items = words};
    struct error err;

    error_clear(&err);
    take_text(input, text, sizeof(text));
    for (char *word = text; word && arguments.count < WORDS;) {
        words[arguments.count++] = strsep(&word, "\n");
    }
    fuzz_require(options_set_defaults(&scope, &err) == 0, "the defaults are possible");
    int status = options_parse(&scope, 1, &arguments, "run", positionals, &positional_count, &err);
    if (status == 0) {
        fuzz_require(positional_count <= arguments.count, "words are counted");
        status = machine_settings_check(&settings, "run", &err);
    }
    if (status != 0) {
        check_error(&err, status);
    } else {
        snprintf(name, sizeof(name), "%s", positional_count ? positionals[0] : "one");
        configure(&settings, name);
    }
    options_release(&scope);
}

static void (*const kinds[])(struct fuzz_input *) = {command_line, net,    values,
                                                     vsock,        limits, port};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    kinds[fuzz_pick(&input, sizeof(kinds) / sizeof(kinds[0]))](&input);
    return 0;
}
