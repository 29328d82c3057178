/*
 * Structured errors that cross module and process borders.
 *
 * Inside a module functions return 0 or a negative errno. Where an error may reach a person it is
 * a `struct error`, filled by the function that knows best what happened and passed up unchanged.
 * The caller owns the struct; it holds no pointers, so it can be copied and put in a message.
 */
#ifndef POLYVISOR_BASE_ERROR_H
#define POLYVISOR_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* One table: stable code, exit status of vmctl, what it means. Codes are never renamed. */
#define ERROR_CODES(X)                                                                             \
    X(OK, "ok", 0, "no error")                                                                     \
    X(INTERNAL, "internal", 70, "a defect of this program")                                        \
    X(USAGE, "usage", 2, "unknown option, missing or malformed argument")                          \
    X(NOT_FOUND, "not-found", 3, "no virtual machine or device of that name")                      \
    X(EXISTS, "exists", 4, "the name is taken")                                                    \
    X(STATE, "wrong-state", 5, "not possible in the machine's present state")                      \
    X(CONFIG, "bad-config", 6, "a configuration value is out of range or contradictory")           \
    X(KERNEL, "bad-kernel", 7, "kernel or firmware missing, damaged or of another architecture")   \
    X(DISK, "bad-disk", 8, "disk image missing, unusable or of an unknown format")                 \
    X(BUSY, "in-use", 9, "a resource is in use by another virtual machine or process")             \
    X(MEMORY, "no-memory", 10, "memory size impossible on this host")                              \
    X(CONNECT, "no-daemon", 11, "vmmd does not answer on its control socket")                      \
    X(PROTOCOL, "bad-message", 12, "a message was malformed, too large or from another version")   \
    X(TIMEOUT, "timeout", 13, "the deadline passed")                                               \
    X(CRASHED, "crashed", 14, "a process of the machine died")                                     \
    X(PERMISSION, "permission", 15, "the host refused access")                                     \
    X(UNSUPPORTED, "unsupported", 16, "this build or host cannot do that")                         \
    X(IO, "io", 17, "the host reported an input/output error")                                     \
    X(CANCELLED, "cancelled", 18, "stopped on request")                                            \
    X(GUEST, "guest-failure", 20, "the guest reported a failure when it ended")

/* Codes lie above every errno: functions return them negative beside negative errnos, and neither
 * may be taken for the other. */
#define ERROR_CODE_BASE 4096
enum error_ordinal {
#define X(name, text, exit_status, meaning) ERROR_ORDINAL_##name,
    ERROR_CODES(X)
#undef X
        ERROR_CODE_COUNT
};
enum error_code {
#define X(name, text, exit_status, meaning)                                                        \
    ERROR_##name = ERROR_ORDINAL_##name ? ERROR_CODE_BASE + ERROR_ORDINAL_##name : 0,
    ERROR_CODES(X)
#undef X
};

struct error {
    enum error_code code;
    int cause;          /* host errno, or 0 */
    char component[24]; /* "vmmd", "vcpud", "devd/block0", ... */
    char message[240];  /* what happened, one line, no full stop, names the object */
    char hint[240];     /* what to do next, or empty */
};

/* Fill `err` (which may be NULL) and return the negative code, for `return error_set(...)`. */
int error_set(struct error *err, enum error_code code, int cause, const char *message, ...)
    __attribute__((format(printf, 4, 5)));
/* Add a hint to an error that was just set; no effect when `err` is NULL. */
void error_hint(struct error *err, const char *hint, ...) __attribute__((format(printf, 2, 3)));
/* Name the component, unless a more specific one is there already. */
void error_component(struct error *err, const char *component);
void error_clear(struct error *err);

const char *error_code_text(enum error_code code);    /* "not-found" */
const char *error_code_meaning(enum error_code code); /* the table's last column */
int error_exit_status(enum error_code code);          /* the table's third column */
/* The code of that row of the table, 0 to ERROR_CODE_COUNT - 1: to list them all. */
enum error_code error_code_at(unsigned row);
/* The code of that text, or ERROR_INTERNAL when there is none. */
enum error_code error_code_parse(const char *text);

#endif
