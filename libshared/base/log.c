#include "libshared/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static const char *const log_level_names[] = {"error", "warning", "info", "debug"};

/* Written once by log_open, before any other thread is started; only read afterwards. */
static char log_name[64] = "polyvisor";
static enum log_level log_threshold = LOG_LEVEL_WARNING;

void log_open(const char *name)
{
    const char *wanted = getenv("POLYVISOR_LOG");

    snprintf(log_name, sizeof(log_name), "%s", name);
    for (int level = LOG_LEVEL_ERROR; wanted && level <= LOG_LEVEL_DEBUG; level++) {
        if (!strcmp(wanted, log_level_names[level])) {
            log_threshold = (enum log_level)level;
        }
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_MAX];
    va_list arguments;
    int saved = errno; /* so that a caller may log before it returns -errno */

    if (level > log_threshold) {
        return;
    }
    int head = snprintf(line, sizeof(line), "%s: %s: ", log_name, log_level_names[level]);
    va_start(arguments, format);
    int body = vsnprintf(line + head, sizeof(line) - (size_t)head, format, arguments);
    va_end(arguments);

    size_t length = (size_t)head + (body > 0 ? (size_t)body : 0);
    if (length > sizeof(line) - 2) {
        length = sizeof(line) - 2;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)line[i];
        if (byte < 0x20 || byte == 0x7f) { /* what is quoted may be meant for the terminal */
            line[i] = byte == '\n' || byte == '\t' ? ' ' : '?';
        }
    }
    line[length++] = '\n';
    /* One write a line keeps lines of several processes whole. There is no better place to
     * report that this one failed. */
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
    errno = saved;
}
