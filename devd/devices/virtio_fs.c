/*
 * virtio file system device (Virtual I/O Device 1.2, section 5.11): requests of its queues are FUSE
 * messages, which devd/fs answers from a shared directory. There is no memory window (DAX).
 *
 * Most requests take microseconds and are done at once, by the main thread: handing them over would
 * cost more than they do. What takes long by its nature (fsync, copies), what is not in the host's
 * cache, and everything for a while after something took long goes to threads, so that the device
 * answers its control channel whatever the host's disk does.
 *
 * A restarted process does requests again. Those that change names come first, since the names by
 * which others find their files depend on them.
 */
#include "devd/device.h"
#include "devd/fs/fs.h"
#include "devd/virtio.h"
#include "devd/workers.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/base/vectors.h"
#include "libshared/ipc/sandbox.h"
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_SIZE     256
#define QUEUE_PRIORITY 0u
#define INLINE_MAX     1024u /* bytes of arguments that need no memory of their own */
#define THREADS        8u
#define OPEN_FILES     65536u
#define KNOWN_FILES    131072u
#define TIDY_S         2 /* a file that was not used for so long, up to twice that, is closed */
#define SLOW_NS        UINT64_C(2000000) /* what took longer makes the next ones */
#define SLOW_FOR_NS    NS_PER_S          /* go to threads for so long */
#define REPEAT_ROUNDS  8u

struct request {
    struct work work;
    struct device *device;
    struct request *next; /* of those that are free, that wait to be alone, or are repeated */
    struct fs_message message;
    uint8_t queue;
    bool begun;         /* by an earlier process */
    uint8_t *allocated; /* arguments that did not fit in here */
    uint8_t arguments[INLINE_MAX];
    struct iovec data[VIRTIO_QUEUE_SIZE_MAX];
    struct virtqueue_chain chain;
};

struct virtio_fs {
    struct device *device;
    struct fs *fs;
    struct workers *workers;
    struct request *free, *alone;              /* `alone`: wait until nothing else runs */
    struct request *repeated, **last_repeated; /* while an earlier process's are handed over */
    bool repeating;
    unsigned busy;    /* requests taken and not completed */
    unsigned waiting; /* of these, those in `alone` */
    uint32_t signals; /* queues with something completed that were not interrupted yet */
    uint64_t slow_until_ns;
    struct event *tidy;
};

/* ---- Completion ---- */

static void request_finish(struct request *request)
{
    struct virtio_fs *own = request->device->own;

    virtio_request_complete(request->device, request->queue, &request->chain,
                            (uint32_t)request->message.replied);
    own->signals |= 1u << request->queue;
    own->busy--;
    free(request->allocated);
    request->allocated = NULL;
    request->next = own->free;
    own->free = request;
}

/* ---- Running ---- */

static void request_work(struct work *work)
{
    struct request *request = (struct request *)work;
    struct virtio_fs *own = request->device->own;

    request->message.impatient = false;
    fs_run(own->fs, &request->message);
}

static void request_done(struct work *work)
{
    request_finish((struct request *)work);
}

static void request_hand_over(struct request *request)
{
    struct virtio_fs *own = request->device->own;

    request->work.run = request_work;
    request->work.done = request_done;
    workers_submit(own->workers, &request->work);
}

/* Here and now; or by a thread when it turns out to take waiting. */
static void request_run(struct request *request)
{
    struct virtio_fs *own = request->device->own;
    uint64_t before = clock_monotonic_ns();

    request->message.impatient = true;
    fs_run(own->fs, &request->message);
    uint64_t after = clock_monotonic_ns();
    if (after - before > SLOW_NS) {
        own->slow_until_ns = after + SLOW_FOR_NS;
    }
    if (request->message.waits) {
        request_hand_over(request);
    } else {
        request_finish(request);
    }
}

/* Those that may only run alone, once they are. */
static void run_alone(struct virtio_fs *own)
{
    while (own->alone && own->busy == own->waiting) {
        struct request *request = own->alone;
        own->alone = request->next;
        own->waiting--;
        request->message.impatient = false;
        fs_run(own->fs, &request->message);
        request_finish(request);
    }
}

static void request_start(struct request *request)
{
    struct virtio_fs *own = request->device->own;
    uint32_t opcode = request->message.header.opcode;

    if (fs_is_alone(opcode)) {
        request->next = own->alone;
        own->alone = request;
        own->waiting++;
        run_alone(own);
    } else if (request->queue != QUEUE_PRIORITY &&
               (fs_is_slow(opcode) ||
                (own->slow_until_ns && clock_monotonic_ns() < own->slow_until_ns))) {
        request_hand_over(request);
    } else {
        request_run(request);
    }
}

/* After work of threads. */
static void batch_done(void *context)
{
    struct device *device = context;
    struct virtio_fs *own = device->own;

    run_alone(own);
    virtio_queues_signal(device, &own->signals);
    device_settled(device);
}

/* ---- Reading ---- */

/* Copy header and arguments; the rest is data. False: it is none of FUSE. */
static bool message_read(struct request *request)
{
    const struct virtqueue_chain *chain = &request->chain;
    struct fs_message *message = &request->message;
    const size_t head = sizeof(message->header);

    memset(message, 0, sizeof(*message));
    if (virtqueue_chain_read(chain, 0, &message->header, head) != head ||
        message->header.len < head || message->header.len > chain->readable_bytes) {
        return false;
    }
    size_t bytes = fs_argument_bytes(message->header.opcode, message->header.len - head);
    if (bytes > FS_ARGUMENTS_MAX) {
        return false;
    }
    uint8_t *to = request->arguments;
    if (bytes > sizeof(request->arguments)) {
        to = request->allocated = malloc(bytes);
    }
    if (!to || virtqueue_chain_read(chain, head, to, bytes) != bytes) {
        return false;
    }
    message->arguments = to;
    message->argument_bytes = bytes;
    message->data_bytes = message->header.len - head - bytes;
    message->data = request->data;
    message->data_count = vectors_cut(chain->segments, chain->readable_count, head + bytes,
                                      message->data_bytes, request->data, VIRTIO_QUEUE_SIZE_MAX);
    return true;
}

static struct request *request_allocate(struct virtio_fs *own)
{
    struct request *request = own->free;

    if (request) {
        own->free = request->next;
        return request;
    }
    request = malloc(sizeof(*request));
    if (request) {
        request->device = own->device;
        request->allocated = NULL;
    }
    return request;
}

static void fs_request(struct device *device, unsigned queue, const struct virtqueue_chain *chain)
{
    struct virtio_fs *own = device->own;
    struct request *request = request_allocate(own);

    if (!request) {
        virtio_request_complete(device, queue, chain, 0);
        return;
    }
    virtqueue_chain_copy(&request->chain, chain);
    request->queue = (uint8_t)queue;
    request->begun = false;
    own->busy++;
    if (!message_read(request)) {
        request->message.replied = 0;
        request_finish(request);
        return;
    }
    struct fs_message *message = &request->message;
    message->reply = request->chain.segments + request->chain.readable_count;
    message->reply_count = request->chain.writable_count;
    message->reply_room = request->chain.writable_bytes;
    message->slot = queue * SHARE_SLOTS + request->chain.head % SHARE_SLOTS;
    message->again = own->repeating;
    if (!own->repeating) {
        request_start(request);
        return;
    }
    request->begun = fs_was_begun(own->fs, message);
    request->next = NULL;
    *own->last_repeated = request;
    own->last_repeated = &request->next;
}

static void tidy_later(struct virtio_fs *own)
{
    const struct timeval later = {.tv_sec = TIDY_S};

    if (!evtimer_pending(own->tidy, NULL)) {
        evtimer_add(own->tidy, &later);
    }
}

static void tidy(evutil_socket_t fd, short what, void *context)
{
    struct virtio_fs *own = context;

    (void)fd, (void)what;
    if (fs_tidy(own->fs)) {
        tidy_later(own);
    }
}

static void fs_batch(struct device *device)
{
    struct virtio_fs *own = device->own;

    virtio_queues_signal(device, &own->signals);
    tidy_later(own);
}

/* ---- What an earlier process had in flight ---- */

static void fs_activated(struct device *device, bool resumed)
{
    struct virtio_fs *own = device->own;

    own->repeating = resumed;
    own->repeated = NULL;
    own->last_repeated = &own->repeated;
    if (!resumed) {
        fs_reset(own->fs);
    }
}

/* Do again what was begun, round by round: one may need the names that another makes. */
static void repeat_begun(struct virtio_fs *own)
{
    for (unsigned round = 0; round < REPEAT_ROUNDS; round++) {
        for (struct request *request = own->repeated; request; request = request->next) {
            if (!request->begun) {
                continue;
            }
            fs_run(own->fs, &request->message);
            request->begun = request->message.status == -ESTALE;
        }
    }
}

static void fs_resubmitted(struct device *device)
{
    struct virtio_fs *own = device->own;
    struct request *request = own->repeated;

    own->repeating = false;
    repeat_begun(own);
    own->repeated = NULL;
    while (request) {
        struct request *next = request->next;
        if (request->message.replied) {
            request_finish(request);
        } else {
            request_start(request);
        }
        request = next;
    }
    virtio_queues_signal(device, &own->signals);
}

/* ---- Device ---- */

static bool fs_busy(const struct device *device)
{
    const struct virtio_fs *own = device->own;
    return own->busy > 0;
}

static void fs_driver_reset(struct device *device)
{
    struct virtio_fs *own = device->own;
    fs_reset(own->fs);
}

static int configure(struct device *device, const struct share_setting *setting)
{
    struct virtio_fs_config config = {.num_request_queues = device->virtio->queue_count - 1};

    memcpy(config.tag, setting->tag, strnlen(setting->tag, sizeof(config.tag)));
    virtio_config_set(device, 0, &config, sizeof(config));
    snprintf(device->described, sizeof(device->described), "'%.36s'%s, cache=%s", setting->tag,
             setting->read_only ? " read-only" : "", share_cache_name(setting->cache));
    return 0;
}

/* The directory as this process may see it: in its own file system, where there is nothing else,
 * unless it has none of its own. */
static int directory_open(const struct device *device, const struct stat *expected,
                          struct error *err)
{
    struct stat inside;
    int fd = open(SANDBOX_SHARE, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && fstat(fd, &inside) == 0 && inside.st_dev == expected->st_dev &&
        inside.st_ino == expected->st_ino) {
        return fd;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (access(SANDBOX_LINKS_OUTSIDE, F_OK) < 0) {
        return error_set(err, ERROR_CONFIG, 0,
                         "the shared directory of %s is not the one it was: it was moved or "
                         "replaced",
                         device->id);
    }
    return fcntl(device->backend, F_DUPFD_CLOEXEC, 0);
}

static int share_open(struct device *device, struct virtio_fs *own, struct error *err)
{
    struct fs_options options = {.keep_in = device->keep_in, .keep_out = device->keep_out};
    struct rlimit files = {OPEN_FILES, OPEN_FILES};
    struct stat root;
    int status = share_setting_parse(device->share, ERROR_CONFIG, &options.setting, err);

    device->keep_in = device->keep_out = -1;
    if (status < 0 || fstat(device->backend, &root) < 0) {
        close(options.keep_in);
        close(options.keep_out);
        return status < 0
                   ? status
                   : error_set(err, ERROR_CONFIG, errno, "device %s got no directory", device->id);
    }
    getrlimit(RLIMIT_NOFILE, &files);
    options.state = device->share_state;
    options.known = KNOWN_FILES;
    options.cached = (unsigned)(files.rlim_cur < OPEN_FILES ? files.rlim_cur : OPEN_FILES) / 2;
    options.links =
        access(SANDBOX_LINKS_OUTSIDE, F_OK) == 0 ? SANDBOX_LINKS_OUTSIDE : SANDBOX_LINKS;
    options.host_uid = geteuid() == 0 && sandbox_confines() ? root.st_uid : geteuid();
    options.root = directory_open(device, &root, err);
    if (options.root >= 0) {
        own->fs = fs_create(&options, err);
        close(options.root);
    }
    return own->fs ? configure(device, &options.setting) : -ERROR_INTERNAL;
}

static int fs_init(struct device *device, struct error *err)
{
    struct virtio_fs *own = calloc(1, sizeof(*own));

    if (!own) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = own;
    own->device = device;
    if (device->virtio->queue_count < 2 || device->virtio->queue_count > SHARE_QUEUES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got %u queues", device->id,
                         device->virtio->queue_count);
    }
    umask(0); /* the guest has applied its own */
    own->workers = workers_create(device->base, THREADS, batch_done, device);
    if (!own->workers) {
        return error_set(err, ERROR_INTERNAL, errno, "no threads for device %s", device->id);
    }
    own->tidy = evtimer_new(device->base, tidy, own);
    if (!own->tidy) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    int status = share_open(device, own, err);
    /* It shows more of the host than the process shall see. */
    close(device->backend);
    device->backend = -1;
    return status;
}

static void requests_free(struct request *request)
{
    while (request) {
        struct request *next = request->next;
        free(request->allocated);
        free(request);
        request = next;
    }
}

static void fs_destroy_device(struct device *device)
{
    struct virtio_fs *own = device->own;

    if (own) {
        if (own->tidy) {
            event_free(own->tidy);
        }
        workers_destroy(own->workers);
        requests_free(own->free);
        requests_free(own->alone);
        fs_destroy(own->fs);
        free(own);
    }
}

DEVICE_MODEL(virtio_fs) = {
    .kind = "virtio-fs",
    .device_class = DEVICE_VIRTIO,
    .needs_backend = true,
    .shares_directory = true,
    .open_files = OPEN_FILES,
    .init = fs_init,
    .destroy = fs_destroy_device,
    .busy = fs_busy,
    .virtio =
        {
            .device_id = VIRTIO_ID_FS,
            .queue_size = QUEUE_SIZE,
            .request = fs_request,
            .batch = fs_batch,
            .activated = fs_activated,
            .resubmitted = fs_resubmitted,
            .reset = fs_driver_reset,
        },
};
