/* vmctl device: the devices of a running machine. */
#include "cli/commands/device_limit.h"
#include "cli/commands/device_plug.h"
#include "cli/commands/machine_request.h"
#include "cli/machine_view.h"
#include "cli/output.h"

#include <limits.h>
#include <string.h>

static void print_row(struct output_table *table, const Polyvisor__DeviceInfo *device)
{
    char restarts[16], process[24] = "-";

    snprintf(restarts, sizeof(restarts), "%u", device->restarts);
    if (device->pid != 0) {
        snprintf(process, sizeof(process), "%lld", (long long)device->pid);
    }
    output_table_add(table, device->id);
    output_table_add(table, device->kind);
    output_table_add(table, device_state_text(device->state));
    output_table_add(table, restarts);
    output_table_add(table, process);
}

static int print_devices(const Polyvisor__MachineInfo *machine, struct error *err)
{
    static const char *const titles[] = {"DEVICE", "KIND", "STATE", "RESTARTS", "PID"};
    struct output_table table;

    output_table_open(&table, sizeof(titles) / sizeof(titles[0]));
    for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++) {
        output_table_add(&table, titles[i]);
    }
    for (size_t i = 0; i < machine->n_devices; i++) {
        print_row(&table, machine->devices[i]);
    }
    return output_table_print(&table, stdout, err);
}

static int list(const struct invocation *invocation, struct error *err)
{
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status =
        client_ask_machine(invocation, invocation->positionals[1], &response, &machine, err);

    if (status != 0) {
        return status;
    }
    if (machine->n_devices == 0) {
        status = error_set(err, ERROR_STATE, 0, "machine '%s' is not running",
                           invocation->positionals[1]);
        error_hint(err, "devices exist while their machine runs: 'vmctl start %s'",
                   invocation->positionals[1]);
    } else if (invocation->globals->json) {
        status = output_json_line(machine_devices_json(machine), err);
    } else {
        status = print_devices(machine, err);
    }
    client_free(response);
    return status;
}

static void add_line(struct output_table *table, const char *title, const char *text)
{
    output_table_add(table, title);
    output_table_add(table, text);
}

static int print_device(const Polyvisor__DeviceInfo *device, struct error *err)
{
    struct output_table table;
    char restarts[16], process[24] = "-", address[32] = "-";

    snprintf(restarts, sizeof(restarts), "%u", device->restarts);
    if (device->pid != 0) {
        snprintf(process, sizeof(process), "%lld", (long long)device->pid);
    }
    if (device->pci_slot != 0) {
        device_address(device, address, sizeof(address));
    }
    output_table_open(&table, 2);
    add_line(&table, "Device:", device->id);
    add_line(&table, "Kind:", device->kind);
    add_line(&table, "State:", device_state_text(device->state));
    add_line(&table, "Restarts:", restarts);
    add_line(&table, "PID:", process);
    add_line(&table, "Address:", address);
    add_line(&table, "Plugged in:", device->plugged_in ? "while it ran" : "from the start");
    if (device->disk != NULL) {
        add_line(&table, "Image:", device->disk->path);
    }
    if (device->net[0] != '\0' || device->vsock[0] != '\0') {
        add_line(&table, "Setting:", device->net[0] != '\0' ? device->net : device->vsock);
    }
    if (device->description[0] != '\0') {
        add_line(&table, "How:", device->description);
    }
    return output_table_print(&table, stdout, err);
}

static int show(const struct invocation *invocation, struct error *err)
{
    const char *name = invocation->positionals[1], *wanted = invocation->positionals[2];
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status = client_ask_machine(invocation, name, &response, &machine, err);

    if (status != 0) {
        return status;
    }
    status = error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no device '%.40s'", name, wanted);
    error_hint(err, "'vmctl device list %s' shows its devices", name);
    for (size_t i = 0; i < machine->n_devices; i++) {
        const Polyvisor__DeviceInfo *device = machine->devices[i];
        if (strcmp(device->id, wanted) == 0) {
            error_clear(err);
            status = invocation->globals->json ? output_json_line(device_json(device), err)
                                               : print_device(device, err);
        }
    }
    client_free(response);
    return status;
}

static int restart(const struct invocation *invocation, struct error *err)
{
    Polyvisor__DeviceRestartRequest restart = POLYVISOR__DEVICE_RESTART_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    restart.name = (char *)invocation->positionals[1];
    restart.device = (char *)invocation->positionals[2];
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_RESTART;
    request.device_restart = &restart;
    int status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json && response->n_machines) {
        status = output_json(machine_json(response->machines[0]), err);
    } else {
        output_status(invocation->globals, "%s of %s restarts", restart.device, restart.name);
    }
    client_free(response);
    return status;
}

static const struct command_action actions[] = {
    {"list", "NAME", 1, 1, list},
    {"show", "NAME DEVICE", 2, 2, show},
    {"attach", "NAME --disk path=FILE", 1, 1, device_attach},
    {"detach", "NAME DEVICE", 2, 2, device_detach},
    {"restart", "NAME DEVICE", 2, 2, restart},
    {"limit", "NAME DEVICE [WORD=NUMBER...]", 2, UINT_MAX, device_limit_run},
    {.name = NULL},
};

static const struct option_spec options[] = {
    {.name = "disk",
     .type = &option_disk,
     .argument = DISK_ARGUMENT,
     .summary = "attach: a disk, as for 'vmctl run'",
     .offset = offsetof(struct device_settings, disks)},
    {.name = "net",
     .type = &option_net,
     .argument = NET_ARGUMENT,
     .summary = "attach: a network card, as for 'vmctl run'",
     .offset = offsetof(struct device_settings, nets)},
    {.name = "vsock",
     .type = &option_vsock,
     .argument = "path=FILE[,cid=N]",
     .summary = "attach: sockets between guest and host, as for 'vmctl run'",
     .offset = offsetof(struct device_settings, vsock)},
    {.name = "force",
     .type = &option_flag,
     .summary = "detach: pull the device out, whether the guest's driver has let go of it or not",
     .offset = offsetof(struct device_settings, force)},
    {.name = "wait",
     .type = &option_duration,
     .argument = "TIME",
     .default_value = "15s",
     .summary = "how long the guest may take for its part",
     .offset = offsetof(struct device_settings, wait_ms)},
    {.name = NULL},
};

const struct command command_device = {
    .name = "device",
    .summary = "list a machine's devices, plug them in and out, restart one, limit its traffic",
    .description =
        "Each device of a machine is a process of its own. When it dies it is started again and "
        "does what was in flight; 'device-died' and 'device-failed' among 'vmctl events' tell of "
        "it. One that keeps dying is given up, and the guest's driver is told that the device "
        "needs a reset; its requests wait.\n"
        "'list' shows what state each device is in and how often it was restarted, 'show' all "
        "there is to know of one. 'restart' ends a device's process, if there is one, and starts "
        "another, also of a device that was given up. The guest loses nothing by it.\n"
        "'attach' gives a running machine another disk, network card or vsock, until it ends or "
        "'detach' takes it out; what a machine was created with can be taken out, too, and is "
        "back at its next start. The guest has to look for a new device and to let go of an old "
        "one: its agent (see 'vmctl exec') is told to. In a guest without one run "
        "'echo 1 > /sys/bus/pci/rescan' after 'attach', and before 'detach' "
        "'echo 1 > /sys/bus/pci/devices/ADDRESS/remove', where ADDRESS is what 'show' says. "
        "First unmount what is on a disk.\n"
        "Without --force a device that the guest uses stays: the error is 'in-use'. With it what "
        "the guest had asked for is done, the image is flushed and free, and what the guest asks "
        "for later is answered with errors until its driver lets go.\n"
        "'limit' limits the traffic of a disk or a network card from now on, also of a machine "
        "that does not run, or shows the limits. For disks the words are bps=, bps-read= and "
        "bps-write= in bytes a second, iops=, iops-read= and iops-write= in requests a second; for "
        "cards bps=, bps-rx= and bps-tx=, pps=, pps-rx= and pps-tx= (frames). All hold at the same "
        "time. With -burst behind its name (bps-burst=) a word says how much may pass at once "
        "after a pause; else it is what passes in a tenth of a second. 20M is 20 MiB, 20MB are 20 "
        "million; of requests and frames 5K are 5000. A word that is not given stays as it is; "
        "'bps=off' takes one away, 'off' alone all.\n",
    .options = options,
    .settings_size = sizeof(struct device_settings),
    .positional = POSITIONAL_ACTION,
    .actions = actions,
    .examples = {{"vmctl device list build1", "Show build1's devices"},
                 {"vmctl device attach build1 --disk path=data.img", "Give it another disk"},
                 {"vmctl device detach build1 disk1", "Take the disk out again"},
                 {"vmctl device restart build1 disk0", "Give disk0 a new process"},
                 {"vmctl device limit build1 disk0 bps=20M iops=500",
                  "At most 20 MiB and 500 requests a second"},
                 {"vmctl device limit build1 net0 bps-rx=2M bps-rx-burst=8M",
                  "Let build1 receive 2 MiB a second, 8 MiB at once after a pause"}},
};
