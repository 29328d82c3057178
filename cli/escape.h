/*
 * Keys that are for vmctl and not for the guest. Ctrl-] begins one; what it may be followed by
 * depends on whether the terminal was attached to a machine of its own (`run`) or can leave one
 * alone (`console`, where Ctrl-] by itself detaches).
 */
#ifndef POLYVISOR_CLI_ESCAPE_H
#define POLYVISOR_CLI_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

#define ESCAPE_KEY 0x1d /* Ctrl-] */

/* The stronger the later. */
enum escape_action { ESCAPE_NONE, ESCAPE_HELP, ESCAPE_DETACH, ESCAPE_QUIT, ESCAPE_KILL };

struct escape {
    bool detach_at_once; /* Ctrl-] alone means ESCAPE_DETACH */
    bool begun;
};

/* Read keys until an action or the end. *used is how many were read; *kept how many of them are for
 * the guest, moved to the front of `keys`. */
enum escape_action escape_filter(struct escape *escape, char *keys, size_t count, size_t *used,
                                 size_t *kept);

#endif
