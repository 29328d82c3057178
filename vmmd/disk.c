#include "vmmd/disk.h"

#include "libshared/limit/setting.h"
#include "libshared/nbd/uri.h"
#include "vmmd/message.h"
#include "vmmd/storage.h"
#include <string.h>

static const struct disk_cache {
    const char *name;
    bool direct, write_through;
} disk_caches[] = {
    {"writeback", false, false},
    {"writethrough", false, true},
    {"none", true, false},
    {"directsync", true, true},
};

static const struct disk_error {
    const char *name;
    Polyvisor__DiskWriteError what;
} disk_errors[] = {
    {"report", POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_REPORT},
    {"enospc", POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_ENOSPC},
    {"wait", POLYVISOR__DISK_WRITE_ERROR__DISK_WRITE_ERROR_WAIT},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct disk_cache *disk_cache_find(const char *name)
{
    for (size_t i = 0; i < COUNT(disk_caches); i++) {
        if (!strcmp(disk_caches[i].name, name)) {
            return &disk_caches[i];
        }
    }
    return NULL;
}

static const struct disk_error *disk_error_find(const char *name)
{
    for (size_t i = 0; i < COUNT(disk_errors); i++) {
        if (!strcmp(disk_errors[i].name, name)) {
            return &disk_errors[i];
        }
    }
    return NULL;
}

static int disk_refuse(const char *what, const char *value, const char *hint, struct error *err)
{
    error_set(err, ERROR_CONFIG, 0, "unknown %s '%.40s' of a disk", what, value);
    error_hint(err, "%s", hint);
    return -ERROR_CONFIG;
}

static int disk_check_serial(const char *serial, struct error *err)
{
    bool good = strlen(serial) <= DISK_SERIAL_MAX;

    for (const char *c = serial; *c; c++) {
        good = good && *c > ' ' && *c < 0x7f;
    }
    return good ? 0
                : disk_refuse("serial number", serial,
                              "1 to 20 letters, digits and punctuation marks", err);
}

bool disk_is_network(const Polyvisor__DiskConfig *disk)
{
    return nbd_uri_is(disk->path);
}

static int disk_complete_network(Polyvisor__DiskConfig *disk, struct error *err)
{
    struct nbd_uri uri;

    if (!disk_is_network(disk)) {
        return disk->timeout_s ? disk_refuse("timeout", "", "timeout= is for network disks", err)
                               : 0;
    }
    if (disk->timeout_s > DISK_TIMEOUT_MAX_S) {
        return error_set(err, ERROR_CONFIG, 0, "a timeout of %u s wanted, the longest is %d s",
                         disk->timeout_s, DISK_TIMEOUT_MAX_S);
    }
    if (!strcmp(disk->aio, "threads")) {
        return disk_refuse("aio", disk->aio, "a network disk has no threads: aio=auto", err);
    }
    if (disk->format[0] && strcmp(disk->format, "raw")) {
        error_set(err, ERROR_UNSUPPORTED, 0, "a network disk is raw, not '%.40s'", disk->format);
        error_hint(err, "let the server read the image: qemu-nbd -f %.20s", disk->format);
        return -ERROR_UNSUPPORTED;
    }
    disk->timeout_s = disk->timeout_s ? disk->timeout_s : DISK_TIMEOUT_DEFAULT_S;
    if (!disk->format[0] && message_set_string(&disk->format, "raw") < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    return nbd_uri_parse(disk->path, ERROR_DISK, &uri, err);
}

/* Into the one form that they are kept in. */
static int disk_complete_limits(Polyvisor__DiskConfig *disk, struct error *err)
{
    struct limits limits = {0};
    char text[LIMIT_TEXT_MAX];
    int result = limits_parse(LIMIT_DISK, disk->limits, ERROR_CONFIG, &limits, err);

    if (result) {
        return result;
    }
    limits_format(LIMIT_DISK, &limits, text, sizeof(text));
    return message_set_string(&disk->limits, text) < 0
               ? error_set(err, ERROR_INTERNAL, 0, "out of memory")
               : 0;
}

int disk_complete(Polyvisor__DiskConfig *disk, struct error *err)
{
    if ((!disk->cache[0] && message_set_string(&disk->cache, disk_caches[0].name) < 0) ||
        (!disk->werror[0] && message_set_string(&disk->werror, disk_errors[0].name) < 0) ||
        (!disk->aio[0] && message_set_string(&disk->aio, "auto") < 0) ||
        (!disk->packed[0] && message_set_string(&disk->packed, "on") < 0)) {
        return error_set(err, ERROR_INTERNAL, 0, "out of memory");
    }
    if (!disk_cache_find(disk->cache)) {
        return disk_refuse("cache mode", disk->cache,
                           "use writeback, writethrough, none or directsync", err);
    }
    if (!disk_error_find(disk->werror)) {
        return disk_refuse("werror", disk->werror, "use report, enospc or wait", err);
    }
    if (strcmp(disk->aio, "auto") && strcmp(disk->aio, "threads")) {
        return disk_refuse("aio", disk->aio, "use auto or threads", err);
    }
    if (strcmp(disk->packed, "on") && strcmp(disk->packed, "off")) {
        return disk_refuse("packed", disk->packed, "use on or off", err);
    }
    int result = disk_complete_network(disk, err);
    if (result) {
        return result;
    }
    if (disk->format[0] && strcmp(disk->format, "raw") && strcmp(disk->format, "qcow2")) {
        error_set(err, ERROR_UNSUPPORTED, 0, "disk format '%.40s' is not supported", disk->format);
        error_hint(err, "convert it: qemu-img convert -O qcow2 '%.100s' disk.qcow2", disk->path);
        return -ERROR_UNSUPPORTED;
    }
    if (disk->backing_format[0] && strcmp(disk->backing_format, "raw") &&
        strcmp(disk->backing_format, "qcow2")) {
        return disk_refuse("backing-format", disk->backing_format, "use raw or qcow2", err);
    }
    if (disk->queues > DISK_QUEUES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "a disk with %u queues wanted, the most is %d",
                         disk->queues, DISK_QUEUES_MAX);
    }
    result = disk_complete_limits(disk, err);
    return result ? result : disk_check_serial(disk->serial, err);
}

bool disk_is_direct(const Polyvisor__DiskConfig *disk)
{
    const struct disk_cache *cache = disk_cache_find(disk->cache);
    return cache && cache->direct;
}

unsigned disk_queue_count(const Polyvisor__DiskConfig *disk, uint32_t cpus)
{
    uint32_t count = disk->queues ? disk->queues : cpus;
    return count < DISK_QUEUES_MAX ? count : DISK_QUEUES_MAX;
}

void disk_describe(const Polyvisor__DiskConfig *disk, Polyvisor__DeviceDisk *message)
{
    const struct disk_cache *cache = disk_cache_find(disk->cache);
    const struct disk_error *error = disk_error_find(disk->werror);

    polyvisor__device_disk__init(message);
    message->write_through = cache && cache->write_through;
    message->threads = !strcmp(disk->aio, "threads");
    message->split_rings = !strcmp(disk->packed, "off");
    message->format = !strcmp(storage_disk_format(disk), "qcow2")
                          ? POLYVISOR__DISK_FORMAT__DISK_FORMAT_QCOW2
                          : POLYVISOR__DISK_FORMAT__DISK_FORMAT_RAW;
    if (disk_is_network(disk)) {
        message->nbd = disk->path;
        message->timeout_s = disk->timeout_s;
    }
    message->write_error = error ? error->what : disk_errors[0].what;
}
