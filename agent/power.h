/* The end of the guest's machine, in order: by its init, or without one that could be asked. */
#ifndef POLYVISOR_AGENT_POWER_H
#define POLYVISOR_AGENT_POWER_H

enum power_way { POWER_OFF, POWER_REBOOT };

/* Ask the guest's init, by its own program; or, where process 1 is no init (a script, a shell), end
 * the other processes and file systems here, and then the machine. In a process that may be given
 * up: returns the status of the init's program, or 1 with a text on standard error. */
int power_end(enum power_way way);

#endif
