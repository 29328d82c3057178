#include "devd/virtio.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_FEATURES                                                                              \
    (VIRTQUEUE_FEATURE_INDIRECT | VIRTQUEUE_FEATURE_EVENT_INDEX | VIRTQUEUE_FEATURE_VERSION_1 |    \
     VIRTQUEUE_FEATURE_PACKED | VIRTQUEUE_FEATURE_RESET)

/* Requests handed over in one turn of the event loop: a busy guest must not starve the control
 * channel. */
#define REQUESTS_A_TURN 256
/* The same for a stream that finds something more each time it has asked for a kick. */
#define STREAM_ROUNDS_A_TURN 4

/* An event that is made active takes part in the present turn of the loop, an expired timer in the
 * next, after all else that is ready. */
static const struct timeval next_turn = {0, 0};

static int take_descriptor(int *from)
{
    int fd = *from;
    *from = -1;
    return fd;
}

static void close_descriptor(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void signal_descriptor(int fd)
{
    uint64_t one = 1;
    /* Cannot fail but by a full counter, and then the other side has a signal already. */
    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
        log_warning("cannot signal the transport: %s", strerror(errno));
    }
}

/* ---- Queues ---- */

static void queue_settled(struct virtio_queue *queue);

static void queue_event(evutil_socket_t fd, short what, void *context)
{
    struct virtio_queue *queue = context;
    uint64_t count;

    (void)what;
    if (fd >= 0 && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN) {
        log_warning("cannot read a kick: %s", strerror(errno));
    }
    virtio_queue_pump(queue->device, queue->index);
}

/* Whether requests may be handed to the model at all. A console goes on while it stops: what the
 * guest wrote before it ended is still to be delivered. */
static bool queue_running(const struct device *device, const struct virtio_queue *queue)
{
    bool stopping = device->stopping && !device->console;
    return device->virtio->active && queue->open && !queue->ring.fault && !stopping &&
           !device->virtio->reset_done && !queue->reset_done;
}

static bool queue_ready(const struct device *device, const struct virtio_queue *queue)
{
    const struct virtio_operations *operations = &device->model->virtio;
    return queue_running(device, queue) &&
           (!operations->ready || operations->ready(device, queue->index));
}

static void queue_batch(struct device *device)
{
    if (device->model->virtio.batch) {
        device->model->virtio.batch(device);
    }
}

/* Hand over what is there, at most `budget`; the rest of the budget. */
static unsigned queue_take(struct device *device, struct virtio_queue *queue, unsigned budget)
{
    struct virtio_device *virtio = device->virtio;

    while (budget && queue_ready(device, queue)) {
        int status = virtqueue_take(&queue->ring, &virtio->chain);
        if (status < 0) {
            virtio_device_fail(device, queue->ring.fault);
        }
        if (status <= 0) {
            break;
        }
        budget--;
        device->model->virtio.request(device, queue->index, &virtio->chain);
    }
    queue_batch(device);
    return budget;
}

static bool queue_is_stream(const struct device *device, unsigned index)
{
    const struct virtio_operations *operations = &device->model->virtio;
    return operations->is_stream && operations->is_stream(device, index);
}

static void queue_pump_stream(struct device *device, struct virtio_queue *queue)
{
    enum virtio_stream status = VIRTIO_STREAM_MORE;

    virtqueue_kicks_off(&queue->ring);
    for (unsigned round = 0; round < STREAM_ROUNDS_A_TURN; round++) {
        status = device->model->virtio.stream(device, queue->index);
        if (status != VIRTIO_STREAM_EMPTY || !queue_running(device, queue) ||
            !virtqueue_kicks_on(&queue->ring)) {
            break;
        }
        status = VIRTIO_STREAM_MORE; /* unless there is another round */
    }
    if (status == VIRTIO_STREAM_MORE) {
        event_add(queue->again, &next_turn);
    }
    virtio_queue_signal(device, queue->index);
}

struct virtqueue *virtio_queue_ring(struct device *device, unsigned index)
{
    struct virtio_queue *queue = &device->virtio->queues[index];
    return queue_running(device, queue) ? &queue->ring : NULL;
}

void virtio_queue_pump(struct device *device, unsigned index)
{
    struct virtio_queue *queue = &device->virtio->queues[index];
    unsigned budget = REQUESTS_A_TURN;

    if (!queue_running(device, queue)) {
        return;
    }
    if (queue_is_stream(device, index)) {
        queue_pump_stream(device, queue);
        return;
    }
    virtqueue_kicks_off(&queue->ring);
    for (;;) {
        budget = queue_take(device, queue, budget);
        if (!budget) {
            event_add(queue->again, &next_turn);
            break;
        }
        /* Not ready: the model pumps again by itself, no kick is needed till then. */
        if (!queue_ready(device, queue) || !virtqueue_kicks_on(&queue->ring)) {
            break;
        }
    }
    virtio_queue_signal(device, index);
}

void virtio_request_complete(struct device *device, unsigned index,
                             const struct virtqueue_chain *chain, uint32_t written)
{
    struct virtio_queue *queue = &device->virtio->queues[index];

    virtqueue_complete(&queue->ring, chain, written);
    queue_settled(queue);
}

void virtio_queue_signal(struct device *device, unsigned index)
{
    struct virtio_queue *queue = &device->virtio->queues[index];
    if (device->virtio->active && queue->open && virtqueue_interrupt_wanted(&queue->ring)) {
        signal_descriptor(queue->call_fd);
    }
}

void virtio_queues_signal(struct device *device, uint32_t *queues)
{
    for (unsigned queue = 0; *queues; queue++) {
        if (*queues & (1u << queue)) {
            *queues &= ~(1u << queue);
            virtio_queue_signal(device, queue);
        }
    }
}

void virtio_device_fail(struct device *device, const char *fault)
{
    struct virtio_device *virtio = device->virtio;

    if (device_may_complain(device)) {
        log_warning("the driver broke a rule (%s): device needs a reset", fault);
    }
    for (unsigned i = 0; i < device->virtio->queue_count; i++) {
        if (!virtio->queues[i].ring.fault) {
            virtio->queues[i].ring.fault = fault;
        }
    }
    atomic_store(&virtio->state->needs_reset, 1);
    signal_descriptor(virtio->config_call);
}

/* ---- Configuration space ---- */

void virtio_config_answer(struct device *device, size_t offset, const void *bytes, size_t size)
{
    struct virtio_device *virtio = device->virtio;
    struct virtio_state *state = virtio->state;
    uint32_t generation = atomic_load(&state->generation);

    /* A process that goes on says mostly what the one before has said: that is no change. What is
     * odd was left in the middle of one. */
    if (!(generation & 1) && state->config_length >= offset + size &&
        !memcmp(state->config + offset, bytes, size)) {
        return;
    }
    generation &= ~UINT32_C(1);
    atomic_store(&state->generation, generation + 1);
    memcpy(state->config + offset, bytes, size);
    if (state->config_length < offset + size) {
        state->config_length = (uint32_t)(offset + size);
    }
    atomic_store(&state->generation, generation + 2);
}

/* In this order: a process that takes over in between tells once more. */
static void config_tell(struct device *device)
{
    struct virtio_state *state = device->virtio->state;

    signal_descriptor(device->virtio->config_call);
    atomic_store(&state->told, atomic_load(&state->generation));
}

static bool config_is_told(const struct virtio_state *state)
{
    return atomic_load(&state->told) == atomic_load(&state->generation);
}

void virtio_config_set(struct device *device, size_t offset, const void *bytes, size_t size)
{
    virtio_config_answer(device, offset, bytes, size);
    if (device->virtio->active) {
        config_tell(device);
    }
}

int virtio_device_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                               size_t size)
{
    const struct virtio_operations *operations = &device->model->virtio;
    struct virtio_state *state = device->virtio->state;

    if ((size != 1 && size != 2 && size != 4 && size != 8) || offset > VIRTIO_CONFIG_MAX - size) {
        return -EINVAL;
    }
    if (!operations->config_write) {
        return -EPERM;
    }
    bool told = config_is_told(state);
    int status = operations->config_write(device, offset, data, (unsigned)size);
    if (told) { /* the driver waits for this answer, and reads then */
        atomic_store(&state->told, atomic_load(&state->generation));
    }
    return status;
}

/* ---- Activation and reset ---- */

/* Attach to one queue; with `live` state from an earlier process go on from there. */
static int queue_open(struct device *device, struct virtio_queue *queue)
{
    struct virtio_device *virtio = device->virtio;
    struct virtio_queue_state *shared = &virtio->state->queues[queue->index];

    queue->open = false;
    if (!atomic_load(&shared->enabled)) {
        if (atomic_load(&shared->live)) { /* an earlier process died while it reset the queue */
            virtqueue_clear(shared);
        }
        return 0;
    }
    bool live = atomic_load(&shared->live);
    if (!live) {
        virtqueue_clear(shared);
    }
    int status = virtqueue_open(&queue->ring, device->memory, shared, virtio->driver_features);
    if (status < 0) {
        return status; /* reported by whoever gives up the activation */
    }
    atomic_store(&shared->live, 1);
    queue->open = true;
    return live;
}

/* Hand the requests that an earlier process had in flight to the model again, oldest first. */
static int queue_resubmit(struct device *device, struct virtio_queue *queue)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count;
    struct virtqueue_chain *chain = &device->virtio->chain;

    if (queue_is_stream(device, queue->index)) {
        return virtqueue_recover_stream(&queue->ring);
    }
    int status = virtqueue_recover(&queue->ring, heads, &count);

    if (status == 0 && count) {
        log_info("queue %u: %u requests in flight are done again", queue->index, count);
    }
    for (unsigned i = 0; status == 0 && i < count; i++) {
        status = virtqueue_resume(&queue->ring, heads[i], chain);
        if (status == 0) {
            device->model->virtio.request(device, queue->index, chain);
        }
    }
    queue_batch(device);
    return status;
}

static int device_attach_queues(struct device *device)
{
    struct virtio_device *virtio = device->virtio;
    bool live[VIRTIO_QUEUES_MAX] = {false};
    bool resumed = false;
    unsigned count = virtio->queue_count;

    for (unsigned i = 0; i < count; i++) {
        int status = queue_open(device, &virtio->queues[i]);
        if (status < 0) {
            return status;
        }
        live[i] = status;
        resumed |= live[i];
    }
    virtio->active = true;
    if (device->model->virtio.activated) {
        device->model->virtio.activated(device, resumed);
    }
    if (!resumed) { /* the driver has yet to read it */
        atomic_store(&virtio->state->told, atomic_load(&virtio->state->generation));
    } else if (!config_is_told(virtio->state)) {
        config_tell(device);
    }
    for (unsigned i = 0; i < count; i++) {
        struct virtio_queue *queue = &virtio->queues[i];
        if (live[i] && queue_resubmit(device, queue) < 0) {
            virtio_device_fail(device, queue->ring.fault);
        }
    }
    if (resumed && device->model->virtio.resubmitted) {
        device->model->virtio.resubmitted(device);
    }
    /* Kicks may have come before, or were lost with an earlier process: look at every queue. */
    for (unsigned i = 0; i < count; i++) {
        virtio_queue_pump(device, i);
    }
    return 0;
}

int virtio_device_activate(struct device *device)
{
    struct virtio_device *virtio = device->virtio;
    uint64_t features = virtio->state->driver_features;

    if (virtio->active) {
        return 0;
    }
    if ((features & ~virtio->features) || !(features & VIRTQUEUE_FEATURE_VERSION_1)) {
        if (device_may_complain(device)) {
            log_warning("the driver chose features that were not offered");
        }
        return -EINVAL;
    }
    virtio->driver_features = features;
    int status = device_attach_queues(device);
    if (status < 0) {
        for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
            virtio->queues[i].open = false;
        }
        virtio_device_fail(device, "queues set up wrongly");
    }
    return status;
}

void virtio_device_let_go(struct device *device)
{
    if (device->model->virtio.let_go) {
        device->model->virtio.let_go(device);
    }
}

void virtio_device_reset(struct device *device, void (*done)(void *context), void *context)
{
    struct virtio_device *virtio = device->virtio;

    virtio->reset_done = done;
    virtio->reset_context = context;
    virtio_device_let_go(device);
    if (!device->model->busy || !device->model->busy(device)) {
        virtio_device_settled(device);
    }
}

/* Nothing is in flight: a reset that waited for that goes on. */
void virtio_device_settled(struct device *device)
{
    struct virtio_device *virtio = device->virtio;
    void (*done)(void *) = virtio->reset_done;

    if (!done) {
        return;
    }
    virtio->active = false;
    if (device->model->virtio.reset) {
        device->model->virtio.reset(device);
    }
    for (unsigned i = 0; i < virtio->queue_count; i++) {
        virtio->queues[i].open = false;
        virtio->queues[i].reset_done = NULL; /* who asked has given up */
        virtio->queues[i].ring.fault = NULL;
        virtqueue_clear(&virtio->state->queues[i]);
    }
    atomic_store(&virtio->state->needs_reset, 0);
    virtio->reset_done = NULL;
    done(virtio->reset_context);
}

/* ---- Reset of one queue ---- */

/* Nothing of it is in flight: a reset that waited for that is done. */
static void queue_settled(struct virtio_queue *queue)
{
    void (*done)(void *, unsigned) = queue->reset_done;

    if (!done || (queue->open && queue->ring.in_flight)) {
        return;
    }
    queue->open = false;
    queue->reset_done = NULL;
    virtqueue_clear(&queue->device->virtio->state->queues[queue->index]);
    done(queue->reset_context, queue->index);
}

void virtio_queue_reset(struct device *device, unsigned index,
                        void (*done)(void *context, unsigned queue), void *context)
{
    const struct virtio_operations *operations = &device->model->virtio;
    struct virtio_queue *queue = &device->virtio->queues[index % VIRTIO_QUEUES_MAX];

    if (index >= device->virtio->queue_count) {
        done(context, index);
        return;
    }
    queue->reset_done = done;
    queue->reset_context = context;
    virtio_device_let_go(device);
    if (queue->open && operations->queue_reset) {
        operations->queue_reset(device, index);
        queue->ring.in_flight = 0;
    }
    queue_settled(queue);
}

int virtio_queue_enable(struct device *device, unsigned index)
{
    struct virtio_queue *queue = &device->virtio->queues[index % VIRTIO_QUEUES_MAX];

    if (index >= device->virtio->queue_count) {
        return -EINVAL;
    }
    /* A device that is not active will find the queue when it is activated. */
    if (!device->virtio->active || queue->open) {
        return 0;
    }
    int status = queue_open(device, queue);
    if (status < 0) {
        virtio_device_fail(device, "queue set up wrongly");
        return status;
    }
    virtio_queue_pump(device, index);
    return 0;
}

/* ---- Start and end ---- */

static int state_map(struct device *device, int fd, struct error *err)
{
    struct stat info;

    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size < (off_t)VIRTIO_STATE_SIZE) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no usable state memory", device->id);
    }
    void *map = mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot map the state of device %s",
                         device->id);
    }
    device->virtio->state = map;
    if (device->virtio->state->magic != VIRTIO_STATE_MAGIC ||
        device->virtio->state->version != VIRTIO_STATE_VERSION) {
        return error_set(err, ERROR_PROTOCOL, 0, "the state of device %s is of another version",
                         device->id);
    }
    return 0;
}

static int queue_attach(struct device *device, unsigned index,
                        struct device_descriptors *descriptors, struct error *err)
{
    struct virtio_queue *queue = &device->virtio->queues[index];

    queue->device = device;
    queue->index = index;
    queue->kick_fd = take_descriptor(&descriptors->kick[index]);
    queue->call_fd = take_descriptor(&descriptors->call[index]);
    if (queue->kick_fd < 0 || queue->call_fd < 0) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no doorbells for queue %u",
                         device->id, index);
    }
    fcntl(queue->kick_fd, F_SETFL, O_NONBLOCK);
    queue->kick = event_new(device->base, queue->kick_fd, EV_READ | EV_PERSIST, queue_event, queue);
    queue->again = event_new(device->base, -1, 0, queue_event, queue);
    if (!queue->kick || !queue->again || event_add(queue->kick, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

/* How many queues from the first on have a doorbell. */
static unsigned kicks_count(const struct device_descriptors *descriptors)
{
    unsigned count = 0;
    while (count < VIRTIO_QUEUES_MAX && descriptors->kick[count] >= 0) {
        count++;
    }
    return count;
}

int virtio_device_open(struct device *device, struct device_descriptors *descriptors,
                       struct error *err)
{
    unsigned wanted = device->model->virtio.queue_count;
    unsigned count = wanted ? wanted : kicks_count(descriptors);
    struct virtio_device *virtio = calloc(1, sizeof(*virtio));

    if (!virtio) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->virtio = virtio;
    virtio->queue_count = count;
    virtio->features = device->model->virtio.features | RING_FEATURES;
    if (device->disk.split_rings) {
        virtio->features &= ~VIRTQUEUE_FEATURE_PACKED;
    }
    virtio->config_call = take_descriptor(&descriptors->call[count]);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        virtio->queues[i].kick_fd = virtio->queues[i].call_fd = -1;
    }
    int status = state_map(device, descriptors->state, err);
    for (unsigned i = 0; status == 0 && i < count; i++) {
        status = queue_attach(device, i, descriptors, err);
    }
    return status;
}

/* Whether an earlier process left an activated device. It may also have died before it answered a
 * reset: the guest's status byte is 0 then, and what the queues say is of no use. */
static bool state_resumes(struct device *device, bool restart)
{
    struct virtio_state *state = device->virtio->state;
    uint32_t status = atomic_load(&state->status);
    bool live = false;

    for (unsigned i = 0; i < device->virtio->queue_count; i++) {
        if (status == 0 || !restart) {
            virtqueue_clear(&state->queues[i]);
        }
        live |= atomic_load(&state->queues[i].live);
    }
    return live && (status & VIRTIO_CONFIG_S_DRIVER_OK) && !atomic_load(&state->needs_reset);
}

int virtio_device_start(struct device *device, bool restart, struct error *err)
{
    struct virtio_device *virtio = device->virtio;
    struct virtio_state *state = virtio->state;
    const struct virtio_operations *operations = &device->model->virtio;

    state->device_id = operations->device_id;
    state->queue_count = virtio->queue_count;
    state->device_features = virtio->features;
    for (unsigned i = 0; i < virtio->queue_count; i++) {
        state->queues[i].size_max = operations->queue_size;
    }
    if (restart && atomic_load(&state->needs_reset)) { /* the one before may not have told that */
        signal_descriptor(virtio->config_call);
    }
    if (state_resumes(device, restart) && virtio_device_activate(device) < 0) {
        return error_set(err, ERROR_STATE, 0, "the state of device %s cannot be continued",
                         device->id);
    }
    return 0;
}

void virtio_device_close(struct device *device)
{
    struct virtio_device *virtio = device->virtio;

    if (!virtio) {
        return;
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        struct virtio_queue *queue = &virtio->queues[i];
        if (queue->kick) {
            event_free(queue->kick);
        }
        if (queue->again) {
            event_free(queue->again);
        }
        close_descriptor(queue->kick_fd);
        close_descriptor(queue->call_fd);
    }
    close_descriptor(virtio->config_call);
    if (virtio->state) {
        munmap(virtio->state, VIRTIO_STATE_SIZE);
    }
    free(virtio);
    device->virtio = NULL;
}
