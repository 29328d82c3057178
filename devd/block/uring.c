#include "devd/block/uring.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES     256
#define COMPLETIONS 1024

struct uring {
    struct io_uring ring;
    struct uring_port port;
    struct event_base *base;
    struct event *readable; /* something was done later */
    unsigned unsubmitted;
    unsigned in_flight;
    bool closing;
};

/* Debian 12's library declares these and does not have them. */
static int ring_register(const struct io_uring *ring, unsigned what, const void *rules,
                         unsigned count)
{
    return syscall(SYS_io_uring_register, ring->ring_fd, what, rules, count) < 0 ? -errno : 0;
}

/* Only these operations, only on file 0, and no more files. */
static int ring_restrict(const struct io_uring *ring)
{
    const struct io_uring_restriction rules[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
    };
    return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules,
                         sizeof(rules) / sizeof(rules[0]));
}

static int ring_open(struct io_uring *ring, int fd)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN,
        .cq_entries = COMPLETIONS,
    };
    int status = io_uring_queue_init_params(ENTRIES, ring, &params);

    if (status == -EINVAL) { /* a kernel before 5.19 */
        params.flags &= ~IORING_SETUP_COOP_TASKRUN;
        status = io_uring_queue_init_params(ENTRIES, ring, &params);
    }
    if (status < 0) {
        return status;
    }
    status = params.features & IORING_FEAT_NODROP ? 0 : -ENOSYS;
    status = status < 0 ? status : io_uring_register_files(ring, &fd, 1);
    status = status < 0 ? status : ring_restrict(ring);
    status = status < 0 ? status : ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (status < 0) {
        io_uring_queue_exit(ring);
    }
    return status;
}

/* Hand over what is done: whether it was anything. */
static bool uring_reap(struct uring *uring)
{
    struct io_uring_cqe *entry;
    bool any = false;

    /* A completion may lead to anything but to the end of the ring. */
    while (io_uring_peek_cqe(&uring->ring, &entry) == 0) {
        struct block_request *request = io_uring_cqe_get_data(entry);
        int result = entry->res;

        io_uring_cqe_seen(&uring->ring, entry);
        uring->in_flight--;
        any = true;
        if (!uring->closing) {
            uring->port.completed(uring->port.context, request, result);
        }
    }
    return any;
}

static void uring_readable(evutil_socket_t fd, short what, void *context)
{
    struct uring *uring = context;

    (void)fd;
    (void)what;
    if (uring_reap(uring)) {
        uring->port.batch_done(uring->port.context);
    }
}

struct uring *uring_open(int fd, struct event_base *base, const struct uring_port *port)
{
    struct uring *uring = calloc(1, sizeof(*uring));

    if (!uring) {
        return NULL;
    }
    uring->port = *port;
    uring->base = base;
    int status = ring_open(&uring->ring, fd);
    if (status < 0) {
        free(uring);
        errno = -status;
        return NULL;
    }
    uring->readable =
        event_new(base, uring->ring.ring_fd, EV_READ | EV_PERSIST, uring_readable, uring);
    if (!uring->readable || event_add(uring->readable, NULL) < 0) {
        uring_close(uring);
        errno = ENOMEM;
        return NULL;
    }
    return uring;
}

void uring_close(struct uring *uring)
{
    if (!uring) {
        return;
    }
    uring->closing = true;
    uring_start(uring);
    while (uring->in_flight && io_uring_submit_and_wait(&uring->ring, 1) >= 0) {
        uring_reap(uring);
    }
    if (uring->readable) {
        event_free(uring->readable);
    }
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

bool uring_take(struct uring *uring, struct block_request *request)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&uring->ring);

    if (!entry) {
        return false;
    }
    switch (request->operation) {
    case BLOCK_READ:
        io_uring_prep_readv(entry, 0, request->vectors, request->vector_count,
                            request->left_offset);
        break;
    case BLOCK_WRITE:
        io_uring_prep_writev(entry, 0, request->vectors, request->vector_count,
                             request->left_offset);
        entry->rw_flags = request->durable ? RWF_DSYNC : 0;
        break;
    default:
        io_uring_prep_fsync(entry, 0, IORING_FSYNC_DATASYNC);
        break;
    }
    entry->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(entry, request);
    uring->unsubmitted++;
    uring->in_flight++;
    return true;
}

/* The kernel is short of something: until a request is done, or for a moment. */
static unsigned uring_pause(const struct uring *uring)
{
    const struct timespec moment = {.tv_nsec = 1000000};

    if (uring->in_flight > uring->unsubmitted) {
        return 1;
    }
    nanosleep(&moment, NULL);
    return 0;
}

void uring_start(struct uring *uring)
{
    unsigned wait = 0;

    while (uring->unsubmitted) {
        int count = io_uring_submit_and_wait(&uring->ring, wait);
        wait = 0;
        if (count >= 0) {
            uring->unsubmitted -= (unsigned)count;
        } else if (count == -EAGAIN || count == -EBUSY) {
            wait = uring_pause(uring);
        } else if (count != -EINTR) {
            log_error("io_uring takes no more requests: %s", strerror(-count));
            event_base_loopbreak(uring->base); /* the next process does them */
            return;
        }
        uring_reap(uring);
    }
}
