/*
 * vmctl stop: ask the guest to power off, then insist. Its agent is asked first, by us: vmmd never
 * talks to it. Then the power key is pressed, by vmmd.
 */
#include "cli/client.h"
#include "cli/commands/machine_request.h"
#include "cli/guest_session.h"
#include "cli/guest_vsock.h"
#include "cli/machine_view.h"
#include "cli/output.h"
#include "libshared/base/clock.h"
#include <limits.h>
#include <string.h>

#define SLICE_MS 200u
#define WAIT_MS  60000u /* of one request that waits for the machine's end */
/* Of the time that the guest has, a part in so many is the agent's to answer in. */
#define ANSWER_PART 3u

struct stop_settings {
    uint32_t grace_ms;
    bool power_key;
};

/* Shadows the global --timeout: here it is the guest that is waited for. */
static const struct option_spec options[] = {
    {.name = "timeout",
     .type = &option_duration,
     .argument = "TIME",
     .default_value = "10s",
     .summary = "how long the guest may take to power off before it is ended by force; 0 = at once",
     .offset = offsetof(struct stop_settings, grace_ms)},
    {.name = "power-key",
     .type = &option_flag,
     .summary = "press the power key, also of a guest with an agent",
     .offset = offsetof(struct stop_settings, power_key)},
    {.name = NULL},
};

/* ---- Through the agent ---- */

struct asking {
    const struct invocation *invocation;
    struct client watcher; /* waits for the machine's end */
    uint64_t answer_ns, end_ns;
    struct guest_outcome outcome;
    Polyvisor__Response *ended; /* what vmmd said of the machine's end; NULL: it runs */
    struct error error;         /* the watcher's */
};

static int send_wait(struct asking *asking)
{
    Polyvisor__WaitRequest wait = POLYVISOR__WAIT_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    wait.name = machine_argument(asking->invocation);
    wait.timeout_ms = WAIT_MS;
    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    request.wait = &wait;
    return client_send(&asking->watcher, &request, WAIT_MS + asking->watcher.timeout_ms,
                       &asking->error);
}

/* Wait for at most `wait_ms`: has it ended? 0 or a negative code with the error set. */
static int look(struct asking *asking, uint32_t wait_ms)
{
    Polyvisor__Response *response = NULL;
    int status = client_receive(&asking->watcher, wait_ms, &response, &asking->error);

    if (status != 0 || response == NULL) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, &asking->error);
    if (machine && machine_state_ended(machine->state)) {
        asking->ended = response;
        return 0;
    }
    client_free(response);
    return machine ? send_wait(asking) : -ERROR_PROTOCOL;
}

/* Nothing more is to be expected of the agent. */
static bool given_up(void *context)
{
    struct asking *asking = context;
    uint64_t limit_ns = asking->outcome.answered ? asking->end_ns : asking->answer_ns;

    return clock_monotonic_ns() >= limit_ns || look(asking, 0) != 0 || asking->ended;
}

/* 0 with *agreed: the guest was at it; and *ended: NULL when it runs still. Or a negative code with
 * *err set. */
static int stop_through_agent(const struct invocation *invocation, uint64_t begin_ns, bool *agreed,
                              Polyvisor__Response **ended, struct error *err)
{
    const struct stop_settings *settings = invocation->settings;
    const char *name = machine_argument(invocation);
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    struct asking asking = {.invocation = invocation};
    char path[PATH_MAX];
    int status = client_ask_machine(invocation, name, &response, &machine, err);

    if (status != 0) {
        return status;
    }
    bool runs = machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING;
    client_free(response);
    if (!runs || guest_vsock_path(invocation, name, NULL, path, sizeof(path), err) != 0) {
        return 0;
    }
    asking.end_ns = begin_ns + settings->grace_ms * NS_PER_MS;
    asking.answer_ns = begin_ns + settings->grace_ms * NS_PER_MS / ANSWER_PART;
    status = client_open(&asking.watcher, invocation->runtime_directory,
                         invocation->globals->timeout_ms, -1, err);
    if (status != 0) {
        return status;
    }
    status = send_wait(&asking);
    *agreed = status == 0 && guest_power_off(path, given_up, &asking, &asking.outcome);
    while (status == 0 && *agreed && !asking.ended && clock_monotonic_ns() < asking.end_ns) {
        status = look(&asking, SLICE_MS);
    }
    *ended = asking.ended;
    client_close(&asking.watcher);
    if (status != 0) {
        *err = asking.error;
    }
    return status;
}

/* ---- By the power key, and by force ---- */

static int stop_by_key(const struct invocation *invocation, uint32_t grace_ms,
                       Polyvisor__Response **response, struct error *err)
{
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    stop.name = machine_argument(invocation);
    stop.timeout_ms = grace_ms;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    request.stop = &stop;
    return client_ask(invocation, &request, client_processes_ms(grace_ms), response, err);
}

static const char *const asked_texts[] = {"by its power key", "through its agent"};
static const char *const asked_words[] = {"power-key", "agent"};

/* How it went: what was asked for is a guest that powers off. */
static int report(const struct invocation *invocation, const Polyvisor__MachineInfo *machine,
                  bool agreed, struct error *err)
{
    const char *name = machine_argument(invocation);
    bool by_guest = strcmp(machine->end_reason, "power-off") == 0;
    bool by_force = strcmp(machine->end_reason, "stopped") == 0;

    if (invocation->globals->json) {
        json_t *object = machine_json(machine);
        json_object_set_new(object, "stopped_by",
                            by_guest   ? json_string(asked_words[agreed])
                            : by_force ? json_string("force")
                                       : json_null());
        return output_json(object, err);
    }
    if (by_guest) {
        output_status(invocation->globals, "%s powered off, asked %s", name, asked_texts[agreed]);
    } else if (by_force) {
        output_status(invocation->globals, "%s stopped by force", name);
    } else {
        output_status(invocation->globals, "%s ended (%s)", name, machine->end_reason);
    }
    return 0;
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct stop_settings *settings = invocation->settings;
    uint64_t begin_ns = clock_monotonic_ns();
    Polyvisor__Response *response = NULL;
    bool agreed = false;
    int status = 0;

    if (settings->grace_ms > 0 && !settings->power_key) {
        status = stop_through_agent(invocation, begin_ns, &agreed, &response, err);
    }
    if (status == 0 && response == NULL) {
        uint64_t spent_ms = (clock_monotonic_ns() - begin_ns) / NS_PER_MS;
        uint32_t left_ms =
            spent_ms < settings->grace_ms ? settings->grace_ms - (uint32_t)spent_ms : 0;
        status = stop_by_key(invocation, agreed ? 0 : left_ms, &response, err);
    }
    if (status != 0) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, err);
    status = machine ? report(invocation, machine, agreed, err) : -(int)err->code;
    client_free(response);
    return status;
}

const struct command command_stop = {
    .name = "stop",
    .summary = "ask a guest to power off, then insist",
    .usage = "[OPTION...] NAME",
    .description =
        "Asks the guest's agent to shut it down, if the machine has a vsock and an agent answers "
        "within a third of the timeout; else presses the machine's power key. Waits until the "
        "guest has powered off. When it has not after the timeout, the machine is ended by force; "
        "at once when there is no agent and the guest has no driver for the key (yet). It says "
        "how it went; with --json 'stopped_by' is 'agent', 'power-key' or 'force', or null when "
        "the machine ended in another way meanwhile.\n"
        "The agent has the guest's init shut it down; in a guest without an init it ends the other "
        "processes, makes file systems read-only and powers off. For its power key the guest needs "
        "the driver virtio_input and something that heeds the key: systemd-logind does by itself; "
        "without systemd it is acpid, with evdev.\n",
    .options = options,
    .settings_size = sizeof(struct stop_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl stop build1", "Give build1 ten seconds to power off"},
                 {"vmctl stop --timeout 2m build1", "Give it two minutes"},
                 {"vmctl --json stop build1 | jq -r .stopped_by", "Tell which way ended it"}},
    .run = run,
};
