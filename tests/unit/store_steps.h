/*
 * A process that may die at each of its single stores into memory that its successor goes on from:
 * what is here takes the place of devd/order.c.
 */
#ifndef POLYVISOR_TESTS_UNIT_STORE_STEPS_H
#define POLYVISOR_TESTS_UNIT_STORE_STEPS_H

#include "devd/order.h"
#include <signal.h>
#include <unistd.h>

static long steps_to_live; /* 0: for ever */

void order_stores(void)
{
    if (steps_to_live > 0 && --steps_to_live == 0) {
        kill(getpid(), SIGKILL);
    }
}

#endif
