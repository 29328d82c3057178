/*
 * Stores that another process may have to go on from: whoever maps the same memory after this one
 * was killed sees all stores before the last one that it had executed, and none after it.
 */
#ifndef POLYVISOR_DEVD_ORDER_H
#define POLYVISOR_DEVD_ORDER_H

/* Stores before the call stay before those after it. A function of its own file, so that a test
 * puts another in its place, in which its process dies (tests/unit/store_steps.h). */
void order_stores(void);

#endif
