/* vmctl agent: does the guest's agent answer, and what does it tell of itself? */
#include "cli/agent_status.h"
#include "cli/guest_session.h"
#include "cli/guest_vsock.h"
#include "cli/output.h"
#include "libshared/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

struct agent_settings {
    char *vsock;
    uint32_t wait_ms;
};

static const struct option_spec options[] = {
    {.name = "wait",
     .type = &option_duration,
     .argument = "DURATION",
     .default_value = "0",
     .summary = "how long to wait for an agent that is not up yet",
     .offset = offsetof(struct agent_settings, wait_ms)},
    {.name = "vsock",
     .type = &option_file,
     .argument = "FILE",
     .summary = "the machine's vsock, instead of asking vmmd; NAME may then be anything",
     .offset = offsetof(struct agent_settings, vsock)},
    {.name = NULL},
};

struct answer {
    bool answers;
    uint64_t round_trip_ms;
    struct agent_status status;
    struct error why_not;
};

/* ---- Asking ---- */

/* 0 with *answer, also when there is no agent that answers; or a negative code with *err set. */
static int ask(const struct invocation *invocation, const char *path, struct answer *answer,
               struct error *err)
{
    const struct agent_settings *settings = invocation->settings;
    static const char *const words[] = {"status", NULL};
    struct guest_outcome outcome;
    int ends[2];

    /* A pipe takes 64 KiB: a guest that says more waits, and runs into the limit. */
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make a pipe: %s", strerror(errno));
    }
    const struct guest_command command = {
        .flags = AGENT_START_BUILTIN,
        .arguments = words,
        .input = -1,
        .output = {ends[1], -1},
        .wait_ms = settings->wait_ms,
        .limit_ms = settings->wait_ms + invocation->globals->timeout_ms,
    };
    uint64_t begin_ns = clock_monotonic_ns();
    int status = guest_session_run(path, &command, &outcome, err);
    answer->round_trip_ms = (clock_monotonic_ns() - begin_ns) / NS_PER_MS;
    answer->answers = status == 0;
    if (status == 0) {
        char text[AGENT_STATUS_MAX];
        ssize_t length = read(ends[0], text, sizeof(text));
        agent_status_parse(&answer->status, text, length > 0 ? (size_t)length : 0);
    } else if (status == -ERROR_TIMEOUT) {
        answer->why_not = *err;
        error_clear(err);
        status = 0;
    }
    close(ends[0]);
    close(ends[1]);
    return status;
}

/* ---- Telling ---- */

static json_t *answer_json(const char *name, const struct answer *answer)
{
    json_t *object =
        json_pack("{s:o, s:b}", "name", output_json_text(name), "answers", answer->answers);

    if (!answer->answers) {
        json_object_set_new(object, "reason", output_json_text(answer->why_not.message));
        return object;
    }
    json_object_set_new(object, "round_trip_ms", json_integer((json_int_t)answer->round_trip_ms));
    agent_status_json(&answer->status, object);
    return object;
}

static int print_text(const struct answer *answer, struct error *err)
{
    struct output_table table;
    char text[64];

    snprintf(text, sizeof(text), "yes, in %" PRIu64 " ms", answer->round_trip_ms);
    output_table_open(&table, 2);
    output_table_add(&table, "Answers:");
    output_table_add(&table, answer->answers ? text : "no");
    if (answer->answers) {
        agent_status_rows(&answer->status, &table);
    }
    return output_table_print(&table, stdout, err);
}

static int ping(const struct invocation *invocation, const char *name, const struct answer *answer,
                struct error *err)
{
    if (!answer->answers) {
        *err = answer->why_not;
        return -(int)err->code;
    }
    if (invocation->globals->json) {
        return output_json(answer_json(name, answer), err);
    }
    printf("the agent of %s answers, in %" PRIu64 " ms\n", name, answer->round_trip_ms);
    return output_flush(err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct agent_settings *settings = invocation->settings;
    size_t count = invocation->positional_count;
    const char *action = count == 2 ? invocation->positionals[0] : "status";
    const char *name = invocation->positionals[count - 1];
    struct answer answer = {0};
    char path[PATH_MAX];

    if (strcmp(action, "status") != 0 && strcmp(action, "ping") != 0) {
        error_set(err, ERROR_USAGE, 0, "agent: '%.40s' is none of its actions", action);
        error_hint(err, "'vmctl agent NAME', or 'vmctl agent ping NAME'");
        return -ERROR_USAGE;
    }
    int status = guest_vsock_path(invocation, name, settings->vsock, path, sizeof(path), err);
    status = status == 0 ? ask(invocation, path, &answer, err) : status;
    if (status != 0) {
        return status;
    }
    if (strcmp(action, "ping") == 0) {
        return ping(invocation, name, &answer, err);
    }
    return invocation->globals->json ? output_json(answer_json(name, &answer), err)
                                     : print_text(&answer, err);
}

/* For completion only: the action may be left out, so run() looks for itself. */
static const struct command_action actions[] = {
    {.name = "status"}, {.name = "ping"}, {.name = NULL}};

const struct command command_agent = {
    .name = "agent",
    .summary = "ask whether a guest's agent answers, and what it is",
    .usage = "[OPTION...] [status|ping] NAME",
    .description =
        "Asks polyvisor-agent in the guest, which 'vmctl exec', 'cp' and 'stop' need, for its "
        "version, the guest's instruction set and kernel, how long they run, and how it keeps the "
        "clock. The machine must have a vsock. One that does not answer is told as such, with "
        "status 0.\n"
        "'ping' only tells whether it answers: with status 0, and 13 (timeout) when it does not "
        "within --timeout. With --wait it waits for a guest that boots.\n"
        "What the guest says is shown as it says it. With --json what it does not tell is null.\n",
    .options = options,
    .settings_size = sizeof(struct agent_settings),
    .positional = POSITIONAL_ACTION,
    .actions = actions,
    .positionals_min = 1,
    .positionals_max = 2,
    .examples = {{"vmctl agent build1", "Show what build1's agent tells"},
                 {"vmctl agent ping --wait 60s build1", "Wait until build1 can take commands"},
                 {"vmctl --json agent build1 | jq .clock_difference_ms",
                  "How far build1's clock is behind its real-time clock"}},
    .run = run,
};
