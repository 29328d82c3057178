/* Between the files of the control socket: control.c has the requests' life and most of them, the
 * other files one subject each. */
#ifndef POLYVISOR_VMMD_CONTROL_INTERNAL_H
#define POLYVISOR_VMMD_CONTROL_INTERNAL_H

#include "vmmd/control.h"
#include "vmmd/machine.h"

struct request;

/* The machine of that name; NULL when the request was refused for it. */
struct machine *control_machine(struct request *request, const char *name);
/* Answer; the request is no more. */
void request_send(struct request *request, Polyvisor__Response *response);
void request_fail(struct request *request, struct error *err);

/* Its number, under which a process of the machine is asked. */
uint64_t request_serial(const struct request *request);
/* Keep it open until that process answers, at most timeout_ms (0: as long as any). */
void request_wait_process(struct request *request, uint32_t timeout_ms);
/* The request of that number, when a process of the machine has answered; NULL when its time was
 * over, or when the error was its answer. */
struct request *control_asked(const struct machine *machine, const struct error *error,
                              uint64_t serial);

/* The handlers of other files. */
void control_balloon(struct request *request, const Polyvisor__Request *message);

#endif
