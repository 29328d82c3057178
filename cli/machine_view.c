#include "cli/machine_view.h"

#include "cli/values.h"
#include "libshared/base/clock.h"
#include "libshared/limit/setting.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

const char *machine_state_text(Polyvisor__MachineState state)
{
    static const char *const texts[] = {
        [POLYVISOR__MACHINE_STATE__MACHINE_NONE] = "none",
        [POLYVISOR__MACHINE_STATE__MACHINE_CREATED] = "created",
        [POLYVISOR__MACHINE_STATE__MACHINE_STARTING] = "starting",
        [POLYVISOR__MACHINE_STATE__MACHINE_READY] = "ready",
        [POLYVISOR__MACHINE_STATE__MACHINE_RUNNING] = "running",
        [POLYVISOR__MACHINE_STATE__MACHINE_STOPPING] = "stopping",
        [POLYVISOR__MACHINE_STATE__MACHINE_STOPPED] = "stopped",
        [POLYVISOR__MACHINE_STATE__MACHINE_CRASHED] = "crashed",
    };
    bool known = (unsigned)state < sizeof(texts) / sizeof(texts[0]);

    return known ? texts[state] : "unknown";
}

const char *device_state_text(Polyvisor__DeviceState state)
{
    static const char *const texts[] = {
        [POLYVISOR__DEVICE_STATE__DEVICE_NONE] = "none",
        [POLYVISOR__DEVICE_STATE__DEVICE_STARTING] = "starting",
        [POLYVISOR__DEVICE_STATE__DEVICE_RUNNING] = "running",
        [POLYVISOR__DEVICE_STATE__DEVICE_WAITING] = "restarting",
        [POLYVISOR__DEVICE_STATE__DEVICE_FAILED] = "given up",
        [POLYVISOR__DEVICE_STATE__DEVICE_ATTACHING] = "attaching",
        [POLYVISOR__DEVICE_STATE__DEVICE_DETACHING] = "detaching",
        [POLYVISOR__DEVICE_STATE__DEVICE_PULLED] = "pulled out",
    };
    bool known = (unsigned)state < sizeof(texts) / sizeof(texts[0]);

    return known ? texts[state] : "unknown";
}

bool machine_state_ended(Polyvisor__MachineState state)
{
    return state == POLYVISOR__MACHINE_STATE__MACHINE_STOPPED ||
           state == POLYVISOR__MACHINE_STATE__MACHINE_CRASHED;
}

const char *machine_name(const Polyvisor__MachineInfo *machine)
{
    return machine->config != NULL ? machine->config->name : "";
}

/* The process that executes the guest stands for the machine. */
static int64_t main_process(const Polyvisor__MachineInfo *machine)
{
    for (size_t i = 0; i < machine->n_processes; i++) {
        if (strcmp(machine->processes[i]->role, "vcpud") == 0) {
            return machine->processes[i]->pid;
        }
    }
    return 0;
}

static bool has_started(const Polyvisor__MachineInfo *machine)
{
    return machine->started_ns != 0 && main_process(machine) != 0;
}

static uint64_t uptime_seconds(const Polyvisor__MachineInfo *machine)
{
    uint64_t now = clock_realtime_ns();

    return now > machine->started_ns ? (now - machine->started_ns) / NS_PER_S : 0;
}

void device_address(const Polyvisor__DeviceInfo *device, char *address, size_t size)
{
    snprintf(address, size, "0000:00:%02x.0", device->pci_slot & 0xff);
}

/* ---- JSON ---- */

static json_t *disk_json(const Polyvisor__DiskConfig *disk)
{
    return json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "path",
                     output_json_text(disk->path), "format", output_json_text(disk->format),
                     "readonly", disk->read_only, "cache", output_json_text(disk->cache), "aio",
                     output_json_text(disk->aio), "packed", output_json_text(disk->packed),
                     "werror", output_json_text(disk->werror), "serial",
                     output_json_text(disk->serial), "limits", output_json_text(disk->limits),
                     "timeout", (json_int_t)disk->timeout_s, "queues", (json_int_t)disk->queues);
}

static json_t *config_json(const Polyvisor__MachineConfig *config)
{
    json_t *disks = json_array(), *nets = json_array(), *shares = json_array();
    json_t *ports = json_array();

    for (size_t i = 0; i < config->n_disks; i++) {
        json_array_append_new(disks, disk_json(config->disks[i]));
    }
    for (size_t i = 0; i < config->n_net; i++) {
        json_array_append_new(nets, output_json_text(config->net[i]));
    }
    for (size_t i = 0; i < config->n_console_ports; i++) {
        json_array_append_new(ports, output_json_text(config->console_ports[i]));
    }
    for (size_t i = 0; i < config->n_shares; i++) {
        json_array_append_new(shares, output_json_text(config->shares[i]));
    }
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:o}",
        "name", output_json_text(config->name), "arch", output_json_text(config->arch), "kernel",
        output_json_text(config->kernel), "initrd", output_json_text(config->initrd), "firmware",
        output_json_text(config->firmware), "append", output_json_text(config->append), "cpus",
        (json_int_t)config->cpus, "memory_bytes", (json_int_t)config->memory_bytes, "hotplug_slots",
        (json_int_t)config->hotplug_slots, "engine", output_json_text(config->engine), "irqchip",
        output_json_text(config->irqchip), "perf_map", config->perf_map, "disks", disks, "net",
        nets, "vsock", output_json_text(config->vsock), "shares", shares, "balloon",
        output_json_text(config->balloon), "watchdog", output_json_text(config->watchdog),
        "on_panic", output_json_text(config->on_panic), "console_ports", ports);
}

static json_t *words_json(const char *text)
{
    json_t *words = json_array();

    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        char word[64];

        snprintf(word, sizeof(word), "%.*s", (int)length, text);
        json_array_append_new(words, output_json_text(word));
        text += length + strspn(text + length, " ");
    }
    return words;
}

static json_t *processes_json(const Polyvisor__MachineInfo *machine)
{
    json_t *processes = json_array();

    for (size_t i = 0; i < machine->n_processes; i++) {
        const Polyvisor__ProcessInfo *process = machine->processes[i];

        json_array_append_new(processes,
                              json_pack("{s:o, s:I, s:o}", "role", output_json_text(process->role),
                                        "pid", (json_int_t)process->pid, "confinement",
                                        words_json(process->confinement)));
    }
    return processes;
}

json_t *device_limits_json(const Polyvisor__DeviceInfo *device)
{
    bool net = strncmp(device->kind, "virtio-net", strlen("virtio-net")) == 0;
    enum limit_device type = net ? LIMIT_NET : LIMIT_DISK;
    struct limits limits = {0};
    json_t *object = json_object();

    if (limits_parse(type, device->limits, ERROR_PROTOCOL, &limits, NULL) != 0) {
        return object;
    }
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        for (unsigned direction = 0; direction < LIMIT_DIRECTIONS; direction++) {
            const struct limit *limit = &limits.of[kind][direction];
            char name[32];
            if (limit->rate) {
                snprintf(name, sizeof(name), "%s", limit_name(type, kind, direction));
                json_object_set_new(object, name, json_integer((json_int_t)limit->rate));
                snprintf(name, sizeof(name), "%s-burst", limit_name(type, kind, direction));
                json_object_set_new(object, name, json_integer((json_int_t)limit_burst(limit)));
            }
        }
    }
    return object;
}

static json_t *ports_json(const Polyvisor__DeviceInfo *device)
{
    json_t *ports = json_array();

    for (size_t i = 0; i < device->n_ports; i++) {
        const Polyvisor__PortInfo *port = device->ports[i];
        json_array_append_new(
            ports, json_pack("{s:o, s:o, s:o, s:b}", "name", output_json_text(port->name),
                             "console_socket", output_json_text(port->console_path), "path",
                             output_json_text(port->path), "console", port->console));
    }
    return ports;
}

json_t *device_json(const Polyvisor__DeviceInfo *device)
{
    json_t *object =
        json_pack("{s:o, s:o, s:s, s:I, s:I, s:o, s:o, s:b}", "id", output_json_text(device->id),
                  "kind", output_json_text(device->kind), "state", device_state_text(device->state),
                  "restarts", (json_int_t)device->restarts, "pid", (json_int_t)device->pid,
                  "description", output_json_text(device->description), "limits",
                  device_limits_json(device), "plugged_in", device->plugged_in);
    char address[32];

    if (device->pci_slot != 0) {
        device_address(device, address, sizeof(address));
        json_object_set_new(object, "address", output_json_text(address));
    }
    if (device->disk != NULL) {
        json_object_set_new(object, "disk", disk_json(device->disk));
    }
    if (device->net[0] != '\0') {
        json_object_set_new(object, "net", output_json_text(device->net));
    }
    if (device->n_ports != 0) {
        json_object_set_new(object, "ports", ports_json(device));
    }
    if (device->vsock[0] != '\0') {
        json_object_set_new(object, "vsock", output_json_text(device->vsock));
    }
    return object;
}

json_t *machine_devices_json(const Polyvisor__MachineInfo *machine)
{
    json_t *devices = json_array();

    for (size_t i = 0; i < machine->n_devices; i++) {
        json_array_append_new(devices, device_json(machine->devices[i]));
    }
    return devices;
}

static json_t *last_error_json(const Polyvisor__Error *error)
{
    if (error == NULL) {
        return json_null();
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:i}", "code", output_json_text(error->code), "message",
                     output_json_text(error->message), "hint", output_json_text(error->hint),
                     "component", output_json_text(error->component), "cause", (int)error->cause);
}

static json_t *links_down_json(const Polyvisor__MachineInfo *machine)
{
    json_t *cards = json_array();

    for (size_t i = 0; i < machine->n_links_down; i++) {
        json_array_append_new(cards, output_json_text(machine->links_down[i]));
    }
    return cards;
}

json_t *machine_json(const Polyvisor__MachineInfo *machine)
{
    static const Polyvisor__MachineConfig none = POLYVISOR__MACHINE_CONFIG__INIT;

    return json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:I, s:o, s:I, s:o}", "name",
        output_json_text(machine_name(machine)), "state", machine_state_text(machine->state),
        "config", config_json(machine->config != NULL ? machine->config : &none), "processes",
        processes_json(machine), "devices", machine_devices_json(machine), "console",
        output_json_text(machine->console_path), "started_ns", (json_int_t)machine->started_ns,
        "last_error", last_error_json(machine->last_error), "end_reason",
        output_json_text(machine->end_reason), "guest_code", (json_int_t)machine->guest_code,
        "links_down", links_down_json(machine), "guest_panics", (json_int_t)machine->guest_panics,
        "guest_panic", output_json_text(machine->guest_panic));
}

/* ---- Tables ---- */

void machine_row_header(struct output_table *table)
{
    static const char *const titles[MACHINE_ROW_COLUMNS] = {"NAME",   "STATE",  "ARCH", "CPUS",
                                                            "MEMORY", "UPTIME", "PID"};

    for (size_t i = 0; i < MACHINE_ROW_COLUMNS; i++) {
        output_table_add(table, titles[i]);
    }
}

void machine_row(struct output_table *table, const Polyvisor__MachineInfo *machine)
{
    static const Polyvisor__MachineConfig none = POLYVISOR__MACHINE_CONFIG__INIT;
    const Polyvisor__MachineConfig *config = machine->config != NULL ? machine->config : &none;
    char cpus[16], memory[32], uptime[32] = "-", process[24] = "-";

    snprintf(cpus, sizeof(cpus), "%u", config->cpus);
    value_format_size(config->memory_bytes, memory, sizeof(memory));
    if (has_started(machine)) {
        value_format_duration(uptime_seconds(machine), uptime, sizeof(uptime));
        snprintf(process, sizeof(process), "%" PRId64, main_process(machine));
    }
    output_table_add(table, config->name);
    output_table_add(table, machine_state_text(machine->state));
    output_table_add(table, config->arch);
    output_table_add(table, cpus);
    output_table_add(table, memory);
    output_table_add(table, uptime);
    output_table_add(table, process);
}

static void add_line(struct output_table *table, const char *title, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add_line(struct output_table *table, const char *title, const char *format, ...)
{
    char text[4608];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (text[0] != '\0') {
        output_table_add(table, title);
        output_table_add(table, text);
    }
}

/* "net0: user,mac=... (cable pulled)" */
static void add_cards(struct output_table *table, const Polyvisor__MachineInfo *machine)
{
    for (size_t i = 0; i < machine->config->n_net; i++) {
        char id[16];
        const char *state = "";

        snprintf(id, sizeof(id), "net%zu", i);
        for (size_t down = 0; down < machine->n_links_down; down++) {
            state = strcmp(machine->links_down[down], id) == 0 ? " (link down)" : state;
        }
        add_line(table, i == 0 ? "Network:" : "", "%s: %s%s", id, machine->config->net[i], state);
    }
    if (machine->config->vsock[0]) {
        add_line(table, "Vsock:", "%s", machine->config->vsock);
    }
    for (size_t i = 0; i < machine->config->n_console_ports; i++) {
        add_line(table, i == 0 ? "Console ports:" : "", "%s", machine->config->console_ports[i]);
    }
    for (size_t i = 0; i < machine->config->n_shares; i++) {
        add_line(table, i == 0 ? "Shares:" : "", "share%zu: %s", i, machine->config->shares[i]);
    }
}

static void add_config(struct output_table *table, const Polyvisor__MachineConfig *config)
{
    char memory[32];

    value_format_size(config->memory_bytes, memory, sizeof(memory));
    add_line(table, "Architecture:", "%s", config->arch);
    add_line(table, "Processors:", "%u", config->cpus);
    add_line(table, "Memory:", "%s", memory);
    add_line(table, "Watchdog:", "%s", config->watchdog);
    add_line(table, "On panic:", "%s", config->on_panic);
    add_line(table, "Balloon:", "%s", config->balloon);
    add_line(table, "Engine:", "%s", config->engine);
    add_line(table, "Interrupts:", "%s", config->irqchip);
    add_line(table, "Kernel:", "%s", config->kernel);
    add_line(table, "Initrd:", "%s", config->initrd);
    add_line(table, "Command line:", "%s", config->append);
    add_line(table, "Firmware:", "%s", config->firmware);
    for (size_t i = 0; i < config->n_disks; i++) {
        const Polyvisor__DiskConfig *disk = config->disks[i];

        add_line(table, i == 0 ? "Disks:" : "", "%s (%s%s%s%s)", disk->path, disk->format,
                 disk->read_only ? ", read-only" : "", disk->limits[0] ? ", " : "", disk->limits);
    }
}

/* "disk0: file, io_uring, 1 queue, write-back" */
static void add_descriptions(struct output_table *table, const Polyvisor__MachineInfo *machine)
{
    const char *title = "Backends:";

    for (size_t i = 0; i < machine->n_devices; i++) {
        const Polyvisor__DeviceInfo *device = machine->devices[i];

        if (device->description[0] != '\0') {
            add_line(table, title, "%s: %s", device->id, device->description);
            title = "";
        }
    }
}

static void add_times(struct output_table *table, const Polyvisor__MachineInfo *machine)
{
    time_t started = (time_t)(machine->started_ns / NS_PER_S);
    char text[64], uptime[32];
    struct tm local;

    if (machine->started_ns == 0 || localtime_r(&started, &local) == NULL) {
        return;
    }
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
    if (has_started(machine)) {
        value_format_duration(uptime_seconds(machine), uptime, sizeof(uptime));
        add_line(table, "Started:", "%s (%s ago)", text, uptime);
    } else {
        add_line(table, "Started:", "%s", text);
    }
}

#define PROCESSES_WIDTH 62 /* of a terminal's 80 columns */

/* The words of `text` on as many lines as they need; what is in parentheses stays with its word. */
static void add_wrapped(struct output_table *table, const char *title, const char *indent,
                        const char *text)
{
    while (*text != '\0') {
        size_t length = strlen(text);

        if (length > PROCESSES_WIDTH) {
            length = PROCESSES_WIDTH;
            while (length > 1 && (text[length] != ' ' || text[length + 1] == '(')) {
                length--;
            }
        }
        add_line(table, title, "%s%.*s", indent, (int)length, text);
        title = "";
        text += length + strspn(text + length, " ");
    }
}

/* Those that are confined alike stand together: most are. */
static void add_processes(struct output_table *table, const Polyvisor__MachineInfo *machine)
{
    const char *title = "Processes:";

    for (size_t i = 0; i < machine->n_processes; i++) {
        const char *confinement = machine->processes[i]->confinement;
        bool told = false;
        char names[4096];
        size_t used = 0;

        for (size_t j = 0; j < i; j++) {
            told |= strcmp(machine->processes[j]->confinement, confinement) == 0;
        }
        for (size_t j = i; j < machine->n_processes && !told && used < sizeof(names); j++) {
            const Polyvisor__ProcessInfo *process = machine->processes[j];

            if (strcmp(process->confinement, confinement) == 0) {
                used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s (%" PRId64 ")",
                                         used > 0 ? ", " : "", process->role, process->pid);
            }
        }
        if (!told) {
            add_wrapped(table, title, "", names);
            add_wrapped(table, "", "  ", confinement[0] ? confinement : "not confined");
            title = "";
        }
    }
}

int machine_print(const Polyvisor__MachineInfo *machine, struct error *err)
{
    struct output_table table;

    output_table_open(&table, 2);
    add_line(&table, "Name:", "%s", machine_name(machine));
    add_line(&table, "State:", "%s", machine_state_text(machine->state));
    add_line(&table, "Ended by:", "%s", machine->end_reason);
    if (strcmp(machine->end_reason, "guest-failure") == 0) {
        add_line(&table, "Guest's code:", "%u", machine->guest_code);
    }
    if (machine->guest_panics != 0) {
        add_line(&table, "Guest panics:", "%u, the last: %s", machine->guest_panics,
                 machine->guest_panic);
    }
    if (machine->last_error != NULL) {
        add_line(&table, "Last error:", "%s [%s]", machine->last_error->message,
                 machine->last_error->code);
        add_line(&table, "", "%s", machine->last_error->hint);
    }
    if (machine->config != NULL) {
        add_config(&table, machine->config);
        add_cards(&table, machine);
    }
    add_times(&table, machine);
    add_line(&table, "Console:", "%s", machine->console_path);
    add_descriptions(&table, machine);
    add_processes(&table, machine);
    return output_table_print(&table, stdout, err);
}
