/* What the files of the sandbox share. */
#ifndef POLYVISOR_IPC_SANDBOX_INTERNAL_H
#define POLYVISOR_IPC_SANDBOX_INTERNAL_H

#include <stdbool.h>

/* Whether the environment asks for no confinement at all. */
bool sandbox_unconfined(void);

#endif
