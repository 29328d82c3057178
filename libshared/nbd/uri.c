#include "libshared/nbd/uri.h"

#include <stdio.h>
#include <string.h>

#define HINT "nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=/PATH"

static int refuse(enum error_code code, struct error *err, const char *what, const char *text)
{
    error_set(err, code, 0, "%s '%.120s'", what, text);
    error_hint(err, HINT);
    return -(int)code;
}

bool nbd_uri_is(const char *path)
{
    const char *end = strstr(path, "://");

    return end && strncmp(path, "nbd", 3) == 0 &&
           strspn(path, "abcdefghijklmnopqrstuvwxyz+") == (size_t)(end - path);
}

static int digit_of(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)((at - digits) % 16) : -1;
}

/* `length` bytes of text, with what %XX stands for. False: not well-formed, or no room. */
static bool decode(const char *text, size_t length, char *to, size_t capacity)
{
    size_t used = 0;

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < length ? digit_of(text[i + 1]) : -1;
            int low = i + 2 < length ? digit_of(text[i + 2]) : -1;
            if (high < 0 || low < 0 || (high | low) == 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (used + 1 >= capacity) {
            return false;
        }
        to[used++] = c;
    }
    to[used] = '\0';
    return true;
}

static bool port_valid(const char *port)
{
    unsigned number = 0;
    size_t length = strlen(port);

    if (length == 0 || length > 5 || strspn(port, "0123456789") != length) {
        return false;
    }
    sscanf(port, "%5u", &number);
    return number >= 1 && number <= 65535;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT". */
static bool host_read(const char *text, size_t length, struct nbd_uri *uri)
{
    const char *end = text + length;
    const char *host = text, *host_end = end, *rest;

    if (length && *text == '[') {
        host_end = memchr(text, ']', length);
        if (!host_end) {
            return false;
        }
        host++;
        rest = host_end + 1;
    } else {
        const char *colon = memchr(text, ':', length);
        host_end = colon ? colon : end;
        rest = host_end;
    }
    if (rest < end) {
        size_t digits = (size_t)(end - rest - 1);
        if (*rest != ':' || digits >= sizeof(uri->port)) {
            return false;
        }
        memcpy(uri->port, rest + 1, digits);
        uri->port[digits] = '\0';
    }
    for (const char *c = host; c < host_end; c++) {
        if (*c <= ' ' || *c >= 0x7f || strchr("@/\\\"'<>", *c)) {
            return false;
        }
    }
    return host_end > host &&
           decode(host, (size_t)(host_end - host), uri->host, sizeof(uri->host)) &&
           port_valid(uri->port);
}

static bool query_read(const char *query, struct nbd_uri *uri)
{
    static const char name[] = "socket=";

    return uri->is_unix && strncmp(query, name, sizeof(name) - 1) == 0 && !strchr(query, '&') &&
           decode(query + sizeof(name) - 1, strlen(query) - (sizeof(name) - 1), uri->socket,
                  sizeof(uri->socket)) &&
           uri->socket[0] == '/' && strrchr(uri->socket, '/') != uri->socket;
}

int nbd_uri_parse(const char *text, enum error_code code, struct nbd_uri *uri, struct error *err)
{
    static const char tcp[] = "nbd://", local[] = "nbd+unix://";

    memset(uri, 0, sizeof(*uri));
    strcpy(uri->port, NBD_PORT_DEFAULT);
    uri->is_unix = strncmp(text, local, sizeof(local) - 1) == 0;
    if (strncmp(text, "nbds", 4) == 0) {
        error_set(err, ERROR_UNSUPPORTED, 0, "NBD with TLS is not supported: '%.120s'", text);
        error_hint(err,
                   "lead it through a tunnel: ssh -L, stunnel, or nbdkit's nbd plugin with tls=");
        return -ERROR_UNSUPPORTED;
    }
    if (!uri->is_unix && strncmp(text, tcp, sizeof(tcp) - 1) != 0) {
        return refuse(ERROR_UNSUPPORTED, err, "no such way to a network block device:", text);
    }
    const char *place = text + (uri->is_unix ? sizeof(local) : sizeof(tcp)) - 1;
    const char *query = strchr(place, '?');
    size_t length = query ? (size_t)(query - place) : strlen(place);
    const char *slash = memchr(place, '/', length);
    size_t host = slash ? (size_t)(slash - place) : length;

    if (strchr(text, '#') || (uri->is_unix ? host != 0 : !host_read(place, host, uri))) {
        return refuse(code, err, "not the place of a network block device:", text);
    }
    if (slash &&
        !decode(slash + 1, length - host - 1, uri->export_name, sizeof(uri->export_name))) {
        return refuse(code, err, "not the name of an export:", text);
    }
    if (query && !query_read(query + 1, uri)) {
        return refuse(code, err, "only ?socket=/PATH can follow, in", text);
    }
    return uri->is_unix && !uri->socket[0] ? refuse(code, err, "no ?socket=/PATH in", text) : 0;
}
