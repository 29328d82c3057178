#include "vmmd/vcpu/irqchip/aclint.h"
#include <pthread.h>
#include <stdlib.h>

struct aclint {
    struct aclint_config config;
    pthread_mutex_t lock; /* guards what follows, and the order in which lines are driven */
    uint64_t mtimecmp[ACLINT_HARTS_MAX];
    bool software[ACLINT_HARTS_MAX];
};

/* The part of a 64-bit register that an access of `size` bytes at `offset` reads. */
static uint64_t extract(uint64_t whole, uint64_t offset, unsigned size)
{
    return size == 8 ? whole : (uint32_t)(whole >> (offset % 8 * 8));
}

/* The 64-bit register after a write to all or half of it. */
static uint64_t merge(uint64_t whole, uint64_t offset, unsigned size, uint64_t value)
{
    if (size == 8) {
        return value;
    }
    unsigned shift = (unsigned)(offset % 8 * 8);
    return (whole & ~(0xffffffffull << shift)) | ((uint64_t)(uint32_t)value << shift);
}

static bool access_allowed(uint64_t offset, unsigned size)
{
    return (size == 4 && offset % 4 == 0) ||
           (size == 8 && offset % 8 == 0 && offset >= ACLINT_MTIMECMP);
}

static void set_software(struct aclint *aclint, unsigned hart, bool level)
{
    if (aclint->software[hart] != level) {
        aclint->software[hart] = level;
        irq_line_set(&aclint->config.software[hart], level);
    }
}

static void set_comparator(struct aclint *aclint, unsigned hart, uint64_t deadline)
{
    aclint->mtimecmp[hart] = deadline;
    timers_set(aclint->config.timers,
               aclint->config.first_timer + hart * aclint->config.timer_stride, deadline);
}

static bool aclint_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct aclint *aclint = device;
    if (!access_allowed(offset, size)) {
        return false;
    }
    *value = 0;
    if (offset >= ACLINT_MTIME) {
        if (offset < ACLINT_MTIME + 8) {
            *value = extract(guest_clock_ticks(aclint->config.clock), offset, size);
        }
        return true;
    }
    pthread_mutex_lock(&aclint->lock);
    if (offset >= ACLINT_MTIMECMP) {
        uint64_t hart = (offset - ACLINT_MTIMECMP) / 8;
        if (hart < aclint->config.harts) {
            *value = extract(aclint->mtimecmp[hart], offset, size);
        }
    } else if (offset / 4 < aclint->config.harts) {
        *value = aclint->software[offset / 4];
    }
    pthread_mutex_unlock(&aclint->lock);
    return true;
}

static bool aclint_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct aclint *aclint = device;
    if (!access_allowed(offset, size)) {
        return false;
    }
    pthread_mutex_lock(&aclint->lock);
    if (offset >= ACLINT_MTIME) {
        if (offset < ACLINT_MTIME + 8) {
            uint64_t now = guest_clock_ticks(aclint->config.clock);
            guest_clock_set(aclint->config.clock, merge(now, offset, size, value));
            timers_clock_changed(aclint->config.timers);
        }
    } else if (offset >= ACLINT_MTIMECMP) {
        uint64_t hart = (offset - ACLINT_MTIMECMP) / 8;
        if (hart < aclint->config.harts) {
            set_comparator(aclint, (unsigned)hart,
                           merge(aclint->mtimecmp[hart], offset, size, value));
        }
    } else if (offset / 4 < aclint->config.harts) {
        set_software(aclint, (unsigned)offset / 4, value & 1);
    }
    pthread_mutex_unlock(&aclint->lock);
    return true;
}

const struct bus_ops aclint_bus_ops = {.read = aclint_read, .write = aclint_write};

struct aclint *aclint_create(const struct aclint_config *config)
{
    if (config->harts == 0 || config->harts > ACLINT_HARTS_MAX) {
        return NULL;
    }
    struct aclint *aclint = calloc(1, sizeof(*aclint));
    if (!aclint) {
        return NULL;
    }
    if (pthread_mutex_init(&aclint->lock, NULL) != 0) {
        free(aclint);
        return NULL;
    }
    aclint->config = *config;
    for (unsigned i = 0; i < config->harts; i++) {
        aclint->mtimecmp[i] = TIMER_NEVER;
    }
    return aclint;
}

void aclint_destroy(struct aclint *aclint)
{
    if (aclint) {
        pthread_mutex_destroy(&aclint->lock);
        free(aclint);
    }
}

void aclint_reset(struct aclint *aclint)
{
    pthread_mutex_lock(&aclint->lock);
    for (unsigned i = 0; i < aclint->config.harts; i++) {
        set_software(aclint, i, false);
        set_comparator(aclint, i, TIMER_NEVER);
    }
    pthread_mutex_unlock(&aclint->lock);
}
