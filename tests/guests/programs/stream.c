/*
 * stream DEVICE: a terminal under load in both directions, until it is sent the line "end". Output:
 * numbered lines, "out NUMBER ..." with a text that depends on the number, then "done NUMBER".
 * Input: such lines ("in NUMBER ..."), of which none may be missing, damaged, or there twice.
 * Printed on standard output: "sent N received N wrong N".
 */
#define _GNU_SOURCE /* cfmakeraw */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static int device;
static volatile int stop;
static unsigned long received, wrong;

static void line_of(const char *direction, unsigned long number, char line[64])
{
    snprintf(line, 64, "%s %lu %08lx\n", direction, number, number * 2654435761ul & 0xffffffff);
}

static void *read_input(void *argument)
{
    FILE *input = fdopen(dup(device), "r");
    char line[256], expected[64];
    (void)argument;

    while (input && fgets(line, sizeof(line), input) && strcmp(line, "end\n") != 0) {
        line_of("in", received, expected);
        if (strcmp(line, expected) != 0) {
            fprintf(stderr, "got '%.*s' for '%.*s'\n", (int)strcspn(line, "\n"), line,
                    (int)strcspn(expected, "\n"), expected);
            wrong++;
            sscanf(line, "in %lu", &received); /* go on from there */
        }
        received++;
    }
    stop = 1;
    return NULL;
}

static int write_all(const char *bytes, size_t size)
{
    while (size) {
        ssize_t done = write(device, bytes, size);
        if (done <= 0) {
            perror("write");
            return -1;
        }
        bytes += done;
        size -= (size_t)done;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct termios settings, before;
    char last[64];
    unsigned long sent = 0;
    pthread_t reader;

    device = argc == 2 ? open(argv[1], O_RDWR | O_NOCTTY) : -1;
    if (device < 0 || tcgetattr(device, &settings) < 0) {
        perror("stream");
        return 2;
    }
    before = settings;
    cfmakeraw(&settings);
    tcsetattr(device, TCSANOW, &settings);
    if (pthread_create(&reader, NULL, read_input, NULL) != 0) {
        return 2;
    }
    while (!stop) {
        char lines[20 * 64];
        size_t size = 0;
        for (unsigned i = 0; i < 20; i++) {
            line_of("out", sent++, lines + size);
            size += strlen(lines + size);
        }
        if (write_all(lines, size) < 0) {
            wrong++;
            break;
        }
        usleep(5000);
    }
    snprintf(last, sizeof(last), "done %lu\n", sent);
    write_all(last, strlen(last));
    pthread_join(reader, NULL);
    tcsetattr(device, TCSADRAIN, &before);
    printf("sent %lu received %lu wrong %lu\n", sent, received, wrong);
    return wrong != 0;
}
