#include "cli/commands/device_plug.h"

#include "cli/client.h"
#include "cli/guest_session.h"
#include "cli/guest_vsock.h"
#include "cli/machine_view.h"
#include "cli/output.h"

#include <limits.h>
#include <string.h>

#define ATTACH_MS 45000u /* what vmmd gives a device's process and vcpud */
#define DETACH_MS 45000u /* beside what the guest is given */
#define AGENT_MS  3000u  /* for an agent that is not there, or not yet */

/* What the guest's part came to. */
enum guest_part { GUEST_DONE, GUEST_NOT_TOLD, GUEST_FAILED };

static const char *const guest_part_texts[] = {
    [GUEST_DONE] = "done",
    [GUEST_NOT_TOLD] = "not-told",
    [GUEST_FAILED] = "failed",
};

/* "0000:00:04.0" of one of a machine's devices. 0 or a negative code with *err set. One that is
 * about to end or has not begun has no guest to talk to. */
static int find_address(const struct invocation *invocation, const char *device, char *address,
                        size_t size, bool *runs, struct error *err)
{
    const char *name = invocation->positionals[1];
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status = client_ask_machine(invocation, name, &response, &machine, err);

    if (status != 0) {
        return status;
    }
    *runs = machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING;
    status = error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no device '%.40s'", name, device);
    error_hint(err, "'vmctl device list %s' shows its devices", name);
    for (size_t i = 0; i < machine->n_devices; i++) {
        if (strcmp(machine->devices[i]->id, device) == 0) {
            device_address(machine->devices[i], address, size);
            error_clear(err);
            status = 0;
        }
    }
    client_free(response);
    return status;
}

/* Have the guest's agent do one of the things that it does itself. */
static enum guest_part tell_guest(const struct invocation *invocation, const char *const *words)
{
    const struct device_settings *settings = invocation->settings;
    char path[PATH_MAX];
    struct guest_outcome outcome;
    struct error err;
    const struct guest_command command = {
        .flags = AGENT_START_BUILTIN,
        .arguments = words,
        .input = -1,
        .output = {-1, -1},
        .wait_ms = AGENT_MS,
        .limit_ms = AGENT_MS + settings->wait_ms,
    };

    if (guest_vsock_path(invocation, invocation->positionals[1], NULL, path, sizeof(path), &err) !=
        0) {
        return GUEST_NOT_TOLD;
    }
    int status = guest_session_run(path, &command, &outcome, &err);
    if (status != 0) {
        return status == -ERROR_TIMEOUT ? GUEST_FAILED : GUEST_NOT_TOLD;
    }
    return outcome.by_signal || outcome.cause || outcome.status ? GUEST_FAILED : GUEST_DONE;
}

static int print_outcome(const struct invocation *invocation, const char *device,
                         const char *address, enum guest_part part, struct error *err)
{
    return output_json(json_pack("{s:o, s:o, s:s, s:s}", "name",
                                 output_json_text(invocation->positionals[1]), "device",
                                 output_json_text(device), "address", address, "guest",
                                 guest_part_texts[part]),
                       err);
}

/* ---- attach ---- */

static int wanted_device(const struct device_settings *settings,
                         Polyvisor__DeviceAttachRequest *attach, Polyvisor__DiskConfig *disk,
                         char limits[LIMIT_TEXT_MAX], struct error *err)
{
    if (settings->disks.count + settings->nets.count + (settings->vsock != NULL) != 1) {
        error_set(err, ERROR_USAGE, 0, "'device attach' takes one of --disk, --net and --vsock");
        error_hint(err, "vmctl device attach NAME --disk path=FILE");
        return -ERROR_USAGE;
    }
    if (settings->disks.count) {
        machine_disk_build(&settings->disks.items[0], disk, limits);
        attach->disk = disk;
    } else if (settings->nets.count) {
        attach->net = settings->nets.items[0];
    } else {
        attach->vsock = settings->vsock;
    }
    return 0;
}

int device_attach(const struct invocation *invocation, struct error *err)
{
    static const char *const words[] = {"rescan", NULL};
    Polyvisor__DeviceAttachRequest attach = POLYVISOR__DEVICE_ATTACH_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    Polyvisor__DiskConfig disk;
    char address[32], limits[LIMIT_TEXT_MAX];
    bool runs;
    int status = wanted_device(invocation->settings, &attach, &disk, limits, err);

    attach.name = (char *)invocation->positionals[1];
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_ATTACH;
    request.device_attach = &attach;
    status = status ? status : client_ask(invocation, &request, ATTACH_MS, &response, err);
    if (status != 0) {
        return status;
    }
    status = find_address(invocation, response->device, address, sizeof(address), &runs, err);
    if (status == 0) {
        enum guest_part part = runs ? tell_guest(invocation, words) : GUEST_NOT_TOLD;
        if (invocation->globals->json) {
            status = print_outcome(invocation, response->device, address, part, err);
        } else {
            output_status(invocation->globals, "%s is plugged into %s, at %s", response->device,
                          attach.name, address);
        }
        if (part != GUEST_DONE) {
            output_warning(invocation->globals,
                           "the guest %s: it sees the device after 'echo 1 > "
                           "/sys/bus/pci/rescan', which is for you to run in it",
                           part == GUEST_FAILED ? "failed to look for it"
                                                : "has no agent that answers");
        }
    }
    client_free(response);
    return status;
}

/* ---- detach ---- */

int device_detach(const struct invocation *invocation, struct error *err)
{
    const struct device_settings *settings = invocation->settings;
    const char *device = invocation->positionals[2];
    Polyvisor__DeviceDetachRequest detach = POLYVISOR__DEVICE_DETACH_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    enum guest_part part = GUEST_NOT_TOLD;
    char address[32];
    bool runs;
    const char *const words[] = {"eject", address, NULL};
    int status = find_address(invocation, device, address, sizeof(address), &runs, err);

    if (status != 0) {
        return status;
    }
    if (runs && !settings->force) {
        part = tell_guest(invocation, words);
    }
    detach.name = (char *)invocation->positionals[1];
    detach.device = (char *)device;
    detach.force = settings->force;
    /* Who could not be told is not waited for. */
    detach.timeout_ms = part == GUEST_NOT_TOLD ? 0 : settings->wait_ms;
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_DETACH;
    request.device_detach = &detach;
    status = client_ask(invocation, &request, DETACH_MS + detach.timeout_ms, NULL, err);
    if (status != 0) {
        return status;
    }
    if (runs && settings->force) { /* so that its driver ends, and the place is free again */
        part = tell_guest(invocation, words);
    }
    if (invocation->globals->json) {
        return print_outcome(invocation, device, address, part, err);
    }
    output_status(invocation->globals, "%s is taken out of %s", device, detach.name);
    return 0;
}
