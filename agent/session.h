/*
 * A command in the guest and its streams. It lives on while no client is connected, up to a limit.
 */
#ifndef POLYVISOR_AGENT_SESSION_H
#define POLYVISOR_AGENT_SESSION_H

#include "agent/agent.h"
#include "libshared/agent/protocol.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#define SESSIONS_MAX 64u

struct connection;

/* Bytes of one stream that are not confirmed (output) or not written (input) yet. `first` is the
 * number of the first of them; a ring. */
struct kept {
    uint8_t *bytes;
    uint64_t first;
    uint32_t head, length;
};

struct session {
    bool used;
    uint8_t token[AGENT_TOKEN];
    struct connection *connection; /* or NULL */
    time_t left;                   /* when its client went, monotonic seconds */
    pid_t child;                   /* 0: it was not started, or has ended */
    bool started, ended, told;
    struct agent_ended end;
    int input, output[AGENT_STREAMS]; /* -1: closed; with a terminal input is output[0]'s twin */
    bool terminal, input_over;        /* nothing comes behind what is kept */
    struct kept keep_input, keep[AGENT_STREAMS];
    uint64_t sent[AGENT_STREAMS]; /* number of the next byte for the present connection */
    uint64_t input_confirmed;     /* told the client */
};

/* The session of that token, or NULL. */
struct session *session_find(struct session *sessions, const uint8_t *token);
/* A new one; NULL when there are too many, or memory is short. */
struct session *session_new(struct session *sessions, const uint8_t *token);
/* Ends its command. */
void session_free(struct session *session);

/* Start the command of a START frame. 0 or an errno. */
int session_start(struct session *session, const struct agent *agent, const uint8_t *frame,
                  size_t length);
/* Input numbered from `at`; none means the end. False: the client breaks the rules. */
bool session_input(struct session *session, uint64_t at, const uint8_t *bytes, size_t length);
/* The client has so much of the output. False: it cannot have. */
bool session_confirm(struct session *session, const uint64_t received[AGENT_STREAMS]);
void session_window(struct session *session, const struct agent_window *window);
void session_signal(struct session *session, uint32_t number);

/* Move bytes between the command and what is kept. */
void session_write_input(struct session *session);
void session_read_output(struct session *session, enum agent_stream stream);
/* Its command ended with that wait status. */
void session_reaped(struct session *session, int status);
/* All that the command wrote has been read: its end may be told once the client has it. */
bool session_drained(const struct session *session);

size_t kept_copy(const struct kept *kept, uint64_t from, uint8_t *to, size_t size);

#endif
