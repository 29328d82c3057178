#include "libshared/base/scheduling.h"

#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The shortest that there is. */
#define SLICE_NS 100000u

/* Version 0 of struct sched_attr: not every C library has it. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};
_Static_assert(sizeof(struct attributes) == 48, "SCHED_ATTR_SIZE_VER0");

void scheduling_set(enum scheduling scheduling)
{
    struct attributes attributes = {0};

    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) < 0 ||
        (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH)) {
        return; /* who gave it a policy of another kind knows better */
    }
    attributes.size = sizeof(attributes);
    attributes.runtime = scheduling == SCHEDULING_PROMPT ? SLICE_NS : 0; /* 0: the host's */
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}
