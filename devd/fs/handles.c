#include "devd/fs/handles.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct handle_own {
    int fd; /* plus one; 0: none */
    uint32_t pins;
    uint32_t next_free;
    bool kept, closing;
};

struct handle_table {
    uint32_t free;
    struct handle_own own[SHARE_HANDLES_MAX];
};

static uint64_t handle_number(const struct fs *fs, uint32_t index)
{
    return (uint64_t)fs->state->handles[index].generation << 32 | index;
}

/* The index of that number, or 0. */
static uint32_t handle_index(const struct fs *fs, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    return index && index < fs->state->handle_end && fs->state->handles[index].kind &&
                   handle_number(fs, index) == number && !fs->handles->own[index].closing
               ? index
               : 0;
}

static void handle_free(struct fs *fs, uint32_t index)
{
    struct handle_own *own = &fs->handles->own[index];
    struct share_handle *handle = &fs->state->handles[index];
    uint32_t node = handle->node;
    bool kept = own->kept;

    if (own->fd) {
        close(own->fd - 1);
    }
    handle->kind = SHARE_HANDLE_FREE;
    handle->generation++;
    memset(own, 0, sizeof(*own));
    own->next_free = fs->handles->free;
    fs->handles->free = index;
    if (kept) {
        keep_drop(&fs->keep, handle_kept, fs);
    }
    if (node) {
        node_add_handle(fs, node, -1);
    }
}

static uint32_t handle_allocate(struct fs *fs)
{
    uint32_t index = fs->handles->free;

    if (index) {
        fs->handles->free = fs->handles->own[index].next_free;
        fs->handles->own[index].next_free = 0;
    } else if (fs->state->handle_end < SHARE_HANDLES_MAX) {
        index = fs->state->handle_end;
        fs->state->handle_end = index + 1;
    }
    return index;
}

/* What an earlier process opened for a request that it did not answer. */
static void handle_drop_earlier(struct fs *fs, uint64_t unique)
{
    for (uint32_t i = 1; i < fs->state->handle_end; i++) {
        if (fs->state->handles[i].kind && fs->state->handles[i].unique == unique &&
            !fs->handles->own[i].pins) {
            handle_free(fs, i);
        }
    }
}

/* Whether the process could open the file again in the same way. */
static bool can_reopen(const struct fs *fs, const struct statx *status, mode_t mode, int flags)
{
    bool write = (flags & O_ACCMODE) != O_RDONLY, read = (flags & O_ACCMODE) != O_WRONLY;

    return status->stx_uid == fs->host_uid && (!write || mode & S_IWUSR) &&
           (!read || mode & S_IRUSR);
}

static void handle_keep(struct fs *fs, uint32_t index)
{
    struct handle_own *own = &fs->handles->own[index];
    const struct keep_name name = {
        .kind = KEEP_HANDLE, .index = index, .generation = fs->state->handles[index].generation};

    if (own->fd && !own->kept && keep_add(&fs->keep, &name, own->fd - 1, handle_kept, fs) == 0) {
        own->kept = true;
    }
}

int handle_open(struct fs *fs, const struct fs_message *message, uint32_t node, int fd, int flags,
                enum share_handle_kind kind, uint64_t *number)
{
    struct statx status;
    bool known = fs_stat(fd, &status) == 0;

    pthread_mutex_lock(&fs->lock);
    if (message->again) {
        handle_drop_earlier(fs, message->header.unique);
    }
    uint32_t index = handle_allocate(fs);
    if (!index) {
        pthread_mutex_unlock(&fs->lock);
        close(fd);
        return -ENFILE;
    }
    struct share_handle *handle = &fs->state->handles[index];
    handle->node = node;
    handle->node_generation = fs->state->nodes[node].generation;
    handle->flags = (uint32_t)flags;
    handle->unique = message->header.unique;
    handle->kind = kind;
    fs->handles->own[index].fd = fd + 1;
    node_add_handle(fs, node, 1);
    if (known && kind == SHARE_HANDLE_FILE && !can_reopen(fs, &status, status.stx_mode, flags)) {
        handle_keep(fs, index);
    }
    *number = handle_number(fs, index);
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

/* Open the file again, in a process that did not open it at first. */
static int handle_reopen(struct fs *fs, uint32_t index)
{
    const struct share_handle *handle = &fs->state->handles[index];
    struct node_pin pin;
    int flags = (int)handle->flags & (O_ACCMODE | O_SYNC | O_DSYNC);

    if (!handle->node) {
        return -EBADF;
    }
    int status = node_hold(fs, handle->node, &pin);
    if (status < 0) {
        return status;
    }
    int fd = fs_reopen(fs, pin.fd,
                       handle->kind == SHARE_HANDLE_DIRECTORY ? O_RDONLY | O_DIRECTORY : flags);
    node_release(fs, pin.index);
    if (fd < 0) {
        return fd;
    }
    fs->handles->own[index].fd = fd + 1;
    return 0;
}

int handle_get(struct fs *fs, uint64_t number, uint64_t node, enum share_handle_kind kind,
               struct handle_pin *pin)
{
    int status = 0;

    pthread_mutex_lock(&fs->lock);
    uint32_t index = handle_index(fs, number);
    const struct share_handle *handle = &fs->state->handles[index];
    if (!index || handle->kind != kind || (node && node_index(fs, node) != handle->node)) {
        status = -EBADF;
    } else if (!fs->handles->own[index].fd) {
        status = handle_reopen(fs, index);
    }
    if (status == 0) {
        fs->handles->own[index].pins++;
        *pin = (struct handle_pin){.index = index,
                                   .node = handle->node,
                                   .fd = fs->handles->own[index].fd - 1,
                                   .flags = handle->flags};
    }
    pthread_mutex_unlock(&fs->lock);
    return status;
}

void handle_put(struct fs *fs, const struct handle_pin *pin)
{
    struct handle_own *own = &fs->handles->own[pin->index];

    pthread_mutex_lock(&fs->lock);
    own->pins--;
    if (!own->pins && own->closing) {
        handle_free(fs, pin->index);
    }
    pthread_mutex_unlock(&fs->lock);
}

void handle_close(struct fs *fs, uint64_t number)
{
    pthread_mutex_lock(&fs->lock);
    uint32_t index = handle_index(fs, number);
    if (index && fs->handles->own[index].pins) {
        fs->handles->own[index].closing = true;
    } else if (index) {
        handle_free(fs, index);
    }
    pthread_mutex_unlock(&fs->lock);
}

void handles_keep(struct fs *fs, uint32_t node, const struct statx *status, mode_t mode)
{
    for (uint32_t i = 1; i < fs->state->handle_end; i++) {
        const struct share_handle *handle = &fs->state->handles[i];
        if (handle->kind == SHARE_HANDLE_FILE && handle->node == node &&
            !can_reopen(fs, status, mode, (int)handle->flags) &&
            (fs->handles->own[i].fd || handle_reopen(fs, i) == 0)) {
            handle_keep(fs, i);
        }
    }
}

/* The handle that a name is of, or NULL. */
static struct handle_own *handle_named(const struct fs *fs, const struct keep_name *name)
{
    uint32_t index = name->index;

    return name->kind == KEEP_HANDLE && index && index < fs->state->handle_end &&
                   fs->state->handles[index].kind &&
                   fs->state->handles[index].generation == name->generation
               ? &fs->handles->own[index]
               : NULL;
}

int handle_kept(void *context, const struct keep_name *name)
{
    const struct fs *fs = context;
    const struct handle_own *own = handle_named(fs, name);

    if (name->kind == KEEP_NODE) {
        return node_kept(fs, name);
    }
    return own && own->kept ? own->fd - 1 : -1;
}

void handle_found(void *context, const struct keep_name *name, int fd)
{
    struct fs *fs = context;
    struct handle_own *own = handle_named(fs, name);

    if (name->kind == KEEP_NODE && node_restore(fs, name, fd)) {
        return;
    }
    if (own && !own->fd) {
        own->fd = fd + 1;
        own->kept = true;
        return;
    }
    close(fd);
}

/* Count the handles of each node; one whose node is gone leads nowhere. */
static void handles_scan(struct fs *fs)
{
    for (uint32_t i = fs->state->handle_end - 1; i > 0; i--) {
        struct share_handle *handle = &fs->state->handles[i];
        bool known = node_is(fs, handle->node, handle->node_generation);
        if (!handle->kind) {
            fs->handles->own[i].next_free = fs->handles->free;
            fs->handles->free = i;
        } else if (known) {
            node_add_handle(fs, handle->node, 1);
        } else {
            handle->node = 0;
        }
    }
}

int handles_create(struct fs *fs)
{
    fs->handles = calloc(1, sizeof(*fs->handles));
    if (!fs->handles) {
        return -ENOMEM;
    }
    if (fs->state->handle_end == 0 || fs->state->handle_end > SHARE_HANDLES_MAX) {
        fs->state->handle_end = 1;
    }
    handles_scan(fs);
    return 0;
}

static void handles_close(struct fs *fs)
{
    for (uint32_t i = 1; i < fs->state->handle_end; i++) {
        if (fs->handles->own[i].fd) {
            close(fs->handles->own[i].fd - 1);
        }
    }
}

void handles_clear(struct fs *fs)
{
    handles_close(fs);
    memset(fs->handles->own, 0, fs->state->handle_end * sizeof(fs->handles->own[0]));
    fs->handles->free = 0;
    for (uint32_t i = 1; i < fs->state->handle_end; i++) {
        if (fs->state->handles[i].kind) {
            fs->state->handles[i].kind = SHARE_HANDLE_FREE;
            fs->state->handles[i].generation++;
        }
    }
    handles_scan(fs);
}

void handles_destroy(struct fs *fs)
{
    if (fs->handles) {
        handles_close(fs);
        free(fs->handles);
        fs->handles = NULL;
    }
}
