/* What is told about a machine: its record for a later vmmd, its description, its events. */
#include "libshared/base/log.h"
#include "libshared/ipc/error_message.h"
#include "vmmd/machine_internal.h"
#include "vmmd/record.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PROCESS_RECORDS_MAX (1 + 2 * DEVICES_MAX)

struct process_list {
    Polyvisor__ProcessRecord records[PROCESS_RECORDS_MAX];
    Polyvisor__ProcessRecord *list[PROCESS_RECORDS_MAX];
    size_t count;
};

static void process_list_add(struct process_list *processes, const char *role, const char *program,
                             pid_t pid, uint64_t start_time)
{
    if (!pid || processes->count >= PROCESS_RECORDS_MAX) {
        return;
    }
    Polyvisor__ProcessRecord *record = &processes->records[processes->count];
    polyvisor__process_record__init(record);
    record->role = (char *)role;
    record->program = (char *)program;
    record->pid = pid;
    record->start_time = start_time;
    processes->list[processes->count++] = record;
}

/* Its process, and the one that will take its place without being written down first. */
static void process_list_add_device(struct process_list *processes,
                                    const struct machine_device *device)
{
    const char *program = machine_device_program(device);

    process_list_add(processes, device->child.role, program, device->child.pid,
                     device->child.start_time);
    process_list_add(processes, device->id, program, device->spare.pid, device->spare.start_time);
}

int machine_save(struct machine *machine)
{
    Polyvisor__MachineRecord record = POLYVISOR__MACHINE_RECORD__INIT;
    Polyvisor__Error error;
    struct process_list processes = {.count = 0};

    process_list_add(&processes, machine->vcpu.role, "vcpud", machine->vcpu.pid,
                     machine->vcpu.start_time);
    for (size_t i = 0; i < machine->device_count; i++) {
        process_list_add_device(&processes, machine->devices[i]);
    }
    record.config = machine->config;
    record.state = machine->state;
    record.n_processes = processes.count;
    record.processes = processes.list;
    record.end_reason = (char *)machine->end_reason;
    record.guest_code = machine->guest_code;
    record.guest_panics = machine->panic_count;
    record.guest_panic = machine->panic_text;
    if (machine->last_error.code != ERROR_OK) {
        error_to_message(&machine->last_error, &error);
        record.last_error = &error;
    }
    int result = record_write(machine->directory, &record);
    if (result) {
        log_error("cannot write the record of '%s': %s", machine->config->name, strerror(-result));
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        machine->devices[i]->spare.recorded = !result;
    }
    return result;
}

void machine_event(struct machine *machine, const char *kind, const char *component,
                   const char *detail, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, detail);
    vsnprintf(text, sizeof(text), detail, arguments);
    va_end(arguments);
    publisher_send(machine->host->publisher, kind, machine->config->name, component, "%s", text);
}

static void machine_view_add(struct machine_view *view, const struct child *child)
{
    size_t at = view->info.n_processes;

    if (child->pid && child->running && at < MACHINE_PROCESSES_MAX) {
        polyvisor__process_info__init(&view->processes[at]);
        view->processes[at].role = (char *)child->role;
        view->processes[at].pid = child->pid;
        view->process_list[at] = &view->processes[at];
        view->info.n_processes++;
    }
}

static Polyvisor__DeviceState device_state(const struct machine_device *device)
{
    if (device->plug.phase == PLUG_STARTING || device->plug.phase == PLUG_ENTERING) {
        return POLYVISOR__DEVICE_STATE__DEVICE_ATTACHING;
    }
    if (device->pulled) {
        return POLYVISOR__DEVICE_STATE__DEVICE_PULLED;
    }
    if (device->plug.phase != PLUG_RESTS) {
        return POLYVISOR__DEVICE_STATE__DEVICE_DETACHING;
    }
    if (device->failed) {
        return POLYVISOR__DEVICE_STATE__DEVICE_FAILED;
    }
    if (!device->child.pid || !device->child.running) {
        return POLYVISOR__DEVICE_STATE__DEVICE_WAITING;
    }
    return device->ready ? POLYVISOR__DEVICE_STATE__DEVICE_RUNNING
                         : POLYVISOR__DEVICE_STATE__DEVICE_STARTING;
}

/* Only one device has any. */
static void machine_view_add_ports(struct machine_view *view, struct machine_device *device,
                                   Polyvisor__DeviceInfo *info)
{
    for (unsigned i = 0; i < device->ports.count; i++) {
        struct console_port *port = &device->ports.items[i];
        Polyvisor__PortInfo *message = &view->ports[i];
        polyvisor__port_info__init(message);
        message->name = port->setting.name;
        message->console_path = port->console_path;
        message->path = port->setting.path;
        message->console = port->setting.console;
        view->port_list[i] = message;
    }
    info->n_ports = device->ports.count;
    info->ports = view->port_list;
}

static void machine_view_add_device(struct machine_view *view, struct machine_device *device)
{
    Polyvisor__DeviceInfo *info = &view->devices[view->info.n_devices];

    polyvisor__device_info__init(info);
    info->id = device->id;
    info->kind = (char *)device->kind->kind;
    info->state = device_state(device);
    info->restarts = device->restarts;
    info->description = device->description;
    info->pid = device->child.running ? device->child.pid : 0;
    info->console_path = (char *)device->console_path;
    machine_device_limits(device, view->limits[view->info.n_devices]);
    info->limits = view->limits[view->info.n_devices];
    info->pci_slot = device->pci_slot;
    info->plugged_in = device->plugged_in != NULL;
    info->disk = (Polyvisor__DiskConfig *)device->disk;
    info->net = (char *)(device->net ? device->net : "");
    info->vsock = (char *)(device->vsock && !device->pulled ? device->vsock : "");
    if (device->ports.count) {
        machine_view_add_ports(view, device, info);
    }
    view->device_list[view->info.n_devices++] = info;
}

void machine_view_init(struct machine_view *view, struct machine *machine)
{
    Polyvisor__MachineInfo *info = &view->info;

    polyvisor__machine_info__init(info);
    info->config = machine->config;
    info->state = machine->state;
    info->processes = view->process_list;
    info->devices = view->device_list;
    info->links_down = view->links_down;
    info->started_ns = machine->started_ns;
    info->end_reason = (char *)machine->end_reason;
    info->guest_code = machine->guest_code;
    info->guest_panics = machine->panic_count;
    info->guest_panic = machine->panic_text;
    machine_view_add(view, &machine->vcpu);
    for (size_t i = 0; i < machine->device_count; i++) {
        struct machine_device *device = machine->devices[i];
        machine_view_add(view, &device->child);
        if (!machine_is_idle(machine)) {
            machine_view_add_device(view, device);
        }
        if (device->link_down && info->n_links_down < CONFIG_NETS_MAX) {
            info->links_down[info->n_links_down++] = device->id;
        }
        if (device->console_path[0] && !info->console_path[0]) {
            info->console_path = device->console_path;
        }
    }
    const struct child *compiler =
        machine->host->compiler ? compiler_process(machine->host->compiler, machine->config->name)
                                : NULL;
    if (compiler) {
        machine_view_add(view, compiler);
    }
    if (machine->last_error.code != ERROR_OK) {
        error_to_message(&machine->last_error, &view->error);
        info->last_error = &view->error;
    }
}

void machine_view_confinement(struct machine_view *view)
{
    for (size_t i = 0; i < view->info.n_processes; i++) {
        confinement_read((pid_t)view->processes[i].pid, view->confinement[i]);
        view->processes[i].confinement = view->confinement[i];
    }
}
