#include "cli/machine_options.h"

#include "cli/values.h"
#include "libshared/balloon/setting.h"
#include "libshared/base/words.h"
#include "libshared/nbd/uri.h"
#include "libshared/net/setting.h"
#include "libshared/vsock/setting.h"
#include "libshared/watchdog/setting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- --disk path=FILE[,WORD...] ---- */

static int disk_error(struct error *err, const char *message, const char *word)
{
    error_set(err, ERROR_USAGE, 0, "--disk: %s '%.100s'", message, word);
    error_hint(err, "--disk " DISK_ARGUMENT "; 'vmctl run --help' has the words");
    return -ERROR_USAGE;
}

/* The words that take a value which vmmd knows the meaning of. */
static const struct disk_word {
    const char *name;    /* with its equals sign */
    const char *choices; /* "a|b"; NULL: any text */
    size_t offset;       /* in struct disk_setting */
} disk_words[] = {
    {"format=", "raw|qcow2", offsetof(struct disk_setting, format)},
    {"cache=", "writeback|writethrough|none|directsync", offsetof(struct disk_setting, cache)},
    {"aio=", "auto|threads", offsetof(struct disk_setting, aio)},
    {"werror=", "report|enospc|wait", offsetof(struct disk_setting, werror)},
    {"packed=", "on|off", offsetof(struct disk_setting, packed)},
    {"serial=", NULL, offsetof(struct disk_setting, serial)},
    {"backing-format=", "raw|qcow2", offsetof(struct disk_setting, backing_format)},
    {"backing=", NULL, offsetof(struct disk_setting, backing)},
};

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);

    for (const char *at = choices; length > 0 && at != NULL; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, value, length) == 0 && (at[length] == '|' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

static int parse_disk_value(const struct disk_word *known, const char *value,
                            struct disk_setting *disk, struct error *err)
{
    char **target = (char **)((char *)disk + known->offset);

    if (known->choices != NULL && !is_choice(known->choices, value)) {
        char message[32];
        snprintf(message, sizeof(message), "unknown %.*s", (int)strlen(known->name) - 1,
                 known->name);
        return disk_error(err, message, value);
    }
    free(*target);
    *target = strdup(value);
    return *target != NULL ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
}

static int parse_disk_queues(const char *value, struct disk_setting *disk, struct error *err)
{
    uint64_t queues;

    if (value_parse_number(value, 1, DISK_QUEUES_MAX, &queues) != 0) {
        return disk_error(err, "not a number of queues from 1 to 8:", value);
    }
    disk->queues = (uint32_t)queues;
    return 0;
}

/* A file, or a network disk's place, which is no path of this host. */
static int parse_disk_path(const char *value, struct disk_setting *disk, struct error *err)
{
    struct nbd_uri uri;

    free(disk->path);
    disk->path = NULL;
    if (!nbd_uri_is(value)) {
        disk->path = options_absolute_path("disk", value, err);
        return disk->path != NULL ? 0 : -ERROR_USAGE;
    }
    int status = nbd_uri_parse(value, ERROR_USAGE, &uri, err);
    if (status == 0) {
        disk->path = strdup(value);
        status = disk->path != NULL ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    return status;
}

static int parse_disk_timeout(const char *value, struct disk_setting *disk, struct error *err)
{
    uint32_t milliseconds;

    if (value_parse_duration(value, &milliseconds) != 0 || milliseconds < 1000) {
        return disk_error(err, "not a time of a second or more:", value);
    }
    disk->timeout_s = milliseconds / 1000;
    return 0;
}

static int parse_disk_word(const char *word, struct disk_setting *disk, struct error *err)
{
    if (strncmp(word, "path=", 5) == 0) {
        return parse_disk_path(word + 5, disk, err);
    }
    if (strncmp(word, "timeout=", 8) == 0) {
        return parse_disk_timeout(word + 8, disk, err);
    }
    if (strncmp(word, "backing=", 8) == 0) {
        free(disk->backing);
        disk->backing = options_absolute_path("disk", word + 8, err);
        return disk->backing != NULL ? 0 : -ERROR_USAGE;
    }
    if (strcmp(word, "readonly") == 0 || strcmp(word, "readonly=on") == 0) {
        disk->read_only = true;
        return 0;
    }
    if (strcmp(word, "readonly=off") == 0) {
        disk->read_only = false;
        return 0;
    }
    if (strncmp(word, "queues=", 7) == 0) {
        return parse_disk_queues(word + 7, disk, err);
    }
    for (size_t i = 0; i < sizeof(disk_words) / sizeof(disk_words[0]); i++) {
        size_t length = strlen(disk_words[i].name);
        if (strncmp(word, disk_words[i].name, length) == 0) {
            return parse_disk_value(&disk_words[i], word + length, disk, err);
        }
    }
    int status = limits_parse_word(LIMIT_DISK, word, ERROR_USAGE, &disk->limits, err);
    return status != -ENOENT ? status : disk_error(err, "unknown word", word);
}

static void release_disk(struct disk_setting *disk)
{
    free(disk->path);
    for (size_t i = 0; i < sizeof(disk_words) / sizeof(disk_words[0]); i++) {
        free(*(char **)((char *)disk + disk_words[i].offset));
    }
}

static int parse_disk(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    struct disk_settings *disks = target;
    struct disk_setting disk = {0};
    char *word = malloc(strlen(value) + 1);
    int status = 0;

    (void)option;
    if (word == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    for (const char *rest = value; rest != NULL && status == 0;) {
        rest = words_next(rest, word);
        status = parse_disk_word(word, &disk, err);
    }
    free(word);
    if (status == 0 && disk.path == NULL) {
        status = disk_error(err, "no path in", value);
    }
    status = status ? status : limits_check(LIMIT_DISK, &disk.limits, ERROR_USAGE, err);
    if (status == 0 && disks->count == MACHINE_DISKS_MAX) {
        status = error_set(err, ERROR_CONFIG, 0, "more than %d disks", MACHINE_DISKS_MAX);
    }
    if (status != 0) {
        release_disk(&disk);
        return status;
    }
    disks->items[disks->count++] = disk;
    return 0;
}

static void release_disks(void *target)
{
    struct disk_settings *disks = target;

    for (size_t i = 0; i < disks->count; i++) {
        release_disk(&disks->items[i]);
    }
    disks->count = 0;
}

const struct option_type option_disk = {.takes_value = true,
                                        .collects = true,
                                        .completion = OPTION_COMPLETE_FILE,
                                        .parse = parse_disk,
                                        .release = release_disks};

/* ---- --machine irqchip=auto|plic|aia ---- */

static int parse_machine(const struct option_spec *option, const char *value, void *target,
                         struct error *err)
{
    static const char *const irqchips[] = {"irqchip=auto", "irqchip=plic", "irqchip=aia"};
    const char **irqchip = target;

    for (size_t i = 0; i < sizeof(irqchips) / sizeof(irqchips[0]); i++) {
        if (strcmp(value, irqchips[i]) == 0) {
            *irqchip = irqchips[i] + strlen("irqchip=");
            return 0;
        }
    }
    error_set(err, ERROR_USAGE, 0, "--%s: unknown word '%.100s'", option->name, value);
    error_hint(err, "--%s %s", option->name, option->argument);
    return -ERROR_USAGE;
}

const struct option_type option_machine = {.takes_value = true, .parse = parse_machine};

/* ---- --net, as libshared/net/setting.h says ---- */

/* The text as vmmd wants it: what leads to a file is absolute. NULL with *err set. */
static char *net_text(const struct option_spec *option, struct net_setting *setting,
                      struct error *err)
{
    if (setting->kind == NET_LINK) {
        char *path = options_absolute_path(option->name, setting->path, err);
        if (path == NULL) {
            return NULL;
        }
        if (strlen(path) >= sizeof(setting->path)) {
            error_set(err, ERROR_USAGE, 0, "--net: the path of the link is too long: '%.100s'",
                      path);
            error_hint(err, "at most %d bytes from the root on", NET_PATH_MAX);
            free(path);
            return NULL;
        }
        strcpy(setting->path, path);
        free(path);
    }
    char *text = net_setting_format(setting);
    if (text == NULL) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    return text;
}

static int parse_net(const struct option_spec *option, const char *value, void *target,
                     struct error *err)
{
    struct net_settings *nets = target;
    struct net_setting setting;

    if (strcmp(value, "none") == 0) {
        nets->none = true;
        return 0;
    }
    int status = net_setting_parse(value, ERROR_USAGE, &setting, err);
    if (status != 0) {
        return status;
    }
    if (nets->count == MACHINE_NETS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "more than %d networks", MACHINE_NETS_MAX);
    }
    char *text = net_text(option, &setting, err);
    if (text == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_USAGE;
    }
    nets->items[nets->count++] = text;
    return 0;
}

static void release_nets(void *target)
{
    struct net_settings *nets = target;

    for (size_t i = 0; i < nets->count; i++) {
        free(nets->items[i]);
    }
    nets->count = 0;
}

const struct option_type option_net = {
    .takes_value = true, .collects = true, .parse = parse_net, .release = release_nets};

/* ---- --vsock, as libshared/vsock/setting.h says ---- */

static int parse_vsock(const struct option_spec *option, const char *value, void *target,
                       struct error *err)
{
    struct vsock_setting setting;
    int status = vsock_setting_parse(value, ERROR_USAGE, &setting, err);

    if (status != 0) {
        return status;
    }
    char *path = options_absolute_path(option->name, setting.path, err);
    if (path == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_USAGE;
    }
    if (strlen(path) >= sizeof(setting.path)) {
        error_set(err, ERROR_USAGE, 0, "--vsock: the path is too long: '%.100s'", path);
        error_hint(err, "at most %d bytes from the root on", VSOCK_PATH_MAX);
        free(path);
        return -ERROR_USAGE;
    }
    strcpy(setting.path, path);
    free(path);
    char *text = vsock_setting_format(&setting);
    if (text == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    free(*(char **)target);
    *(char **)target = text;
    return 0;
}

static void release_text(void *target)
{
    free(*(char **)target);
    *(char **)target = NULL;
}

const struct option_type option_vsock = {
    .takes_value = true, .parse = parse_vsock, .release = release_text};

/* ---- --memory ---- */

int machine_memory_is_fixed(struct error *err)
{
    error_set(err, ERROR_UNSUPPORTED, 0,
              "a machine cannot be given more memory while it runs: it has no virtio-mem");
    error_hint(err,
               "Debian's riscv64 kernels have no driver for it (CONFIG_VIRTIO_MEM). Give all of it "
               "at the start, --memory SIZE; take from it and give back: vmctl balloon NAME SIZE");
    return -ERROR_UNSUPPORTED;
}

/* SIZE, or SIZE,max=SIZE as for machines whose memory grows: which ours does not. */
static int parse_memory(const struct option_spec *option, const char *value, void *target,
                        struct error *err)
{
    const char *comma = strchr(value, ',');
    char size[32];
    uint64_t bytes, most;

    if (comma == NULL) {
        return option_size.parse(option, value, target, err);
    }
    int length = snprintf(size, sizeof(size), "%.*s", (int)(comma - value), value);
    if (length >= (int)sizeof(size) || strncmp(comma, ",max=", 5) != 0 ||
        value_parse_size(size, &bytes) != 0 || value_parse_size(comma + 5, &most) != 0 ||
        most < bytes) {
        error_set(err, ERROR_USAGE, 0, "--memory: '%s' is no size of memory", value);
        error_hint(err, "bytes, or a number with K, M, G or T: 512M");
        return -ERROR_USAGE;
    }
    if (most > bytes) {
        return machine_memory_is_fixed(err);
    }
    *(uint64_t *)target = bytes;
    return 0;
}

const struct option_type option_memory = {.takes_value = true, .parse = parse_memory};

/* ---- --balloon, as libshared/balloon/setting.h says ---- */

static int parse_balloon(const struct option_spec *option, const char *value, void *target,
                         struct error *err)
{
    struct balloon_setting setting;
    char text[BALLOON_SETTING_MAX];
    int status = balloon_setting_parse(value, ERROR_USAGE, &setting, err);

    (void)option;
    if (status != 0) {
        return status;
    }
    balloon_setting_format(&setting, text);
    char *copy = strdup(text);
    if (copy == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    free(*(char **)target);
    *(char **)target = copy;
    return 0;
}

const struct option_type option_balloon = {
    .takes_value = true, .parse = parse_balloon, .release = release_text};

/* ---- --share, as libshared/share/setting.h says ---- */

static int parse_share(const struct option_spec *option, const char *value, void *target,
                       struct error *err)
{
    struct share_settings *shares = target;
    struct share_setting setting;
    int status = share_setting_parse(value, ERROR_USAGE, &setting, err);

    if (status != 0) {
        return status;
    }
    if (shares->count == SHARES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "more than %d shares", SHARES_MAX);
    }
    char *path = options_absolute_path(option->name, setting.path, err);
    if (path == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_USAGE;
    }
    if (strlen(path) > SHARE_PATH_MAX) {
        error_set(err, ERROR_USAGE, 0, "--share: the path is too long: '%.100s'", path);
        error_hint(err, "at most %d bytes from the root on", SHARE_PATH_MAX);
        free(path);
        return -ERROR_USAGE;
    }
    strcpy(setting.path, path);
    free(path);
    char *text = share_setting_format(&setting);
    if (text == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    shares->items[shares->count++] = text;
    return 0;
}

static void release_shares(void *target)
{
    struct share_settings *shares = target;

    for (size_t i = 0; i < shares->count; i++) {
        free(shares->items[i]);
    }
    shares->count = 0;
}

const struct option_type option_share = {.takes_value = true,
                                         .collects = true,
                                         .completion = OPTION_COMPLETE_FILE,
                                         .parse = parse_share,
                                         .release = release_shares};

/* ---- --console-port, as libshared/port/setting.h says ---- */

/* What leads to a file becomes absolute. */
static int complete_port(const struct option_spec *option, struct port_setting *setting,
                         struct error *err)
{
    if (setting->path[0] == '\0') {
        return 0;
    }
    char *path = options_absolute_path(option->name, setting->path, err);
    if (path == NULL) {
        return err != NULL ? -(int)err->code : -ERROR_USAGE;
    }
    if (strlen(path) > PORT_PATH_MAX) {
        error_set(err, ERROR_USAGE, 0, "--console-port: the path is too long: '%.100s'", path);
        error_hint(err, "at most %u bytes from the root on", PORT_PATH_MAX);
        free(path);
        return -ERROR_USAGE;
    }
    strcpy(setting->path, path);
    free(path);
    return 0;
}

static int parse_port(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    struct port_settings *ports = target;
    struct port_setting setting;
    int status = port_setting_parse(value, ERROR_USAGE, &setting, err);

    status = status == 0 ? complete_port(option, &setting, err) : status;
    if (status != 0) {
        return status;
    }
    if (ports->count == PORTS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "more than %u console ports", PORTS_MAX);
    }
    char *text = port_setting_format(&setting);
    if (text == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    ports->items[ports->count++] = text;
    return 0;
}

static void release_ports(void *target)
{
    struct port_settings *ports = target;

    for (size_t i = 0; i < ports->count; i++) {
        free(ports->items[i]);
    }
    ports->count = 0;
}

const struct option_type option_port = {
    .takes_value = true, .collects = true, .parse = parse_port, .release = release_ports};

/* ---- --watchdog, as libshared/watchdog/setting.h says ---- */

static int parse_watchdog(const struct option_spec *option, const char *value, void *target,
                          struct error *err)
{
    enum watchdog_action action;

    (void)option;
    *(const char **)target = value;
    return watchdog_setting_parse(value, ERROR_USAGE, &action, err);
}

const struct option_type option_watchdog = {.takes_value = true, .parse = parse_watchdog};

/* ---- The configuration message ---- */

int machine_settings_check(const struct machine_settings *settings, const char *command,
                           struct error *err)
{
    if (settings->kernel == NULL && settings->firmware == NULL) {
        error_set(err, ERROR_USAGE, 0, "%s needs --image, --kernel or --firmware", command);
        error_hint(err, "'vmctl %s --help' shows examples", command);
        return -ERROR_USAGE;
    }
    if (settings->initrd != NULL && settings->kernel == NULL) {
        return error_set(err, ERROR_USAGE, 0, "--initrd needs --kernel");
    }
    return 0;
}

/* protobuf-c never writes through the strings of a message it packs. */
static char *text_or_empty(const char *text)
{
    return (char *)(text != NULL ? text : "");
}

void machine_disk_build(const struct disk_setting *setting, Polyvisor__DiskConfig *disk,
                        char limits[LIMIT_TEXT_MAX])
{
    polyvisor__disk_config__init(disk);
    disk->path = text_or_empty(setting->path);
    disk->format = text_or_empty(setting->format);
    disk->cache = text_or_empty(setting->cache);
    disk->aio = text_or_empty(setting->aio);
    disk->packed = text_or_empty(setting->packed);
    disk->werror = text_or_empty(setting->werror);
    disk->serial = text_or_empty(setting->serial);
    limits_format(LIMIT_DISK, &setting->limits, limits, LIMIT_TEXT_MAX);
    disk->limits = limits;
    disk->backing = text_or_empty(setting->backing);
    disk->backing_format = text_or_empty(setting->backing_format);
    disk->timeout_s = setting->timeout_s;
    disk->queues = setting->queues;
    disk->read_only = setting->read_only;
}

void machine_config_build(const struct machine_settings *settings, const char *name,
                          struct machine_config_message *message)
{
    Polyvisor__MachineConfig *config = &message->config;

    polyvisor__machine_config__init(config);
    config->name = text_or_empty(name);
    config->arch = text_or_empty(settings->arch);
    config->kernel = text_or_empty(settings->kernel);
    config->initrd = text_or_empty(settings->initrd);
    config->firmware = text_or_empty(settings->firmware);
    config->append = text_or_empty(settings->append);
    config->engine = text_or_empty(settings->engine);
    config->irqchip = text_or_empty(settings->irqchip);
    config->cpus = settings->cpus;
    config->memory_bytes = settings->memory_bytes;
    config->hotplug_slots = settings->hotplug_slots;
    config->perf_map = settings->perf_map;
    for (size_t i = 0; i < settings->disks.count; i++) {
        machine_disk_build(&settings->disks.items[i], &message->disks[i], message->limits[i]);
        message->disk_pointers[i] = &message->disks[i];
    }
    config->n_disks = settings->disks.count;
    config->disks = message->disk_pointers;
    config->watchdog = text_or_empty(settings->watchdog);
    config->on_panic = text_or_empty(settings->on_panic);
    config->balloon = text_or_empty(settings->balloon);
    config->vsock = text_or_empty(settings->vsock);
    config->n_shares = settings->shares.count;
    config->shares = (char **)settings->shares.items; /* never written through, either */
    config->n_console_ports = settings->ports.count;
    config->console_ports = (char **)settings->ports.items; /* never written through, either */
    config->n_net = settings->nets.count;
    config->net = (char **)settings->nets.items; /* never written through, either */
}
