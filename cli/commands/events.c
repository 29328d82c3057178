/* vmctl events: what happens to the machines, one line each, until interrupted. */
#include "cli/client.h"
#include "cli/output.h"
#include "cli/probe.h"
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "proto/event.pb-c.h"

#include <errno.h>
#include <nanomsg/pubsub.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int print_json(const Polyvisor__Event *event, struct error *err)
{
    return output_json_line(
        json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "sequence", (json_int_t)event->sequence,
                  "time_ns", (json_int_t)event->time_ns, "kind", output_json_text(event->kind),
                  "machine", output_json_text(event->machine), "component",
                  output_json_text(event->component), "detail", output_json_text(event->detail)),
        err);
}

static int print_text(const Polyvisor__Event *event, struct error *err)
{
    time_t seconds = (time_t)(event->time_ns / NS_PER_S);
    unsigned milliseconds = (unsigned)(event->time_ns / NS_PER_MS % 1000u);
    const char *const words[] = {event->machine, event->kind, event->component, event->detail};
    char text[64] = "?";
    struct tm local;

    if (localtime_r(&seconds, &local) != NULL) {
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
    }
    printf("%s.%03u", text, milliseconds);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i][0] != '\0') {
            putchar(' ');
            output_printable(stdout, words[i]);
        }
    }
    putchar('\n');
    return output_flush(err);
}

/* Print every event that waits. 0 or a negative code. */
static int print_waiting(const struct invocation *invocation, struct channel *channel,
                         struct error *err)
{
    const char *only = invocation->positional_count > 0 ? invocation->positionals[0] : NULL;

    for (;;) {
        ProtobufCMessage *message = NULL;
        int status = channel_receive(channel, &polyvisor__event__descriptor, &message, 0);

        if (status == -EAGAIN || status == -ETIMEDOUT) {
            return 0;
        }
        if (status != 0) {
            return error_set(err, ERROR_PROTOCOL, -status, "an event cannot be read: %s",
                             strerror(-status));
        }
        const Polyvisor__Event *event = (const Polyvisor__Event *)message;
        if (only == NULL || strcmp(only, event->machine) == 0) {
            status = invocation->globals->json ? print_json(event, err) : print_text(event, err);
        }
        protobuf_c_message_free_unpacked(message, NULL);
        if (status != 0) {
            return status;
        }
    }
}

static int follow(const struct invocation *invocation, struct channel *channel, int probe,
                  struct error *err)
{
    for (;;) {
        /* Standard output: a reader that went away ends us even when nothing happens. */
        struct pollfd polls[] = {{.fd = channel_receive_fd(channel), .events = POLLIN},
                                 {.fd = probe, .events = POLLIN},
                                 {.fd = STDOUT_FILENO, .events = 0}};

        poll(polls, 3, -1);
        int status = print_waiting(invocation, channel, err);
        if (status != 0) {
            return status;
        }
        if ((polls[2].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
            return error_set(err, ERROR_IO, EPIPE, "standard output was closed");
        }
        if (polls[1].revents != 0 && probe_gone(probe)) {
            print_waiting(invocation, channel, err);
            return error_set(err, ERROR_CONNECT, 0, "vmmd has ended");
        }
    }
}

static int run(const struct invocation *invocation, struct error *err)
{
    char path[RUNTIME_PATH_MAX + 16];
    int probe = probe_open(invocation->runtime_directory, "events.sock", NN_SUB, NN_PUB,
                           invocation->globals->timeout_ms, -1, err);

    if (probe < 0) {
        return probe;
    }
    snprintf(path, sizeof(path), "%s/events.sock", invocation->runtime_directory);
    struct channel *channel = channel_connect(CHANNEL_EVENT, NN_SUB, path);
    int status = channel != NULL ? follow(invocation, channel, probe, err)
                                 : error_set(err, ERROR_CONNECT, errno, "cannot connect to %s: %s",
                                             path, strerror(errno));

    channel_close(channel);
    close(probe);
    return status;
}

const struct command command_events = {
    .name = "events",
    .summary = "print what happens to the machines",
    .usage = "[OPTION...] [NAME]",
    .description = "Prints a line for everything that happens to the machines, or to one of them: "
                   "created, started, stopped, a device that died and so on. Goes on until it is "
                   "interrupted or vmmd ends. With --json each line is an object.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 0,
    .positionals_max = 1,
    .examples = {{"vmctl events", "Follow all machines"},
                 {"vmctl events --json build1", "Follow build1, for programs"}},
    .run = run,
};
