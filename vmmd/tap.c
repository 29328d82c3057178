#include "vmmd/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TAP_DEVICE "/dev/net/tun"

static int tap_device_refused(int cause, struct error *err)
{
    if (cause == EACCES || cause == EPERM) {
        error_set(err, ERROR_PERMISSION, cause, "this user may not open " TAP_DEVICE);
        error_hint(err, "ask for permission, or use --net user, which needs none");
        return -ERROR_PERMISSION;
    }
    error_set(err, ERROR_UNSUPPORTED, cause, "cannot open " TAP_DEVICE ": %s", strerror(cause));
    error_hint(err, "modprobe tun; or use --net user");
    return -ERROR_UNSUPPORTED;
}

static int tap_refused(const char *name, int cause, struct error *err)
{
    switch (cause) {
    case EPERM:
    case EACCES:
        error_set(err, ERROR_PERMISSION, cause, "this user may not use interface '%s'", name);
        error_hint(err, "make it yours: ip tuntap add %s mode tap user $USER", name);
        return -ERROR_PERMISSION;
    case EBUSY:
        error_set(err, ERROR_BUSY, cause, "interface '%s' is in use by another process", name);
        error_hint(err, "each machine needs a tap of its own: ip tuntap add NAME mode tap");
        return -ERROR_BUSY;
    case EINVAL:
        error_set(err, ERROR_CONFIG, cause, "interface '%s' is no tap (or of several queues)",
                  name);
        error_hint(err, "make one: ip tuntap add NAME mode tap");
        return -ERROR_CONFIG;
    default:
        return error_set(err, ERROR_IO, cause, "cannot use interface '%s': %s", name,
                         strerror(cause));
    }
}

/* Header and offloads. The device cuts and sums in software what a guest cannot take. */
static int tap_set_up(int fd, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = sizeof(struct virtio_net_hdr_v1), little_endian = 1;

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0) {
        return -errno;
    }
    return 0;
}

int tap_open(const char *name, struct error *err)
{
    /* Opening a tap that is not there would make one, which nobody has configured. */
    if (if_nametoindex(name) == 0) {
        error_set(err, ERROR_CONFIG, errno, "there is no interface '%s'", name);
        error_hint(err, "make it: ip tuntap add %s mode tap user $USER; ip link set %s up", name,
                   name);
        return -ERROR_CONFIG;
    }
    int fd = open(TAP_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return tap_device_refused(errno, err);
    }
    int result = tap_set_up(fd, name);
    if (result) {
        close(fd);
        return tap_refused(name, -result, err);
    }
    return fd;
}
