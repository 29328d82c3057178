/*
 * The console socket: how a terminal attaches to a serial port or virtio-console of a guest.
 *
 * A Unix stream socket in the machine's runtime directory; the device process accepts, several
 * clients at a time. A client first sends one `struct console_hello`; after that both directions
 * carry raw console bytes. The device keeps the last 1 MiB of output: a client without
 * CONSOLE_SKIP_BACKLOG first gets that. A CONSOLE_LOSSLESS client is never overrun: when it lags a
 * whole backlog behind, the guest's transmitter is held until it catches up. Other clients that
 * lag that far lose the oldest bytes. When the machine ends, the device delivers what is
 * left and closes.
 */
#ifndef POLYVISOR_IPC_CONSOLE_H
#define POLYVISOR_IPC_CONSOLE_H

#include <stdint.h>

#define CONSOLE_MAGIC   0x4e435650u /* "PVCN" */
#define CONSOLE_BACKLOG (1u << 20)

enum console_flags {
    CONSOLE_SKIP_BACKLOG = 1,
    CONSOLE_LOSSLESS = 2,
    CONSOLE_READ_ONLY = 4, /* what the client sends is dropped */
};

struct console_hello {
    uint32_t magic;
    uint32_t flags;
};
_Static_assert(sizeof(struct console_hello) == 8, "wire layout");

#endif
