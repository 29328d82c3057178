/* How a machine looks: a row of `list`, the pages of `show`, the objects of --json. */
#ifndef POLYVISOR_CLI_MACHINE_VIEW_H
#define POLYVISOR_CLI_MACHINE_VIEW_H

#include "cli/output.h"
#include "proto/control.pb-c.h"

/* "running", or "unknown" for a state of a later version. */
const char *machine_state_text(Polyvisor__MachineState state);
/* "running", "given up", ... */
const char *device_state_text(Polyvisor__DeviceState state);
/* True for the states a machine ends in. */
bool machine_state_ended(Polyvisor__MachineState state);

/* Objects: everything vmmd says about a machine or a device, an array of a machine's devices, and
 * the limits of a disk or card as numbers ({"bps":1048576}; empty without). Each a new reference,
 * NULL without memory. */
json_t *machine_json(const Polyvisor__MachineInfo *machine);
json_t *machine_devices_json(const Polyvisor__MachineInfo *machine);
json_t *device_json(const Polyvisor__DeviceInfo *device);
json_t *device_limits_json(const Polyvisor__DeviceInfo *device);
/* Where the guest finds a device that has a PCI slot: "0000:00:04.0". */
void device_address(const Polyvisor__DeviceInfo *device, char *address, size_t size);

/* NAME STATE ARCH CPUS MEMORY UPTIME PID. */
void machine_row_header(struct output_table *table);
void machine_row(struct output_table *table, const Polyvisor__MachineInfo *machine);
#define MACHINE_ROW_COLUMNS 7

/* "Name: value" lines. 0 or a negative code with *err set. */
int machine_print(const Polyvisor__MachineInfo *machine, struct error *err);

/* The machine's name, "" when vmmd sent none. */
const char *machine_name(const Polyvisor__MachineInfo *machine);

#endif
