/* What vcpud gives up at its start, before it has seen anything of the guest. */
#ifndef POLYVISOR_VCPU_CONFINE_H
#define POLYVISOR_VCPU_CONFINE_H

#include "libshared/base/error.h"

/* No view of the file system but the folder that the control socket is to be in, no network, no
 * new privileges (libshared/ipc/sandbox.h), no core dumps with guest memory in them, a bound on
 * open files. Before any thread. 0, or an error with *err set. */
int confine_process(const char *control_path, struct error *err);

/* When all is open, mapped and started that the guest needs: no more of that. 0, or an error with
 * *err set. */
int confine_seal(struct error *err);

#endif
