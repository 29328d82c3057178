#include "devd/order.h"

#include <stdatomic.h>

void order_stores(void)
{
    /* The same processor goes on, or the kernel has made it seen: only the compiler must be kept.
     */
    atomic_signal_fence(memory_order_seq_cst);
}
