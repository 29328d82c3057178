/*
 * No access waits for a kick that never comes: every order in which the steps of a client and of a
 * device can follow each other is tried. The client's decision is the real one (device/kick.h), the
 * device's steps are those of devd/mmio.c.
 */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/device/kick.h"
#include <check.h>
#include <stdint.h>
#include <string.h>

enum { ACCESSES = 4, TABLE = 1 << 16 };

enum client_step { POST, LOOK_AT_TAIL, LOOK_AT_SLEEP };
enum device_step { TAKE, SAY_SLEEP, LOOK_AGAIN, SAY_AWAKE, ASLEEP, DRAIN, WAKE };

/* Everything that the two know; no padding, because states are compared as bytes. */
struct state {
    uint8_t head, tail, device_sleeps, doorbell; /* shared */
    uint8_t client, seen_tail;
    uint8_t device;
    uint8_t given, kicked_tail;
};

static struct {
    struct state seen[TABLE];
    bool used[TABLE];
    unsigned count;
} known;

typedef bool decision(struct kick_memory *kick, uint32_t head, uint32_t tail, bool device_sleeps);

/* False when it was there. */
static bool remember(const struct state *state)
{
    uint32_t hash = 2166136261u;
    for (unsigned i = 0; i < sizeof(*state); i++) {
        hash = (hash ^ ((const uint8_t *)state)[i]) * 16777619u;
    }
    unsigned at = hash % TABLE;
    for (; known.used[at]; at = (at + 1) % TABLE) {
        if (memcmp(&known.seen[at], state, sizeof(*state)) == 0) {
            return false;
        }
    }
    known.used[at] = true;
    known.seen[at] = *state;
    ck_assert_uint_lt(++known.count, TABLE / 2);
    return true;
}

/* One step of the client; false when it has nothing more to do. */
static bool client_moves(struct state *state, decision *decide)
{
    switch ((enum client_step)state->client) {
    case POST:
        if (state->head == ACCESSES) {
            return false;
        }
        state->head++;
        state->client = LOOK_AT_TAIL;
        return true;
    case LOOK_AT_TAIL:
        state->seen_tail = state->tail;
        state->client = LOOK_AT_SLEEP;
        return true;
    default: {
        struct kick_memory kick = {.given = state->given, .tail = state->kicked_tail};
        if (decide(&kick, state->head, state->seen_tail, state->device_sleeps)) {
            state->doorbell = 1;
        }
        state->given = kick.given;
        state->kicked_tail = (uint8_t)kick.tail;
        state->client = POST;
        return true;
    }
    }
}

/* One step of the device; false when it sleeps and nothing wakes it. */
static bool device_moves(struct state *state)
{
    switch ((enum device_step)state->device) {
    case TAKE:
        if (state->tail != state->head) {
            state->tail++;
        } else {
            state->device = SAY_SLEEP;
        }
        return true;
    case SAY_SLEEP:
        state->device_sleeps = 1;
        state->device = LOOK_AGAIN;
        return true;
    case LOOK_AGAIN:
        state->device = state->head == state->tail ? ASLEEP : SAY_AWAKE;
        return true;
    case SAY_AWAKE:
        state->device_sleeps = 0;
        state->device = TAKE;
        return true;
    case ASLEEP:
        if (!state->doorbell) {
            return false;
        }
        state->device = DRAIN;
        return true;
    case DRAIN:
        state->doorbell = 0;
        state->device = WAKE;
        return true;
    default:
        state->device_sleeps = 0;
        state->device = TAKE;
        return true;
    }
}

/* States in which both have come to rest and an access waits, among all that follow from this one.
 */
static unsigned lost(const struct state *state, decision *decide)
{
    if (!remember(state)) {
        return 0;
    }
    struct state by_client = *state, by_device = *state;
    bool client = client_moves(&by_client, decide), device = device_moves(&by_device);
    if (!client && !device) {
        return state->tail != state->head;
    }
    return (client ? lost(&by_client, decide) : 0) + (device ? lost(&by_device, decide) : 0);
}

static unsigned lost_from_start(decision *decide)
{
    static const enum device_step starts[] = {TAKE, ASLEEP};
    unsigned found = 0;
    memset(&known, 0, sizeof(known));
    for (unsigned i = 0; i < 2; i++) {
        struct state state;
        memset(&state, 0, sizeof(state));
        state.device = (uint8_t)starts[i];
        state.device_sleeps = starts[i] == ASLEEP;
        found += lost(&state, decide);
    }
    return found;
}

START_TEST(test_no_kick_is_lost)
{
    ck_assert_uint_eq(lost_from_start(kick_wanted), 0);
    ck_assert_uint_gt(known.count, 500);
}
END_TEST

/* As it once was: an access that the device took before the client looked counts as kicked. */
static bool forgetful(struct kick_memory *kick, uint32_t head, uint32_t tail, bool device_sleeps)
{
    (void)head;
    if (kick->given && tail == kick->tail) {
        return false;
    }
    kick->given = device_sleeps;
    kick->tail = tail;
    return device_sleeps;
}

static bool never(struct kick_memory *kick, uint32_t head, uint32_t tail, bool device_sleeps)
{
    (void)kick;
    (void)head;
    (void)tail;
    (void)device_sleeps;
    return false;
}

START_TEST(test_the_search_finds_lost_kicks)
{
    ck_assert_uint_gt(lost_from_start(forgetful), 0);
    ck_assert_uint_gt(lost_from_start(never), 0);
}
END_TEST

/* While the device is on its way to a burst of accesses it is not woken again. */
START_TEST(test_one_kick_for_a_burst)
{
    struct kick_memory kick = {0};
    ck_assert(kick_wanted(&kick, 1, 0, true));
    for (uint32_t head = 2; head < 100; head++) {
        ck_assert(!kick_wanted(&kick, head, 0, true));
    }
    ck_assert(!kick_wanted(&kick, 100, 50, false));
    ck_assert(kick_wanted(&kick, 101, 60, true));
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("kick");
    tcase_add_test(cases, test_no_kick_is_lost);
    tcase_add_test(cases, test_the_search_finds_lost_kicks);
    tcase_add_test(cases, test_one_kick_for_a_burst);
    Suite *suite = suite_create("kick");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
