#include "cli/terminal.h"

#include <errno.h>
#include <unistd.h>

void terminal_open(struct terminal *terminal, int fd)
{
    *terminal = (struct terminal){.fd = fd, .present = isatty(fd) == 1};
}

bool terminal_readable(const struct terminal *terminal)
{
    if (!terminal->present) {
        return true;
    }
    pid_t foreground = tcgetpgrp(terminal->fd);
    return foreground < 0 || foreground == getpgrp(); /* < 0: a terminal, but not our session's */
}

int terminal_make_raw(struct terminal *terminal)
{
    struct termios modes;

    if (!terminal->present) {
        return -ENOTTY;
    }
    if (terminal->raw) {
        return 0;
    }
    if (!terminal_readable(terminal)) {
        return -EAGAIN;
    }
    if (tcgetattr(terminal->fd, &terminal->saved) < 0) {
        return -errno;
    }
    modes = terminal->saved;
    cfmakeraw(&modes);
    modes.c_cc[VMIN] = 1;
    modes.c_cc[VTIME] = 0;
    if (tcsetattr(terminal->fd, TCSADRAIN, &modes) < 0) {
        return -errno;
    }
    terminal->raw = true;
    return 0;
}

void terminal_restore(struct terminal *terminal)
{
    /* From the background it would stop us, and whoever has the terminal now has set its modes. */
    if (terminal->raw && terminal_readable(terminal)) {
        tcsetattr(terminal->fd, TCSADRAIN, &terminal->saved);
    }
    terminal->raw = false;
}
