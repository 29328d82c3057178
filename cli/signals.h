/*
 * Signals as something to poll. While these are blocked and read through a descriptor, none can
 * end vmctl between two lines: the terminal is always restored and the machine always stopped.
 */
#ifndef POLYVISOR_CLI_SIGNALS_H
#define POLYVISOR_CLI_SIGNALS_H

#include "libshared/base/error.h"
#include <signal.h>

struct signals {
    int fd; /* readable while one waits */
    sigset_t taken;
    sigset_t before; /* the mask to go back to */
};

/* Block SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGCONT for this thread and those it makes. 0
 * or a negative code with *err set. */
int signals_open(struct signals *signals, struct error *err);
void signals_close(struct signals *signals);
/* Take that one, too. */
void signals_add(struct signals *signals, int signal);

/* The next signal that waits, or 0. */
int signals_take(const struct signals *signals);
/* True for the ones that ask a program to end. */
bool signals_end(int signal);
/* Do what SIGTSTP means: stop here until SIGCONT. */
void signals_suspend(void);

#endif
