#include "vmmd/confinement.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void add_word(char text[CONFINEMENT_TEXT_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add_word(char text[CONFINEMENT_TEXT_MAX], const char *format, ...)
{
    size_t length = strlen(text);
    va_list arguments;

    if (length > 0 && length + 2 < CONFINEMENT_TEXT_MAX) {
        text[length++] = ' ';
        text[length] = '\0';
    }
    va_start(arguments, format);
    vsnprintf(text + length, CONFINEMENT_TEXT_MAX - length, format, arguments);
    va_end(arguments);
}

/* The value of one line of /proc/PID/status, in the given base. */
static void read_line(const char *line, char text[CONFINEMENT_TEXT_MAX])
{
    unsigned long long value;

    if (sscanf(line, "NoNewPrivs: %llu", &value) == 1 && value) {
        add_word(text, "no-new-privileges");
    } else if (sscanf(line, "Seccomp: %llu", &value) == 1 && value == 2) {
        add_word(text, "seccomp");
    } else if (sscanf(line, "CapEff: %llx", &value) == 1 && value == 0) {
        add_word(text, "no-capabilities");
    } else if (sscanf(line, "Uid: %llu", &value) == 1 && value != geteuid()) {
        add_word(text, "user=%llu", value);
    }
}

static void read_status(pid_t pid, char text[CONFINEMENT_TEXT_MAX])
{
    char path[48], line[256];

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        read_line(line, text);
    }
    if (file) {
        fclose(file);
    }
}

static ssize_t read_namespace(const char *process, const char *name, char link[64])
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%s/ns/%s", process, name);
    ssize_t length = readlink(path, link, 63);
    link[length > 0 ? length : 0] = '\0';
    return length;
}

static void read_namespaces(pid_t pid, char text[CONFINEMENT_TEXT_MAX])
{
    static const struct {
        const char *name, *word;
    } namespaces[] = {
        {"mnt", "mount"}, {"net", "network"}, {"ipc", "ipc"}, {"uts", "uts"}, {"user", "user"},
    };
    char process[16], theirs[64], ours[64];

    snprintf(process, sizeof(process), "%d", (int)pid);
    for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
        if (read_namespace(process, namespaces[i].name, theirs) > 0 &&
            read_namespace("self", namespaces[i].name, ours) > 0 && strcmp(theirs, ours) != 0) {
            add_word(text, "%s-namespace", namespaces[i].word);
        }
    }
}

void confinement_read(pid_t pid, char text[CONFINEMENT_TEXT_MAX])
{
    text[0] = '\0';
    read_status(pid, text);
    read_namespaces(pid, text);
}
