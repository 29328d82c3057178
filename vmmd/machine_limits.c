/* The limits of a machine's disks and cards, while it runs and while it does not. */
#include "libshared/limit/setting.h"
#include "libshared/net/setting.h"
#include "proto/device.pb-c.h"
#include "vmmd/machine_internal.h"
#include "vmmd/message.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SET_LIMITS_MS 2000

/* One disk or card: where its setting is in the configuration, and its device if there is one. */
struct limited {
    Polyvisor__DiskConfig *disk;
    char **net;
    struct machine_device *device;
};

static struct machine_device *limited_device(struct machine *machine, const char *id)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (!strcmp(machine->devices[i]->id, id)) {
            return machine->devices[i];
        }
    }
    return NULL;
}

static bool limited_is(const struct limited *limited, const void *setting, const char *kind,
                       size_t number, const char *id)
{
    const struct machine_device *device = limited->device;
    char name[24];

    if (device) {
        return setting == device->disk || setting == device->net;
    }
    snprintf(name, sizeof(name), "%s%zu", kind, number); /* of a machine that does not run */
    return !strcmp(name, id);
}

static int limited_find(struct machine *machine, const char *id, struct limited *limited,
                        struct error *err)
{
    const Polyvisor__MachineConfig *config = machine->config;

    memset(limited, 0, sizeof(*limited));
    limited->device = limited_device(machine, id);
    for (size_t i = 0; i < config->n_disks; i++) {
        if (limited_is(limited, config->disks[i], "disk", i, id)) {
            limited->disk = config->disks[i];
        }
    }
    for (size_t i = 0; i < config->n_net; i++) {
        if (limited_is(limited, config->net[i], "net", i, id)) {
            limited->net = &config->net[i];
        }
    }
    if (limited->device && limited->device->plugged_in) { /* it has a setting of its own */
        Polyvisor__DeviceAttachRequest *own = limited->device->plugged_in;
        limited->disk = own->disk;
        limited->net = own->net[0] ? &own->net : NULL;
    }
    if (limited->disk || limited->net) {
        return 0;
    }
    error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no disk or network card '%.40s'",
              config->name, id);
    error_hint(err, "disks are disk0, disk1 and so on, cards net0, net1: 'vmctl show %s'",
               config->name);
    return -ERROR_NOT_FOUND;
}

static int limit_disk(struct limited *limited, const char *words, char *text, struct error *err)
{
    struct limits limits = {0};
    int result = limits_parse(LIMIT_DISK, limited->disk->limits, ERROR_CONFIG, &limits, err);

    result = result ? result : limits_parse(LIMIT_DISK, words, ERROR_CONFIG, &limits, err);
    if (result) {
        return result;
    }
    limits_format(LIMIT_DISK, &limits, text, LIMIT_TEXT_MAX);
    return message_set_string(&limited->disk->limits, text) < 0
               ? error_set(err, ERROR_INTERNAL, 0, "out of memory")
               : 0;
}

static int limit_net(struct limited *limited, const char *words, char *text, struct error *err)
{
    struct net_setting setting;
    int result = net_setting_parse(*limited->net, ERROR_CONFIG, &setting, err);

    result = result ? result : limits_parse(LIMIT_NET, words, ERROR_CONFIG, &setting.limits, err);
    if (result) {
        return result;
    }
    limits_format(LIMIT_NET, &setting.limits, text, LIMIT_TEXT_MAX);
    char *complete = net_setting_format(&setting);
    result = complete ? message_set_string(limited->net, complete) : -1;
    free(complete);
    if (limited->device) {
        limited->device->net = *limited->net; /* which the old one is no more */
    }
    return result < 0 ? error_set(err, ERROR_INTERNAL, 0, "out of memory") : 0;
}

/* A process that is not there, or dies over it, is told by its configuration. */
static void limits_send(struct machine_device *device, char *text)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceSetLimits limits = POLYVISOR__DEVICE_SET_LIMITS__INIT;

    limits.limits = text;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_SET_LIMITS;
    request.set_limits = &limits;
    child_request(&device->child, &request.base, SET_LIMITS_MS, NULL, 0);
}

int machine_set_limits(struct machine *machine, const char *id, const char *words,
                       struct error *err)
{
    struct limited limited;
    char text[LIMIT_TEXT_MAX];
    int result = limited_find(machine, id, &limited, err);

    if (!result) {
        result = limited.disk ? limit_disk(&limited, words, text, err)
                              : limit_net(&limited, words, text, err);
    }
    if (result) {
        return result;
    }
    if (limited.device) {
        limits_send(limited.device, text);
    }
    machine_save(machine);
    machine_event(machine, "device-limits", id, "%s", text[0] ? text : "none");
    return 0;
}

void machine_device_limits(const struct machine_device *device, char text[LIMIT_TEXT_MAX])
{
    struct net_setting setting;

    text[0] = '\0';
    if (device->disk) {
        snprintf(text, LIMIT_TEXT_MAX, "%s", device->disk->limits);
    } else if (device->net && !net_setting_parse(device->net, ERROR_CONFIG, &setting, NULL)) {
        limits_format(LIMIT_NET, &setting.limits, text, LIMIT_TEXT_MAX);
    }
}
