/*
 * The guest's side of the console ports' test.
 *
 *   ports both NAME RESULT  opens the port NAME; writes numbered lines until the host has said
 * "end", then "end"; checks that the host's lines are all there, in order, once; writes what it
 * found into the file RESULT ports echo NAME         answers each line of the host, whenever
 * somebody is there
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 128
#define PORTS          "/sys/class/virtio-ports"

static int line_make(unsigned number, char line[LINE_MAX_BYTES])
{
    char filler[64];
    unsigned count = number % 60;

    memset(filler, 'x', count);
    filler[count] = '\0';
    return snprintf(line, LINE_MAX_BYTES, "line %u %s\n", number, filler);
}

/* What udev does. A descriptor, or -1. */
static int port_open(const char *name)
{
    DIR *ports = opendir(PORTS);
    char path[512], found[64];
    int fd = -1;

    for (struct dirent *entry; fd < 0 && ports && (entry = readdir(ports));) {
        snprintf(path, sizeof(path), PORTS "/%s/name", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(found, sizeof(found), file)) {
            found[strcspn(found, "\n")] = '\0';
            snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
            fd = strcmp(found, name) == 0 ? open(path, O_RDWR | O_NONBLOCK) : -1;
        }
        if (file) {
            fclose(file);
        }
    }
    if (ports) {
        closedir(ports);
    }
    return fd;
}

struct traffic {
    int fd;
    char in[LINE_MAX_BYTES], out[LINE_MAX_BYTES];
    size_t in_size, out_size;
    unsigned received, sent;
    bool heard_end, said_end;
    const char *fault;
};

/* One line of the host. */
static void hear(struct traffic *traffic)
{
    char wanted[LINE_MAX_BYTES];

    if (traffic->in_size == 4 && memcmp(traffic->in, "end\n", 4) == 0) {
        traffic->heard_end = true;
        return;
    }
    int length = line_make(++traffic->received, wanted);
    if (traffic->in_size != (size_t)length || memcmp(traffic->in, wanted, traffic->in_size) != 0) {
        traffic->fault = "a line is lost, changed or there twice";
    }
}

static void receive(struct traffic *traffic)
{
    char bytes[4096];
    ssize_t count = read(traffic->fd, bytes, sizeof(bytes));

    for (ssize_t i = 0; i < count && !traffic->fault && !traffic->heard_end; i++) {
        traffic->in[traffic->in_size++] = bytes[i];
        if (bytes[i] == '\n') {
            hear(traffic);
            traffic->in_size = 0;
        } else if (traffic->in_size == sizeof(traffic->in)) {
            traffic->fault = "a line does not end";
        }
    }
}

static void transmit(struct traffic *traffic)
{
    if (traffic->out_size == 0 && traffic->heard_end) {
        memcpy(traffic->out, "end\n", 4);
        traffic->out_size = 4;
        traffic->said_end = true;
    } else if (traffic->out_size == 0) {
        traffic->out_size = (size_t)line_make(++traffic->sent, traffic->out);
    }
    ssize_t count = write(traffic->fd, traffic->out, traffic->out_size);
    if (count > 0) {
        traffic->out_size -= (size_t)count;
        memmove(traffic->out, traffic->out + count, traffic->out_size);
    }
}

static int both(const char *name, const char *result)
{
    struct traffic traffic = {.fd = port_open(name)};

    if (traffic.fd < 0) {
        traffic.fault = "there is no such port";
    }
    while (!traffic.fault && !(traffic.said_end && traffic.out_size == 0)) {
        struct pollfd state = {.fd = traffic.fd, .events = POLLIN | POLLOUT};
        poll(&state, 1, 1000);
        if (state.revents & POLLHUP) {
            usleep(10000); /* nobody is there */
        }
        if (state.revents & POLLIN) {
            receive(&traffic);
        }
        if (state.revents & POLLOUT) {
            transmit(&traffic);
        }
    }
    FILE *file = fopen(result, "w");
    if (!file) {
        return 1;
    }
    fprintf(file, "%s: %u lines received, %u sent\n", traffic.fault ? traffic.fault : "good",
            traffic.received, traffic.sent);
    fclose(file);
    return traffic.fault != NULL;
}

static int echo(const char *name)
{
    int fd = port_open(name);
    char bytes[512];

    while (fd >= 0) {
        struct pollfd state = {.fd = fd, .events = POLLIN};
        poll(&state, 1, -1);
        ssize_t count = state.revents & POLLIN ? read(fd, bytes, sizeof(bytes)) : 0;
        if (count > 0) {
            while (write(fd, bytes, (size_t)count) != count) {
                usleep(10000);
            }
        } else {
            usleep(10000); /* nobody is there */
        }
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "both") == 0) {
        return both(argv[2], argv[3]);
    }
    if (argc == 3 && strcmp(argv[1], "echo") == 0) {
        return echo(argv[2]);
    }
    fprintf(stderr, "usage: ports both NAME RESULT | echo NAME\n");
    return 2;
}
