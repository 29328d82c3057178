/*
 * What `--net` says about one network card: its backend and its properties, as text that people
 * write and as a structure. vmctl checks the text early, vmmd completes it (a card without an
 * address gets one) and keeps it, the device process reads it again: all with this one parser.
 *
 *   user[,hostfwd=tcp|udp:[ADDR]:PORT-[GUEST]:PORT]...   NAT inside the device process
 *   tap,ifname=NAME                                      an interface of the host
 *   link,path=FILE                                       a Unix socket shared by two machines
 *
 * and with each of them mac=XX:XX:XX:XX:XX:XX, mtu=N, queues=N, packed=on|off and the limits of
 * libshared/limit/setting.h. A comma in a path or
 * the name of an interface is written twice. An IPv6 ADDR or GUEST stands in brackets.
 */
#ifndef POLYVISOR_NET_SETTING_H
#define POLYVISOR_NET_SETTING_H

#include "libshared/base/error.h"
#include "libshared/limit/setting.h"
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_MAC_BYTES    6
#define NET_MTU_DEFAULT  1500u
#define NET_MTU_MIN      1280u  /* the least that IPv6 takes */
#define NET_MTU_MAX      65521u /* the most that libslirp takes */
#define NET_QUEUES_MAX   7u     /* pairs: two queues each and a control queue are at most 16 */
#define NET_FORWARDS_MAX 32
#define NET_PATH_MAX     107 /* bytes of a link's absolute path: what fits in sun_path */

enum net_kind { NET_USER, NET_TAP, NET_LINK };

/* A port of the host that leads into the guest. Both addresses are of one family; all zeros is any
 * address on the host's side, and on the guest's the one it was given. */
struct net_forward {
    bool is_udp;
    union net_address {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    } host, guest;
};

struct net_setting {
    enum net_kind kind;
    bool has_mac;
    uint8_t mac[NET_MAC_BYTES];
    uint32_t mtu;     /* 0: not given */
    uint32_t queues;  /* pairs, 1 unless given */
    bool split_rings; /* packed=off: no packed virtqueues */
    struct limits limits;
    char ifname[IFNAMSIZ];       /* tap */
    char path[NET_PATH_MAX + 1]; /* link */
    size_t forward_count;        /* user */
    struct net_forward forwards[NET_FORWARDS_MAX];
};

/* Read `text`. 0, or the negative `code` (of the kind of error that a wrong text is to the caller)
 * with *err set: message and hint name the part that is wrong. */
int net_setting_parse(const char *text, enum error_code code, struct net_setting *setting,
                      struct error *err);
/* The text that says the same, allocated; NULL when memory is short. */
char *net_setting_format(const struct net_setting *setting);

/* Length of the socket address of a forward's family. */
size_t net_address_length(const union net_address *address);
/* "127.0.0.1:80" or "[::1]:80". */
void net_address_format(const union net_address *address, char *text, size_t capacity);

#endif
