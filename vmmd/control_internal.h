/*
 * Between the files of the control socket: control.c has the socket, control_request.c the life of
 * a request, the others the handlers, one subject each.
 */
#ifndef POLYVISOR_VMMD_CONTROL_INTERNAL_H
#define POLYVISOR_VMMD_CONTROL_INTERNAL_H

#include "proto/control.pb-c.h"
#include "vmmd/control.h"
#include "vmmd/machine.h"

/* What an open request waits for. */
enum request_wait {
    REQUEST_NOTHING,
    REQUEST_READY,    /* start --hold: ready or running */
    REQUEST_STARTED,  /* running */
    REQUEST_ENDED,    /* no processes any more */
    REQUEST_PROCESS,  /* the answer of vcpud or a device */
    REQUEST_SHUTDOWN, /* all machines ended */
};

struct request {
    TAILQ_ENTRY(request) link;
    struct control_socket *control;
    struct channel_route *route;
    uint64_t id;     /* the client's */
    uint64_t serial; /* ours: finds the request again, if it is still there */
    enum request_wait wait;
    bool timeout_is_answer; /* WaitRequest: at its time the present state is the answer */
    struct machine *machine;
    struct event *timer;
    Polyvisor__VcpuStats vcpu_stats; /* while jitd is asked for its own */
};

struct control_socket {
    struct supervisor *supervisor;
    struct event_base *base;
    struct channel *channel;
    struct event *receive_event;
    TAILQ_HEAD(, request) requests;
    size_t request_count;
    uint64_t last_serial;
};

/* ---- control_request.c ---- */

/* One that came by `route`, which it then owns. NULL: no memory, and the route is gone. */
struct request *request_new(struct control_socket *control, struct channel_route *route);
/* Drop it without an answer. */
void request_free(struct request *request);

/* Answer; the request is no more. */
void request_send(struct request *request, Polyvisor__Response *response);
void request_fail(struct request *request, struct error *err);
void request_succeed(struct request *request);
/* With `count` machines from `first` on, or with as many of them as fit; `closely`: with what takes
 * a look at each process. */
void request_answer_machines(struct request *request, struct machine *first, size_t count,
                             bool closely);
/* Whether `status` is 0; otherwise the request is answered with the error, and is no more. */
bool request_accepted(struct request *request, int status, struct error *err);

/* The same for one that is done: if `status` is 0, it is answered with the machine as it is now. */
void request_conclude(struct request *request, struct machine *machine, int status,
                      struct error *err);

/* Keep the request open, at most an hour; timeout_ms 0 stands for that. False: it was refused, and
 * is no more. */
bool request_wait(struct request *request, enum request_wait wait, struct machine *machine,
                  uint32_t timeout_ms);
/* Once a process was asked, if `status` is 0: keep the request open until control_asked() finds it.
 */
void request_wait_process(struct request *request, int status, struct error *err,
                          uint32_t timeout_ms);
/* Whether what it waits for is so. */
bool request_is_done(const struct request *request, const struct machine *machine);

/* The machine of that name; NULL when the request was refused for it. */
struct machine *control_machine(struct request *request, const char *name);
/* The request of that number, if it is still there. */
struct request *control_find_request(struct control_socket *control, uint64_t serial);
/* The request of that number, when a process of the machine has answered; NULL when its time was
 * over, or when the error was its answer. */
struct request *control_asked(const struct machine *machine, const struct error *error,
                              uint64_t serial);

/* ---- the handlers ---- */

/* control_machine.c */
void control_create(struct request *request, const Polyvisor__Request *message);
void control_start(struct request *request, const Polyvisor__Request *message);
void control_stop(struct request *request, const Polyvisor__Request *message);
void control_kill(struct request *request, const Polyvisor__Request *message);
void control_remove(struct request *request, const Polyvisor__Request *message);
void control_list(struct request *request, const Polyvisor__Request *message);
void control_show(struct request *request, const Polyvisor__Request *message);
void control_wait(struct request *request, const Polyvisor__Request *message);
/* control_inspect.c */
void control_stats(struct request *request, const Polyvisor__Request *message);
void control_code(struct request *request, const Polyvisor__Request *message);
/* control_device.c */
void control_device_restart(struct request *request, const Polyvisor__Request *message);
void control_link(struct request *request, const Polyvisor__Request *message);
void control_device_limit(struct request *request, const Polyvisor__Request *message);
void control_disk_resize(struct request *request, const Polyvisor__Request *message);
void control_device_attach(struct request *request, const Polyvisor__Request *message);
void control_device_detach(struct request *request, const Polyvisor__Request *message);
/* control_balloon.c */
void control_balloon(struct request *request, const Polyvisor__Request *message);

#endif
