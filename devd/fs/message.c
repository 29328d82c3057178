/* Reading arguments and writing answers. */
#include "devd/fs/fs_internal.h"

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

/* Copy to byte `offset` of the answer's room; as much as there is room for. */
static void write_out(const struct fs_message *message, uint64_t offset, const void *from,
                      size_t size)
{
    const uint8_t *bytes = from;

    for (unsigned i = 0; i < message->reply_count && size > 0; i++) {
        const struct iovec *piece = &message->reply[i];
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t part = piece->iov_len - (size_t)offset;
        part = part < size ? part : size;
        memcpy((uint8_t *)piece->iov_base + offset, bytes, part);
        bytes += part;
        size -= part;
        offset = 0;
    }
}

static void write_header(struct fs_message *message, int status, size_t size)
{
    const struct fuse_out_header header = {.len = (uint32_t)(sizeof(header) + size),
                                           .error = status,
                                           .unique = message->header.unique};

    message->replied = 0;
    if (message->reply_room >= sizeof(header)) {
        write_out(message, 0, &header, sizeof(header));
        message->replied = sizeof(header) + size;
    }
}

int fs_reply(struct fs_message *message, const void *bytes, size_t size)
{
    if (message->reply_room < sizeof(struct fuse_out_header) + size) {
        return -EINVAL;
    }
    write_out(message, sizeof(struct fuse_out_header), bytes, size);
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
    uint64_t skip = sizeof(struct fuse_out_header);
    unsigned count = 0;

    *bytes = 0;
    for (unsigned i = 0; i < message->reply_count && *bytes < limit; i++) {
        const struct iovec *piece = &message->reply[i];
        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        uint64_t part = piece->iov_len - skip;
        part = part < limit - *bytes ? part : limit - *bytes;
        segments[count++] = (struct iovec){(uint8_t *)piece->iov_base + skip, (size_t)part};
        *bytes += part;
        skip = 0;
    }
    return count;
}
