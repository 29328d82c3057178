/*
 * Ways out of a confined process: what code that took one over would try. Each is one attempt that
 * leaves nothing behind but what it proves. Any process, any thread.
 */
#ifndef POLYVISOR_TESTS_ESCAPE_ESCAPES_H
#define POLYVISOR_TESTS_ESCAPE_ESCAPES_H

#include <stddef.h>

struct escape_attempt {
    const char *what; /* a few words */
    int (*try)(void); /* 0 when it worked, otherwise errno */
};

extern const struct escape_attempt escape_attempts[];
extern const size_t escape_count;

#endif
