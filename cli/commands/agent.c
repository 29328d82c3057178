/* vmctl agent: does the guest's agent answer, and what does it tell of itself? */
#include "cli/guest_session.h"
#include "cli/output.h"
#include "libshared/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_MS  UINT64_C(1000000)
#define ANSWER_MAX 4096 /* bytes of its answer that are looked at */
#define VALUE_MAX  120

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

/* What it tells: in the order of `facts`; "" when it does not. */
enum fact { VERSION, ISA, KERNEL, UPTIME, AGENT_UPTIME, INTERVAL, STEPS, DIFFERENCE, FACTS };

static const struct {
    const char *word; /* the agent's, and of --json */
    bool is_number;
} facts[FACTS] = {
    [VERSION] = {"version", false},
    [ISA] = {"isa", false},
    [KERNEL] = {"kernel", false},
    [UPTIME] = {"uptime_s", true},
    [AGENT_UPTIME] = {"agent_uptime_s", true},
    [INTERVAL] = {"clock_interval_s", true},
    [STEPS] = {"clock_steps", true},
    [DIFFERENCE] = {"clock_difference_ms", true},
};

struct answer {
    bool answers;
    uint64_t round_trip_ms;
    char values[FACTS][VALUE_MAX];
    struct error why_not;
};

/* ---- Asking ---- */

static bool is_number(const char *text)
{
    char *end;

    errno = 0;
    strtoll(text, &end, 10);
    return *text != '\0' && *end == '\0' && errno == 0;
}

/* A line of the guest's: "WORD VALUE". What is not known is left out, and so is what is not valid.
 */
static void take_line(struct answer *answer, const char *line)
{
    for (unsigned i = 0; i < FACTS; i++) {
        size_t length = strlen(facts[i].word);
        const char *value = line + length + 1;

        if (strncmp(line, facts[i].word, length) == 0 && line[length] == ' ' &&
            strlen(value) < VALUE_MAX && (!facts[i].is_number || is_number(value))) {
            snprintf(answer->values[i], VALUE_MAX, "%s", value);
        }
    }
}

static void take_answer(struct answer *answer, int fd)
{
    char text[ANSWER_MAX + 1], *rest = NULL;
    ssize_t length = read(fd, text, ANSWER_MAX);

    text[length > 0 ? length : 0] = '\0';
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        take_line(answer, line);
    }
}

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
        take_answer(answer, ends[0]);
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
    for (unsigned i = 0; i < FACTS; i++) {
        const char *value = answer->values[i];
        json_object_set_new(object, facts[i].word,
                            !value[0]            ? json_null()
                            : facts[i].is_number ? json_integer(strtoll(value, NULL, 10))
                                                 : output_json_text(value));
    }
    return object;
}

static void add(struct output_table *table, const char *title, const char *value)
{
    output_table_add(table, title);
    output_table_add(table, value[0] ? value : "it does not tell");
}

static int print_text(const struct answer *answer, struct error *err)
{
    const char *interval = answer->values[INTERVAL], *difference = answer->values[DIFFERENCE];
    struct output_table table;
    char text[3 * VALUE_MAX];

    output_table_open(&table, 2);
    if (!answer->answers) {
        add(&table, "Answers:", "no");
        return output_table_print(&table, stdout, err);
    }
    snprintf(text, sizeof(text), "yes, in %" PRIu64 " ms", answer->round_trip_ms);
    add(&table, "Answers:", text);
    add(&table, "Version:", answer->values[VERSION]);
    add(&table, "ISA:", answer->values[ISA]);
    add(&table, "Kernel:", answer->values[KERNEL]);
    snprintf(text, sizeof(text), "%s s, the agent %s s", answer->values[UPTIME],
             answer->values[AGENT_UPTIME]);
    add(&table, "Up:", answer->values[UPTIME][0] ? text : "");
    if (strcmp(interval, "0") == 0) {
        add(&table, "Clock:", "left alone");
    } else {
        snprintf(text, sizeof(text), "looked at every %s s, set %s times%s%s%s", interval,
                 answer->values[STEPS], difference[0] ? ", " : "", difference,
                 difference[0] ? " ms behind the real-time clock" : "");
        add(&table, "Clock:", interval[0] ? text : "");
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
        return output_json(answer_json(name, answer), false, err);
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
        error_set(err, ERROR_USAGE, 0, "'agent %.40s' is unknown", action);
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
    return invocation->globals->json ? output_json(answer_json(name, &answer), false, err)
                                     : print_text(&answer, err);
}

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
    .actions = "status|ping",
    .positionals_min = 1,
    .positionals_max = 2,
    .examples = {{"vmctl agent build1", "Show what build1's agent tells"},
                 {"vmctl agent ping --wait 60s build1", "Wait until build1 can take commands"},
                 {"vmctl --json agent build1 | jq .clock_difference_ms",
                  "How far build1's clock is behind its real-time clock"}},
    .run = run,
};
