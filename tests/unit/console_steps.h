/*
 * The console core in a process that may die at each of its single steps (CONSOLE_STEP). To be
 * included first: it takes the place of the core in the library.
 */
#ifndef POLYVISOR_TESTS_UNIT_CONSOLE_STEPS_H
#define POLYVISOR_TESTS_UNIT_CONSOLE_STEPS_H

#include <signal.h>
#include <unistd.h>

static long steps_to_live; /* 0: for ever */

static void step(void)
{
    if (steps_to_live > 0 && --steps_to_live == 0) {
        kill(getpid(), SIGKILL);
    }
}

#define CONSOLE_STEP() step()
#include "devd/console.c"

#endif
