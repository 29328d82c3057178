/* The conversation with vmmd (JitControl of proto/jit.proto). Main thread only. */
#ifndef POLYVISOR_JITD_JIT_CONTROL_H
#define POLYVISOR_JITD_JIT_CONTROL_H

#include "jitd/service.h"

struct jit_control;

/* Bind the socket. Requests are served once jit_control_serve was called. NULL with *err set. */
struct jit_control *jit_control_open(const char *path, struct error *err);
bool jit_control_serve(struct jit_control *control, struct event_base *base,
                       struct service *service, struct error *err);
void jit_control_close(struct jit_control *control); /* NULL is allowed */

#endif
