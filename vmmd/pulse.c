#include "vmmd/pulse.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PULSE_NAME_MAX 16 /* TASK_COMM_LEN */
/* Threads that are looked at, of which the first are those that answer: so that a process with
 * very many costs no more. */
#define PULSE_THREADS_MAX 64
/* Waiting for a processor for more than this part of the time is lacking one. */
#define PULSE_STARVED_PART 4

/* The beginning of a small file of /proc, as a string. False when it cannot be read. */
static bool pulse_read(pid_t pid, const char *thread, const char *what, char *text, size_t size)
{
    char path[96];

    snprintf(path, sizeof(path), "/proc/%ld/task/%s/%s", (long)pid, thread, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* Name and state of a thread. The name, in parentheses, may hold anything. */
static bool pulse_identify(pid_t pid, const char *thread, char name[PULSE_NAME_MAX], char *state)
{
    char text[256];

    if (!pulse_read(pid, thread, "stat", text, sizeof(text))) {
        return false;
    }
    const char *begin = strchr(text, '('), *end = strrchr(text, ')');
    if (!begin || !end || end <= begin || sscanf(end + 1, " %c", state) != 1) {
        return false;
    }
    snprintf(name, PULSE_NAME_MAX, "%.*s", (int)(end - begin - 1), begin + 1);
    return true;
}

/* schedstat: nanoseconds on a processor, nanoseconds of waiting for one, time slices. */
static bool pulse_add(pid_t pid, const char *thread, struct pulse *pulse)
{
    char text[96];
    unsigned long long ran, waited;

    if (!pulse_read(pid, thread, "schedstat", text, sizeof(text)) ||
        sscanf(text, "%llu %llu", &ran, &waited) != 2) {
        return false;
    }
    pulse->ran_ns += ran;
    pulse->waited_ns += waited;
    return true;
}

/* The next thread's directory, or NULL after the last one. */
static const char *pulse_next_thread(DIR *directory)
{
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (entry->d_name[0] != '.') {
            return entry->d_name;
        }
    }
    return NULL;
}

static DIR *pulse_threads(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
    return opendir(path);
}

struct pulse pulse_take(pid_t pid)
{
    struct pulse pulse = {0};
    char first[16], name[PULSE_NAME_MAX], other[PULSE_NAME_MAX], state;

    snprintf(first, sizeof(first), "%ld", (long)pid);
    if (!pulse_identify(pid, first, name, &pulse.state)) {
        return pulse;
    }
    pulse.known = pulse_add(pid, first, &pulse);
    pulse.wants = pulse.state == 'R';
    DIR *directory = pulse_threads(pid);
    const char *thread;
    for (unsigned i = 0; i < PULSE_THREADS_MAX && (thread = pulse_next_thread(directory)); i++) {
        if (strcmp(thread, first) && pulse_identify(pid, thread, other, &state) &&
            !strcmp(name, other)) {
            pulse_add(pid, thread, &pulse);
            pulse.wants |= state == 'R';
        }
    }
    if (directory) {
        closedir(directory);
    }
    return pulse;
}

static void pulse_log_thread(pid_t pid, const char *thread, const char *role)
{
    char name[PULSE_NAME_MAX], place[64], state;
    struct pulse pulse = {0};

    if (pulse_identify(pid, thread, name, &state) && pulse_add(pid, thread, &pulse)) {
        pulse_read(pid, thread, "wchan", place, sizeof(place));
        log_warning("%s: thread %s (%s): state %c in %s, ran %llu ms, lacked a processor %llu ms",
                    role, thread, name, state, place, (unsigned long long)pulse.ran_ns / NS_PER_MS,
                    (unsigned long long)pulse.waited_ns / NS_PER_MS);
    }
}

void pulse_log(pid_t pid, const char *role)
{
    DIR *directory = pulse_threads(pid);
    const char *thread;

    for (unsigned i = 0; i < PULSE_THREADS_MAX && (thread = pulse_next_thread(directory)); i++) {
        pulse_log_thread(pid, thread, role);
    }
    if (directory) {
        closedir(directory);
    }
}

bool pulse_stopped(const struct pulse *pulse)
{
    return pulse->state == 'T' || pulse->state == 't';
}

bool pulse_starved(const struct pulse *before, const struct pulse *now, uint64_t elapsed_ns)
{
    if (!before->known || !now->known || now->ran_ns < before->ran_ns) {
        return false;
    }
    uint64_t part_ns = elapsed_ns / PULSE_STARVED_PART;
    /* One that has waited all along gets no entry before it runs. */
    return now->waited_ns - before->waited_ns > part_ns ||
           (now->wants && now->ran_ns - before->ran_ns < part_ns);
}
