#include "cli/machine_options.h"

#include "cli/values.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- --disk path=FILE[,format=raw|qcow2][,readonly] ---- */

/* Copy the words up to the next single comma into `word`, each double comma as one. Returns what
 * follows the comma, or NULL at the end. `word` has room for strlen(text) + 1. */
static const char *next_word(const char *text, char *word)
{
    while (*text != '\0') {
        if (*text == ',') {
            if (text[1] != ',') {
                *word = '\0';
                return text + 1;
            }
            text++;
        }
        *word++ = *text++;
    }
    *word = '\0';
    return NULL;
}

static int disk_error(struct error *err, const char *message, const char *word)
{
    error_set(err, ERROR_USAGE, 0, "--disk: %s '%.100s'", message, word);
    error_hint(err, "--disk path=FILE[,format=raw|qcow2][,readonly]");
    return -ERROR_USAGE;
}

static int parse_disk_word(const char *word, struct disk_setting *disk, struct error *err)
{
    if (strncmp(word, "path=", 5) == 0) {
        free(disk->path);
        disk->path = options_absolute_path("disk", word + 5, err);
        return disk->path != NULL ? 0 : -ERROR_USAGE;
    }
    if (strcmp(word, "readonly") == 0 || strcmp(word, "readonly=on") == 0) {
        disk->read_only = true;
        return 0;
    }
    if (strcmp(word, "readonly=off") == 0) {
        disk->read_only = false;
        return 0;
    }
    if (strcmp(word, "format=raw") == 0) {
        disk->format = "raw";
        return 0;
    }
    if (strcmp(word, "format=qcow2") == 0) {
        disk->format = "qcow2";
        return 0;
    }
    if (strncmp(word, "format=", 7) == 0) {
        return disk_error(err, "unknown format", word + 7);
    }
    return disk_error(err, "unknown word", word);
}

static int parse_disk(const struct option_spec *option, const char *value, void *target,
                      struct error *err)
{
    struct disk_settings *disks = target;
    struct disk_setting disk = {.format = ""}; /* vmmd looks what it is */
    char *word = malloc(strlen(value) + 1);
    int status = 0;

    (void)option;
    if (word == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    for (const char *rest = value; rest != NULL && status == 0;) {
        rest = next_word(rest, word);
        status = parse_disk_word(word, &disk, err);
    }
    free(word);
    if (status == 0 && disk.path == NULL) {
        status = disk_error(err, "no path in", value);
    }
    if (status == 0 && disks->count == MACHINE_DISKS_MAX) {
        status = error_set(err, ERROR_CONFIG, 0, "more than %d disks", MACHINE_DISKS_MAX);
    }
    if (status != 0) {
        free(disk.path);
        return status;
    }
    disks->items[disks->count++] = disk;
    return 0;
}

static void release_disks(void *target)
{
    struct disk_settings *disks = target;

    for (size_t i = 0; i < disks->count; i++) {
        free(disks->items[i].path);
    }
    disks->count = 0;
}

const struct option_type option_disk = {.takes_value = true,
                                        .collects = true,
                                        .completion = OPTION_COMPLETE_FILE,
                                        .parse = parse_disk,
                                        .release = release_disks};

/* ---- --net user[,hostfwd=tcp:ADDR:PORT-:PORT] ---- */

static int net_error(struct error *err, const char *message, const char *word)
{
    error_set(err, ERROR_USAGE, 0, "--net: %s '%.100s'", message, word);
    error_hint(err, "--net user[,hostfwd=tcp:ADDR:PORT-:PORT]; ADDR is an IPv4 address of the "
                    "host or empty for all");
    return -ERROR_USAGE;
}

/* "tcp:ADDR:PORT-:PORT" or the same with udp; `rule` is changed. */
static bool forward_valid(char *rule)
{
    char *address = strchr(rule, ':');
    char *port = address != NULL ? strchr(address + 1, ':') : NULL;
    char *guest_port = port != NULL ? strstr(port + 1, "-:") : NULL;
    struct in_addr parsed;
    uint64_t number = 0;

    if (guest_port == NULL) {
        return false;
    }
    *address++ = '\0';
    *port++ = '\0';
    *guest_port = '\0';
    return (strcmp(rule, "tcp") == 0 || strcmp(rule, "udp") == 0) &&
           (*address == '\0' || inet_pton(AF_INET, address, &parsed) == 1) &&
           value_parse_number(port, 1, 65535, &number) == 0 &&
           value_parse_number(guest_port + 2, 1, 65535, &number) == 0;
}

static int check_net(const char *value, char *word, struct error *err)
{
    const char *rest = next_word(value, word);

    if (strcmp(word, "user") != 0) {
        return net_error(err, "unknown kind of network", word);
    }
    while (rest != NULL) {
        rest = next_word(rest, word);
        if (strncmp(word, "hostfwd=", 8) != 0) {
            return net_error(err, "unknown word", word);
        }
        char *rule = strdup(word + 8);
        bool valid = rule != NULL && forward_valid(rule);

        free(rule);
        if (!valid) {
            return net_error(err, "not a rule", word + 8);
        }
    }
    return 0;
}

static int parse_net(const struct option_spec *option, const char *value, void *target,
                     struct error *err)
{
    struct net_settings *nets = target;
    char *word = malloc(strlen(value) + 1);
    int status = word != NULL ? check_net(value, word, err)
                              : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");

    (void)option;
    free(word);
    if (status == 0 && nets->count == MACHINE_NETS_MAX) {
        status = error_set(err, ERROR_CONFIG, 0, "more than %d networks", MACHINE_NETS_MAX);
    }
    if (status == 0) {
        nets->items[nets->count++] = value;
    }
    return status;
}

const struct option_type option_net = {.takes_value = true, .collects = true, .parse = parse_net};

/* ---- The configuration message ---- */

int machine_settings_check(const struct machine_settings *settings, const char *command,
                           struct error *err)
{
    if (settings->kernel == NULL && settings->firmware == NULL) {
        error_set(err, ERROR_USAGE, 0, "%s needs --kernel or --firmware", command);
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
    config->cpus = settings->cpus;
    config->memory_bytes = settings->memory_bytes;
    config->perf_map = settings->perf_map;
    for (size_t i = 0; i < settings->disks.count; i++) {
        Polyvisor__DiskConfig *disk = &message->disks[i];

        polyvisor__disk_config__init(disk);
        disk->path = text_or_empty(settings->disks.items[i].path);
        disk->format = text_or_empty(settings->disks.items[i].format);
        disk->read_only = settings->disks.items[i].read_only;
        message->disk_pointers[i] = disk;
    }
    config->n_disks = settings->disks.count;
    config->disks = message->disk_pointers;
    config->n_net = settings->nets.count;
    config->net = (char **)settings->nets.items;
}
