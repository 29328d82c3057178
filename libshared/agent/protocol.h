/*
 * What vmctl and the guest agent say to each other, over a vsock stream (port AGENT_PORT of the
 * guest) that may end at any time: each end can die, and so can the device between them. A
 * *session* is one command in the guest. It outlives connections: both directions are numbered by
 * bytes, both ends keep what the other has not confirmed, and a client that comes back with its
 * token goes on where it was, with nothing lost and nothing twice.
 *
 * A frame is a header and `length` bytes. All numbers are little-endian. Each end takes the other
 * for hostile. This header is all that both share, and needs no library: the agent is a small
 * static program.
 *
 *   client                                  agent
 *   HELLO token, received            -->
 *                                    <--    WELCOME known, received
 *   START command            (not known)
 *   INPUT at, bytes                  <->    OUTPUT stream, at, bytes
 *   CONFIRM received                 <->    CONFIRM received
 *   WINDOW, SIGNAL                   -->
 *                                    <--    ENDED status     (after all output), or FAILED reason
 *   BYE                              -->
 */
#ifndef POLYVISOR_AGENT_PROTOCOL_H
#define POLYVISOR_AGENT_PROTOCOL_H

#include <stdint.h>

#define AGENT_PORT      5056u
#define AGENT_MAGIC     UINT32_C(0x47415650) /* "PVAG" */
#define AGENT_VERSION   1u
#define AGENT_TOKEN     16
#define AGENT_FRAME_MAX (64u << 10)  /* bytes of a frame behind its header */
#define AGENT_DATA_MAX  (32u << 10)  /* bytes of a stream in one frame */
#define AGENT_KEPT_MAX  (256u << 10) /* bytes of a stream sent and not confirmed */
#define AGENT_WORDS_MAX 4096u        /* of a command and its environment */

enum agent_frame_type {
    AGENT_HELLO = 1,
    AGENT_WELCOME,
    AGENT_START,
    AGENT_INPUT,
    AGENT_OUTPUT,
    AGENT_CONFIRM,
    AGENT_WINDOW,
    AGENT_SIGNAL,
    AGENT_ENDED,
    AGENT_FAILED,
    AGENT_BYE,
};

enum agent_stream { AGENT_STDOUT = 0, AGENT_STDERR = 1, AGENT_STREAMS = 2 };

struct agent_header {
    uint32_t length;
    uint8_t type;
    uint8_t zero[3];
};

struct agent_hello {
    uint32_t magic, version;
    uint8_t token[AGENT_TOKEN];
    uint64_t received[AGENT_STREAMS];
};

struct agent_welcome {
    uint32_t version;
    uint32_t known;    /* the session is there: go on */
    uint64_t received; /* of the input */
};

enum agent_start_flags {
    AGENT_START_TERMINAL = 1, /* with a terminal of its own; all output is AGENT_STDOUT */
    AGENT_START_BUILTIN = 2,  /* the agent does it itself: put PATH MODE, get PATH, kind PATH,
                               * status, rescan, eject ADDRESS, poweroff, reboot */
};

/* Then the words of the command, the environment's (NAME=VALUE), and the folder it starts in (may
 * be empty), each ended by a zero byte. */
struct agent_start {
    uint32_t flags;
    uint16_t rows, columns;
    uint32_t arguments, variables;
};

/* INPUT and OUTPUT; then the bytes. None: the end of the input. */
struct agent_data {
    uint64_t at;
    uint32_t stream, zero;
};

struct agent_confirm {
    uint64_t received[AGENT_STREAMS]; /* of the input: the first */
};

struct agent_window {
    uint16_t rows, columns;
};

struct agent_signal {
    uint32_t number;
};

struct agent_ended {
    uint32_t by_signal, status; /* the signal's number, or the exit status */
};

/* Then a text. */
struct agent_failed {
    uint32_t cause; /* errno */
};

_Static_assert(sizeof(struct agent_header) == 8 && sizeof(struct agent_hello) == 40 &&
                   sizeof(struct agent_start) == 16 && sizeof(struct agent_data) == 16,
               "layout on the wire");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are little-endian");

#endif
