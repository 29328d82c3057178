/* What the agent knows of itself: for its own commands, some of which tell it. */
#ifndef POLYVISOR_AGENT_AGENT_H
#define POLYVISOR_AGENT_AGENT_H

#include "agent/clock.h"
#include <stdbool.h>

struct agent {
    struct clock clock;
    time_t began; /* monotonic seconds */
    /* It was reached over a vsock, so this is a guest, to be ended and changed. Elsewhere (--unix)
     * it is somebody's own machine. */
    bool in_guest;
};

#endif
