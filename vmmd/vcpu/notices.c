#include "vmmd/vcpu/notices.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int notices_init(struct notices *notices)
{
    memset(notices, 0, sizeof(*notices));
    notices->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notices->wake_fd < 0) {
        return -errno;
    }
    return -pthread_mutex_init(&notices->lock, NULL);
}

void notices_destroy(struct notices *notices)
{
    close(notices->wake_fd);
    pthread_mutex_destroy(&notices->lock);
}

static bool is_waiting(const struct notices *notices, const struct notice *notice)
{
    for (unsigned i = 0; i < notices->count; i++) {
        const struct notice *other = &notices->list[i];
        if (other->kind == notice->kind && other->guest_code == notice->guest_code &&
            strcmp(other->device, notice->device) == 0) {
            return true;
        }
    }
    return false;
}

void notices_post(struct notices *notices, Polyvisor__VcpuNoticeKind kind, unsigned guest_code,
                  const char *device)
{
    struct notice notice = {.kind = kind, .guest_code = guest_code};
    const uint64_t one = 1;
    bool lost = false;
    snprintf(notice.device, sizeof(notice.device), "%s", device ? device : "");
    pthread_mutex_lock(&notices->lock);
    if (!is_waiting(notices, &notice)) {
        lost = notices->count == NOTICES_MAX;
        if (!lost) {
            notices->list[notices->count++] = notice;
        }
    }
    pthread_mutex_unlock(&notices->lock);
    if (lost) {
        log_warning("too many notices wait: one of kind %d is lost", (int)kind);
    }
    ssize_t written = write(notices->wake_fd, &one, sizeof(one));
    (void)written; /* full: it is readable anyway */
}

bool notices_peek(struct notices *notices, struct notice *notice)
{
    pthread_mutex_lock(&notices->lock);
    bool found = notices->count != 0;
    if (found) {
        *notice = notices->list[0];
    }
    pthread_mutex_unlock(&notices->lock);
    return found;
}

bool notices_take(struct notices *notices, struct notice *notice)
{
    pthread_mutex_lock(&notices->lock);
    bool found = notices->count != 0;
    if (found) {
        *notice = notices->list[0];
        notices->count--;
        memmove(&notices->list[0], &notices->list[1], notices->count * sizeof(notices->list[0]));
    }
    pthread_mutex_unlock(&notices->lock);
    return found;
}
