/*
 * Raw mode of the terminal on standard input. The caller restores it on every way out; signals
 * are taken synchronously (signalfd) while it is raw, so no handler is needed for that.
 */
#ifndef POLYVISOR_CLI_TERMINAL_H
#define POLYVISOR_CLI_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

struct terminal {
    int fd;
    bool present; /* fd is a terminal */
    bool raw;
    struct termios saved;
};

void terminal_open(struct terminal *terminal, int fd);
/* Raw mode, when fd is a terminal and we are in its foreground. 0, -ENOTTY, -EAGAIN when in the
 * background, or another negative errno. */
int terminal_make_raw(struct terminal *terminal);
/* Back to what it was. Any number of times. */
void terminal_restore(struct terminal *terminal);
/* True when reading from it would not stop us (no terminal, or we are in the foreground). */
bool terminal_readable(const struct terminal *terminal);

#endif
