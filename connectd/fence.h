/* Wait until a server has done with an old connection. */
#ifndef POLYVISOR_CONNECTD_FENCE_H
#define POLYVISOR_CONNECTD_FENCE_H

#include <stdbool.h>

/* Say on a connected stream socket that nothing more comes, then read and drop what does until the
 * other end closes it, too, at most for `timeout_ms`. True: it has. */
bool fence_wait(int socket, int timeout_ms);

#endif
