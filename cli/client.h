/*
 * A conversation with vmmd over its control socket. Every call has a deadline and ends at once
 * when vmmd does. One request is on the way at a time: a new one abandons the last.
 */
#ifndef POLYVISOR_CLI_CLIENT_H
#define POLYVISOR_CLI_CLIENT_H

#include "cli/command.h"
#include "proto/control.pb-c.h"

struct channel;

struct client {
    struct channel *channel;
    int probe;        /* see probe.h */
    int interrupt_fd; /* readable = give up; -1 = none */
    uint32_t timeout_ms;
    uint64_t request_id; /* of the request on its way, or the last one */
};

/* 0 or a negative code with *err set. On failure nothing is left open. */
int client_open(struct client *client, const char *directory, uint32_t timeout_ms, int interrupt_fd,
                struct error *err);
void client_close(struct client *client); /* a client of zeroes was never opened: no effect */

/* Send a request; its id and deadline are filled in here. vmmd is given `deadline_ms`. */
int client_send(struct client *client, Polyvisor__Request *request, uint32_t deadline_ms,
                struct error *err);
/* Readable when client_receive has something to say: an answer in [0], vmmd's end in [1]. */
void client_descriptors(const struct client *client, int descriptors[2]);
/* The answer to the last request. 0 with *response set (free it with client_free), 0 with *response
 * NULL when none came within wait_ms, or a negative code with *err set; an error that vmmd answered
 * with is returned like one of our own. */
int client_receive(struct client *client, uint32_t wait_ms, Polyvisor__Response **response,
                   struct error *err);
/* Both, with the client's timeout plus `extra_ms` for what vmmd is asked to wait for. `response`
 * may be NULL when success is all there is to know. */
int client_call(struct client *client, Polyvisor__Request *request, uint32_t extra_ms,
                Polyvisor__Response **response, struct error *err);
void client_free(Polyvisor__Response *response);
/* The `extra_ms` of a request that starts or ends a machine's processes: what vmmd gives those to
 * get ready or to end, at most, and `grace_ms` that the guest is given first. vmmd ends what takes
 * longer and always has an answer; who gave up before, on a host that starts twenty machines at
 * once, would not know what became of them. */
uint32_t client_processes_ms(uint32_t grace_ms);

/* For commands that ask one thing: open for `invocation`, call, close. */
int client_ask(const struct invocation *invocation, Polyvisor__Request *request, uint32_t extra_ms,
               Polyvisor__Response **response, struct error *err);

/* Ask vmmd about the machine of that name. 0 with *machine, which lives as long as *response (free
 * it with client_free), or a negative code with *err set. */
int client_ask_machine(const struct invocation *invocation, const char *name,
                       Polyvisor__Response **response, const Polyvisor__MachineInfo **machine,
                       struct error *err);
/* The machine an answer is about, or NULL with *err set when it names none. */
const Polyvisor__MachineInfo *client_machine(const Polyvisor__Response *response,
                                             struct error *err);

#endif
