/* The whole of vmctl behind main: parse, dispatch, report. */
#ifndef POLYVISOR_CLI_VMCTL_H
#define POLYVISOR_CLI_VMCTL_H

/* Returns the exit status. */
int vmctl_main(int argc, char **argv);

#endif
