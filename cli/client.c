#include "cli/client.h"

#include "cli/probe.h"
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"

#include <errno.h>
#include <nanomsg/reqrep.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* vmmd's own "not in time" says more than ours, so it gets a head start. */
#define PROCESSES_MS    90000u
#define ANSWER_SLACK_MS 500

int client_open(struct client *client, const char *directory, uint32_t timeout_ms, int interrupt_fd,
                struct error *err)
{
    char path[RUNTIME_PATH_MAX + 16];

    memset(client, 0, sizeof(*client));
    client->timeout_ms = timeout_ms;
    client->interrupt_fd = interrupt_fd;
    int probe =
        probe_open(directory, "control.sock", NN_REQ, NN_REP, timeout_ms, interrupt_fd, err);
    if (probe < 0) {
        return probe;
    }
    snprintf(path, sizeof(path), "%s/control.sock", directory);
    client->channel = channel_connect(CHANNEL_CONTROL, NN_REQ, path);
    if (client->channel == NULL) {
        int cause = errno;

        close(probe);
        return error_set(err, ERROR_CONNECT, cause, "cannot connect to %s: %s", path,
                         strerror(cause));
    }
    client->probe = probe;
    return 0;
}

void client_close(struct client *client)
{
    if (client->channel != NULL) {
        channel_close(client->channel);
        close(client->probe);
        client->channel = NULL;
    }
}

int client_send(struct client *client, Polyvisor__Request *request, uint32_t deadline_ms,
                struct error *err)
{
    request->id = ++client->request_id;
    request->deadline_ms = deadline_ms;
    int status = channel_send(client->channel, &request->base, (int)client->timeout_ms);

    switch (status) {
    case 0:
        return 0;
    case -EMSGSIZE:
        return error_set(err, ERROR_USAGE, EMSGSIZE, "the request is larger than vmmd takes");
    case -ETIMEDOUT:
        return error_set(err, ERROR_CONNECT, ETIMEDOUT, "vmmd takes no request");
    default:
        return error_set(err, ERROR_IO, -status, "cannot send to vmmd: %s", strerror(-status));
    }
}

void client_descriptors(const struct client *client, int descriptors[2])
{
    descriptors[0] = channel_receive_fd(client->channel);
    descriptors[1] = client->probe;
}

/* One message, if there is one now: as client_receive. Codes and errnos overlap, so none is mixed.
 */
static int take_message(struct client *client, Polyvisor__Response **response, struct error *err)
{
    ProtobufCMessage *message = NULL;
    int status = channel_receive(client->channel, &polyvisor__response__descriptor, &message, 0);

    if (status == -EAGAIN || status == -ETIMEDOUT) {
        return 0;
    }
    if (status != 0) {
        error_set(err, ERROR_PROTOCOL, -status, "vmmd's answer cannot be read: %s",
                  strerror(-status));
        error_hint(err, "vmctl and vmmd must be of one version; see 'vmctl version'");
        return -ERROR_PROTOCOL;
    }
    *response = (Polyvisor__Response *)message;
    /* Id 0 is for a request that vmmd could not even parse. */
    if ((*response)->id != client->request_id && (*response)->id != 0) {
        client_free(*response);
        *response = NULL;
        return error_set(err, ERROR_PROTOCOL, 0, "vmmd answered another request");
    }
    if ((*response)->error != NULL) {
        error_from_message(err, (*response)->error);
        error_component(err, "vmmd");
        status = err != NULL ? -(int)err->code : -ERROR_INTERNAL;
        client_free(*response);
        *response = NULL;
    }
    return status;
}

int client_receive(struct client *client, uint32_t wait_ms, Polyvisor__Response **response,
                   struct error *err)
{
    uint64_t deadline_ns = clock_monotonic_ns() + wait_ms * NS_PER_MS;

    *response = NULL;
    for (;;) {
        int status = take_message(client, response, err);
        uint64_t now = clock_monotonic_ns();

        if (status != 0 || *response != NULL) {
            return status;
        }
        if (probe_gone(client->probe)) {
            /* What it said last may still be in nanomsg's hands; it cannot be much later. */
            struct pollfd last = {.fd = channel_receive_fd(client->channel), .events = POLLIN};

            if (poll(&last, 1, 100) > 0) {
                status = take_message(client, response, err);
                if (status != 0 || *response != NULL) {
                    return status;
                }
            }
            error_set(err, ERROR_CONNECT, 0, "vmmd went away before it answered");
            error_hint(err, "see its log; machines that run go on without it");
            return -ERROR_CONNECT;
        }
        if (now >= deadline_ns) {
            return 0;
        }
        struct pollfd polls[] = {
            {.fd = channel_receive_fd(client->channel), .events = POLLIN},
            {.fd = client->probe, .events = POLLIN},
            {.fd = client->interrupt_fd, .events = POLLIN},
        };
        poll(polls, 3, clock_poll_ms(deadline_ns));
        if (polls[2].revents != 0) {
            return error_set(err, ERROR_CANCELLED, EINTR, "interrupted");
        }
    }
}

int client_call(struct client *client, Polyvisor__Request *request, uint32_t extra_ms,
                Polyvisor__Response **response, struct error *err)
{
    Polyvisor__Response *answer = NULL;
    uint32_t wait_ms = client->timeout_ms;

    if (__builtin_add_overflow(wait_ms, extra_ms, &wait_ms) || wait_ms > INT32_MAX) {
        wait_ms = INT32_MAX;
    }
    int status = client_send(client, request, wait_ms, err);
    if (status != 0) {
        return status;
    }
    status = client_receive(client, wait_ms + ANSWER_SLACK_MS, &answer, err);
    if (status == 0 && answer == NULL) {
        error_set(err, ERROR_TIMEOUT, ETIMEDOUT, "vmmd did not answer in time");
        error_hint(err, "--timeout waits longer than the %u ms of now", client->timeout_ms);
        return -ERROR_TIMEOUT;
    }
    if (response != NULL) {
        *response = answer;
    } else {
        client_free(answer);
    }
    return status;
}

uint32_t client_processes_ms(uint32_t grace_ms)
{
    return grace_ms < UINT32_MAX - PROCESSES_MS ? grace_ms + PROCESSES_MS : UINT32_MAX;
}

void client_free(Polyvisor__Response *response)
{
    if (response != NULL) {
        polyvisor__response__free_unpacked(response, NULL);
    }
}

int client_ask(const struct invocation *invocation, Polyvisor__Request *request, uint32_t extra_ms,
               Polyvisor__Response **response, struct error *err)
{
    struct client client;
    int status = client_open(&client, invocation->runtime_directory,
                             invocation->globals->timeout_ms, -1, err);

    if (status == 0) {
        status = client_call(&client, request, extra_ms, response, err);
        client_close(&client);
    }
    return status;
}

const Polyvisor__MachineInfo *client_machine(const Polyvisor__Response *response, struct error *err)
{
    if (response->n_machines < 1 || response->machines[0]->config == NULL) {
        error_set(err, ERROR_PROTOCOL, 0, "vmmd's answer names no machine");
        return NULL;
    }
    return response->machines[0];
}

int client_ask_machine(const struct invocation *invocation, const char *name,
                       Polyvisor__Response **response, const Polyvisor__MachineInfo **machine,
                       struct error *err)
{
    Polyvisor__ShowRequest show = POLYVISOR__SHOW_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    show.name = (char *)name; /* never written through */
    request.body_case = POLYVISOR__REQUEST__BODY_SHOW;
    request.show = &show;
    int status = client_ask(invocation, &request, 0, response, err);
    if (status != 0) {
        return status;
    }
    *machine = client_machine(*response, err);
    if (*machine == NULL) {
        client_free(*response);
        return -ERROR_PROTOCOL;
    }
    return 0;
}
