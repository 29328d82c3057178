#include "devd/mmio.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Accesses taken in one turn of the event loop. */
#define ACCESSES_A_TURN 4096

/* An event that is made active takes part in the present turn of the loop, an expired timer in the
 * next, after all else that is ready. */
static const struct timeval next_turn = {0, 0};

struct mmio_slot {
    uint32_t tail;
    uint32_t interrupt;
    uint64_t answer_sequence;
    uint64_t answer_value;
    uint8_t registers[MMIO_REGISTERS_MAX];
};

/* What device_state of the channel holds. */
struct mmio_saved {
    uint32_t version; /* of the model's registers; 0: nothing saved yet */
    uint32_t size;
    _Atomic uint32_t selected; /* 0 or 1 */
    uint32_t reserved;
    struct mmio_slot slots[2];
};
_Static_assert(sizeof(struct mmio_slot) == 496, "saved layout");
_Static_assert(sizeof(struct mmio_saved) <= sizeof(((struct mmio_channel *)0)->device_state),
               "fits the channel");

struct mmio_device {
    struct mmio_channel *channel;
    struct mmio_saved *saved; /* channel->device_state */
    struct mmio_slot now;     /* all but the registers, which are the model's */
    int kick, call, reply;
    struct event *kicked;
    struct event *again;
};

static int take_descriptor(int *from)
{
    int fd = *from;
    *from = -1;
    return fd;
}

static void signal_descriptor(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
        log_warning("cannot signal vcpud: %s", strerror(errno));
    }
}

static void registers_save(struct device *device)
{
    struct mmio_device *mmio = device->mmio;
    struct mmio_saved *saved = mmio->saved;
    uint32_t other = !(atomic_load_explicit(&saved->selected, memory_order_relaxed) & 1);
    struct mmio_slot *slot = &saved->slots[other];

    memcpy(slot, &mmio->now, offsetof(struct mmio_slot, registers));
    memcpy(slot->registers, device->registers, device->model->mmio.registers_size);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&saved->selected, other, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

static void shadows_publish(struct device *device)
{
    struct mmio_channel *channel = device->mmio->channel;
    uint64_t values[MMIO_CHANNEL_SHADOWS] = {0};

    if (!device->model->mmio.shadows) {
        return;
    }
    uint32_t valid = device->model->mmio.shadows(device, values);
    /* First take back what is not exact any more, so that no reader mixes old and new. */
    atomic_fetch_and(&channel->shadow_valid, valid);
    for (unsigned i = 0; i < MMIO_CHANNEL_SHADOWS; i++) {
        if (valid & (1u << i)) {
            atomic_store(&channel->shadow[i], values[i]);
        }
    }
    atomic_store(&channel->shadow_valid, valid);
}

/* Save, then make interrupt level and shadows visible. */
void mmio_device_update(struct device *device)
{
    struct mmio_device *mmio = device->mmio;
    uint32_t level = device->model->mmio.interrupt(device);
    bool changed = level != mmio->now.interrupt;

    mmio->now.interrupt = level;
    registers_save(device);
    shadows_publish(device);
    if (changed) {
        atomic_store(&mmio->channel->irq_level, level);
        signal_descriptor(mmio->call);
    }
}

static void answer_publish(struct mmio_device *mmio)
{
    atomic_store_explicit(&mmio->channel->answer_value, mmio->now.answer_value,
                          memory_order_relaxed);
    atomic_store_explicit(&mmio->channel->answer_sequence, mmio->now.answer_sequence,
                          memory_order_release);
    signal_descriptor(mmio->reply);
}

static void access_act(struct device *device, const struct mmio_access *access)
{
    struct mmio_device *mmio = device->mmio;
    const struct mmio_operations *operations = &device->model->mmio;
    bool valid = access->size == 1 || access->size == 2 || access->size == 4 || access->size == 8;

    mmio->now.tail++;
    if (!access->is_read) {
        if (valid) {
            operations->write(device, access->offset, access->size, access->value);
        }
        mmio_device_update(device);
    } else {
        mmio->now.answer_value = valid ? operations->read(device, access->offset, access->size) : 0;
        mmio->now.answer_sequence = access->sequence;
        mmio_device_update(device);
        answer_publish(mmio);
    }
    atomic_store_explicit(&mmio->channel->tail, mmio->now.tail, memory_order_release);
}

/* Take at most `*budget` accesses, and count it down; false when there may be more. */
static bool ring_take(struct device *device, unsigned *budget)
{
    struct mmio_device *mmio = device->mmio;
    struct mmio_channel *channel = mmio->channel;

    for (;;) {
        uint32_t waiting = atomic_load(&channel->head) - mmio->now.tail;
        if (waiting == 0) {
            return true;
        }
        if (waiting > MMIO_CHANNEL_RING) {
            if (device_may_complain(device)) {
                log_warning("vcpud's ring position is impossible: accesses are dropped");
            }
            mmio->now.tail += waiting;
            mmio_device_update(device);
            atomic_store(&channel->tail, mmio->now.tail);
            return true;
        }
        for (; waiting > 0; waiting--, --*budget) {
            if (*budget == 0) {
                return false;
            }
            struct mmio_access access;
            memcpy(&access, &channel->ring[mmio->now.tail % MMIO_CHANNEL_RING], sizeof(access));
            __asm__ volatile("" : "+m"(access)); /* from here on only the copy */
            access_act(device, &access);
        }
    }
}

/* Take what is there and go to sleep properly; false when there is more for another turn. */
static bool ring_settle(struct device *device, unsigned budget)
{
    struct mmio_channel *channel = device->mmio->channel;

    for (;;) {
        if (!ring_take(device, &budget)) {
            return false;
        }
        atomic_store(&channel->device_sleeps, 1);
        if (atomic_load(&channel->head) == device->mmio->now.tail) {
            return true;
        }
        atomic_store(&channel->device_sleeps, 0);
    }
}

void mmio_device_drain(struct device *device)
{
    ring_settle(device, UINT32_MAX);
}

static void mmio_kicked(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    uint64_t count;

    (void)what;
    if (fd >= 0 && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN) {
        log_warning("cannot read a kick: %s", strerror(errno));
    }
    atomic_store(&device->mmio->channel->device_sleeps, 0);
    if (!ring_settle(device, ACCESSES_A_TURN)) {
        event_add(device->mmio->again, &next_turn);
    }
}

/* ---- Start and end ---- */

static int channel_map(struct device *device, int fd, struct error *err)
{
    struct mmio_device *mmio = device->mmio;
    struct stat info;

    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size < (off_t)MMIO_STATE_SIZE) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no usable state memory", device->id);
    }
    void *map = mmap(NULL, MMIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot map the state of device %s",
                         device->id);
    }
    mmio->channel = map;
    mmio->saved = (struct mmio_saved *)mmio->channel->device_state;
    if (mmio->channel->magic != MMIO_CHANNEL_MAGIC ||
        mmio->channel->version != MMIO_CHANNEL_VERSION) {
        return error_set(err, ERROR_PROTOCOL, 0, "the state of device %s is of another version",
                         device->id);
    }
    return 0;
}

int mmio_device_open(struct device *device, struct device_descriptors *descriptors,
                     struct error *err)
{
    struct mmio_device *mmio = calloc(1, sizeof(*mmio));

    if (!mmio) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->mmio = mmio;
    mmio->kick = take_descriptor(&descriptors->kick[0]);
    mmio->call = take_descriptor(&descriptors->call[0]);
    mmio->reply = take_descriptor(&descriptors->reply);
    if (mmio->kick < 0 || mmio->call < 0 || mmio->reply < 0) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no doorbells", device->id);
    }
    fcntl(mmio->kick, F_SETFL, O_NONBLOCK);
    mmio->kicked = event_new(device->base, mmio->kick, EV_READ | EV_PERSIST, mmio_kicked, device);
    mmio->again = event_new(device->base, -1, 0, mmio_kicked, device);
    if (!mmio->kicked || !mmio->again || event_add(mmio->kicked, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return channel_map(device, descriptors->state, err);
}

/* Go on from an earlier life's registers; whatever of its last access was not published is. */
static void registers_restore(struct device *device)
{
    struct mmio_device *mmio = device->mmio;
    const struct mmio_slot *slot = &mmio->saved->slots[atomic_load(&mmio->saved->selected) & 1];

    memcpy(&mmio->now, slot, offsetof(struct mmio_slot, registers));
    memcpy(device->registers, slot->registers, device->model->mmio.registers_size);
    if (device->model->mmio.restored) {
        device->model->mmio.restored(device);
    }
    answer_publish(mmio);
    atomic_store_explicit(&mmio->channel->tail, mmio->now.tail, memory_order_release);
}

int mmio_device_start(struct device *device, bool restart, struct error *err)
{
    struct mmio_device *mmio = device->mmio;
    const struct mmio_operations *operations = &device->model->mmio;
    struct mmio_saved *saved = mmio->saved;

    if (restart && saved->version) {
        if (saved->version != operations->registers_version ||
            saved->size != operations->registers_size) {
            return error_set(err, ERROR_STATE, 0,
                             "the registers of device %s were saved by another version",
                             device->id);
        }
        registers_restore(device);
    } else {
        mmio->now.tail = atomic_load(&mmio->channel->tail);
    }
    mmio_device_update(device);
    atomic_store(&mmio->channel->irq_level, mmio->now.interrupt);
    saved->size = operations->registers_size;
    saved->version = operations->registers_version;
    if (restart) {
        signal_descriptor(mmio->call);
    }
    /* Writes may be waiting already; the loop takes them first thing. */
    event_active(mmio->again, EV_READ, 0);
    return 0;
}

void mmio_device_close(struct device *device)
{
    struct mmio_device *mmio = device->mmio;

    if (!mmio) {
        return;
    }
    if (mmio->kicked) {
        event_free(mmio->kicked);
    }
    if (mmio->again) {
        event_free(mmio->again);
    }
    const int fds[] = {mmio->kick, mmio->call, mmio->reply};
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    if (mmio->channel) {
        munmap(mmio->channel, MMIO_STATE_SIZE);
    }
    free(mmio);
    device->mmio = NULL;
}
