#include "vmmd/network.h"

#include "vmmd/message.h"
#include "vmmd/tap.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- addresses ---- */

/* FNV-1a: no secret, only spread. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    do {
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    } while (*text++);
    return hash;
}

/* Locally administered, of one card. */
static void mac_make(const char *directory, const char *name, size_t number,
                     uint8_t mac[NET_MAC_BYTES])
{
    uint64_t hash = hash_text(hash_text(UINT64_C(0xcbf29ce484222325), directory), name) + number;

    mac[0] = 0x52;
    for (unsigned i = 1; i < NET_MAC_BYTES; i++) {
        mac[i] = (uint8_t)(hash >> (8 * (NET_MAC_BYTES - 1 - i)));
    }
}

static int network_complete_one(Polyvisor__MachineConfig *config, size_t number,
                                const char *directory, struct net_setting *setting,
                                struct error *err)
{
    int result = net_setting_parse(config->net[number], ERROR_CONFIG, setting, err);

    if (result) {
        return result;
    }
    if (setting->kind == NET_LINK && setting->path[0] != '/') {
        return error_set(err, ERROR_CONFIG, 0, "the path of link '%.100s' is not absolute",
                         setting->path);
    }
    if (!setting->has_mac) {
        mac_make(directory, config->name, number, setting->mac);
        setting->has_mac = true;
    }
    char *text = net_setting_format(setting);
    if (!text || message_set_string(&config->net[number], text) < 0) {
        result = error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    free(text);
    return result;
}

int network_complete(Polyvisor__MachineConfig *config, const char *directory, struct error *err)
{
    uint8_t macs[CONFIG_NETS_MAX][NET_MAC_BYTES];

    if (config->n_net > CONFIG_NETS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu network cards wanted, the most is %d",
                         config->n_net, CONFIG_NETS_MAX);
    }
    for (size_t i = 0; i < config->n_net; i++) {
        struct net_setting setting;
        int result = network_complete_one(config, i, directory, &setting, err);
        if (result) {
            return result;
        }
        memcpy(macs[i], setting.mac, NET_MAC_BYTES);
        for (size_t other = 0; other < i; other++) {
            if (!memcmp(macs[i], macs[other], NET_MAC_BYTES)) {
                error_set(err, ERROR_CONFIG, 0, "cards %zu and %zu have the same Ethernet address",
                          other, i);
                error_hint(err, "leave out mac=: each card then gets its own");
                return -ERROR_CONFIG;
            }
        }
    }
    return 0;
}

/* ---- ports of the host ---- */

static int forward_refused(const struct net_forward *forward, int cause, struct error *err)
{
    const char *protocol = forward->is_udp ? "UDP" : "TCP";
    char address[64];

    net_address_format(&forward->host, address, sizeof(address));
    if (cause == EADDRINUSE) {
        error_set(err, ERROR_BUSY, cause, "%s port %s is in use", protocol, address);
        error_hint(err, "choose another port, or end what listens there: ss -lnp%s",
                   forward->is_udp ? "u" : "t");
        return -ERROR_BUSY;
    }
    if (cause == EACCES || cause == EPERM) {
        error_set(err, ERROR_PERMISSION, cause, "this user may not listen on %s port %s", protocol,
                  address);
        error_hint(err, "ports below 1024 are reserved: choose a higher one");
        return -ERROR_PERMISSION;
    }
    if (cause == EADDRNOTAVAIL) {
        error_set(err, ERROR_CONFIG, cause, "%s is no address of this host", address);
        error_hint(err, "the addresses there are: ip address; none at all stands for any");
        return -ERROR_CONFIG;
    }
    return error_set(err, ERROR_IO, cause, "cannot listen on %s port %s: %s", protocol, address,
                     strerror(cause));
}

/* A socket bound as libslirp will, or a negative code. */
static int forward_try(const struct net_forward *forward, struct error *err)
{
    int type = forward->is_udp ? SOCK_DGRAM : SOCK_STREAM, on = 1;
    int fd = socket(forward->host.any.sa_family, type | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return forward_refused(forward, errno, err);
    }
    /* Connections of an earlier machine that linger do not hinder; listeners do. */
    if (!forward->is_udp) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (forward->host.any.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, &forward->host.any, (socklen_t)net_address_length(&forward->host)) < 0 ||
        (!forward->is_udp && listen(fd, 1) < 0)) {
        int result = forward_refused(forward, errno, err);
        close(fd);
        return result;
    }
    return fd;
}

/* All ports at once, so that one that is named twice meets itself; closed again. */
static int check_forwards(const struct net_setting *setting, int *fds, size_t *count,
                          struct error *err)
{
    for (size_t i = 0; i < setting->forward_count; i++) {
        int fd = forward_try(&setting->forwards[i], err);
        if (fd < 0) {
            return fd;
        }
        fds[(*count)++] = fd;
    }
    return 0;
}

int network_check_forwards(const struct net_setting *setting, struct error *err)
{
    int fds[NET_FORWARDS_MAX];
    size_t count = 0;
    int result = check_forwards(setting, fds, &count, err);

    while (count > 0) {
        close(fds[--count]);
    }
    return result;
}

int network_check_host(const Polyvisor__MachineConfig *config, struct error *err)
{
    int fds[CONFIG_NETS_MAX * NET_FORWARDS_MAX];
    size_t count = 0;
    int result = 0;

    for (size_t i = 0; i < config->n_net && !result; i++) {
        struct net_setting setting;
        result = net_setting_parse(config->net[i], ERROR_CONFIG, &setting, err);
        if (!result && setting.kind == NET_USER) {
            result = check_forwards(&setting, fds, &count, err);
        }
        if (!result && setting.kind == NET_TAP) {
            int fd = tap_open(setting.ifname, err);
            if (fd < 0) {
                result = fd;
            } else {
                close(fd);
            }
        }
    }
    while (count > 0) {
        close(fds[--count]);
    }
    return result;
}
