/*
 * What `--vsock` says: the Unix socket on the host's side of a machine's vsock, and the machine's
 * context id. vmctl checks the text early, vmmd keeps it, the device process reads it again.
 *
 *   path=FILE[,cid=N]
 *
 * FILE is made by vmmd. Who connects to it and writes "CONNECT PORT\n" is connected to that port in
 * the guest once it reads "OK PORT\n". When a process of the guest connects to port N of the host
 * (context id 2), its other end is who listens on the Unix socket FILE_N. A comma in FILE is
 * written twice.
 */
#ifndef POLYVISOR_VSOCK_SETTING_H
#define POLYVISOR_VSOCK_SETTING_H

#include "libshared/base/error.h"
#include <stdint.h>

#define VSOCK_CID_HOST    2u /* Virtio 1.2, 5.10.4: 0 and 1 are reserved */
#define VSOCK_CID_DEFAULT 3u
#define VSOCK_CID_MAX     0xfffffffeu
#define VSOCK_PORT_CHARS  11                       /* "_4294967295" */
#define VSOCK_PATH_MAX    (107 - VSOCK_PORT_CHARS) /* FILE_N fits in sun_path */

struct vsock_setting {
    uint32_t cid;
    char path[VSOCK_PATH_MAX + 1];
};

/* Read `text`. 0, or the negative `code` (of the kind of error that a wrong text is to the caller)
 * with *err set. */
int vsock_setting_parse(const char *text, enum error_code code, struct vsock_setting *setting,
                        struct error *err);
/* The text that says the same, allocated; NULL when memory is short. */
char *vsock_setting_format(const struct vsock_setting *setting);

#endif
