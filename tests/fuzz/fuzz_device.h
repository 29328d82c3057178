/*
 * What the fuzzers of devices share: guest memory, shared states, doorbells and an event loop that
 * are made once and cleared before each input.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_DEVICE_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_DEVICE_H

#include "devd/device.h"
#include "devd/virtio.h"
#include "libshared/base/log.h"
#include "libshared/ipc/console.h"
#include "libshared/mmio/channel.h"
#include "tests/fuzz/fuzz_input.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FUZZ_RAM_BASE UINT64_C(0x80000000)
#define FUZZ_RAM_SIZE 0x40000u
#define FUZZ_DISK     0x10000u
#define FUZZ_PORTS    2u

struct fuzz_host {
    int memory_fd, codemap_fd, state_fd, disk_fd, listener, doorbell, reply, console_fd;
    struct memory memory;
    uint8_t *ram, *state;
    struct event_base *base;
    struct device *device;
    struct device_disk disk; /* how the next one is */
    const char *vsock;       /* its setting, or NULL */
    int backend_fd;          /* what the next one is given */
    int client;              /* of the console, -1: none */
    char *ports[FUZZ_PORTS]; /* settings of further console ports that the next one has */
    unsigned port_count;
    int port_memory[FUZZ_PORTS], port_listeners[FUZZ_PORTS][2], port_clients[FUZZ_PORTS];
    char path[64];
};

static inline void fuzz_listen(struct fuzz_host *host)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* An abstract address: no file is left behind. */
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "polyvisor-fuzz-%d",
             (int)getpid());
    host->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    fuzz_require(bind(host->listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                     listen(host->listener, 16) == 0,
                 "console");
}

static inline void fuzz_connect(struct fuzz_host *host)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (host->client >= 0) {
        close(host->client);
    }
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "polyvisor-fuzz-%d",
             (int)getpid());
    host->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    fuzz_require(connect(host->client, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                     errno == EAGAIN,
                 "connect");
}

static inline void fuzz_open_console(struct fuzz_host *host)
{
    const uint32_t head[] = {CONSOLE_MEMORY_MAGIC, CONSOLE_MEMORY_VERSION};
    host->console_fd = memory_create_fd("console", CONSOLE_MEMORY_SIZE);
    fuzz_require(pwrite(host->console_fd, head, sizeof(head), 0) == sizeof(head), "console memory");
}

/* The sockets of a further console port; 0: of named clients, 1: of plain ones. */
static inline struct sockaddr_un fuzz_port_address(unsigned port, unsigned which)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "polyvisor-fuzz-%d-%u-%u",
             (int)getpid(), port, which);
    return address;
}

/* A stream and a terminal; host->port_count says how many of them the next device has. */
static inline void fuzz_open_ports(struct fuzz_host *host)
{
    static char stream[] = "stream", screen[] = "screen,console";
    const uint32_t head[] = {CONSOLE_MEMORY_MAGIC, CONSOLE_MEMORY_VERSION};

    host->ports[0] = stream;
    host->ports[1] = screen;
    for (unsigned i = 0; i < FUZZ_PORTS; i++) {
        host->port_clients[i] = -1;
        host->port_memory[i] = memory_create_fd("port", CONSOLE_MEMORY_SIZE);
        fuzz_require(pwrite(host->port_memory[i], head, sizeof(head), 0) == sizeof(head), "port");
        for (unsigned which = 0; which < 2; which++) {
            const struct sockaddr_un address = fuzz_port_address(i, which);
            int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            fuzz_require(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                             listen(fd, 16) == 0,
                         "port");
            host->port_listeners[i][which] = fd;
        }
    }
}

static inline void fuzz_open(struct fuzz_host *host)
{
    int ram = memory_create_fd("ram", FUZZ_RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(FUZZ_RAM_SIZE));

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    fuzz_require(memory_add_region(&host->memory, ram, FUZZ_RAM_BASE, FUZZ_RAM_SIZE) == 0 &&
                     memory_attach_codemap(&host->memory, codemap) == 0,
                 "memory");
    host->memory_fd = ram;
    host->codemap_fd = codemap;
    host->ram = memory_pointer(&host->memory, FUZZ_RAM_BASE, FUZZ_RAM_SIZE);
    host->state_fd = memory_create_fd("state", VIRTIO_STATE_SIZE);
    host->state =
        mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, host->state_fd, 0);
    host->disk_fd = memfd_create("disk", MFD_CLOEXEC); /* not sealed: it is resized */
    fuzz_require(ftruncate(host->disk_fd, FUZZ_DISK) == 0, "a disk");
    host->backend_fd = host->disk_fd;
    host->doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    host->reply = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    host->base = event_base_new();
    host->client = -1;
    fuzz_listen(host);
    fuzz_open_console(host);
}

static inline void fuzz_start(struct fuzz_host *host, const char *kind, bool restart)
{
    struct device_descriptors descriptors;
    struct device_settings settings = {.id = "fuzz0",
                                       .serial = "fuzz",
                                       .vsock = host->vsock,
                                       .disk = host->disk,
                                       .ports = host->ports,
                                       .port_count = host->port_count,
                                       .restart = restart};
    struct error err;

    device_descriptors_clear(&descriptors);
    descriptors.state = fcntl(host->state_fd, F_DUPFD_CLOEXEC, 0);
    descriptors.backend = fcntl(host->backend_fd, F_DUPFD_CLOEXEC, 0);
    descriptors.console = fcntl(host->listener, F_DUPFD_CLOEXEC, 0);
    descriptors.console_memory = fcntl(host->console_fd, F_DUPFD_CLOEXEC, 0);
    descriptors.reply = fcntl(host->reply, F_DUPFD_CLOEXEC, 0);
    for (unsigned i = 0; i < host->port_count; i++) {
        descriptors.ports[i] =
            (struct device_port){fcntl(host->port_listeners[i][0], F_DUPFD_CLOEXEC, 0),
                                 fcntl(host->port_listeners[i][1], F_DUPFD_CLOEXEC, 0),
                                 fcntl(host->port_memory[i], F_DUPFD_CLOEXEC, 0)};
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        descriptors.kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        descriptors.call[i] = fcntl(host->doorbell, F_DUPFD_CLOEXEC, 0);
    }
    error_clear(&err);
    host->device = device_create(device_model_find(kind), &settings, &host->memory, host->base,
                                 &descriptors, &err);
    /* Only a state that the fuzzer damaged may be refused; then start over. */
    fuzz_require(host->device || restart, err.message);
}

static inline void fuzz_turn(struct fuzz_host *host)
{
    event_base_loop(host->base, EVLOOP_NONBLOCK);
}

/* All limits of time pass: what waits for one is called. */
#define FUZZ_LATE_MAX 64
struct fuzz_late {
    struct event *events[FUZZ_LATE_MAX];
    unsigned count;
};

static inline int fuzz_find_late(const struct event_base *base, const struct event *event,
                                 void *context)
{
    struct fuzz_late *late = context;
    struct timeval when;

    (void)base;
    if (late->count < FUZZ_LATE_MAX && event_pending(event, EV_TIMEOUT, &when)) {
        late->events[late->count++] = (struct event *)event;
    }
    return 0;
}

static inline void fuzz_late(struct fuzz_host *host)
{
    struct fuzz_late late = {.count = 0};

    event_base_foreach_event(host->base, fuzz_find_late, &late);
    for (unsigned i = 0; i < late.count; i++) {
        event_active(late.events[i], EV_TIMEOUT, 0);
    }
    fuzz_turn(host);
}

/* A console that nobody has written to. */
static inline void fuzz_clear_console(int memory)
{
    const uint32_t head[] = {CONSOLE_MEMORY_MAGIC, CONSOLE_MEMORY_VERSION};
    static const uint8_t nothing[offsetof(struct console_memory, ring)];

    fuzz_require(pwrite(memory, nothing, sizeof(nothing), 0) == sizeof(nothing) &&
                     pwrite(memory, head, sizeof(head), 0) == sizeof(head),
                 "console memory");
}

static inline void fuzz_end_ports(struct fuzz_host *host)
{
    for (unsigned i = 0; i < host->port_count; i++) {
        fuzz_clear_console(host->port_memory[i]);
        for (int late; (late = accept(host->port_listeners[i][1], NULL, NULL)) >= 0;) {
            close(late);
        }
        if (host->port_clients[i] >= 0) {
            close(host->port_clients[i]);
            host->port_clients[i] = -1;
        }
    }
}

/* A plain client of a further port comes, sends, reads or leaves. */
static inline void fuzz_port_client(struct fuzz_host *host, struct fuzz_input *input)
{
    uint8_t what = (uint8_t)fuzz_take(input, 1), bytes[512];
    unsigned port = what % FUZZ_PORTS;
    int *client = &host->port_clients[port];
    size_t size;

    if (*client < 0) {
        const struct sockaddr_un address = fuzz_port_address(port, 1);
        *client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        fuzz_require(connect(*client, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
                         errno == EAGAIN,
                     "connect");
    } else if (what < 32) {
        close(*client);
        *client = -1;
    } else if (what < 48) {
        shutdown(*client, SHUT_WR);
    } else if (what < 128) {
        const uint8_t *text = fuzz_bytes(input, what, &size);
        send(*client, text, size, MSG_NOSIGNAL);
    } else {
        recv(*client, bytes, sizeof(bytes), MSG_DONTWAIT);
    }
}

/* Leave nothing of this input to the next. */
static inline void fuzz_end(struct fuzz_host *host)
{
    device_destroy(host->device);
    host->device = NULL;
    fuzz_clear_console(host->console_fd);
    fuzz_end_ports(host);
    if (host->client >= 0) {
        close(host->client);
        host->client = -1;
    }
    for (int late; (late = accept(host->listener, NULL, NULL)) >= 0;) {
        close(late);
    }
}

/* What a predecessor left of the console is damaged: its head and seats, mostly. */
static inline void fuzz_damage_console(struct fuzz_host *host, struct fuzz_input *input)
{
    uint64_t value = fuzz_number(input);
    uint16_t at = (uint16_t)(8 + fuzz_take(input, 2) % (offsetof(struct console_memory, ring) - 8));

    pwrite(host->port_count && value & 1 ? host->port_memory[value >> 1 & 1] : host->console_fd,
           &value, fuzz_take(input, 1) & 1 ? 8 : 4, at & ~3);
}

/* A greeting: of a stranger, or of somebody who has been here before. */
static inline struct console_hello fuzz_hello(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    return (struct console_hello){
        .magic = how < 250 ? CONSOLE_MAGIC : how,
        .flags = how & 15,
        .id = how >> 4 & 3,
        .output = fuzz_number(input),
        .input = fuzz_number(input),
    };
}

/* The console's client does something. */
static inline void fuzz_client(struct fuzz_host *host, struct fuzz_input *input)
{
    uint8_t bytes[512];
    struct console_hello hello = {.magic = CONSOLE_MAGIC, .flags = CONSOLE_LOSSLESS};
    uint8_t what = (uint8_t)fuzz_take(input, 1);

    if (host->client < 0 || what < 16) {
        fuzz_connect(host);
        if (what & 2) {
            hello = fuzz_hello(input);
        }
        if (what & 1) {
            send(host->client, &hello, sizeof(hello), MSG_NOSIGNAL);
        }
    } else if (what < 32) {
        shutdown(host->client, what & 1 ? SHUT_WR : SHUT_RD);
    } else if (what < 128) {
        size_t size = what - 32u < input->size ? what - 32u : input->size;
        send(host->client, input->bytes, size, MSG_NOSIGNAL);
        input->bytes += size;
        input->size -= size;
    } else {
        recv(host->client, bytes, sizeof(bytes), MSG_DONTWAIT);
    }
}

#endif
