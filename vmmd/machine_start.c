/* What a running machine owns, and the start of its processes. */
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "libshared/ipc/handover.h"
#include "libshared/mem/memory.h"
#include "proto/device.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/balloon.h"
#include "vmmd/disk.h"
#include "vmmd/machine_internal.h"
#include "vmmd/record.h"
#include "vmmd/spawn.h"
#include "vmmd/storage.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where RAM begins in the guest's physical address space. */
static const struct machine_arch {
    const char *arch;
    uint64_t ram_base;
} machine_archs[] = {
    {"riscv64", 0x80000000},
};

static uint64_t machine_ram_base(const struct machine *machine)
{
    for (size_t i = 0; i < sizeof(machine_archs) / sizeof(machine_archs[0]); i++) {
        if (!strcmp(machine_archs[i].arch, machine->config->arch)) {
            return machine_archs[i].ram_base;
        }
    }
    return 0;
}

static int machine_open_memory(struct machine *machine, struct error *err)
{
    uint64_t bytes = machine->config->memory_bytes;

    machine->ram_fd = memory_create_fd("guest-ram", bytes);
    if (machine->ram_fd >= 0) {
        machine->codemap_fd = memory_create_fd("guest-codemap", memory_codemap_size(bytes));
    }
    int result = machine->ram_fd < 0 ? machine->ram_fd : machine->codemap_fd;
    if (result < 0) {
        return error_set(err, ERROR_MEMORY, -result, "cannot make the memory of '%s': %s",
                         machine->config->name, strerror(-result));
    }
    return 0;
}

static int machine_open_images(struct machine *machine, struct error *err)
{
    const struct {
        const char *what, *path;
        int *fd;
    } images[] = {
        {"kernel", machine->config->kernel, &machine->kernel_fd},
        {"initrd", machine->config->initrd, &machine->initrd_fd},
        {"firmware", machine->config->firmware, &machine->firmware_fd},
    };

    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        uint64_t size;
        if (!images[i].path[0]) {
            continue;
        }
        int fd = storage_open_image(images[i].what, images[i].path, &size, err);
        if (fd < 0) {
            return fd;
        }
        *images[i].fd = fd;
    }
    return 0;
}

static int machine_open_devices(struct machine *machine, struct error *err)
{
    machine->device_count =
        machine_device_plan(machine->planned, machine->config, machine->directory);
    for (size_t i = 0; i < machine->device_count; i++) { /* all: one that fails gives all back */
        machine->devices[i] = &machine->planned[i];
        machine->devices[i]->machine = machine;
    }
    for (size_t i = 0; i < machine->device_count; i++) {
        int result = machine_device_open(machine->devices[i], machine->host->base,
                                         machine->host->programs, err);
        if (result) {
            return result;
        }
    }
    return 0;
}

static int machine_open_handover(struct machine *machine, struct error *err)
{
    int result = handover_pair(machine->handover_fds);

    return result ? error_set(err, ERROR_IO, -result, "cannot make a socket: %s", strerror(-result))
                  : 0;
}

static int machine_open_perf_file(struct machine *machine, struct error *err)
{
    return machine->config->perf_map ? perf_file_open(&machine->perf_file, err) : 0;
}

/* Without its name the map is of no use, but the machine is. */
static void machine_name_perf_file(struct machine *machine)
{
    struct error err;

    if (machine->perf_file.fd < 0) {
        return;
    }
    if (perf_file_name(&machine->perf_file, machine->vcpu.pid, &err)) {
        log_warning("%s", err.message);
    }
    perf_file_close(&machine->perf_file);
}

static int machine_list_vcpu(const struct machine *machine, struct fdlist *list)
{
    const struct {
        const char *name;
        int fd;
    } own[] = {
        {"ram", machine->ram_fd},
        {"codemap", machine->codemap_fd},
        {"kernel", machine->kernel_fd},
        {"initrd", machine->initrd_fd},
        {"firmware", machine->firmware_fd},
        {"perf-map", machine->perf_file.fd},
        {"handover", machine->handover_fds[1]},
        {"transports", machine->transports_fds[1]},
    };
    int result = 0;

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && !result; i++) {
        result = own[i].fd < 0 ? 0 : fdlist_add(list, own[i].fd, "%s", own[i].name);
    }
    for (size_t i = 0; i < machine->device_count && !result; i++) {
        result = machine_device_list_vcpu(machine->devices[i], list);
    }
    return result;
}

static int machine_list_device(const struct machine_device *device, struct fdlist *list)
{
    int result = fdlist_add(list, device->machine->ram_fd, "ram");

    result = result ? result : fdlist_add(list, device->machine->codemap_fd, "codemap");
    if (!result && device->machine->transports_fds[0] >= 0) {
        result = fdlist_add(list, device->machine->transports_fds[0], "transports");
    }
    return result ? result : machine_device_list_own(device, list);
}

/* What vmmd knows of a process that it is about to start. */
struct machine_process {
    const char *program; /* "vcpud", "devd" */
    const char *control_path;
    const struct child_protocol *protocol;
    const struct child_callbacks *callbacks;
    void *owner;
    char *argv[11]; /* NULL at the end */
    char folder[PATH_MAX];
    struct fdlist list;
};

/* Where its program is, into `path` of PATH_MAX bytes. 0 or negative errno. */
static int machine_find_program(const struct machine *machine, const char *program, char *path)
{
    if ((size_t)snprintf(path, PATH_MAX, "%s/%s", machine->host->programs, program) >= PATH_MAX) {
        return -ENAMETOOLONG;
    }
    return access(path, X_OK) < 0 ? -errno : 0;
}

/* Fork it and attach `child` to it. The gate keeps it from running yet. */
static int machine_spawn(const struct machine *machine, struct spawn_gate *gate,
                         struct machine_process *process, const char *role, struct child *child)
{
    char path[PATH_MAX];
    pid_t pid;
    int pidfd, bound_fd;

    int result = machine_find_program(machine, process->program, path);
    result = result ? result
                    : spawn_process_bound(gate, path, process->argv, &process->list, &pid, &pidfd,
                                          &bound_fd);
    if (result) {
        return result;
    }
    unlink(process->control_path); /* of an earlier one */
    return child_attach(child, machine->host->base, process->protocol, process->callbacks,
                        process->owner, role, pid, pidfd, process->control_path, bound_fd);
}

static int machine_spawn_vcpu(struct machine *machine, struct spawn_gate *gate)
{
    struct machine_process process = {
        .program = "vcpud",
        .control_path = machine->vcpu_path,
        .protocol = &child_protocol_vcpu,
        .callbacks = &machine_vcpu_callbacks,
        .owner = machine,
        .argv = {"vcpud", machine->vcpu_path},
    };
    int result = machine_list_vcpu(machine, &process.list);

    return result ? result : machine_spawn(machine, gate, &process, "vcpud", &machine->vcpu);
}

/* What binds `control_path` as its process. Points into `device` and into itself. 0 or negative
 * errno. */
static int machine_describe_device(struct machine_device *device, char *control_path,
                                   struct machine_process *process)
{
    *process = (struct machine_process){
        .program = machine_device_program(device),
        .control_path = control_path,
        .protocol = &child_protocol_device,
        .callbacks = &machine_device_callbacks,
        .owner = device,
        .argv = {(char *)machine_device_program(device), "--control", control_path, "--id",
                 device->id, "--kind", (char *)machine_device_model(device)},
    };
    if (machine_device_folder(device, process->folder, sizeof(process->folder))) {
        process->argv[7] = "--folder";
        process->argv[8] = process->folder;
        process->argv[9] = machine_device_read_only(device) ? "--read-only" : NULL;
    }
    return machine_list_device(device, &process->list);
}

static int machine_spawn_device(struct machine_device *device, struct spawn_gate *gate)
{
    struct machine_process process;
    char role[sizeof(device->child.role)];
    int result = machine_describe_device(device, device->control_path, &process);

    snprintf(role, sizeof(role), "devd/%s", device->id);
    machine_device_prepare(device);
    return result ? result : machine_spawn(device->machine, gate, &process, role, &device->child);
}

void machine_keep_spare(struct machine_device *device)
{
    struct machine_process process;
    char path[PATH_MAX];
    int legacy_fd = device->namespace_fd;

    device->namespace_fd = spare_hold_namespace(device->child.pid);
    spare_discard(&device->spare); /* there should be none */
    int result = machine_describe_device(device, device->spare_path, &process);
    unlink(device->spare_path); /* of the device's last process but one */
    result = result ? result : machine_find_program(device->machine, process.program, path);
    if (!result) {
        result = spare_start(&device->spare, path, process.argv, &process.list, legacy_fd);
    } else if (legacy_fd >= 0) {
        close(legacy_fd);
    }
    if (result) { /* then the next one is started when it is needed */
        log_warning("%s: no spare process: %s", device->id, strerror(-result));
    }
    machine_save(device->machine);
}

bool machine_wants_compiler(const struct machine *machine)
{
    const char *engine = machine->config->engine;

    return machine->host->compiler && (!strcmp(engine, "auto") || !strcmp(engine, "optimised"));
}

static int machine_configure_vcpu(struct machine *machine)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuConfigure configure = POLYVISOR__VCPU_CONFIGURE__INIT;
    Polyvisor__VcpuDevice devices[DEVICES_MAX], *list[DEVICES_MAX];
    char spares[HOTPLUG_SLOTS_MAX][DEVICE_PATH_MAX], *spare_list[HOTPLUG_SLOTS_MAX];
    const Polyvisor__MachineConfig *config = machine->config;

    for (size_t i = 0; i < machine->device_count; i++) {
        machine_device_describe_vcpu(machine->devices[i], &devices[i]);
        list[i] = &devices[i];
    }
    for (unsigned i = 0; i < config->hotplug_slots; i++) {
        machine_spare_path(machine, i, spares[i]);
        spare_list[i] = spares[i];
    }
    configure.n_spare_transports = config->hotplug_slots;
    configure.spare_transports = spare_list;
    configure.name = config->name;
    configure.arch = config->arch;
    configure.engine = config->engine;
    configure.irqchip = config->irqchip;
    configure.cpus = config->cpus;
    configure.memory_bytes = config->memory_bytes;
    configure.append = config->append;
    configure.n_devices = machine->device_count;
    configure.devices = list;
    if (machine_wants_compiler(machine)) {
        configure.jit_path = machine->jit_path;
    }
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE;
    request.configure = &configure;
    return child_request(&machine->vcpu, &request.base, MACHINE_CONFIGURE_MS,
                         machine_vcpu_configured, 0);
}

static int machine_configure_device(struct machine_device *device, bool restart)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceConfigure configure = POLYVISOR__DEVICE_CONFIGURE__INIT;
    const struct machine *machine = device->machine;
    Polyvisor__DeviceDisk disk;
    Polyvisor__DiskFormat backings[DISK_LAYERS_MAX];
    char serial[32], limits[LIMIT_TEXT_MAX];

    snprintf(serial, sizeof(serial), "polyvisor-%s", device->id);
    configure.id = device->id;
    configure.kind = (char *)machine_device_model(device);
    /* While the machine ends there may be no vcpud any more, and nothing that it would want. */
    bool wanted = machine->vcpu.running && !machine->vcpu_stopped &&
                  (device->plug.phase != PLUG_ENDING || device->plug.force);
    configure.transport_path = wanted ? (char *)device->transport_path : (char *)"";
    configure.memory_base = machine_ram_base(machine);
    configure.memory_bytes = machine->config->memory_bytes;
    configure.restart = restart;
    machine_device_limits(device, limits);
    configure.limits = limits;
    if (device->disk) {
        configure.read_only = device->disk->read_only;
        configure.serial = device->disk->serial[0] ? device->disk->serial : serial;
        disk_describe(device->disk, &disk);
        for (unsigned i = 1; i < device->chain.count; i++) {
            backings[disk.n_backings++] = device->chain.layers[i].qcow2
                                              ? POLYVISOR__DISK_FORMAT__DISK_FORMAT_QCOW2
                                              : POLYVISOR__DISK_FORMAT__DISK_FORMAT_RAW;
        }
        disk.backings = backings;
        configure.disk = &disk;
    }
    if (device->net) {
        configure.net = (char *)device->net;
        configure.link_down = device->link_down;
    }
    if (device->balloon) {
        configure.balloon = (char *)device->balloon;
        configure.memory_kept = balloon_memory_kept(machine->firmware_fd);
    }
    if (device->vsock) {
        configure.vsock = (char *)device->vsock;
    }
    if (device->share) {
        configure.share = (char *)device->share;
    }
    if (device->ports.count) {
        configure.n_console_ports = device->ports.count;
        configure.console_ports = machine->config->console_ports;
    }
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE;
    request.configure = &configure;
    return child_request(&device->child, &request.base, MACHINE_CONFIGURE_MS,
                         machine_device_configured, 0);
}

static int machine_spawn_all(struct machine *machine, struct error *err)
{
    struct spawn_gate gate;
    int result = spawn_gate_open(&gate);

    if (!result && pipe2(machine->transports_fds, O_CLOEXEC) < 0) {
        result = -errno;
        spawn_gate_close(&gate);
    }
    if (result) {
        return error_set(err, ERROR_IO, -result, "cannot make a pipe: %s", strerror(-result));
    }
    const char *program = "vcpud";
    result = machine_spawn_vcpu(machine, &gate);
    result = result ? result : machine_configure_vcpu(machine);
    for (size_t i = 0; i < machine->device_count && !result; i++) {
        program = "devd";
        result = machine_spawn_device(machine->devices[i], &gate);
        result = result ? result : machine_configure_device(machine->devices[i], false);
    }
    if (!result) {
        machine_name_perf_file(machine);
        machine_save(machine);
        spawn_gate_release(&gate);
    } else if (result == -EMFILE) { /* of descriptors, or of nanomsg's 512 sockets */
        result = error_set(err, ERROR_BUSY, EMFILE, "vmmd watches as many processes as it can");
        error_hint(err, "stop another machine first");
    } else {
        result = error_set(err, ERROR_IO, -result, "cannot start %s/%s: %s",
                           machine->host->programs, program, strerror(-result));
    }
    spawn_gate_close(&gate);
    descriptor_close(&machine->transports_fds[0]);
    descriptor_close(&machine->transports_fds[1]);
    return result;
}

int machine_launch(struct machine *machine, struct error *err)
{
    int result = machine_open_images(machine, err);

    result = result ? result : machine_open_memory(machine, err);
    result = result ? result : machine_open_devices(machine, err);
    result = result ? result : machine_open_handover(machine, err);
    result = result ? result : machine_open_perf_file(machine, err);
    result = result ? result : machine_spawn_all(machine, err);
    if (result) {
        machine_release(machine);
    }
    return result;
}

static int machine_relaunch_anew(struct machine_device *device)
{
    struct spawn_gate gate;
    int result = spawn_gate_open(&gate);

    if (!result) {
        result = machine_spawn_device(device, &gate);
        result = result ? result : machine_configure_device(device, device->lived);
        if (!result) {
            machine_save(device->machine);
            spawn_gate_release(&gate);
        }
        spawn_gate_close(&gate);
    }
    return result;
}

/* By the spare, which was written down before it goes on, like any other. */
static int machine_relaunch_spare(struct machine_device *device, pid_t pid, int pidfd, int pipe_fd,
                                  bool recorded)
{
    char role[sizeof(device->child.role)], path[DEVICE_PATH_MAX];

    snprintf(role, sizeof(role), "devd/%s", device->id);
    machine_device_prepare(device);
    memcpy(path, device->control_path, sizeof(path));
    memcpy(device->control_path, device->spare_path, sizeof(path));
    memcpy(device->spare_path, path, sizeof(path));
    int result =
        child_attach(&device->child, device->machine->host->base, &child_protocol_device,
                     &machine_device_callbacks, device, role, pid, pidfd, device->control_path, -1);
    result = result ? result : machine_configure_device(device, true);
    if (!result && !recorded) {
        machine_save(device->machine);
    }
    spare_release(pipe_fd); /* or it would wait; one that failed is killed */
    return result;
}

int machine_relaunch_device(struct machine_device *device, struct error *err)
{
    pid_t pid;
    int pidfd, pipe_fd;
    bool recorded = device->spare.recorded;
    int result = spare_take(&device->spare, &pid, &pidfd, &pipe_fd)
                     ? machine_relaunch_spare(device, pid, pidfd, pipe_fd, recorded)
                     : machine_relaunch_anew(device);

    if (result) {
        child_release(&device->child);
        return error_set(err, ERROR_IO, -result, "cannot start devd for '%s': %s", device->id,
                         strerror(-result));
    }
    return 0;
}

void machine_drop_device(struct machine *machine, size_t at)
{
    struct machine_device *device = machine->devices[at];

    child_release(&device->child);
    spare_discard(&device->spare);
    machine_device_close(device);
    /* A process that was killed leaves its sockets. */
    unlink(device->control_path);
    unlink(device->spare_path);
    if (device->transport_path[0] && !device->plugged_in) {
        unlink(device->transport_path);
    }
    machine->device_count--;
    memmove(&machine->devices[at], &machine->devices[at + 1],
            (machine->device_count - at) * sizeof(machine->devices[0]));
    if (device->plugged_in) {
        polyvisor__device_attach_request__free_unpacked(device->plugged_in, NULL);
        free(device);
    }
}

void machine_release(struct machine *machine)
{
    if (machine->host->compiler && machine->config) {
        compiler_detach(machine->host->compiler, machine->config->name);
    }
    child_release(&machine->vcpu);
    while (machine->device_count) {
        machine_drop_device(machine, machine->device_count - 1);
    }
    for (unsigned i = 0; machine->config && i < machine->config->hotplug_slots; i++) {
        char path[DEVICE_PATH_MAX];
        machine_spare_path(machine, i, path);
        unlink(path);
    }
    descriptor_close(&machine->handover_fds[0]);
    descriptor_close(&machine->handover_fds[1]);
    unlink(machine->vcpu_path);
    unlink(machine->jit_path);
    descriptor_close(&machine->kernel_fd);
    descriptor_close(&machine->initrd_fd);
    descriptor_close(&machine->firmware_fd);
    descriptor_close(&machine->codemap_fd);
    descriptor_close(&machine->ram_fd);
    perf_file_close(&machine->perf_file);
    machine->vcpu_ready = machine->vcpu_start_sent = machine->vcpu_stop_sent = false;
    machine->vcpu_stopped = false;
    machine->guest_ended = false;
}
