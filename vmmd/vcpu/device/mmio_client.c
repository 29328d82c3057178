#include "vmmd/vcpu/device/mmio_client.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "vmmd/vcpu/device/doorbell.h"
#include "vmmd/vcpu/device/kick.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long to sleep between looks at a full ring; the device does not announce that it took one. */
#define RING_POLL_NS 20000
/* How often who waits asks whether there is still a reason to. */
#define HOPE_NS UINT64_C(100000000)
/* Each miss in a row halves the patience, so that a device which comes and goes costs little. */
#define PATIENCE_HALVINGS_MAX 10

struct register_value {
    uint8_t offset, size;
    uint8_t value;
};

/* What is known about a kind of device when it is not there. Lists end with size 0. */
static const struct device_manner {
    const char *kind;
    struct register_value silent[4]; /* reads, other registers are all ones */
    struct register_value quiet[6];  /* writes that stop it from doing anything on its own */
} MANNERS[] = {
    {
        .kind = "serial",
        /* Transmitter empty and nothing received, so that no guest waits; no interrupt pending. */
        .silent = {{5, 1, 0x60}, {2, 1, 0x01}},
        /* Divisor access off first, then interrupts, FIFO and modem lines. */
        .quiet = {{3, 1, 0}, {1, 1, 0}, {2, 1, 0}, {4, 1, 0}},
    },
    {
        .kind = "rtc",
        .quiet = {{0x10, 4, 0}, {0x14, 4, 1}, {0x1c, 4, 1}},
    },
    {
        .kind = "watchdog",
        .silent = {{0x10, 4, 0}, {0x14, 4, 0}, {0x18, 4, 0}},
        .quiet = {{0x18, 4, 0}},
    },
};

static const struct device_manner UNKNOWN_MANNER = {.kind = ""};

struct mmio_client {
    struct mmio_client_config config;
    const struct device_manner *manner;
    struct irq_line irq;
    pthread_mutex_t irq_lock; /* orders level samples; leaf */
    _Atomic bool dead;
    pthread_mutex_t lock; /* the rest: one access of the guest at a time */
    uint32_t head;        /* ours; the page has a copy */
    uint64_t sequence;    /* of the last read asked */
    uint32_t dead_tail;   /* where the device stood when it was given up */
    unsigned misses;      /* deadlines in a row */
    struct kick_memory kick;
    uint32_t shadow_from; /* shadows hold once the device has taken all before this index */
};

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

/* --- interrupt line -------------------------------------------------------------------------- */

void mmio_client_update_irq(struct mmio_client *client)
{
    pthread_mutex_lock(&client->irq_lock);
    bool level = !atomic_load(&client->dead) && atomic_load(&client->config.channel->irq_level);
    irq_line_set(&client->irq, level);
    pthread_mutex_unlock(&client->irq_lock);
}

/* --- ring ------------------------------------------------------------------------------------ */

/* Accesses the device has not taken. More than the ring holds: the device wrote nonsense. */
static uint32_t ring_waiting(const struct mmio_client *client)
{
    return client->head - atomic_load(&client->config.channel->tail);
}

/* Wake the device if it sleeps. */
static void ring_kick(struct mmio_client *client)
{
    struct mmio_channel *channel = client->config.channel;
    uint32_t tail = atomic_load(&channel->tail);
    bool sleeps = atomic_load(&channel->device_sleeps) != 0;
    if (kick_wanted(&client->kick, client->head, tail, sleeps) &&
        doorbell_ring(client->config.kick) != 0) {
        client->kick.given = false; /* full: it is readable anyway */
    }
}

/* There is room. */
static void ring_post(struct mmio_client *client, const struct mmio_access *access)
{
    struct mmio_channel *channel = client->config.channel;
    channel->ring[client->head % MMIO_CHANNEL_RING] = *access;
    client->head++;
    if (access->offset != 0) {
        client->shadow_from = client->head; /* data (offset 0) changes no shadow, control may */
    }
    atomic_store(&channel->head, client->head);
    ring_kick(client);
}

/* How long a CPU waits, and when it says that it does. */
struct patience {
    uint64_t slow_ns, deadline_ns; /* clock_monotonic_ns; slow_ns 0: it was said */
};

static bool is_hopeless(const struct mmio_client *client)
{
    return client->config.hopeless && client->config.hopeless(client->config.context);
}

/* How long to wait before looking again; 0 when the deadline has passed. */
static uint64_t patience_left(struct mmio_client *client, struct patience *patience)
{
    uint64_t now = clock_monotonic_ns();
    if (patience->slow_ns && now >= patience->slow_ns) {
        patience->slow_ns = 0;
        client->config.slow(client->config.context);
    }
    if (now >= patience->deadline_ns || is_hopeless(client)) {
        return 0;
    }
    uint64_t left_ns = (patience->slow_ns ? patience->slow_ns : patience->deadline_ns) - now;
    return left_ns < HOPE_NS ? left_ns : HOPE_NS;
}

/* Wait until an access fits. False when it never did. */
static bool ring_wait_for_room(struct mmio_client *client, struct patience *patience)
{
    for (;;) {
        uint32_t waiting = ring_waiting(client);
        if (waiting < MMIO_CHANNEL_RING) {
            return true;
        }
        if (waiting > MMIO_CHANNEL_RING || patience_left(client, patience) == 0) {
            return false;
        }
        const struct timespec pause = {.tv_nsec = RING_POLL_NS};
        nanosleep(&pause, NULL);
    }
}

/* --- a device that is not there -------------------------------------------------------------- */

static struct patience patience_start(const struct mmio_client *client)
{
    unsigned halvings =
        client->misses < PATIENCE_HALVINGS_MAX ? client->misses : PATIENCE_HALVINGS_MAX;
    uint64_t wait_ns = (uint64_t)client->config.deadline_ms * NS_PER_MS >> halvings;
    uint64_t slow_ns = (uint64_t)client->config.slow_ms * NS_PER_MS;
    uint64_t now = clock_monotonic_ns();
    return (struct patience){
        .slow_ns = slow_ns && slow_ns < wait_ns ? now + slow_ns : 0,
        .deadline_ns = now + wait_ns,
    };
}

static void give_up(struct mmio_client *client)
{
    bool blamed = !is_hopeless(client);
    client->dead_tail = atomic_load(&client->config.channel->tail);
    client->misses += blamed;
    atomic_store(&client->dead, true);
    mmio_client_update_irq(client);
    if (blamed && client->misses == 1) {
        log_warning("%s: no answer in time", client->config.name);
        client->config.unresponsive(client->config.context);
    }
}

/* True while the device is given up and has not moved since. */
static bool still_dead(struct mmio_client *client)
{
    if (!atomic_load(&client->dead)) {
        return false;
    }
    if (atomic_load(&client->config.channel->tail) == client->dead_tail ||
        ring_waiting(client) > MMIO_CHANNEL_RING) {
        return true;
    }
    atomic_store(&client->dead, false);
    mmio_client_update_irq(client);
    return false;
}

static uint64_t silent_value(const struct mmio_client *client, uint64_t offset, unsigned size)
{
    const struct register_value *known = client->manner->silent;
    for (unsigned i = 0; i < sizeof(client->manner->silent) / sizeof(known[0]); i++) {
        if (known[i].size == size && known[i].offset == offset) {
            return known[i].value;
        }
    }
    return size_mask(size);
}

/* --- reads ----------------------------------------------------------------------------------- */

static bool shadow_read(struct mmio_client *client, uint64_t offset, unsigned size, uint64_t *value)
{
    struct mmio_channel *channel = client->config.channel;
    bool behind = (int32_t)(client->shadow_from - atomic_load(&channel->tail)) > 0;
    if (size != 1 || offset >= MMIO_CHANNEL_SHADOWS || behind || atomic_load(&client->dead) ||
        !(atomic_load(&channel->shadow_valid) >> offset & 1)) {
        return false;
    }
    *value = atomic_load(&channel->shadow[offset]) & size_mask(size);
    return true;
}

/* Wait for the answer to the last request. False at the deadline. */
static bool answer_wait(struct mmio_client *client, struct patience *patience, uint64_t *value)
{
    struct mmio_channel *channel = client->config.channel;
    struct pollfd reply = {.fd = client->config.reply, .events = POLLIN};
    for (;;) {
        if (atomic_load(&channel->answer_sequence) == client->sequence) {
            *value = atomic_load(&channel->answer_value);
            return true;
        }
        uint64_t left_ns = patience_left(client, patience);
        if (left_ns == 0) {
            return false;
        }
        const struct timespec left = clock_timespec(left_ns);
        if (ppoll(&reply, 1, &left, NULL) > 0) {
            int result = doorbell_take(client->config.reply);
            if (result != 0 && result != -EAGAIN) {
                return false;
            }
        }
    }
}

static void request_post(struct mmio_client *client, uint64_t offset, unsigned size)
{
    const struct mmio_access access = {
        .offset = (uint32_t)offset,
        .size = (uint8_t)size,
        .is_read = 1,
        .sequence = ++client->sequence,
    };
    ring_post(client, &access);
}

/* Under the lock. */
static uint64_t request_read(struct mmio_client *client, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    if (still_dead(client)) {
        if (ring_waiting(client) == 0) {
            request_post(client, offset, size); /* a probe: taking it shows life */
        }
        return silent_value(client, offset, size);
    }
    struct patience patience = patience_start(client);
    if (ring_wait_for_room(client, &patience)) {
        request_post(client, offset, size);
        if (answer_wait(client, &patience, &value)) {
            client->misses = 0;
            mmio_client_update_irq(client);
            return value & size_mask(size);
        }
    }
    give_up(client);
    return silent_value(client, offset, size);
}

static bool client_read(void *opaque, uint64_t offset, unsigned size, uint64_t *value)
{
    struct mmio_client *client = opaque;
    if (!shadow_read(client, offset, size, value)) {
        pthread_mutex_lock(&client->lock);
        *value = request_read(client, offset, size);
        pthread_mutex_unlock(&client->lock);
    }
    return true;
}

/* --- writes ---------------------------------------------------------------------------------- */

/* Under the lock. While the device is dead, what fits waits for its successor. */
static void post_write(struct mmio_client *client, uint64_t offset, unsigned size, uint64_t value)
{
    const struct mmio_access access = {
        .offset = (uint32_t)offset,
        .size = (uint8_t)size,
        .value = value & size_mask(size),
    };
    if (ring_waiting(client) < MMIO_CHANNEL_RING) {
        ring_post(client, &access);
    } else if (!still_dead(client)) {
        struct patience patience = patience_start(client);
        if (ring_wait_for_room(client, &patience)) {
            ring_post(client, &access);
        } else {
            give_up(client);
        }
    }
}

static bool client_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct mmio_client *client = opaque;
    pthread_mutex_lock(&client->lock);
    post_write(client, offset, size, value);
    pthread_mutex_unlock(&client->lock);
    return true;
}

const struct bus_ops MMIO_CLIENT_OPS = {.read = client_read, .write = client_write};

/* --- life ------------------------------------------------------------------------------------ */

static const struct device_manner *manner_find(const char *kind)
{
    for (unsigned i = 0; i < sizeof(MANNERS) / sizeof(MANNERS[0]); i++) {
        if (strcmp(MANNERS[i].kind, kind) == 0) {
            return &MANNERS[i];
        }
    }
    return &UNKNOWN_MANNER;
}

struct mmio_client *mmio_client_create(const struct mmio_client_config *config)
{
    struct mmio_channel *channel = config->channel;
    if (channel->magic != MMIO_CHANNEL_MAGIC || channel->version != MMIO_CHANNEL_VERSION) {
        errno = EPROTO;
        return NULL;
    }
    struct mmio_client *client = calloc(1, sizeof(*client));
    if (!client) {
        return NULL;
    }
    client->config = *config;
    client->manner = manner_find(config->kind);
    client->head = atomic_load(&channel->head);
    client->shadow_from = client->head;
    client->sequence = atomic_load(&channel->answer_sequence);
    pthread_mutex_init(&client->lock, NULL);
    pthread_mutex_init(&client->irq_lock, NULL);
    return client;
}

void mmio_client_destroy(struct mmio_client *client)
{
    if (client) {
        pthread_mutex_destroy(&client->irq_lock);
        pthread_mutex_destroy(&client->lock);
        free(client);
    }
}

void mmio_client_set_irq(struct mmio_client *client, const struct irq_line *irq)
{
    client->irq = *irq;
}

bool mmio_client_reset(struct mmio_client *client)
{
    const struct register_value *quiet = client->manner->quiet;
    const unsigned count = sizeof(client->manner->quiet) / sizeof(quiet[0]);
    pthread_mutex_lock(&client->lock);
    uint32_t waiting = ring_waiting(client);
    bool room = waiting + count <= MMIO_CHANNEL_RING;
    for (unsigned i = 0; i < count && room; i++) {
        if (quiet[i].size != 0) {
            post_write(client, quiet[i].offset, quiet[i].size, quiet[i].value);
        }
    }
    pthread_mutex_unlock(&client->lock);
    mmio_client_update_irq(client);
    /* One that wrote nonsense, or that nobody starts again, takes none. */
    return room || waiting > MMIO_CHANNEL_RING || atomic_load(&client->config.channel->given_up);
}
