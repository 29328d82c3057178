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
 *
 * The device's process may die at any moment. What it printed and who listened is in the console's
 * memory, which vmmd owns; and vmmd owns the listening socket. A client that named itself is
 * answered with a `struct console_welcome` before anything else, counts what it gets from there
 * on, and keeps the last CONSOLE_INPUT_KEPT bytes that it sent. When the connection breaks it
 * connects again under the same name: CONSOLE_RESUME says which byte of the output is to come
 * next, the welcome says which byte of the input. So both directions lose and repeat nothing.
 */
#ifndef POLYVISOR_IPC_CONSOLE_H
#define POLYVISOR_IPC_CONSOLE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE_MAGIC   0x4e435650u /* "PVCN" */
#define CONSOLE_BACKLOG (1u << 20)
/* Once output is held this much more is still taken without loss, for a producer that looks only
 * from time to time. */
#define CONSOLE_HEADROOM    (64u << 10)
#define CONSOLE_RING        (CONSOLE_BACKLOG + CONSOLE_HEADROOM)
#define CONSOLE_CLIENTS_MAX 16u
/* A client's socket may hold half of what it keeps, and the device takes little at a time. */
#define CONSOLE_SOCKET_BUFFER (64u << 10)
#define CONSOLE_INPUT_KEPT    (256u << 10)

enum console_flags {
    CONSOLE_SKIP_BACKLOG = 1,
    CONSOLE_LOSSLESS = 2,
    CONSOLE_READ_ONLY = 4, /* what the client sends is dropped */
    CONSOLE_RESUME = 8,    /* it was there before: `output` is valid */
    /* No client: it says how large the terminal is of whoever is attached, `output` columns and
     * `input` rows, is closed, and the guest hears of that where its console has a way to tell. */
    CONSOLE_SIZE = 16,
};
#define CONSOLE_SIZE_MAX 65535u

/* Positions count the bytes since the machine was started, or since the client first came. */
struct console_hello {
    uint32_t magic;
    uint32_t flags;
    uint64_t id;     /* the client's name, by chance; 0: it has none and gets no welcome */
    uint64_t output; /* the next byte it wants */
    uint64_t input;  /* bytes it has sent: taken for received by a device that does not know it */
};
_Static_assert(sizeof(struct console_hello) == 32, "wire layout");

struct console_welcome {
    uint32_t magic;
    uint32_t reserved;
    uint64_t output; /* of the byte that comes next; later than what was asked for: some are lost */
    uint64_t input;  /* of the byte to be sent next */
};
_Static_assert(sizeof(struct console_welcome) == 24, "wire layout");

/*
 * A port that is no terminal is a stream (devd/console.h): all its clients are lossless, and a
 * client gets what the guest wrote since it came, or since the last one left when there is none.
 */

/*
 * The memory of a console: a memfd of vmmd's. vmmd writes magic and version, the device's process
 * the rest; only its successor reads it, which checks everything.
 */
#define CONSOLE_MEMORY_MAGIC   0x4d435650u /* "PVCM" */
#define CONSOLE_MEMORY_VERSION 3u

/* A client that named itself. */
struct console_seat {
    uint64_t id; /* 0: free */
    uint32_t flags, reserved;
    uint64_t cursor; /* the next byte to send to it, at most */
    uint64_t taken;  /* bytes of its input that the guest's device has */
};

struct console_progress {
    uint64_t written;    /* bytes of output ever */
    uint64_t since_mark; /* of these, after the producer's mark */
};

/* What the guest's kernel said there of panics (devd/panic.h). */
#define CONSOLE_PANIC_TEXT 120u
struct console_panic {
    uint64_t examined;             /* what begins before this byte of the output is known */
    uint32_t count;                /* panics ever */
    uint32_t ended;                /* of the last one all is told */
    char text[CONSOLE_PANIC_TEXT]; /* of the last one, with a NUL */
};

struct console_memory {
    uint32_t magic, version;
    _Atomic uint32_t selected; /* which of the two is valid: switched by one store */
    _Atomic uint32_t terminal; /* the last size that was told: columns | rows << 16; 0: none was */
    struct console_progress progress[2];
    /* Input on its way to the device: from `intent_total` being more than `input_total` until they
     * are equal again. Whether the device has it is what its own saved state says. */
    uint64_t input_total; /* bytes of input that the device has */
    uint64_t intent_total, intent_taken;
    uint64_t intent_seat; /* CONSOLE_CLIENTS_MAX: of a client without a name */
    struct console_seat seats[CONSOLE_CLIENTS_MAX];
    _Atomic uint32_t panic_selected; /* which of the two is valid: switched by one store */
    uint32_t panic_reserved;
    uint64_t unread; /* of a stream: the first byte of output that no client ever got */
    struct console_panic panics[2];
    uint8_t ring[CONSOLE_RING]; /* byte n of the output is at n % CONSOLE_RING */
};
_Static_assert(offsetof(struct console_memory, seats) == 80, "shared layout");
_Static_assert(sizeof(struct console_seat) == 32, "shared layout");
#define CONSOLE_MEMORY_SIZE ((sizeof(struct console_memory) + 4095u) & ~(size_t)4095u)

#endif
