/*
 * devd: one device of one virtual machine. Started by vmmd with the descriptors it needs; it opens
 * nothing by name but its two sockets. See docs/design/devices.md.
 */
#include "devd/device.h"
#include "devd/device_control.h"
#include "devd/transport.h"
#include "libshared/base/clock.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/error.h"
#include "libshared/base/log.h"
#include "libshared/base/scheduling.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/ipc/runtime.h"
#include "libshared/ipc/sandbox.h"
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* vmmd configures a device at once; one that it forgot must not stay for ever. */
#define CONFIGURE_TIMEOUT_MS 60000
/* vcpud binds its sockets while it is configured, at the same time as this. */
#define CONNECT_TIMEOUT_MS 20000
/* nanomsg sends from a thread of its own and drops what it has not sent when the socket closes. */
#define LINGER_MS      50
#define OPEN_FILES_MAX 256

/* What a backend that talks to the network looks names up with. */
static const char *const NETWORK_FILES[] = {"/etc/resolv.conf", "/etc/hosts", NULL};

struct devd {
    const char *control_path, *id, *kind, *folder;
    const struct device_model *model;
    struct fdlist descriptors;
    struct event_base *base;
    struct event *terminate;
    struct device_control *control;
    struct memory memory;
    struct device *device;
    struct transport *transport;
    uint64_t resize_id;        /* to answer */
    struct sandbox_user owner; /* of the shared directory */
    bool stopping, read_only;
};

static int parse_arguments(struct devd *devd, int argc, char **argv)
{
    static const struct option options[] = {
        {"control", required_argument, NULL, 'c'}, {"id", required_argument, NULL, 'i'},
        {"kind", required_argument, NULL, 'k'},    {"folder", required_argument, NULL, 'f'},
        {"read-only", no_argument, NULL, 'r'},     {NULL, 0, NULL, 0},
    };
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            devd->control_path = optarg;
            break;
        case 'i':
            devd->id = optarg;
            break;
        case 'k':
            devd->kind = optarg;
            break;
        case 'f':
            devd->folder = optarg;
            break;
        case 'r':
            devd->read_only = true;
            break;
        default:
            return -EINVAL;
        }
    }
    return devd->control_path && devd->id && devd->kind && optind == argc ? 0 : -EINVAL;
}

/* A shared directory is worked on as its owner; one of root's by root without privileges. */
static int find_owner(struct devd *devd, struct error *err)
{
    struct stat status;

    for (size_t i = 0; i < devd->descriptors.count; i++) {
        const struct fdlist_entry *entry = &devd->descriptors.entries[i];
        if (strcmp(entry->name, "backend") == 0 && fstat(entry->fd, &status) == 0) {
            devd->owner = (struct sandbox_user){status.st_uid, status.st_gid};
            return 0;
        }
    }
    return error_set(err, ERROR_CONFIG, 0, "device %s got no directory", devd->id);
}

/* The folder of the control socket, where all sockets of the machine are. */
static int isolate(const struct devd *devd, struct error *err)
{
    char directory[RUNTIME_PATH_MAX];
    const char *end = strrchr(devd->control_path, '/');
    const char *const folder[] = {devd->folder, NULL};
    struct sandbox_isolation isolation = {
        .directory = directory,
        .also = devd->model->network            ? NETWORK_FILES
                : devd->model->shares_directory ? NULL
                                                : folder,
        /* Sockets may be for their owner alone. */
        .keep_user =
            devd->model->unix_sockets || (devd->model->shares_directory && devd->owner.uid == 0),
        .share = devd->model->shares_directory ? devd->folder : NULL,
        .share_read_only = devd->read_only,
        .network = devd->model->network,
    };

    snprintf(directory, sizeof(directory), "%.*s", end ? (int)(end - devd->control_path) : 0,
             devd->control_path);
    return sandbox_isolate(&isolation, err);
}

static int limit_resources(const struct device_model *model, struct error *err)
{
    const struct rlimit no_core = {0, 0};
    rlim_t most = model->open_files ? model->open_files : OPEN_FILES_MAX;
    struct rlimit files;

    /* Not more than there is: raising needs a privilege. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < most) {
        most = files.rlim_max;
    }
    files = (struct rlimit){most, most};

    /* A core would hold the guest's memory. */
    if (setrlimit(RLIMIT_CORE, &no_core) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot confine the process: %s",
                         strerror(errno));
    }
    return 0;
}

static int map_memory(struct devd *devd, const Polyvisor__DeviceConfigure *configure,
                      struct error *err)
{
    int ram = fdlist_take(&devd->descriptors, "ram");
    int codemap = fdlist_take(&devd->descriptors, "codemap");
    int status = ram < 0 || codemap < 0 ? -EBADF : 0;

    if (status == 0) {
        status =
            memory_add_region(&devd->memory, ram, configure->memory_base, configure->memory_bytes);
    }
    if (status == 0) {
        status = memory_attach_codemap(&devd->memory, codemap);
    }
    if (ram >= 0) {
        close(ram);
    }
    if (codemap >= 0) {
        close(codemap);
    }
    return status == 0 ? 0
                       : error_set(err, ERROR_MEMORY, -status, "cannot map guest memory: %s",
                                   strerror(-status));
}

/* -ENOENT becomes the -1 of "there is none". */
static int take_descriptor(struct devd *devd, const char *name)
{
    int fd = fdlist_take(&devd->descriptors, "%s", name);
    return fd < 0 ? -1 : fd;
}

static void take_descriptors(struct devd *devd, struct device_descriptors *descriptors)
{
    device_descriptors_clear(descriptors);
    descriptors->state = take_descriptor(devd, "state");
    descriptors->reply = take_descriptor(devd, "reply");
    descriptors->backend = take_descriptor(devd, "backend");
    for (unsigned i = 0; i < BLOCK_BACKINGS_MAX; i++) {
        int fd = fdlist_take(&devd->descriptors, "backing.%u", i);
        descriptors->backings[i] = fd < 0 ? -1 : fd;
    }
    descriptors->console = take_descriptor(devd, "console");
    descriptors->console_memory = take_descriptor(devd, "console-memory");
    for (unsigned i = 0; i < PORTS_MAX; i++) {
        int listener = fdlist_take(&devd->descriptors, "port.%u", i);
        int plain = fdlist_take(&devd->descriptors, "port-plain.%u", i);
        int memory = fdlist_take(&devd->descriptors, "port-memory.%u", i);
        descriptors->ports[i] = (struct device_port){
            listener < 0 ? -1 : listener, plain < 0 ? -1 : plain, memory < 0 ? -1 : memory};
    }
    descriptors->share_state = take_descriptor(devd, "share-state");
    descriptors->keep_in = take_descriptor(devd, "keep-in");
    descriptors->keep_out = take_descriptor(devd, "keep-out");
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        int fd = fdlist_take(&devd->descriptors, "kick.%u", i);
        descriptors->kick[i] = fd < 0 ? -1 : fd;
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        int fd = fdlist_take(&devd->descriptors, "call.%u", i);
        descriptors->call[i] = fd < 0 ? -1 : fd;
    }
    /* Whatever else came along is not ours to keep. */
    for (size_t i = 0; i < devd->descriptors.count; i++) {
        close(devd->descriptors.entries[i].fd);
    }
    devd->descriptors.count = 0;
}

static enum block_format block_format(Polyvisor__DiskFormat format)
{
    return format == POLYVISOR__DISK_FORMAT__DISK_FORMAT_QCOW2 ? BLOCK_FORMAT_QCOW2
                                                               : BLOCK_FORMAT_RAW;
}

static struct device_disk disk_settings(const Polyvisor__DeviceDisk *disk)
{
    static const enum device_write_error errors[] = {
        [POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_REPORT] = DEVICE_WRITE_ERROR_REPORT,
        [POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_ENOSPC] = DEVICE_WRITE_ERROR_ENOSPC,
        [POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_WAIT] = DEVICE_WRITE_ERROR_WAIT,
    };
    struct device_disk settings = {0};

    if (disk) {
        settings.write_through = disk->write_through;
        settings.threads = disk->threads;
        settings.split_rings = disk->split_rings;
        settings.nbd = disk->nbd[0] ? disk->nbd : NULL;
        settings.timeout_s = disk->timeout_s;
        if ((unsigned)disk->write_error < sizeof(errors) / sizeof(errors[0])) {
            settings.write_error = errors[disk->write_error];
        }
        settings.format = block_format(disk->format);
        while (settings.backing_count < disk->n_backings &&
               settings.backing_count < BLOCK_BACKINGS_MAX) {
            settings.backings[settings.backing_count].format =
                block_format(disk->backings[settings.backing_count]);
            settings.backing_count++;
        }
    }
    return settings;
}

static void noticed(void *context, enum device_notice notice, const char *text)
{
    struct devd *devd = context;
    static const Polyvisor__DeviceNoticeKind kinds[] = {
        [DEVICE_NOTICE_BACKEND_ERROR] =
            POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_BACKEND_ERROR,
        [DEVICE_NOTICE_BACKEND_WELL] =
            POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_BACKEND_WELL,
        [DEVICE_NOTICE_WATCHDOG] = POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_WATCHDOG,
        [DEVICE_NOTICE_PANIC] = POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_PANIC,
    };

    device_control_notice(devd->control, kinds[notice], text);
}

static int read_limits(const struct device_model *model, const char *text, struct limits *limits,
                       struct error *err)
{
    memset(limits, 0, sizeof(*limits));
    return limits_parse(model->traffic, text, ERROR_CONFIG, limits, err);
}

/* When all of a machine's processes start, vcpud has bound its sockets later than we have come so
 * far. nanomsg would try again and again to connect. */
static void await_transports(int *pipe_fd)
{
    struct pollfd bound = {.fd = *pipe_fd, .events = POLLIN};

    while (*pipe_fd >= 0 && poll(&bound, 1, CONNECT_TIMEOUT_MS) < 0 && errno == EINTR) {
    }
    descriptor_close(pipe_fd);
}

static int create_device(struct devd *devd, const Polyvisor__DeviceConfigure *configure,
                         struct error *err)
{
    struct device_descriptors descriptors;
    struct device_settings settings = {
        .id = devd->id,
        .serial = configure->serial,
        .read_only = configure->read_only,
        .restart = configure->restart,
        .net = configure->net,
        .vsock = configure->vsock,
        .share = configure->share,
        .balloon = configure->balloon,
        .memory_kept = configure->memory_kept,
        .ports = configure->console_ports,
        .port_count = (unsigned)configure->n_console_ports,
        .link_down = configure->link_down,
        .disk = disk_settings(configure->disk),
    };

    if (strcmp(configure->id, devd->id) != 0 || strcmp(configure->kind, devd->kind) != 0) {
        return error_set(err, ERROR_CONFIG, 0, "configuration of '%.40s' came to device '%s'",
                         configure->id, devd->id);
    }
    int status = read_limits(devd->model, configure->limits, &settings.limits, err);
    status = status < 0 ? status : map_memory(devd, configure, err);
    if (status < 0) {
        return status;
    }
    int transports = take_descriptor(devd, "transports");
    take_descriptors(devd, &descriptors);
    devd->device =
        device_create(devd->model, &settings, &devd->memory, devd->base, &descriptors, err);
    if (!devd->device) {
        descriptor_close(&transports);
        return -ERROR_INTERNAL;
    }
    device_on_notice(devd->device, noticed, devd);
    if (devd->model->device_class == DEVICE_VIRTIO && configure->transport_path[0]) {
        await_transports(&transports);
        devd->transport = transport_open(devd->device, configure->transport_path, err);
        if (!devd->transport) {
            return -ERROR_INTERNAL;
        }
        return transport_await(devd->transport, CONNECT_TIMEOUT_MS, err);
    }
    descriptor_close(&transports);
    return 0;
}

static enum sandbox_job job_of(const struct device_model *model)
{
    return model->network            ? SANDBOX_NETWORK
           : model->peer             ? SANDBOX_PEER
           : model->unix_sockets     ? SANDBOX_UNIX_SOCKETS
           : model->shares_directory ? SANDBOX_SHARES
                                     : SANDBOX_DEVICE;
}

/* A process that stands ready for the day on which another dies waits until vmmd wants it, under
 * another name. False: it never will. */
static bool await_turn(struct devd *devd)
{
    int fd = take_descriptor(devd, "standby");
    ssize_t length;
    char byte;

    if (fd < 0) {
        return true;
    }
    prctl(PR_SET_NAME, "devd-standby");
    do {
        length = read(fd, &byte, 1);
    } while (length < 0 && errno == EINTR);
    prctl(PR_SET_NAME, "devd");
    close(fd);
    return length == 1;
}

/* Wait for the configuration, follow it, answer. */
static int configure_device(struct devd *devd, struct error *err)
{
    const Polyvisor__DeviceConfigure *configure =
        device_control_await_configure(devd->control, CONFIGURE_TIMEOUT_MS, err);

    if (!configure) {
        return -ERROR_TIMEOUT;
    }
    int status = create_device(devd, configure, err);
    scheduling_set(SCHEDULING_ORDINARY); /* the guest goes on: it is not waited for any more */
    if (status == 0) {
        status = sandbox_seal(job_of(devd->model),
                              devd->model->shares_directory ? &devd->owner : NULL, err);
    }
    if (status < 0) {
        char component[sizeof(err->component)];
        snprintf(component, sizeof(component), "devd/%s", devd->id);
        error_component(err, component);
    }
    device_control_configured(devd->control, status < 0 ? err : NULL,
                              devd->device ? devd->device->described : "");
    return status;
}

/* Before the answer, so that its confirmation cannot come too early: see linger. */
static void stopped(void *context)
{
    struct devd *devd = context;
    sigset_t confirmation;

    sigemptyset(&confirmation);
    sigaddset(&confirmation, SIGTERM);
    sigprocmask(SIG_BLOCK, &confirmation, NULL);
    device_control_stopped(devd->control);
    event_base_loopexit(devd->base, NULL);
}

static void stop(void *context)
{
    struct devd *devd = context;

    if (!devd->stopping) {
        devd->stopping = true;
        device_stop(devd->device, stopped, devd);
    }
}

static int power_key(void *context, struct error *err)
{
    struct devd *devd = context;
    return device_power_key(devd->device, err);
}

static int set_link(void *context, bool up, struct error *err)
{
    struct devd *devd = context;
    return device_set_link(devd->device, up, err);
}

static int set_limits(void *context, const char *text, struct error *err)
{
    struct devd *devd = context;
    struct limits limits;
    int status = read_limits(devd->model, text, &limits, err);

    return status < 0 ? status : device_set_limits(devd->device, &limits, err);
}

static void resized(void *context, const struct error *err)
{
    struct devd *devd = context;
    device_control_answer(devd->control, devd->resize_id, err);
}

static int resize(void *context, uint64_t id, const Polyvisor__DeviceResize *how, struct error *err)
{
    struct devd *devd = context;
    uint64_t before = devd->resize_id;

    devd->resize_id = id;
    int status = device_resize(devd->device, how->bytes, how->shrink, resized, devd, err);
    if (status < 0) {
        devd->resize_id = before; /* which may still be under way */
    }
    return status;
}

static void balloon_reported(void *context, uint64_t id, const struct device_balloon_report *report)
{
    struct devd *devd = context;
    Polyvisor__DeviceBalloonReport message = POLYVISOR__DEVICE_BALLOON_REPORT__INIT;
    uint32_t tags[DEVICE_BALLOON_TAGS];
    uint64_t values[DEVICE_BALLOON_TAGS];

    message.driver = report->driver;
    message.deflate_on_oom = report->deflate_on_oom;
    message.reporting = report->reporting;
    message.target_bytes = report->target_bytes;
    message.actual_bytes = report->actual_bytes;
    message.inflated_bytes = report->inflated_bytes;
    message.deflated_bytes = report->deflated_bytes;
    message.released_bytes = report->released_bytes;
    message.reported_bytes = report->reported_bytes;
    message.age_ms = report->age_ms;
    message.tags = tags;
    message.values = values;
    for (unsigned tag = 0; tag < DEVICE_BALLOON_TAGS; tag++) {
        if (report->known & 1u << tag) {
            tags[message.n_tags++] = tag;
            values[message.n_values++] = report->values[tag];
        }
    }
    device_control_answer_balloon(devd->control, id, &message);
}

static int balloon(void *context, uint64_t id, const Polyvisor__DeviceBalloon *wanted,
                   struct error *err)
{
    struct devd *devd = context;
    const struct device_balloon_order order = {
        .set = wanted->set,
        .target_bytes = wanted->target_bytes,
        .statistics = wanted->statistics,
    };

    return device_balloon(devd->device, &order, id, balloon_reported, devd, err);
}

static void pinged(void *context)
{
    struct devd *devd = context;
    device_repeat_notices(devd->device);
}

static const struct device_control_operations CONTROL_OPERATIONS = {
    .pinged = pinged,
    .stop = stop,
    .power_key = power_key,
    .set_link = set_link,
    .set_limits = set_limits,
    .resize = resize,
    .balloon = balloon,
};

static void terminate(evutil_socket_t number, short what, void *context)
{
    (void)number;
    (void)what;
    stop(context);
}

static int serve(struct devd *devd, struct error *err)
{
    devd->terminate = evsignal_new(devd->base, SIGTERM, terminate, devd);
    if (!devd->terminate || event_add(devd->terminate, NULL) < 0 ||
        device_control_serve(devd->control, devd->base, &CONTROL_OPERATIONS, devd) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the event loop");
    }
    if (event_base_dispatch(devd->base) < 0 || !devd->stopping) {
        return error_set(err, ERROR_INTERNAL, errno, "the event loop failed");
    }
    return 0;
}

/* Give the last answer time to arrive: what has not been read when we end is lost. vmmd says by a
 * signal that it has it. */
static void linger(void)
{
    const struct timespec time = clock_timespec(LINGER_MS * NS_PER_MS);
    sigset_t confirmation;

    sigemptyset(&confirmation);
    sigaddset(&confirmation, SIGTERM);
    sigtimedwait(&confirmation, NULL, &time);
}

static void release(struct devd *devd)
{
    transport_close(devd->transport);
    device_destroy(devd->device);
    memory_close(&devd->memory);
    device_control_close(devd->control);
    if (devd->terminate) {
        event_free(devd->terminate);
    }
    if (devd->base) {
        event_base_free(devd->base);
    }
}

static int live(struct devd *devd, struct error *err)
{
    devd->model = device_model_find(devd->kind);
    if (!devd->model) {
        return error_set(err, ERROR_UNSUPPORTED, 0, "no device of kind '%.40s'", devd->kind);
    }
    if (fdlist_inherit(&devd->descriptors) < 0) {
        return error_set(err, ERROR_CONFIG, 0, "the inherited descriptors are not as announced");
    }
    int status = devd->model->shares_directory ? find_owner(devd, err) : 0;
    status = status < 0 ? status : isolate(devd, err);
    status = status < 0 ? status : limit_resources(devd->model, err);
    if (status < 0) {
        return status;
    }
    devd->control = device_control_open(devd->control_path, err);
    if (!devd->control) {
        return -ERROR_INTERNAL;
    }
    fdlist_tell(&devd->descriptors, "bound");
    devd->base = event_base_new();
    if (!devd->base) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the event loop");
    }
    if (!await_turn(devd)) {
        return 0;
    }
    status = configure_device(devd, err);
    if (status == 0) {
        status = serve(devd, err);
    }
    linger();
    return status;
}

int main(int argc, char **argv)
{
    static struct devd devd;
    struct error err;
    char name[64];

    error_clear(&err);
    if (parse_arguments(&devd, argc, argv) < 0) {
        fprintf(stderr, "usage: devd --control SOCKET --id ID --kind KIND [--folder FOLDER] "
                        "[--read-only] (started by vmmd)\n");
        return error_exit_status(ERROR_USAGE);
    }
    snprintf(name, sizeof(name), "devd/%s", devd.id);
    log_open(name);
    scheduling_set(SCHEDULING_PROMPT); /* somebody waits until it is there */
    /* The terminal's keys are for the guest and for vmctl; a client that left is no event. */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of the host's: an error of that write */

    int status = live(&devd, &err);
    if (status < 0) {
        log_error("%s", err.message);
    }
    release(&devd);
    return status < 0 ? error_exit_status(err.code) : 0;
}
