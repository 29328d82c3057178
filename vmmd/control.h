/*
 * The control socket: requests of vmctl (proto/control.proto). Each request is a small object that
 * lives until it is answered, so any number of long ones can be under way. What clients
 * send is hostile: a message that is none is refused, a client that does not read is not waited
 * for.
 */
#ifndef POLYVISOR_VMMD_CONTROL_H
#define POLYVISOR_VMMD_CONTROL_H

#include <event2/event.h>

struct control_socket;
struct machine;
struct supervisor;

/* NULL with errno set. */
struct control_socket *control_socket_open(struct supervisor *supervisor, struct event_base *base,
                                           const char *path);
/* Requests that are still open are dropped. */
void control_socket_close(struct control_socket *control);
/* A machine's state changed: answer who waits for that. */
void control_socket_machine_changed(struct control_socket *control, struct machine *machine);
/* Every machine has ended, and vmmd will: answer who asked for it. */
void control_socket_ended(struct control_socket *control);

#endif
