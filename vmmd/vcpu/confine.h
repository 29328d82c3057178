/* What vcpud gives up at its start, before it has seen anything of the guest. */
#ifndef POLYVISOR_VCPU_CONFINE_H
#define POLYVISOR_VCPU_CONFINE_H

#include "libshared/base/error.h"

/* No new privileges, no core dumps with guest memory in them, a bound on open files. 0, or an
 * error with *err set. */
int confine_process(struct error *err);

#endif
