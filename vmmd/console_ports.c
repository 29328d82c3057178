#include "vmmd/console_ports.h"

#include "libshared/ipc/console.h"
#include "libshared/mem/memory.h"
#include "vmmd/unix_socket.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_WAITING 16

static int port_check(const Polyvisor__MachineConfig *config, size_t number, struct error *err)
{
    struct port_setting setting, other;
    int result = port_setting_parse(config->console_ports[number], ERROR_CONFIG, &setting, err);

    if (!result && setting.path[0] && setting.path[0] != '/') {
        result = error_set(err, ERROR_CONFIG, 0,
                           "the path of the console port '%s' is not absolute", setting.path);
    }
    for (size_t i = 0; i < number && !result; i++) {
        result = port_setting_parse(config->console_ports[i], ERROR_CONFIG, &other, err);
        if (!result && strcmp(setting.name, other.name) == 0) {
            error_set(err, ERROR_CONFIG, 0, "two console ports are called '%s'", setting.name);
            error_hint(err, "the guest knows them by their names");
            result = -ERROR_CONFIG;
        } else if (!result && setting.path[0] && strcmp(setting.path, other.path) == 0) {
            result = error_set(err, ERROR_CONFIG, 0, "two console ports have the path '%s'",
                               setting.path);
        }
    }
    return result;
}

int console_ports_check(const Polyvisor__MachineConfig *config, struct error *err)
{
    int result = 0;

    if (config->n_console_ports > PORTS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu console ports wanted, the most is %u",
                         config->n_console_ports, PORTS_MAX);
    }
    for (size_t i = 0; i < config->n_console_ports && !result; i++) {
        result = port_check(config, i, err);
    }
    return result;
}

void console_ports_plan(struct console_ports *ports, const Polyvisor__MachineConfig *config,
                        const char *directory)
{
    ports->count = 0;
    for (size_t i = 0; i < config->n_console_ports && ports->count < PORTS_MAX; i++) {
        struct console_port *port = &ports->items[ports->count++];
        port_setting_parse(config->console_ports[i], ERROR_CONFIG, &port->setting, NULL);
        snprintf(port->console_path, sizeof(port->console_path), "%s/console0.port%u.sock",
                 directory, ports->count);
        port->listener = port->plain = port->memory = -1;
    }
}

int console_port_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, CLIENTS_WAITING) < 0) {
        int cause = errno;
        if (fd >= 0) {
            close(fd);
        }
        return -cause;
    }
    return fd;
}

/* Zeros but for magic and version. */
int console_port_memory(void)
{
    const uint32_t head[] = {CONSOLE_MEMORY_MAGIC, CONSOLE_MEMORY_VERSION};
    int fd = memory_create_fd("console", CONSOLE_MEMORY_SIZE);

    if (fd >= 0 && pwrite(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) {
        close(fd);
        return -EIO;
    }
    return fd;
}

int console_ports_open(struct console_ports *ports, struct error *err)
{
    for (unsigned i = 0; i < ports->count; i++) {
        struct console_port *port = &ports->items[i];
        port->listener = console_port_listen(port->console_path);
        port->memory = console_port_memory();
        int result = port->listener < 0 ? port->listener : port->memory;
        if (result < 0) {
            return error_set(err, ERROR_IO, -result, "cannot set up console port '%s': %s",
                             port->setting.name, strerror(-result));
        }
        if (port->setting.path[0]) {
            port->plain =
                unix_socket_listen("console port", port->setting.path, CLIENTS_WAITING, err);
            if (port->plain < 0) {
                return port->plain;
            }
        }
    }
    return 0;
}

static void port_close(int *fd, const char *path)
{
    if (*fd >= 0) {
        close(*fd);
        if (path) {
            unlink(path);
        }
    }
    *fd = -1;
}

void console_ports_close(struct console_ports *ports)
{
    for (unsigned i = 0; i < ports->count; i++) {
        struct console_port *port = &ports->items[i];
        port_close(&port->listener, port->console_path);
        port_close(&port->plain, port->setting.path);
        port_close(&port->memory, NULL);
    }
}

int console_ports_list(const struct console_ports *ports, struct fdlist *list)
{
    int result = 0;

    for (unsigned i = 0; i < ports->count && !result; i++) {
        const struct console_port *port = &ports->items[i];
        result = fdlist_add(list, port->listener, "port.%u", i);
        result = result ? result : fdlist_add(list, port->memory, "port-memory.%u", i);
        if (!result && port->plain >= 0) {
            result = fdlist_add(list, port->plain, "port-plain.%u", i);
        }
    }
    return result;
}
