/*
 * A client of a console that comes back when the device's process has died, as vmctl does, and
 * checks that byte n of the output is console_client_byte(n). Its own input is such a sequence,
 * too.
 */
#ifndef POLYVISOR_TESTS_UNIT_CONSOLE_CLIENT_H
#define POLYVISOR_TESTS_UNIT_CONSOLE_CLIENT_H

#include "tests/unit/device_host.h"

struct console_client {
    struct device_host *host;
    int fd; /* -1: to be connected */
    bool welcomed;
    uint32_t flags;
    uint64_t output, sent; /* positions */
    unsigned connections;
};

static inline uint8_t console_client_byte(uint64_t position)
{
    return (uint8_t)(position * 31 + position / 251 + position / 65521);
}

static inline void console_client_close(struct console_client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
    client->welcomed = false;
}

static inline void console_client_connect(struct console_client *client)
{
    struct console_hello hello = {.magic = CONSOLE_MAGIC,
                                  .flags =
                                      client->flags | (client->connections ? CONSOLE_RESUME : 0),
                                  .id = 77,
                                  .output = client->output,
                                  .input = client->sent};
    client->fd = host_attach(client->host, -1);
    ck_assert_int_eq(write(client->fd, &hello, sizeof(hello)), sizeof(hello));
    client->connections++;
}

static inline void console_client_greet(struct console_client *client)
{
    struct console_welcome welcome;
    ssize_t got = recv(client->fd, &welcome, sizeof(welcome), MSG_DONTWAIT | MSG_PEEK);

    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        console_client_close(client);
    } else if (got == (ssize_t)sizeof(welcome)) {
        recv(client->fd, &welcome, sizeof(welcome), 0);
        ck_assert_uint_eq(welcome.magic, CONSOLE_MAGIC);
        ck_assert_uint_eq(welcome.output, client->output); /* nothing was lost */
        ck_assert_uint_le(welcome.input, client->sent);
        client->sent = welcome.input;
        client->welcomed = true;
    }
}

/* Whatever can be done without waiting; input up to byte `until`. */
static inline void console_client_turn(struct console_client *client, uint64_t until)
{
    uint8_t bytes[4096];

    if (client->fd < 0) {
        console_client_connect(client);
    }
    if (!client->welcomed) {
        console_client_greet(client);
        return;
    }
    for (; client->sent < until; client->sent++) {
        uint8_t byte = console_client_byte(client->sent);
        if (send(client->fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
            break;
        }
    }
    ssize_t got = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    for (ssize_t i = 0; i < got; i++, client->output++) {
        ck_assert_uint_eq(bytes[i], console_client_byte(client->output));
    }
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        console_client_close(client);
    }
}

#endif
