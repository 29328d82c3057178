/*
 * What `--console-port` says: a further port of a machine's virtio console. vmctl checks the text
 * early, vmmd keeps it, the device's process reads it again.
 *
 *   NAME[,path=FILE][,console]
 *
 * In the guest NAME is in /sys/class/virtio-ports/vportMpN/name, from which udev makes
 * /dev/virtio-ports/NAME; a port that is a console is a terminal, /dev/hvcN. On the host `vmctl
 * console --port NAME` attaches to it; who connects to the Unix socket FILE, which vmmd makes,
 * reads and writes its bytes and nothing else. A comma in FILE is written twice.
 */
#ifndef POLYVISOR_PORT_SETTING_H
#define POLYVISOR_PORT_SETTING_H

#include "libshared/base/error.h"
#include <stdbool.h>

#define PORTS_MAX     5u /* two queues each, besides the first port's and those for control */
#define PORT_NAME_MAX 31u
#define PORT_PATH_MAX 107u /* sun_path */
#define PORT_TEXT_MAX (PORT_NAME_MAX + 2 * PORT_PATH_MAX + 32u)
/* The name of the first port, which every machine has. */
#define PORT_NAME_FIRST "polyvisor.console"

struct port_setting {
    char name[PORT_NAME_MAX + 1]; /* letters, digits, '.', '_', '-' */
    char path[PORT_PATH_MAX + 1]; /* "": none */
    bool console;
};

/* Read `text`. 0, or the negative `code` (of the kind of error that a wrong text is to the caller)
 * with *err set. */
int port_setting_parse(const char *text, enum error_code code, struct port_setting *setting,
                       struct error *err);
/* The text that says the same, allocated; NULL when memory is short. */
char *port_setting_format(const struct port_setting *setting);

#endif
