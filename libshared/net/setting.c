#include "libshared/net/setting.h"

#include "libshared/base/words.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HINT_USER                                                                                  \
    "--net user[,hostfwd=tcp:ADDR:PORT-:PORT]...: tcp or udp; ADDR is an address of the host "     \
    "(IPv6 in brackets) or empty for all"
#define HINT_TAP  "--net tap,ifname=NAME, an interface made with: ip tuntap add NAME mode tap"
#define HINT_LINK "--net link,path=FILE, the same FILE for both machines"
#define HINT_ANY                                                                                   \
    "with every kind: mac=52:54:00:12:34:56, mtu=1500, queues=2, packed=on|off, "                  \
    "limits as bps=2M"

struct parser {
    enum error_code code;
    struct net_setting *setting;
    struct error *err;
};

static int refuse(const struct parser *parser, const char *hint, const char *what, const char *word)
{
    error_set(parser->err, parser->code, 0, "--net: %s '%.100s'", what, word);
    error_hint(parser->err, "%s", hint);
    return -(int)parser->code;
}

/* A decimal number, the whole text. */
static bool number_read(const char *text, unsigned minimum, unsigned maximum, unsigned *number)
{
    unsigned value = 0;

    if (*text == '\0' || strlen(text) > 6) {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(*text - '0');
    }
    *number = value;
    return value >= minimum && value <= maximum;
}

/* ---- hostfwd ---- */

/* "ADDR:PORT" with ADDR empty, IPv4, or IPv6 in brackets. `text` is changed. */
static bool address_read(char *text, union net_address *address)
{
    char *colon = strrchr(text, ':');
    unsigned port;

    memset(address, 0, sizeof(*address));
    if (!colon || !number_read(colon + 1, 1, 65535, &port)) {
        return false;
    }
    *colon = '\0';
    if (text[0] == '[') {
        size_t length = strlen(text);
        if (text[length - 1] != ']') {
            return false;
        }
        text[length - 1] = '\0';
        address->ip6.sin6_family = AF_INET6;
        address->ip6.sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, text + 1, &address->ip6.sin6_addr) == 1;
    }
    address->ip4.sin_family = AF_INET;
    address->ip4.sin_port = htons((uint16_t)port);
    return text[0] == '\0' || inet_pton(AF_INET, text, &address->ip4.sin_addr) == 1;
}

/* "tcp:ADDR:PORT-GUEST:PORT"; `rule` is changed. */
static bool forward_read(char *rule, struct net_forward *forward)
{
    char *host = strchr(rule, ':');
    char *guest = strchr(rule, '-');

    if (!host || !guest || guest < host) {
        return false;
    }
    *host++ = '\0';
    *guest++ = '\0';
    forward->is_udp = strcmp(rule, "udp") == 0;
    if ((!forward->is_udp && strcmp(rule, "tcp") != 0) || !address_read(host, &forward->host)) {
        return false;
    }
    bool anywhere = guest[0] == ':';
    if (!address_read(guest, &forward->guest)) {
        return false;
    }
    if (anywhere && forward->host.any.sa_family == AF_INET6) {
        in_port_t port = forward->guest.ip4.sin_port;
        memset(&forward->guest, 0, sizeof(forward->guest));
        forward->guest.ip6.sin6_family = AF_INET6;
        forward->guest.ip6.sin6_port = port;
    }
    return forward->host.any.sa_family == forward->guest.any.sa_family;
}

static int parse_forward(const struct parser *parser, const char *value)
{
    struct net_setting *setting = parser->setting;
    char *rule = strdup(value);

    if (!rule) {
        return error_set(parser->err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    if (setting->forward_count == NET_FORWARDS_MAX) {
        free(rule);
        return refuse(parser, HINT_USER, "too many rules, no room for", value);
    }
    bool valid = forward_read(rule, &setting->forwards[setting->forward_count]);
    free(rule);
    if (!valid) {
        return refuse(parser, HINT_USER, "not a rule", value);
    }
    setting->forward_count++;
    return 0;
}

/* ---- the other words ---- */

static int parse_ifname(const struct parser *parser, const char *value)
{
    size_t length = strlen(value);

    if (length == 0 || length >= IFNAMSIZ || strpbrk(value, "/ \t\n:%") || !strcmp(value, ".") ||
        !strcmp(value, "..")) {
        return refuse(parser, HINT_TAP, "not the name of an interface", value);
    }
    memcpy(parser->setting->ifname, value, length + 1);
    return 0;
}

static int parse_path(const struct parser *parser, const char *value)
{
    if (value[0] == '\0') {
        return refuse(parser, HINT_LINK, "no file in", "path=");
    }
    if (strlen(value) >= sizeof(parser->setting->path)) {
        return refuse(parser, HINT_LINK, "too long", value);
    }
    strcpy(parser->setting->path, value);
    return 0;
}

static int parse_mac(const struct parser *parser, const char *value)
{
    static const uint8_t none[NET_MAC_BYTES];
    uint8_t *mac = parser->setting->mac;
    bool valid = strlen(value) == 3 * NET_MAC_BYTES - 1;

    for (unsigned i = 0; valid && i < NET_MAC_BYTES; i++) {
        const char *digits = value + 3 * i;
        char pair[3] = {digits[0], digits[1], '\0'};
        valid = strspn(pair, "0123456789abcdefABCDEF") == 2 &&
                (digits[2] == ':' || i == NET_MAC_BYTES - 1);
        mac[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    if (!valid || memcmp(mac, none, sizeof(none)) == 0) {
        return refuse(parser, HINT_ANY, "not an Ethernet address", value);
    }
    if (mac[0] & 1) {
        return refuse(parser, "the first byte must be even, for example 52:54:00:12:34:56",
                      "a group's address, not a card's", value);
    }
    parser->setting->has_mac = true;
    return 0;
}

static int parse_mtu(const struct parser *parser, const char *value)
{
    if (!number_read(value, NET_MTU_MIN, NET_MTU_MAX, &parser->setting->mtu)) {
        return refuse(parser, "mtu=1280 to mtu=65521, in bytes", "not an MTU", value);
    }
    return 0;
}

static int parse_queues(const struct parser *parser, const char *value)
{
    if (!number_read(value, 1, NET_QUEUES_MAX, &parser->setting->queues)) {
        return refuse(parser, "queues=1 to queues=7, one for each of the guest's processors",
                      "not a number of queues", value);
    }
    return 0;
}

static int parse_packed(const struct parser *parser, const char *value)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
        return refuse(parser, "packed=on or packed=off", "neither on nor off", value);
    }
    parser->setting->split_rings = strcmp(value, "off") == 0;
    return 0;
}

static const struct word {
    const char *name;
    bool everywhere;
    enum net_kind kind; /* unless everywhere */
    int (*parse)(const struct parser *parser, const char *value);
} words[] = {
    {"hostfwd=", false, NET_USER, parse_forward},
    {"ifname=", false, NET_TAP, parse_ifname},
    {"path=", false, NET_LINK, parse_path},
    {"mac=", true, 0, parse_mac},
    {"mtu=", true, 0, parse_mtu},
    {"queues=", true, 0, parse_queues},
    {"packed=", true, 0, parse_packed},
};

static const struct kind {
    const char *name;
    const char *hint;
} kinds[] = {
    [NET_USER] = {"user", HINT_USER},
    [NET_TAP] = {"tap", HINT_TAP},
    [NET_LINK] = {"link", HINT_LINK},
};

static int parse_word(const struct parser *parser, const char *word)
{
    enum net_kind kind = parser->setting->kind;

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t length = strlen(words[i].name);
        if (strncmp(word, words[i].name, length) != 0) {
            continue;
        }
        if (!words[i].everywhere && words[i].kind != kind) {
            return refuse(parser, kinds[kind].hint, "this kind of network takes no", word);
        }
        return words[i].parse(parser, word + length);
    }
    int status =
        limits_parse_word(LIMIT_NET, word, parser->code, &parser->setting->limits, parser->err);
    return status != -ENOENT ? status : refuse(parser, kinds[kind].hint, "unknown word", word);
}

static int parse_kind(const struct parser *parser, const char *word)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(word, kinds[i].name) == 0) {
            parser->setting->kind = (enum net_kind)i;
            return 0;
        }
    }
    return refuse(parser, "--net user, --net tap,ifname=NAME or --net link,path=FILE",
                  "unknown kind of network", word);
}

static int check_complete(const struct parser *parser, const char *text)
{
    const struct net_setting *setting = parser->setting;

    if (setting->kind == NET_TAP && !setting->ifname[0]) {
        return refuse(parser, HINT_TAP, "no ifname= in", text);
    }
    if (setting->kind == NET_LINK && !setting->path[0]) {
        return refuse(parser, HINT_LINK, "no path= in", text);
    }
    return limits_check(LIMIT_NET, &setting->limits, parser->code, parser->err);
}

int net_setting_parse(const char *text, enum error_code code, struct net_setting *setting,
                      struct error *err)
{
    const struct parser parser = {.code = code, .setting = setting, .err = err};
    char *word = malloc(strlen(text) + 1);

    memset(setting, 0, sizeof(*setting));
    setting->queues = 1;
    if (!word) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    const char *rest = words_next(text, word);
    int status = parse_kind(&parser, word);
    while (status == 0 && rest) {
        rest = words_next(rest, word);
        status = parse_word(&parser, word);
    }
    free(word);
    return status == 0 ? check_complete(&parser, text) : status;
}

/* ---- formatting ---- */

size_t net_address_length(const union net_address *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof(address->ip6) : sizeof(address->ip4);
}

static bool address_is_any(const union net_address *address)
{
    return address->any.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&address->ip6.sin6_addr)
                                              : address->ip4.sin_addr.s_addr == 0;
}

void net_address_format(const union net_address *address, char *text, size_t capacity)
{
    char number[INET6_ADDRSTRLEN] = "";
    bool ip6 = address->any.sa_family == AF_INET6;

    inet_ntop(address->any.sa_family,
              ip6 ? (const void *)&address->ip6.sin6_addr : (const void *)&address->ip4.sin_addr,
              number, sizeof(number));
    snprintf(text, capacity, ip6 ? "[%s]:%u" : "%s:%u", number,
             ntohs(ip6 ? address->ip6.sin6_port : address->ip4.sin_port));
}

static void format_forward(FILE *out, const struct net_forward *forward)
{
    char host[64], guest[64];

    net_address_format(&forward->host, host, sizeof(host));
    net_address_format(&forward->guest, guest, sizeof(guest));
    /* "Any" is written the short way where there is one. */
    const char *from = host, *to = guest;
    if (address_is_any(&forward->host) && forward->host.any.sa_family == AF_INET) {
        from = strrchr(host, ':');
    }
    if (address_is_any(&forward->guest)) {
        to = strrchr(guest, ':');
    }
    fprintf(out, ",hostfwd=%s:%s-%s", forward->is_udp ? "udp" : "tcp", from, to);
}

static void format_name(FILE *out, const char *word, const char *name)
{
    char quoted[2 * sizeof(((struct net_setting *)NULL)->path)];

    fprintf(out, ",%s=%s", word, words_quote(quoted, name));
}

char *net_setting_format(const struct net_setting *setting)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out) {
        return NULL;
    }
    fputs(kinds[setting->kind].name, out);
    for (size_t i = 0; i < setting->forward_count; i++) {
        format_forward(out, &setting->forwards[i]);
    }
    if (setting->kind == NET_TAP) {
        format_name(out, "ifname", setting->ifname);
    }
    if (setting->kind == NET_LINK) {
        format_name(out, "path", setting->path);
    }
    if (setting->has_mac) {
        const uint8_t *mac = setting->mac;
        fprintf(out, ",mac=%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                mac[5]);
    }
    if (setting->mtu) {
        fprintf(out, ",mtu=%u", setting->mtu);
    }
    if (setting->queues != 1) {
        fprintf(out, ",queues=%u", setting->queues);
    }
    if (setting->split_rings) {
        fputs(",packed=off", out);
    }
    if (limits_any(&setting->limits)) {
        char limits[LIMIT_TEXT_MAX];
        limits_format(LIMIT_NET, &setting->limits, limits, sizeof(limits));
        fprintf(out, ",%s", limits);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
