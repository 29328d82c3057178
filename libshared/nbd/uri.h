/*
 * The address of a network block device, as the NBD project's URI specification writes it:
 *
 *   nbd://HOST[:PORT]/EXPORT               a name or an address (IPv6 in brackets)
 *   nbd+unix:///EXPORT?socket=/PATH        a Unix socket
 *
 * EXPORT may be empty. %XX stands for any byte but NUL. vmctl checks the text early, vmmd keeps it,
 * the connector and the device's process read it again: all with this one parser.
 */
#ifndef POLYVISOR_NBD_URI_H
#define POLYVISOR_NBD_URI_H

#include "libshared/base/error.h"
#include <stdbool.h>

#define NBD_HOST_MAX     255
#define NBD_EXPORT_MAX   1024 /* bytes; the protocol has 4096 */
#define NBD_SOCKET_MAX   107  /* what fits in sun_path */
#define NBD_PORT_DEFAULT "10809"

struct nbd_uri {
    bool is_unix;
    char host[NBD_HOST_MAX + 1];
    char port[6];
    char socket[NBD_SOCKET_MAX + 1]; /* absolute */
    char export_name[NBD_EXPORT_MAX + 1];
};

/* Whether a disk's path is meant as one: it begins with "nbd" and has "://" after letters. A file
 * of such a name is ./nbd:... */
bool nbd_uri_is(const char *path);
/* Read it. 0, -ERROR_UNSUPPORTED (TLS and other ways), or the negative `code`, with *err set. */
int nbd_uri_parse(const char *text, enum error_code code, struct nbd_uri *uri, struct error *err);

#endif
