#include "devd/device.h"
#include "devd/mmio.h"
#include "devd/virtio.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPLAINTS_MAX 20

/* The linker makes these around the section that DEVICE_MODEL fills; a program without any device
 * has neither. */
extern const struct device_model *const __start_device_models[] __attribute__((weak));
extern const struct device_model *const __stop_device_models[] __attribute__((weak));

const struct device_model *device_model_find(const char *kind)
{
    for (const struct device_model *const *entry = __start_device_models;
         entry < __stop_device_models; entry++) {
        if (strcmp((*entry)->kind, kind) == 0) {
            return *entry;
        }
    }
    return NULL;
}

void device_descriptors_clear(struct device_descriptors *descriptors)
{
    memset(descriptors, 0xff, sizeof(*descriptors));
}

static void device_port_close(struct device_port *port)
{
    descriptor_close(&port->listener);
    descriptor_close(&port->plain);
    descriptor_close(&port->memory);
}

static void device_descriptors_close(struct device_descriptors *descriptors)
{
    descriptor_close(&descriptors->state);
    descriptor_close(&descriptors->reply);
    descriptor_close(&descriptors->backend);
    descriptor_close(&descriptors->console);
    descriptor_close(&descriptors->console_memory);
    descriptor_close(&descriptors->share_state);
    descriptor_close(&descriptors->keep_in);
    descriptor_close(&descriptors->keep_out);
    for (unsigned i = 0; i < BLOCK_BACKINGS_MAX; i++) {
        descriptor_close(&descriptors->backings[i]);
    }
    for (unsigned i = 0; i < PORTS_MAX; i++) {
        device_port_close(&descriptors->ports[i]);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        descriptor_close(&descriptors->kick[i]);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        descriptor_close(&descriptors->call[i]);
    }
}

void device_repeat_notices(struct device *device)
{
    char report[PANIC_REPORT_MAX], numbered[PANIC_REPORT_MAX + 4];

    if (device->console && console_panic(device->console, report)) {
        device_notice(device, DEVICE_NOTICE_PANIC, report);
    }
    for (unsigned i = 0; i < PORTS_MAX; i++) {
        if (device->port_consoles[i] && console_panic(device->port_consoles[i], report)) {
            snprintf(numbered, sizeof(numbered), "%u/%s", i + 1, report);
            device_notice(device, DEVICE_NOTICE_PANIC, numbered);
        }
    }
}

static void device_panicked(void *context)
{
    device_repeat_notices(context);
}

static int device_open_console(struct device *device, struct device_descriptors *descriptors,
                               struct error *err)
{
    int listener = descriptors->console;

    descriptors->console = -1;
    device->console = console_create(device->base, listener, descriptors->console_memory,
                                     device->model->console, device);
    if (!device->console) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot serve the console of device %s",
                         device->id);
    }
    if (console_watch_panics(device->console, device_panicked, device) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

static int device_take_backings(struct device *device, struct device_descriptors *descriptors,
                                struct error *err)
{
    for (unsigned i = 0; i < device->disk.backing_count; i++) {
        if (descriptors->backings[i] < 0) {
            return error_set(err, ERROR_CONFIG, 0, "device %s got no backing file %u", device->id,
                             i);
        }
        device->disk.backings[i].fd = descriptors->backings[i];
        descriptors->backings[i] = -1;
    }
    return 0;
}

/* The class's state first: the model's init fills it in. */
static int device_open(struct device *device, const struct device_settings *settings,
                       struct device_descriptors *descriptors, struct error *err)
{
    const struct device_model *model = device->model;
    bool mmio = model->device_class == DEVICE_MMIO;

    if (model->needs_backend && descriptors->backend < 0) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no backend", device->id);
    }
    if (model->console && (descriptors->console < 0 || descriptors->console_memory < 0)) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no console", device->id);
    }
    device->backend = descriptors->backend;
    device->share_state = descriptors->share_state;
    device->keep_in = descriptors->keep_in;
    device->keep_out = descriptors->keep_out;
    memcpy(device->ports, descriptors->ports, sizeof(device->ports));
    memset(descriptors->ports, 0xff, sizeof(descriptors->ports));
    descriptors->backend = descriptors->share_state = -1;
    descriptors->keep_in = descriptors->keep_out = -1;
    int status = device_take_backings(device, descriptors, err);
    if (status == 0) {
        status = mmio ? mmio_device_open(device, descriptors, err)
                      : virtio_device_open(device, descriptors, err);
    }
    if (status == 0 && model->console) {
        status = device_open_console(device, descriptors, err);
    }
    if (status == 0) {
        status = model->init(device, err);
    }
    if (status == 0 && model->limit) {
        model->limit(device, &settings->limits);
    }
    if (status == 0) {
        status = mmio ? mmio_device_start(device, settings->restart, err)
                      : virtio_device_start(device, settings->restart, err);
    }
    return status;
}

struct device *device_create(const struct device_model *model,
                             const struct device_settings *settings, struct memory *memory,
                             struct event_base *base, struct device_descriptors *descriptors,
                             struct error *err)
{
    struct device *device = calloc(1, sizeof(*device));
    if (!device) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", settings->id);
        device_descriptors_close(descriptors);
        return NULL;
    }
    device->model = model;
    device->memory = memory;
    device->base = base;
    device->backend = device->share_state = device->keep_in = device->keep_out = -1;
    device->read_only = settings->read_only;
    device->net = settings->net ? settings->net : "";
    device->vsock = settings->vsock ? settings->vsock : "";
    device->share = settings->share ? settings->share : "";
    device->balloon = settings->balloon ? settings->balloon : "";
    device->memory_kept = settings->memory_kept;
    device->link_down = settings->link_down;
    device->disk = settings->disk;
    for (unsigned i = 0; i < BLOCK_BACKINGS_MAX; i++) {
        device->disk.backings[i].fd = -1;
    }
    memset(device->ports, 0xff, sizeof(device->ports));
    device->port_settings = settings->ports;
    device->port_count = settings->port_count < PORTS_MAX ? settings->port_count : PORTS_MAX;
    snprintf(device->id, sizeof(device->id), "%s", settings->id);
    snprintf(device->serial, sizeof(device->serial), "%s",
             settings->serial ? settings->serial : "");

    int status = device_open(device, settings, descriptors, err);
    device->net = device->vsock = device->share = device->balloon = NULL; /* the caller's */
    device->disk.nbd = NULL;
    device->port_settings = NULL;
    device_descriptors_close(descriptors);
    if (status < 0) {
        device_destroy(device);
        return NULL;
    }
    return device;
}

void device_destroy(struct device *device)
{
    if (!device) {
        return;
    }
    device->model->destroy(device);
    console_destroy(device->console);
    mmio_device_close(device);
    virtio_device_close(device);
    descriptor_close(&device->backend);
    descriptor_close(&device->share_state);
    descriptor_close(&device->keep_in);
    descriptor_close(&device->keep_out);
    for (unsigned i = 0; i < PORTS_MAX; i++) {
        device_port_close(&device->ports[i]);
    }
    for (unsigned i = 0; i < BLOCK_BACKINGS_MAX; i++) {
        descriptor_close(&device->disk.backings[i].fd);
    }
    free(device);
}

bool device_may_complain(struct device *device)
{
    unsigned count = atomic_fetch_add(&device->complaints, 1);

    if (count == COMPLAINTS_MAX) {
        log_warning("further trouble of this kind is not logged");
    }
    return count < COMPLAINTS_MAX;
}

/* The last step of a stop. */
static void device_drained(void *context)
{
    struct device *device = context;
    void (*stopped)(void *) = device->stopped;

    device->stopped = NULL;
    stopped(device->stopped_context);
}

static void device_finish(struct device *device)
{
    const struct device_model *model = device->model;
    int status = model->flush ? model->flush(device) : 0;

    if (status < 0) {
        log_error("cannot flush the backend: %s", strerror(-status));
    }
    if (model->drain) {
        model->drain(device, DEVICE_STOP_MS, device_drained, device);
    } else if (device->console) {
        console_drain(device->console, DEVICE_STOP_MS, device_drained, device);
    } else {
        device_drained(device);
    }
}

static bool device_busy(const struct device *device)
{
    return device->model->busy && device->model->busy(device);
}

void device_stop(struct device *device, void (*stopped)(void *context), void *context)
{
    /* What the guest has posted before it ended is still done, kick or not. */
    if (device->mmio) {
        mmio_device_drain(device);
    } else {
        for (unsigned i = 0; i < device->virtio->queue_count; i++) {
            virtio_queue_pump(device, i);
        }
    }
    device->stopping = true;
    device->stopped = stopped;
    device->stopped_context = context;
    virtio_device_let_go(device);
    if (!device_busy(device) && device->stopped) {
        device_finish(device);
    }
}

int device_power_key(struct device *device, struct error *err)
{
    if (!device->model->power_key) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "device %s has no power key", device->id);
    }
    return device->model->power_key(device, err);
}

int device_set_limits(struct device *device, const struct limits *limits, struct error *err)
{
    if (!device->model->limit) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "device %s has no limits", device->id);
    }
    device->model->limit(device, limits);
    return 0;
}

int device_set_link(struct device *device, bool up, struct error *err)
{
    if (!device->model->set_link) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "device %s is no network card", device->id);
    }
    device->model->set_link(device, up);
    return 0;
}

int device_resize(struct device *device, uint64_t bytes, bool shrink, device_resized_fn *resized,
                  void *context, struct error *err)
{
    if (!device->model->resize) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "device %s is no disk", device->id);
    }
    return device->model->resize(device, bytes, shrink, resized, context, err);
}

int device_balloon(struct device *device, const struct device_balloon_order *order, uint64_t id,
                   device_balloon_fn *done, void *context, struct error *err)
{
    if (!device->model->balloon) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "device %s is no balloon", device->id);
    }
    return device->model->balloon(device, order, id, done, context, err);
}

void device_on_notice(struct device *device,
                      void (*noticed)(void *context, enum device_notice notice, const char *text),
                      void *context)
{
    device->noticed = noticed;
    device->noticed_context = context;
}

void device_notice(struct device *device, enum device_notice notice, const char *text)
{
    if (device->noticed) {
        device->noticed(device->noticed_context, notice, text);
    }
}

void device_settled(struct device *device)
{
    if (device_busy(device)) {
        return;
    }
    if (device->virtio) {
        virtio_device_settled(device);
    }
    if (device->stopping && device->stopped) {
        device_finish(device);
    }
}
