/*
 * Diagnostic lines of the daemons, on standard error: "name: level: text". Never guest output.
 * Thread-safe: one write(2) a line. The level comes from POLYVISOR_LOG=error|warning|info|debug.
 */
#ifndef POLYVISOR_BASE_LOG_H
#define POLYVISOR_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Name lines after this process, for example "devd/block0". Copies. Call once, first in main. */
void log_open(const char *name);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
