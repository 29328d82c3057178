/* vmctl run in parts: the machine (run.c), a command that is run in it (run_command.c), and its end
 * when somebody asks for that (run_end.c). */
#ifndef POLYVISOR_CLI_COMMANDS_RUN_H
#define POLYVISOR_CLI_COMMANDS_RUN_H

#include "cli/attachment.h"
#include "cli/client.h"
#include "cli/image/machine_image.h"
#include "cli/image/scratch.h"
#include "cli/private.h"
#include "cli/signals.h"

struct run_settings {
    struct machine_settings machine; /* first: its options say where they are in it */
    struct machine_image image;
    uint32_t wait_ms; /* for the guest's agent */
    bool terminal, no_input;
};

struct run {
    const struct invocation *invocation;
    struct run_settings *settings;
    char name[MACHINE_NAME_MAX + 1];
    struct signals signals;
    struct private_vmmd vmmd;
    struct client control; /* create, start, stop, kill */
    struct client watcher; /* "has it ended?" */
    struct attachment attachment;
    struct scratch scratch;
    char append[MACHINE_IMAGE_APPEND_MAX]; /* an image's command line and the user's words */
    struct image_properties properties;    /* what the image says of itself */
    char console_path[4096];
    bool told_waiting;  /* that the agent does not answer */
    uint64_t absent_ns; /* since when nobody serves the console; 0 = somebody does */
    bool told_absent;   /* and the user knows */
    uint64_t told_lost; /* bytes of output that the user knows to be lost */
    bool ended, user_quit;
    bool stop_asked;     /* the guest was asked to power off, or the machine to end */
    bool forced;         /* that the machine ends, whatever its guest does */
    int signal;          /* that told us to end, or 0 */
    uint64_t give_up_ns; /* when the machine must have ended, once we asked for it; 0 = not asked */
    char end_reason[32];
    uint32_t guest_code;
    char guest_panic[128];
    struct error last_error;
};

/* ---- run.c ---- */

/* Take vmmd's answer to "has it ended?", if one came; run->ended says so. 0, or a negative code
 * with *err set: vmmd is gone. */
int run_handle_watcher(struct run *run, struct error *err);

/* The machine ended because its guest's kernel panicked. Returns the negative code. */
int run_error_panic(const struct run *run, struct error *err);

/* ---- run_end.c ---- */

/* End the machine, without waiting for that: the watcher sees it come. */
void run_end_by_force(struct run *run);
/* Ask the guest to power off: through its agent when the machine has a vsock and an agent answers,
 * else by its power key; and end it by force when it has not in the time that it is given. `turn`
 * is what the caller does meanwhile, for at most so many milliseconds, several times a second. 0
 * when the machine has ended or is about to, which the watcher sees; or a negative code of
 * `turn`'s. */
int run_power_off(struct run *run, int (*turn)(struct run *run, int wait_ms, struct error *err),
                  struct error *err);

/* ---- run_command.c ---- */

/* Run the command of the command line in the machine, which was started, and end the machine. 0
 * with vmctl's exit status in *exit_status, or a negative code with *err set. */
int run_command(struct run *run, int *exit_status, struct error *err);

#endif
