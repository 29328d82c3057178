/* vmctl shutdown: stop all machines, then vmmd. */
#include "cli/client.h"
#include "cli/output.h"
#include "cli/probe.h"
#include "libshared/base/clock.h"

#include <errno.h>
#include <poll.h>

struct shutdown_settings {
    uint32_t grace_ms;
};

/* Shadows the global --timeout: this takes as long as the guests take. */
static const struct option_spec options[] = {
    {.name = "timeout",
     .type = &option_duration,
     .argument = "TIME",
     .default_value = "60s",
     .summary = "how long to wait for the end of vmmd",
     .offset = offsetof(struct shutdown_settings, grace_ms)},
    {.name = NULL},
};

/* vmmd's end closes the probe. */
static int wait_gone(const struct client *client, uint64_t deadline_ns, struct error *err)
{
    do {
        struct pollfd gone = {.fd = client->probe, .events = POLLIN};

        poll(&gone, 1, clock_poll_ms(deadline_ns));
        if (gone.revents != 0 && probe_gone(client->probe)) {
            return 0;
        }
    } while (clock_monotonic_ns() < deadline_ns);
    error_set(err, ERROR_TIMEOUT, ETIMEDOUT, "vmmd has not ended in time");
    error_hint(err, "it goes on stopping; 'vmctl list' shows what still runs");
    return -ERROR_TIMEOUT;
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct shutdown_settings *settings = invocation->settings;
    uint64_t deadline_ns =
        clock_monotonic_ns() + client_processes_ms(settings->grace_ms) * NS_PER_MS;
    Polyvisor__ShutdownRequest shutdown = POLYVISOR__SHUTDOWN_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    struct client client;
    int status = client_open(&client, invocation->runtime_directory,
                             invocation->globals->timeout_ms, -1, err);

    if (status != 0) {
        return status;
    }
    request.body_case = POLYVISOR__REQUEST__BODY_SHUTDOWN;
    request.shutdown = &shutdown;
    status = client_call(&client, &request, client_processes_ms(settings->grace_ms), NULL, err);
    if (status == 0 || status == -ERROR_CONNECT) {
        status = wait_gone(&client, deadline_ns, err);
    }
    client_close(&client);
    if (status == 0 && invocation->globals->json) {
        return output_json(json_pack("{s:b}", "shutdown", true), err);
    }
    if (status == 0) {
        output_status(invocation->globals, "vmmd has ended");
    }
    return status;
}

const struct command command_shutdown = {
    .name = "shutdown",
    .summary = "stop all machines and vmmd",
    .usage = "[OPTION...]",
    .description = "Stops every machine and then vmmd itself, and waits until it has ended.\n",
    .options = options,
    .settings_size = sizeof(struct shutdown_settings),
    .examples = {{"vmctl shutdown", "Stop everything"}},
    .run = run,
};
