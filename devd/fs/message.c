/* Reading arguments and writing answers. */
#include "devd/fs/fs_internal.h"
#include "libshared/base/vectors.h"

#include <errno.h>

bool fs_name_valid(const char *name, size_t length)
{
    bool dots = name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.'));

    return length > 0 && length <= SHARE_NAME_MAX && !dots && !memchr(name, '/', length) &&
           !memchr(name, '\0', length);
}

const char *fs_text(const struct fs_message *message, size_t *offset, size_t limit)
{
    if (*offset >= message->argument_bytes) {
        return NULL;
    }
    const char *text = (const char *)message->arguments + *offset;
    const char *end = memchr(text, '\0', message->argument_bytes - *offset);
    if (!end || end == text || (size_t)(end - text) > limit) {
        return NULL;
    }
    *offset += (size_t)(end - text) + 1;
    return text;
}

const char *fs_name(struct fs_message *message, size_t *offset)
{
    const char *name = fs_text(message, offset, FS_ARGUMENTS_MAX);
    bool overlong = name && strlen(name) > SHARE_NAME_MAX;

    if (name && fs_name_valid(name, strlen(name))) {
        return name;
    }
    message->status = overlong ? -ENAMETOOLONG : -EINVAL;
    return NULL;
}

static void write_header(struct fs_message *message, int status, size_t size)
{
    const struct fuse_out_header header = {.len = (uint32_t)(sizeof(header) + size),
                                           .error = status,
                                           .unique = message->header.unique};

    message->replied = 0;
    if (message->reply_room >= sizeof(header)) {
        vectors_put(message->reply, message->reply_count, 0, &header, sizeof(header));
        message->replied = sizeof(header) + size;
    }
}

int fs_reply(struct fs_message *message, const void *bytes, size_t size)
{
    if (message->reply_room < sizeof(struct fuse_out_header) + size) {
        return -EINVAL;
    }
    vectors_put(message->reply, message->reply_count, sizeof(struct fuse_out_header), bytes, size);
    write_header(message, 0, size);
    return 0;
}

int fs_reply_written(struct fs_message *message, size_t bytes)
{
    write_header(message, 0, bytes);
    return 0;
}

int fs_reply_error(struct fs_message *message, int status)
{
    write_header(message, status, 0);
    return 0;
}

unsigned fs_reply_segments(const struct fs_message *message, struct iovec *segments, uint64_t limit,
                           uint64_t *bytes)
{
    unsigned count =
        vectors_cut(message->reply, message->reply_count, sizeof(struct fuse_out_header), limit,
                    segments, message->reply_count);

    *bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        *bytes += segments[i].iov_len;
    }
    return count;
}
