/* Descriptors that are kept in a place, which has -1 when there is none. */
#ifndef POLYVISOR_BASE_DESCRIPTOR_H
#define POLYVISOR_BASE_DESCRIPTOR_H

#include <unistd.h>

/* Close the one that is there, if one is; then there is none. */
static inline void descriptor_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

#endif
