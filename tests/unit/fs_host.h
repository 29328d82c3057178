/*
 * A guest's FUSE client for the tests of devd/fs: raw messages into the dispatch, right or wrong,
 * on a directory of the test. What vmmd keeps is kept here, so that a test can have the server
 * die and go on with another.
 */
#ifndef POLYVISOR_TESTS_UNIT_FS_HOST_H
#define POLYVISOR_TESTS_UNIT_FS_HOST_H

#include "devd/fs/fs.h"
#include "libshared/mem/memory.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FS_HOST_ROOM (1u << 20)

struct fs_host {
    struct fs *fs;
    char base[64]; /* a folder; the shared one is base/share, and beside it is base/outside */
    int state, keep[2];
    struct share_setting setting;
    unsigned cached, known;
    uint64_t unique;
    bool again;
    unsigned slot;
    uint8_t reply[FS_HOST_ROOM];
    uint32_t reply_bytes;
};

/* A path below the base; one of a few that live at the same time. */
static inline const char *host_path(const struct fs_host *host, const char *format, ...)
{
    static char paths[4][4400];
    static unsigned next;
    char *path = paths[next++ % 4];
    va_list arguments;

    int length = snprintf(path, 4400, "%s/", host->base);
    va_start(arguments, format);
    vsnprintf(path + length, (size_t)(4400 - length), format, arguments);
    va_end(arguments);
    return path;
}

static inline void host_file(const struct fs_host *host, const char *name, const char *text)
{
    FILE *file = fopen(host_path(host, "%s", name), "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

/* The text of a file below the base. */
static inline const char *host_text(const struct fs_host *host, const char *name)
{
    static char text[4096];
    FILE *file = fopen(host_path(host, "%s", name), "r");

    memset(text, 0, sizeof(text));
    if (!file) {
        return NULL;
    }
    size_t got = fread(text, 1, sizeof(text) - 1, file);
    (void)got;
    fclose(file);
    return text;
}

static inline bool host_exists(const struct fs_host *host, const char *name)
{
    struct stat status;
    return lstat(host_path(host, "%s", name), &status) == 0;
}

static inline void host_serve(struct fs_host *host)
{
    struct error err;
    int root = open(host_path(host, "share"), O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct fs_options options = {.setting = host->setting,
                                 .root = root,
                                 .links = "/proc/self/fd",
                                 .state = host->state,
                                 .keep_in = fcntl(host->keep[0], F_DUPFD_CLOEXEC, 0),
                                 .keep_out = fcntl(host->keep[1], F_DUPFD_CLOEXEC, 0),
                                 .cached = host->cached,
                                 .known = host->known,
                                 .host_uid = geteuid()};

    error_clear(&err);
    host->fs = fs_create(&options, &err);
    ck_assert_msg(host->fs != NULL, "%s", err.message);
    close(root);
}

/* The server dies, another one goes on. */
static inline void host_replace(struct fs_host *host)
{
    fs_destroy(host->fs);
    host_serve(host);
}

/* Send a message of these parts (pointer and size, NULL at the end). The error it is answered with,
 * 0 or negative; host->reply has the rest. */
static inline int host_send(struct fs_host *host, uint32_t opcode, uint64_t node, ...)
{
    static uint8_t arguments[FS_ARGUMENTS_MAX + FS_WRITE_MAX];
    size_t bytes = 0;
    va_list parts;
    struct iovec out = {host->reply, sizeof(host->reply)};

    va_start(parts, node);
    for (const void *part; (part = va_arg(parts, const void *));) {
        size_t size = va_arg(parts, size_t);
        memcpy(arguments + bytes, part, size);
        bytes += size;
    }
    va_end(parts);
    size_t fixed = fs_argument_bytes(opcode, bytes);
    struct iovec data = {arguments + fixed, bytes - fixed};
    struct fs_message message = {.arguments = arguments,
                                 .argument_bytes = fixed,
                                 .data = &data,
                                 .data_count = bytes > fixed,
                                 .data_bytes = bytes - fixed,
                                 .reply = &out,
                                 .reply_count = 1,
                                 .reply_room = sizeof(host->reply),
                                 .slot = host->slot,
                                 .again = host->again};

    host->unique += host->again ? 0 : 2;
    message.header = (struct fuse_in_header){.len = (uint32_t)(sizeof(message.header) + bytes),
                                             .opcode = opcode,
                                             .unique = host->unique,
                                             .nodeid = node};
    memset(host->reply, 0, 256);
    fs_run(host->fs, &message);
    struct fuse_out_header header;
    memcpy(&header, host->reply, sizeof(header));
    if (message.replied) {
        ck_assert_uint_eq(header.unique, host->unique);
        ck_assert_uint_eq(header.len, message.replied);
    }
    host->reply_bytes = (uint32_t)message.replied;
    return message.replied ? header.error : 0;
}
#define SEND(host, opcode, node, ...) host_send(host, opcode, node, ##__VA_ARGS__, NULL)
#define TEXT(text)                    (const void *)(text), strlen(text) + 1
#define BYTES(object)                 (const void *)&(object), sizeof(object)

/* What was answered, behind the header. */
#define REPLY(host, type) ((type *)(void *)((host)->reply + sizeof(struct fuse_out_header)))

static inline void host_introduce(struct fs_host *host)
{
    struct fuse_init_in in = {.major = 7, .minor = 38, .max_readahead = 1 << 20, .flags = ~0u};
    ck_assert_int_eq(SEND(host, FUSE_INIT, 0, BYTES(in)), 0);
}

static inline void host_begin(struct fs_host *host)
{
    const uint32_t head[] = {SHARE_STATE_MAGIC, SHARE_STATE_VERSION};

    memset(host, 0, sizeof(*host));
    umask(0);
    snprintf(host->base, sizeof(host->base), "/tmp/polyvisor-fs-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(host->base));
    ck_assert_int_eq(mkdir(host_path(host, "share"), 0755), 0);
    ck_assert_int_eq(mkdir(host_path(host, "outside"), 0755), 0);
    host_file(host, "outside/secret", "secret");
    host->state = memory_create_fd("share-state", SHARE_STATE_SIZE);
    ck_assert_int_eq(pwrite(host->state, head, sizeof(head), 0), sizeof(head));
    ck_assert_int_eq(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, host->keep), 0);
    host->cached = 100;
    host->known = 1000;
    host_serve(host);
    host_introduce(host);
}

static inline void host_end(struct fs_host *host)
{
    char command[128];

    fs_destroy(host->fs);
    close(host->state);
    close(host->keep[0]);
    close(host->keep[1]);
    snprintf(command, sizeof(command), "chmod -R u+rwX %s; rm -rf %s", host->base, host->base);
    ck_assert_int_eq(system(command), 0);
}

/* ---- What a guest does ---- */

/* The number of a name, or 0 with the error in *status. */
static inline uint64_t host_lookup(struct fs_host *host, uint64_t parent, const char *name,
                                   int *status)
{
    int result = SEND(host, FUSE_LOOKUP, parent, TEXT(name));

    if (status) {
        *status = result;
    } else {
        ck_assert_msg(result == 0, "lookup of %s: %s", name, strerror(-result));
    }
    return result == 0 ? REPLY(host, struct fuse_entry_out)->nodeid : 0;
}

static inline int host_open_node(struct fs_host *host, uint64_t node, int flags, uint64_t *handle)
{
    const struct fuse_open_in in = {.flags = (uint32_t)flags};
    int result = SEND(host, flags & O_DIRECTORY ? FUSE_OPENDIR : FUSE_OPEN, node, BYTES(in));

    *handle = REPLY(host, struct fuse_open_out)->fh;
    return result;
}

static inline int host_create(struct fs_host *host, uint64_t parent, const char *name, int flags,
                              mode_t mode, uint64_t *node, uint64_t *handle)
{
    const struct fuse_create_in in = {.flags = (uint32_t)flags | O_CREAT, .mode = mode | S_IFREG};
    int result = SEND(host, FUSE_CREATE, parent, BYTES(in), TEXT(name));

    *node = REPLY(host, struct fuse_entry_out)->nodeid;
    struct fuse_open_out out;
    memcpy(&out, REPLY(host, uint8_t) + sizeof(struct fuse_entry_out), sizeof(out));
    *handle = out.fh;
    return result;
}

static inline int host_write(struct fs_host *host, uint64_t node, uint64_t handle, uint64_t offset,
                             const char *text)
{
    const struct fuse_write_in in = {
        .fh = handle, .offset = offset, .size = (uint32_t)strlen(text)};
    return SEND(host, FUSE_WRITE, node, BYTES(in), (const void *)text, strlen(text));
}

/* The text read; NULL with the error in *status. */
static inline const char *host_read(struct fs_host *host, uint64_t node, uint64_t handle,
                                    int *status)
{
    const struct fuse_read_in in = {.fh = handle, .size = 4096};
    *status = SEND(host, FUSE_READ, node, BYTES(in));
    host->reply[host->reply_bytes] = '\0';
    return *status == 0 ? REPLY(host, char) : NULL;
}

static inline int host_release(struct fs_host *host, uint64_t node, uint64_t handle, bool directory)
{
    const struct fuse_release_in in = {.fh = handle};
    return SEND(host, directory ? FUSE_RELEASEDIR : FUSE_RELEASE, node, BYTES(in));
}

static inline void host_forget(struct fs_host *host, uint64_t node, uint64_t count)
{
    const struct fuse_forget_in in = {.nlookup = count};
    SEND(host, FUSE_FORGET, node, BYTES(in));
}

static inline int host_mkdir(struct fs_host *host, uint64_t parent, const char *name)
{
    const struct fuse_mkdir_in in = {.mode = 0755};
    return SEND(host, FUSE_MKDIR, parent, BYTES(in), TEXT(name));
}

static inline int host_rename(struct fs_host *host, uint64_t from, const char *old_name,
                              uint64_t to, const char *new_name, uint32_t flags)
{
    const struct fuse_rename2_in in = {.newdir = to, .flags = flags};
    return SEND(host, FUSE_RENAME2, from, BYTES(in), TEXT(old_name), TEXT(new_name));
}

static inline int host_getattr(struct fs_host *host, uint64_t node)
{
    const struct fuse_getattr_in in = {0};
    return SEND(host, FUSE_GETATTR, node, BYTES(in));
}

#endif
