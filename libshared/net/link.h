/*
 * The link between the cards of two machines: a Unix packet socket (SOCK_SEQPACKET), one frame a
 * message behind its virtio_net_hdr_v1.
 *
 * vmmd makes the connection (vmmd/link.c) and keeps it, so that it outlives the device processes
 * at both ends and holds the frames that are under way. It hands it to the device process by a
 * second socket, descriptor `backend`: each message is one byte, LINK_CONNECTED with the
 * connection as SCM_RIGHTS, or LINK_GONE. The last message holds. Before that the two vmmds have
 * exchanged one link_hello each.
 */
#ifndef POLYVISOR_NET_LINK_H
#define POLYVISOR_NET_LINK_H

#include <stdint.h>

#define LINK_MAGIC   0x4b4c5650u /* "PVLK" */
#define LINK_VERSION 1u

struct link_hello {
    uint32_t magic, version;
};
_Static_assert(sizeof(struct link_hello) == 8, "wire layout");

enum link_message { LINK_GONE = 'g', LINK_CONNECTED = 'c' };

#endif
