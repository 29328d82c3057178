/* How a process is confined, as the kernel tells it rather than as the process was asked to. */
#ifndef POLYVISOR_VMMD_CONFINEMENT_H
#define POLYVISOR_VMMD_CONFINEMENT_H

#include <stddef.h>
#include <sys/types.h>

#define CONFINEMENT_TEXT_MAX 160

/* A list for people and scripts, of "no-new-privileges", "seccomp", "user=65534",
 * "no-capabilities", and "mount", "network", "ipc", "uts", "user" followed by "-namespace" for
 * those that are not ours; separated by spaces. Empty when nothing is in force or the process is
 * gone. */
void confinement_read(pid_t pid, char text[CONFINEMENT_TEXT_MAX]);

#endif
