/*
 * vcpud's side of the conversation with vmmd (proto/vcpu.proto), and the main loop.
 *
 * vcpud binds, so a vmmd that died and came back connects again and goes on asking; nothing here
 * ends because it is away. Notices that it could not take meanwhile are kept and sent when it is
 * back. Only the main thread uses the channel.
 */
#ifndef POLYVISOR_VCPU_CONTROL_H
#define POLYVISOR_VCPU_CONTROL_H

#include "libshared/base/error.h"
#include "libshared/ipc/fdlist.h"

struct control;

/* Bind the control socket. `descriptors` outlives the control. The signals that end the process
 * must be blocked in all threads. NULL with *err set on failure. */
struct control *control_open(const char *path, struct fdlist *descriptors, struct error *err);
/* What to do when the guest is configured and has not run yet: the last step of the process's
 * confinement. 0, or an error with *err set, which refuses the configuration. */
typedef int control_confine(struct error *err);
void control_confine_with(struct control *control, control_confine *confine);
/* Serve until vmmd says stop, or SIGTERM or SIGINT comes. 0, or a negative errno when the loop
 * itself failed. */
int control_loop(struct control *control);
/* Ends the guest, if there is one. */
void control_close(struct control *control);

#endif
