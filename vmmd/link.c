#include "vmmd/link.h"

#include "libshared/base/clock.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "libshared/ipc/rights.h"
#include "libshared/net/link.h"
#include "libshared/net/setting.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LINK_LOCK_SUFFIX   ".lock"
#define LINK_LOCK_ATTEMPTS 20  /* the file is removed by its last user, perhaps just now */
#define LINK_RETRY_MS      100 /* between attempts to connect */
#define LINK_HELLO_MS      2000
#define LINK_BUFFER_BYTES  (4 << 20) /* asked for; the host may give less */

enum link_end { LINK_LISTENS = 0, LINK_CONNECTS = 1, LINK_ENDS };

struct link {
    struct event_base *base;
    char path[NET_PATH_MAX + 1];
    char lock_path[NET_PATH_MAX + sizeof(LINK_LOCK_SUFFIX)];
    int lock_fd;
    enum link_end end;
    int listen_fd, connection_fd;
    bool greeted;                         /* the other end has said hello */
    int own_fd, device_fd;                /* the two ends of the socket to the device */
    struct event *listening, *connection; /* the latter: hello, then the end */
    struct event *timer;                  /* connect again, or the hello is late */
};

static void link_look(struct link *link);

/* ---- the lock ---- */

static int link_lock_byte(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

/* Whether the path still leads to the file that is open. */
static bool link_lock_current(const struct link *link)
{
    struct stat open_file, named;

    return fstat(link->lock_fd, &open_file) == 0 && stat(link->lock_path, &named) == 0 &&
           open_file.st_ino == named.st_ino && open_file.st_dev == named.st_dev;
}

static int link_lock_error(const struct link *link, int cause, struct error *err)
{
    if (cause == EACCES || cause == EPERM || cause == EROFS) {
        error_set(err, ERROR_PERMISSION, cause, "cannot make link '%s': %s", link->path,
                  strerror(cause));
        error_hint(err, "both machines need a folder that they may write to");
        return -ERROR_PERMISSION;
    }
    if (cause == ENOENT || cause == ENOTDIR || cause == EISDIR || cause == ELOOP) {
        error_set(err, ERROR_CONFIG, cause, "cannot make link '%s': %s", link->path,
                  strerror(cause));
        error_hint(err, "make its folder first, or choose another path");
        return -ERROR_CONFIG;
    }
    return error_set(err, ERROR_IO, cause, "cannot make link '%s': %s", link->path,
                     strerror(cause));
}

/* Take one end, whichever is free. */
static int link_lock(struct link *link, struct error *err)
{
    for (unsigned attempt = 0; attempt < LINK_LOCK_ATTEMPTS; attempt++) {
        descriptor_close(&link->lock_fd);
        link->lock_fd =
            open(link->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (link->lock_fd < 0) {
            return link_lock_error(link, errno, err);
        }
        int result = -EAGAIN;
        for (int end = 0; end < LINK_ENDS && result; end++) {
            link->end = (enum link_end)end;
            result = link_lock_byte(link->lock_fd, end);
        }
        if (result && result != -EAGAIN && result != -EACCES) {
            return link_lock_error(link, -result, err);
        }
        if (!link_lock_current(link)) {
            continue;
        }
        if (!result) {
            return 0;
        }
        break;
    }
    error_set(err, ERROR_BUSY, EBUSY, "link '%s' has two ends already", link->path);
    error_hint(err, "a link joins two machines: choose another path for other two");
    return -ERROR_BUSY;
}

/* The socket, while both ends' locks or the listener's are held. Never anybody's file: false. */
static bool link_remove_socket(const struct link *link)
{
    struct stat info;

    if (lstat(link->path, &info) == 0) {
        if (!S_ISSOCK(info.st_mode)) {
            return false;
        }
        unlink(link->path);
    }
    return true;
}

/* Who is alone on the link when it ends removes its files. */
static void link_unlock(struct link *link)
{
    if (link->lock_fd >= 0 && link_lock_byte(link->lock_fd, LINK_LISTENS) == 0 &&
        link_lock_byte(link->lock_fd, LINK_CONNECTS) == 0 && link_lock_current(link)) {
        link_remove_socket(link);
        unlink(link->lock_path);
    }
    descriptor_close(&link->lock_fd);
}

/* ---- to the device ---- */

static int link_tell_once(const struct link *link, char kind)
{
    const struct iovec body = {.iov_base = &kind, .iov_len = sizeof(kind)};

    return rights_send(link->own_fd, &body, 1, &link->connection_fd,
                       kind == LINK_CONNECTED ? 1 : 0);
}

/* Say what holds now. */
static void link_tell(struct link *link)
{
    char kind = link->connection_fd >= 0 && link->greeted ? LINK_CONNECTED : LINK_GONE;
    char old;
    int result = link_tell_once(link, kind);

    if (result == -EAGAIN) { /* nobody reads: what was said before is of no interest any more */
        while (recv(link->device_fd, &old, sizeof(old), MSG_DONTWAIT) > 0) {
        }
        result = link_tell_once(link, kind);
    }
    if (result) {
        log_warning("cannot tell a device about link '%s': %s", link->path, strerror(-result));
    }
}

void link_repeat(struct link *link)
{
    link_tell(link);
}

/* ---- the connection ---- */

static void link_wait_ms(struct link *link, unsigned milliseconds)
{
    const struct timeval time = clock_timeval(milliseconds * NS_PER_MS);
    event_add(link->timer, &time);
}

static void link_drop(struct link *link)
{
    bool told = link->greeted;

    if (link->connection) {
        event_free(link->connection);
        link->connection = NULL;
    }
    descriptor_close(&link->connection_fd);
    link->greeted = false;
    if (told) {
        link_tell(link);
    }
    link_wait_ms(link, LINK_RETRY_MS);
}

static void link_on_closed(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    link_drop(context);
}

static void link_on_hello(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    struct link_hello hello;
    ssize_t bytes = recv(fd, &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
    (void)what;

    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (bytes != (ssize_t)sizeof(hello) || hello.magic != LINK_MAGIC ||
        hello.version != LINK_VERSION) {
        link_drop(link);
        return;
    }
    /* From now on only the device reads; here its end is noticed. */
    event_free(link->connection);
    link->connection = event_new(link->base, fd, EV_CLOSED | EV_PERSIST, link_on_closed, link);
    if (!link->connection || event_add(link->connection, NULL) < 0) {
        link_drop(link);
        return;
    }
    event_del(link->timer);
    link->greeted = true;
    link_tell(link);
}

/* A connection, made or accepted: greet. */
static void link_greet(struct link *link, int fd)
{
    const struct link_hello hello = {.magic = LINK_MAGIC, .version = LINK_VERSION};
    int size = LINK_BUFFER_BYTES;

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    link->connection_fd = fd;
    link->connection = event_new(link->base, fd, EV_READ | EV_PERSIST, link_on_hello, link);
    if (!link->connection || event_add(link->connection, NULL) < 0 ||
        send(fd, &hello, sizeof(hello), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        link_drop(link);
        return;
    }
    link_wait_ms(link, LINK_HELLO_MS);
}

static void link_on_accept(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    (void)what;

    if (connection < 0) {
        return;
    }
    /* Only the holder of the other end's lock comes here: what was before it is over. */
    if (link->connection_fd >= 0) {
        link_drop(link);
    }
    link_greet(link, connection);
}

static int link_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void link_address(const struct link *link, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, link->path, strlen(link->path));
}

static void link_connect(struct link *link)
{
    struct sockaddr_un address;
    int fd = link_socket();

    link_address(link, &address);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        link_greet(link, fd);
        return;
    }
    descriptor_close(&fd);
    link_wait_ms(link, LINK_RETRY_MS); /* the other end is not up yet */
}

static int link_listen(struct link *link, struct error *err)
{
    struct sockaddr_un address;

    /* What is there is of an earlier life: the lock says that nobody has it. */
    if (!link_remove_socket(link)) {
        error_set(err, ERROR_CONFIG, EEXIST, "'%s' is there and no link", link->path);
        error_hint(err, "choose another path for the link");
        return -ERROR_CONFIG;
    }
    link_address(link, &address);
    link->listen_fd = link_socket();
    if (link->listen_fd < 0 ||
        bind(link->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(link->listen_fd, 2) < 0) {
        return link_lock_error(link, errno, err);
    }
    link->listening =
        event_new(link->base, link->listen_fd, EV_READ | EV_PERSIST, link_on_accept, link);
    if (!link->listening || event_add(link->listening, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    return 0;
}

/* The time has come: the connecting end tries again; a late hello never comes. */
static void link_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    (void)fd, (void)what;

    if (link->connection_fd >= 0 && !link->greeted) {
        link_drop(link);
    } else if (link->connection_fd < 0) {
        link_look(link);
    }
}

static void link_look(struct link *link)
{
    if (link->end == LINK_CONNECTS) {
        link_connect(link);
    }
}

/* ---- life ---- */

static int link_open_pair(struct link *link, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make a socket: %s", strerror(errno));
    }
    link->own_fd = pair[0];
    link->device_fd = pair[1];
    link->timer = evtimer_new(link->base, link_on_timer, link);
    return link->timer ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
}

struct link *link_create(const char *path, struct event_base *base, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));

    if (!link || strlen(path) >= sizeof(link->path)) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for link '%.100s'", path);
        free(link);
        return NULL;
    }
    link->base = base;
    link->lock_fd = link->listen_fd = link->connection_fd = link->own_fd = link->device_fd = -1;
    strcpy(link->path, path);
    snprintf(link->lock_path, sizeof(link->lock_path), "%s" LINK_LOCK_SUFFIX, path);
    int result = link_open_pair(link, err);
    result = result ? result : link_lock(link, err);
    if (!result && link->end == LINK_LISTENS) {
        result = link_listen(link, err);
    }
    if (result) {
        link_destroy(link);
        return NULL;
    }
    link_look(link);
    return link;
}

int link_device_fd(const struct link *link)
{
    return link->device_fd;
}

void link_destroy(struct link *link)
{
    struct event *events[LINK_ENDS + 1];

    if (!link) {
        return;
    }
    events[0] = link->listening;
    events[1] = link->connection;
    events[2] = link->timer;
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    descriptor_close(&link->connection_fd);
    descriptor_close(&link->listen_fd);
    descriptor_close(&link->own_fd);
    descriptor_close(&link->device_fd);
    link_unlock(link);
    free(link);
}
