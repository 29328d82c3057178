/* vmctl run: the end of its machine, when somebody asks for it. */
#include "cli/commands/run.h"
#include "cli/guest_session.h"
#include "libshared/base/clock.h"
#include "libshared/vsock/setting.h"

#include <stdlib.h>

#define SLICE_MS 200
/* For the guest to power off in: nothing is lost with a disk that goes with the machine. */
#define GRACE_MS            10000u
#define PERSISTENT_GRACE_MS 120000u
/* Of that time, a part in so many is the agent's to answer in. */
#define ANSWER_PART 3u

static void send_end(struct run *run, Polyvisor__Request *request, uint32_t grace_ms)
{
    uint32_t limit_ms = run->control.timeout_ms + client_processes_ms(grace_ms);
    struct error ignored;

    run->stop_asked = true;
    run->give_up_ns = clock_monotonic_ns() + limit_ms * NS_PER_MS;
    client_send(&run->control, request, limit_ms, &ignored);
}

void run_end_by_force(struct run *run)
{
    Polyvisor__KillRequest kill = POLYVISOR__KILL_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    kill.name = run->name;
    request.body_case = POLYVISOR__REQUEST__BODY_KILL;
    request.kill = &kill;
    run->forced = true;
    send_end(run, &request, 0);
}

/* Have vmmd press the power key, and end the machine by force after that time; 0: at once. */
static void send_stop(struct run *run, uint32_t grace_ms)
{
    Polyvisor__StopRequest stop = POLYVISOR__STOP_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    stop.name = run->name;
    stop.timeout_ms = grace_ms;
    request.body_case = POLYVISOR__REQUEST__BODY_STOP;
    request.stop = &stop;
    send_end(run, &request, grace_ms);
}

struct asking {
    struct run *run;
    int (*turn)(struct run *run, int wait_ms, struct error *err);
    uint64_t answer_ns, end_ns;
    struct guest_outcome outcome;
    int status; /* of the last turn, with the error set */
    struct error *error;
};

static bool is_over(struct asking *asking, int wait_ms, uint64_t limit_ns)
{
    const struct run *run = asking->run;

    if (asking->status == 0 && !run->ended) {
        asking->status = asking->turn(asking->run, wait_ms, asking->error);
    }
    return asking->status != 0 || run->ended || run->forced || clock_monotonic_ns() >= limit_ns;
}

/* Nothing more is to be expected of the agent. */
static bool given_up(void *context)
{
    struct asking *asking = context;

    return is_over(asking, 0, asking->outcome.answered ? asking->end_ns : asking->answer_ns);
}

/* Whether an agent has taken it on. */
static bool agent_agrees(struct asking *asking)
{
    const char *vsock = asking->run->settings->machine.vsock;
    struct vsock_setting *setting = vsock != NULL ? malloc(sizeof(*setting)) : NULL;
    struct error ignored;
    bool agreed = setting != NULL &&
                  vsock_setting_parse(vsock, ERROR_INTERNAL, setting, &ignored) == 0 &&
                  guest_power_off(setting->path, given_up, asking, &asking->outcome);

    free(setting);
    return agreed;
}

int run_power_off(struct run *run, int (*turn)(struct run *run, int wait_ms, struct error *err),
                  struct error *err)
{
    uint32_t grace_ms = run->settings->image.persistent ? PERSISTENT_GRACE_MS : GRACE_MS;
    uint64_t begin_ns = clock_monotonic_ns();
    struct asking asking = {.run = run,
                            .turn = turn,
                            .answer_ns = begin_ns + grace_ms * NS_PER_MS / ANSWER_PART,
                            .end_ns = begin_ns + grace_ms * NS_PER_MS,
                            .error = err};

    run->stop_asked = true;
    bool agreed = agent_agrees(&asking);
    while (agreed && !is_over(&asking, SLICE_MS, asking.end_ns)) {
    }
    if (asking.status == 0 && !run->ended && !run->forced) {
        uint64_t now_ns = clock_monotonic_ns();
        bool late = agreed || now_ns >= asking.end_ns;

        send_stop(run, late ? 0 : (uint32_t)((asking.end_ns - now_ns) / NS_PER_MS) + 1);
    }
    return asking.status;
}
