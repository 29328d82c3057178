/*
 * How the process of a network disk, which can make no sockets, gets its connection: over a Unix
 * packet socket (descriptor `backend`) it asks vmmd, which has the connector (connectd) connect and
 * hands over what comes of it. The connector tells vmmd by the same messages (descriptor
 * `channel`).
 *
 * A message is a struct nbd_message, with the connected socket as SCM_RIGHTS where the kind says
 * so. Answers bear the number of the question that was the last when they were sent: a process
 * ignores those that its predecessor asked for.
 */
#ifndef POLYVISOR_NBD_CHANNEL_H
#define POLYVISOR_NBD_CHANNEL_H

#include <stdint.h>

#define NBD_TEXT_MAX 224 /* with the NUL */

enum nbd_message_kind {
    NBD_ASK = 'a',       /* devd: a connection, please; what there was is of no use */
    NBD_CONNECTED = 'c', /* with it */
    NBD_FAILED = 'f',    /* there is none; `text` says why */
};

struct nbd_message {
    uint32_t kind;
    uint32_t cause; /* NBD_FAILED: errno or 0 */
    uint64_t number;
    char text[NBD_TEXT_MAX];
};
_Static_assert(sizeof(struct nbd_message) == 240, "wire layout");

/* Send one, with a descriptor unless `fd` is -1. 0 or negative errno (-EAGAIN: nobody reads). */
int nbd_message_send(int socket, const struct nbd_message *message, int fd);
/* Take one: 0 with *fd a descriptor (the caller's, close-on-exec) or -1, or negative errno: -EAGAIN
 * when there is none, -EPIPE at the end, -EBADMSG for what is no message. The text is one line of
 * printable characters. */
int nbd_message_receive(int socket, struct nbd_message *message, int *fd);

#endif
