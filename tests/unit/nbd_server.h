/*
 * A small NBD server in a thread of the test, on one end of a socket pair, for one connection: an
 * honest one, or one that lies in a given way.
 */
#ifndef POLYVISOR_TESTS_UNIT_NBD_SERVER_H
#define POLYVISOR_TESTS_UNIT_NBD_SERVER_H

#include <check.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NBD_BYTES (1u << 20)

enum nbd_lie {
    NBD_HONEST,
    /* In the handshake. */
    NBD_NO_GREETING,   /* ends at once */
    NBD_HALF_GREETING, /* ends in the middle */
    NBD_BAD_MAGIC,     /* speaks something else */
    NBD_MUTE,          /* says nothing */
    NBD_NO_EXPORT,     /* there is none of that name */
    NBD_SIZE_HUGE,     /* 2^64 - 1 bytes */
    NBD_SIZE_NONE,     /* 0 bytes */
    NBD_OPTION_LENGTH, /* a reply of 4 GiB */
    /* After it. */
    NBD_NO_REPLY,       /* to any request */
    NBD_REPLY_MAGIC,    /* garbage instead of a reply */
    NBD_REPLY_HANDLE,   /* to a request that nobody made */
    NBD_REPLY_TWICE,    /* the second for nothing */
    NBD_HALF_DATA,      /* then it ends */
    NBD_ERRORS,         /* each request fails: no space */
    NBD_STRANGE_ERRORS, /* with an unknown number */
    NBD_ENDS,           /* before the first reply */
    NBD_HALF_TWICE,     /* structured replies to reads: their first half, two times */
    NBD_LIES
};

struct nbd_server {
    _Atomic enum nbd_lie lie; /* a test changes it while the thread serves */
    bool read_only, no_flush;
    uint64_t bytes;
    uint8_t *contents;
    _Atomic unsigned ends_after; /* requests; 0: never */
    _Atomic unsigned flushes, writes, trims, zeroes, forced;
    int socket;
    pthread_t thread;
};

static inline bool nbd_get(int socket, void *bytes, size_t size)
{
    return recv(socket, bytes, size, MSG_WAITALL) == (ssize_t)size;
}

static inline bool nbd_put(int socket, const void *bytes, size_t size)
{
    const char *next = bytes;

    while (size) {
        ssize_t sent = send(socket, next, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        next += sent;
        size -= (size_t)sent;
    }
    return true;
}

struct nbd_option_reply {
    uint64_t magic;
    uint32_t option, type, length;
} __attribute__((packed));

static inline bool nbd_option_answer(int socket, uint32_t option, uint32_t type, const void *data,
                                     uint32_t length, uint32_t said)
{
    const struct nbd_option_reply reply = {htobe64(0x3e889045565a9ull), htobe32(option),
                                           htobe32(type), htobe32(said)};
    return nbd_put(socket, &reply, sizeof(reply)) && nbd_put(socket, data, length);
}

/* HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES. */
static inline uint16_t nbd_server_flags(const struct nbd_server *server)
{
    return (uint16_t)(1u | (server->read_only ? 2u : 0) | (server->no_flush ? 0 : 4u | 8u) | 32u |
                      64u);
}

static inline bool nbd_server_go(struct nbd_server *server, uint32_t option)
{
    struct {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } __attribute__((packed)) info = {0, htobe64(server->bytes), htobe16(nbd_server_flags(server))};

    if (server->lie == NBD_NO_EXPORT) {
        return nbd_option_answer(server->socket, option, 0x80000006u, NULL, 0, 0);
    }
    if (server->lie == NBD_OPTION_LENGTH) {
        return nbd_option_answer(server->socket, option, 3, &info, sizeof(info), UINT32_MAX);
    }
    if (server->lie == NBD_SIZE_HUGE || server->lie == NBD_SIZE_NONE) {
        info.size = server->lie == NBD_SIZE_HUGE ? UINT64_MAX : 0;
    }
    return nbd_option_answer(server->socket, option, 3, &info, sizeof(info), sizeof(info)) &&
           nbd_option_answer(server->socket, option, 1, NULL, 0, 0);
}

static inline bool nbd_server_options(struct nbd_server *server)
{
    for (;;) {
        struct {
            uint64_t magic;
            uint32_t option, length;
        } __attribute__((packed)) head;
        char data[8192];
        if (!nbd_get(server->socket, &head, sizeof(head)) || be32toh(head.length) > sizeof(data) ||
            (head.length && !nbd_get(server->socket, data, be32toh(head.length)))) {
            return false;
        }
        uint32_t option = be32toh(head.option);
        if (option == 7) { /* GO */
            if (!nbd_server_go(server, option)) {
                return false;
            }
            if (server->lie != NBD_NO_EXPORT) {
                return true;
            }
        } else if (option == 8 && server->lie == NBD_HALF_TWICE) { /* STRUCTURED_REPLY */
            if (!nbd_option_answer(server->socket, option, 1, NULL, 0, 0)) {
                return false;
            }
        } else if (!nbd_option_answer(server->socket, option, 0x80000001u, NULL, 0, 0)) {
            return false;
        }
    }
}

static inline bool nbd_server_handshake(struct nbd_server *server)
{
    const struct {
        uint64_t magic, version;
        uint16_t flags;
    } __attribute__((packed))
    greeting = {htobe64(0x4e42444d41474943ull), htobe64(0x49484156454f5054ull), htobe16(3)};
    uint32_t flags;

    switch (server->lie) {
    case NBD_NO_GREETING:
        return false;
    case NBD_HALF_GREETING:
        nbd_put(server->socket, &greeting, 11);
        return false;
    case NBD_BAD_MAGIC:
        nbd_put(server->socket, "SSH-2.0-something that is no NBD\r\n", 34);
        return nbd_get(server->socket, &flags, 1) && false;
    case NBD_MUTE:
        return nbd_get(server->socket, &flags, 1) && false;
    default:
        return nbd_put(server->socket, &greeting, sizeof(greeting)) &&
               nbd_get(server->socket, &flags, sizeof(flags)) && nbd_server_options(server);
    }
}

struct nbd_server_request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t handle, offset;
    uint32_t length;
} __attribute__((packed));

/* A chunk of a structured reply to a read: OFFSET_DATA, and DONE if it is the last. */
static inline bool nbd_server_chunk(const struct nbd_server *server, uint64_t handle,
                                    uint64_t offset, const void *data, uint32_t size, bool last)
{
    const struct {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t handle;
        uint32_t length;
        uint64_t offset;
    } __attribute__((packed)) chunk = {
        htobe32(0x668e33efu), htobe16(last), htobe16(1), handle, htobe32(size + 8), htobe64(offset),
    };

    return nbd_put(server->socket, &chunk, sizeof(chunk)) && nbd_put(server->socket, data, size);
}

static inline bool nbd_server_reply(struct nbd_server *server, uint64_t handle, uint32_t error,
                                    const void *data, size_t size)
{
    struct {
        uint32_t magic, error;
        uint64_t handle;
    } __attribute__((packed)) reply = {htobe32(0x67446698u), htobe32(error), handle};

    if (server->lie == NBD_REPLY_MAGIC) {
        memset(&reply, 0x77, sizeof(reply));
    } else if (server->lie == NBD_REPLY_HANDLE) {
        reply.handle ^= 0x55;
    } else if (server->lie == NBD_ERRORS || server->lie == NBD_STRANGE_ERRORS) {
        reply.error = htobe32(server->lie == NBD_ERRORS ? ENOSPC : 77777);
        size = 0;
    } else if (server->lie == NBD_HALF_DATA && size) {
        nbd_put(server->socket, &reply, sizeof(reply));
        nbd_put(server->socket, data, size / 2);
        return false;
    }
    bool sent = nbd_put(server->socket, &reply, sizeof(reply)) &&
                (!size || nbd_put(server->socket, data, size));
    if (sent && server->lie == NBD_REPLY_TWICE) {
        sent = nbd_put(server->socket, &reply, sizeof(reply));
    }
    return sent;
}

/* One request; false: the end. */
static inline bool nbd_server_serve(struct nbd_server *server)
{
    struct nbd_server_request request;

    if (!nbd_get(server->socket, &request, sizeof(request)) || be16toh(request.type) == 2) {
        return false;
    }
    uint64_t offset = be64toh(request.offset);
    uint32_t length = be32toh(request.length);
    uint16_t type = be16toh(request.type);
    if (offset > NBD_BYTES || length > NBD_BYTES - offset || server->lie == NBD_ENDS) {
        return false;
    }
    uint8_t *at = server->contents + offset;
    server->forced += (be16toh(request.flags) & 1) != 0;
    if (type == 1) {
        server->writes++;
        if (!nbd_get(server->socket, at, length)) {
            return false;
        }
    }
    server->flushes += type == 3;
    server->trims += type == 4;
    if (type == 6) {
        server->zeroes++;
        memset(at, 0, length);
    }
    if (server->lie == NBD_NO_REPLY) {
        return true;
    }
    if (server->ends_after && --server->ends_after == 0) {
        return false; /* done, and nobody hears of it */
    }
    if (server->lie == NBD_HALF_TWICE && type == 0) {
        return nbd_server_chunk(server, request.handle, offset, at, length / 2, false) &&
               nbd_server_chunk(server, request.handle, offset, at, length / 2, true);
    }
    return nbd_server_reply(server, request.handle, 0, at, type == 0 ? length : 0);
}

static inline void *nbd_server_run(void *context)
{
    struct nbd_server *server = context;

    if (nbd_server_handshake(server)) {
        while (nbd_server_serve(server)) {
        }
    }
    shutdown(server->socket, SHUT_RDWR);
    return NULL;
}

/* Serve: the client's end of the connection. */
static inline int nbd_server_start(struct nbd_server *server)
{
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    server->socket = pair[0];
    ck_assert_int_eq(pthread_create(&server->thread, NULL, nbd_server_run, server), 0);
    return pair[1];
}

static inline void nbd_server_stop(struct nbd_server *server)
{
    shutdown(server->socket, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->socket);
}

#endif
