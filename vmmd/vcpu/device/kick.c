#include "vmmd/vcpu/device/kick.h"

bool kick_wanted(struct kick_memory *kick, uint32_t head, uint32_t tail, bool device_sleeps)
{
    if (tail == head) {
        kick->given = false; /* taken already: the next access needs a kick of its own */
        return false;
    }
    if (kick->given && tail == kick->tail) {
        return false;
    }
    kick->given = device_sleeps;
    kick->tail = tail;
    return device_sleeps;
}
