/* A tap interface of the host. vmmd has opened and set it up (vmmd/tap.c), this process only reads
 * and writes frames. */
#include "devd/net/wire.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Somebody removed the interface: nothing comes back until the machine is started again. */
static void tap_broken(struct wire *wire)
{
    log_warning("the tap interface is gone");
    wire->backend.port.carrier(wire->backend.port.context, false);
    wire_attach(wire, -1);
}

static void tap_close(struct net_backend *backend)
{
    struct wire *wire = (struct wire *)backend;

    wire_close(wire);
    free(wire);
}

static struct net_backend *tap_open(const struct net_setting *setting, int fd,
                                    struct event_base *base, const struct net_port *port,
                                    struct error *err)
{
    struct wire *wire = calloc(1, sizeof(*wire));

    if (fd < 0 || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
        error_set(err, ERROR_CONFIG, 0, "got no descriptor of interface '%s'", setting->ifname);
    } else if (!wire || wire_open(wire, &net_backend_tap, base, port) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for interface '%s'", setting->ifname);
    } else {
        wire->broken = tap_broken;
        wire_attach(wire, fd);
        return &wire->backend;
    }
    free(wire);
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

const struct net_backend_operations net_backend_tap = {
    .open = tap_open,
    .close = tap_close,
    .send = wire_send,
    .resume = wire_resume,
};
