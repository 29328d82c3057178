/* The balloon of a running machine: how much memory its guest has. */
#include "libshared/balloon/setting.h"
#include "proto/device.pb-c.h"
#include "vmmd/balloon.h"
#include "vmmd/machine_internal.h"
#include "vmmd/message.h"
#include <sys/stat.h>

#define BALLOON_MS 8000 /* the guest is given less to tell its statistics */

/* Firmware is loaded at the beginning of memory and keeps what it runs in to itself. */
#define FIRMWARE_UNIT (UINT64_C(2) << 20)

int balloon_complete(Polyvisor__MachineConfig *config, struct error *err)
{
    struct balloon_setting setting;
    char text[BALLOON_SETTING_MAX];
    int result = balloon_setting_parse(config->balloon, ERROR_CONFIG, &setting, err);

    if (result) {
        return result;
    }
    if (setting.memory > config->memory_bytes) {
        error_set(err, ERROR_CONFIG, 0, "--balloon: the guest cannot have more than the machine");
        error_hint(err, "give the machine more memory (--memory)");
        return -ERROR_CONFIG;
    }
    balloon_setting_format(&setting, text);
    return message_set_string(&config->balloon, text) < 0
               ? error_set(err, ERROR_INTERNAL, 0, "out of memory")
               : 0;
}

bool balloon_present(const Polyvisor__MachineConfig *config)
{
    struct balloon_setting setting;

    return balloon_setting_parse(config->balloon, ERROR_CONFIG, &setting, NULL) == 0 &&
           setting.present;
}

uint64_t balloon_memory_kept(int firmware_fd)
{
    struct stat info;

    if (firmware_fd < 0 || fstat(firmware_fd, &info) < 0) {
        return 0;
    }
    return ((uint64_t)info.st_size / FIRMWARE_UNIT + 1) * FIRMWARE_UNIT;
}

static struct machine_device *balloon_find(struct machine *machine, struct error *err)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        if (machine->devices[i]->balloon) {
            return machine->devices[i];
        }
    }
    error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no balloon", machine->config->name);
    error_hint(err, "it was left out with --balloon off");
    return NULL;
}

int machine_balloon(struct machine *machine, const Polyvisor__BalloonRequest *wanted,
                    child_reply_fn *reply, uint64_t context, struct error *err)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceBalloon body = POLYVISOR__DEVICE_BALLOON__INIT;

    if (machine_is_idle(machine)) {
        error_set(err, ERROR_STATE, 0, "machine '%s' does not run", machine->config->name);
        error_hint(err, "start it with: vmctl start %s", machine->config->name);
        return -ERROR_STATE;
    }
    struct machine_device *device = balloon_find(machine, err);
    if (!device) {
        return -ERROR_NOT_FOUND;
    }
    if (wanted->set &&
        (wanted->memory_bytes == 0 || wanted->memory_bytes > machine->config->memory_bytes)) {
        error_set(err, ERROR_CONFIG, 0, "the guest of '%s' cannot have that much memory",
                  machine->config->name);
        error_hint(err, "it has at most what the machine was given: 'vmctl show %s'",
                   machine->config->name);
        return -ERROR_CONFIG;
    }
    body.set = wanted->set;
    body.target_bytes = machine->config->memory_bytes - wanted->memory_bytes;
    body.statistics = wanted->statistics;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_BALLOON;
    request.balloon = &body;
    if (!device->ready ||
        child_request(&device->child, &request.base, BALLOON_MS, reply, context)) {
        error_set(err, ERROR_STATE, 0, "%s of '%s' has no process now", device->id,
                  machine->config->name);
        error_hint(err, "'vmctl device list %s' shows when it is back", machine->config->name);
        return -ERROR_STATE;
    }
    return 0;
}
