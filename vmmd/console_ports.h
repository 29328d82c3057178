/*
 * The further ports of a machine's virtio console (libshared/port/setting.h) and what each of them
 * owns: a listening socket for vmctl, perhaps one for other programs, and the memory that
 * outlives the device's process. All of it is vmmd's.
 */
#ifndef POLYVISOR_VMMD_CONSOLE_PORTS_H
#define POLYVISOR_VMMD_CONSOLE_PORTS_H

#include "libshared/base/error.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/port/setting.h"
#include "proto/control.pb-c.h"
#include <stddef.h>

struct console_port {
    struct port_setting setting;
    char console_path[108]; /* sun_path */
    int listener, plain, memory;
};

struct console_ports {
    struct console_port items[PORTS_MAX];
    unsigned count;
};

/* Check the settings of a machine's configuration. 0 or a negative code (CONFIG). */
int console_ports_check(const Polyvisor__MachineConfig *config, struct error *err);
/* Those of a configuration that was checked; sockets are in `directory`. Nothing is open. */
void console_ports_plan(struct console_ports *ports, const Polyvisor__MachineConfig *config,
                        const char *directory);
/* Make sockets and memories. 0 or a negative code; what was made is closed by the next. */
int console_ports_open(struct console_ports *ports, struct error *err);
void console_ports_close(struct console_ports *ports);
/* Give them to a process. 0 or negative errno. */
int console_ports_list(const struct console_ports *ports, struct fdlist *list);

/* A socket of the machine's own for clients of libshared/ipc/console.h, and a console's memory. A
 * descriptor or negative errno. */
int console_port_listen(const char *path);
int console_port_memory(void);

#endif
