#include "vmmd/supervisor.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/runtime.h"
#include "vmmd/control.h"
#include "vmmd/message.h"
#include "vmmd/record.h"
#include "vmmd/validate.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long machines may take to stop when vmmd ends, before they are killed. */
#define SUPERVISOR_END_S 10
/* The last answer and the last events are on their way: leave nanomsg a moment for them. */
#define SUPERVISOR_LINGER_US 20000

struct supervisor {
    struct supervisor_options options;
    struct machine_host host;
    struct control_socket *control;
    TAILQ_HEAD(, machine) machines;
    size_t machine_count;
    bool ending;
    bool unheard; /* nothing is left to say, or nobody to say it to */
    struct event *terminate, *interrupt, *changed, *leash, *end_timer;
};

/* ---- machines ---- */

const char *supervisor_directory(const struct supervisor *supervisor)
{
    return supervisor->options.directory;
}

struct control_socket *supervisor_control(const struct supervisor *supervisor)
{
    return supervisor->control;
}

struct machine *supervisor_find(struct supervisor *supervisor, const char *name)
{
    struct machine *machine;

    TAILQ_FOREACH(machine, &supervisor->machines, link)
    {
        if (!strcmp(machine->config->name, name)) {
            return machine;
        }
    }
    return NULL;
}

struct machine *supervisor_first(struct supervisor *supervisor)
{
    return TAILQ_FIRST(&supervisor->machines);
}

size_t supervisor_count(const struct supervisor *supervisor)
{
    return supervisor->machine_count;
}

static void supervisor_insert(struct supervisor *supervisor, struct machine *machine)
{
    struct machine *other;

    supervisor->machine_count++;
    TAILQ_FOREACH(other, &supervisor->machines, link)
    {
        if (strcmp(machine->config->name, other->config->name) < 0) {
            TAILQ_INSERT_BEFORE(other, machine, link);
            return;
        }
    }
    TAILQ_INSERT_TAIL(&supervisor->machines, machine, link);
}

static int supervisor_refuse_ending(const struct supervisor *supervisor, struct error *err)
{
    return supervisor->ending ? error_set(err, ERROR_STATE, 0, "vmmd is shutting down") : 0;
}

struct machine *supervisor_create(struct supervisor *supervisor, Polyvisor__MachineConfig *config,
                                  struct error *err)
{
    if (supervisor_refuse_ending(supervisor, err)) {
        return NULL;
    }
    if (supervisor_find(supervisor, config->name)) {
        error_set(err, ERROR_EXISTS, 0, "there is a machine '%s' already", config->name);
        error_hint(err, "choose another name, or remove it first: vmctl rm %s", config->name);
        return NULL;
    }
    if (supervisor->machine_count >= SUPERVISOR_MACHINES_MAX) {
        error_set(err, ERROR_BUSY, 0, "there are %d machines already", SUPERVISOR_MACHINES_MAX);
        error_hint(err, "remove one with: vmctl rm");
        return NULL;
    }
    struct machine *machine = machine_create(&supervisor->host, config, err);
    if (machine) {
        supervisor_insert(supervisor, machine);
    }
    return machine;
}

static void supervisor_forget(struct supervisor *supervisor, struct machine *machine, bool remove)
{
    TAILQ_REMOVE(&supervisor->machines, machine, link);
    supervisor->machine_count--;
    machine_destroy(machine, remove);
}

int supervisor_remove(struct supervisor *supervisor, struct machine *machine, struct error *err)
{
    if (!machine_is_idle(machine)) {
        error_set(err, ERROR_STATE, 0, "machine '%s' is running", machine->config->name);
        error_hint(err, "stop it first: vmctl stop %s", machine->config->name);
        return -ERROR_STATE;
    }
    publisher_send(supervisor->host.publisher, "removed", machine->config->name, "", "%s", "");
    supervisor_forget(supervisor, machine, true);
    return 0;
}

int supervisor_start(struct supervisor *supervisor, struct machine *machine, bool hold,
                     struct error *err)
{
    struct machine *other;
    uint64_t promised = 0;

    if (supervisor_refuse_ending(supervisor, err)) {
        return -ERROR_STATE;
    }
    TAILQ_FOREACH(other, &supervisor->machines, link)
    {
        promised += machine_promised_bytes(other);
    }
    return machine_start(machine, hold, promised, err);
}

/* The record may be of another version of vmmd, or damaged: a machine is as good as one that is
 * created. Files that are absent are for its start to miss. */
static struct machine *supervisor_load_machine(struct supervisor *supervisor,
                                               Polyvisor__MachineRecord *record, const char *name,
                                               struct error *err)
{
    message_drop_unknown(&record->base);
    if (strcmp(record->config->name, name)) {
        error_set(err, ERROR_CONFIG, 0, "its record names another machine");
        return NULL;
    }
    if (supervisor->machine_count >= SUPERVISOR_MACHINES_MAX) {
        error_set(err, ERROR_BUSY, 0, "there are %d machines already", SUPERVISOR_MACHINES_MAX);
        return NULL;
    }
    if (config_validate_form(record->config, supervisor_directory(supervisor), err)) {
        return NULL;
    }
    return machine_load(&supervisor->host, record, err);
}

static void supervisor_load(struct supervisor *supervisor)
{
    char path[MACHINE_DIRECTORY_MAX];
    struct error err;

    snprintf(path, sizeof(path), "%s/vms", supervisor->options.directory);
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!runtime_name_valid(entry->d_name)) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/vms/%s", supervisor->options.directory, entry->d_name);
        Polyvisor__MachineRecord *record = record_read(path);
        if (!record) {
            log_warning("'%s' holds no usable record (%s): left alone", path, strerror(errno));
            continue;
        }
        struct machine *machine = supervisor_load_machine(supervisor, record, entry->d_name, &err);
        if (machine) {
            supervisor_insert(supervisor, machine);
        } else {
            log_warning("the machine in '%s' cannot be brought back: %s", path, err.message);
        }
        polyvisor__machine_record__free_unpacked(record, NULL);
    }
    if (directory) {
        closedir(directory);
    }
}

/* ---- the end ---- */

static bool supervisor_is_idle(const struct supervisor *supervisor)
{
    const struct machine *machine;

    TAILQ_FOREACH(machine, &supervisor->machines, link)
    {
        if (!machine_is_idle(machine)) {
            return false;
        }
    }
    return true;
}

static void supervisor_check_end(struct supervisor *supervisor)
{
    const struct timeval linger = {0, supervisor->unheard ? 0 : SUPERVISOR_LINGER_US};

    if (supervisor_is_idle(supervisor)) {
        control_socket_ended(supervisor->control);
        event_base_loopexit(supervisor->host.base, &linger);
    }
}

static void supervisor_kill_all(struct supervisor *supervisor)
{
    struct machine *machine;

    TAILQ_FOREACH(machine, &supervisor->machines, link)
    {
        machine_kill(machine, NULL);
    }
}

void supervisor_end(struct supervisor *supervisor, const char *why)
{
    const struct timeval limit = {SUPERVISOR_END_S, 0};
    struct machine *machine;

    if (supervisor->ending) {
        return;
    }
    supervisor->ending = true;
    publisher_send(supervisor->host.publisher, "ending", "", "vmmd", "%s", why);
    TAILQ_FOREACH(machine, &supervisor->machines, link)
    {
        machine_stop(machine, 0, NULL);
    }
    evtimer_add(supervisor->end_timer, &limit);
    supervisor_check_end(supervisor);
}

static void supervisor_on_end_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    supervisor_kill_all(argument);
}

/* The first signal stops machines in order, the second at once. */
static void supervisor_on_signal(evutil_socket_t number, short what, void *argument)
{
    struct supervisor *supervisor = argument;
    (void)what;

    if (supervisor->ending) {
        supervisor_kill_all(supervisor);
    }
    supervisor_end(supervisor, number == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* Ends are seen through pidfds, which say nothing of a process that was stopped. */
static void supervisor_on_change_of_child(evutil_socket_t number, short what, void *argument)
{
    struct supervisor *supervisor = argument;
    struct machine *machine;
    (void)number, (void)what;

    TAILQ_FOREACH(machine, &supervisor->machines, link)
    {
        machine_look_at_processes(machine);
    }
    compiler_look_at_process(supervisor->host.compiler);
}

static void supervisor_on_leash(evutil_socket_t fd, short what, void *argument)
{
    struct supervisor *supervisor = argument;
    char bytes[64];
    (void)what;

    ssize_t length = read(fd, bytes, sizeof(bytes));
    if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
        event_del(supervisor->leash);
        supervisor->unheard = supervisor_is_idle(supervisor);
        supervisor_end(supervisor, "the client that started this vmmd is gone");
    }
}

static void supervisor_on_change(struct machine *machine, void *context)
{
    struct supervisor *supervisor = context;

    if (!supervisor->control) {
        return; /* on the way out */
    }
    control_socket_machine_changed(supervisor->control, machine);
    if (supervisor->ending && machine_is_idle(machine)) {
        supervisor_check_end(supervisor);
    }
}

/* ---- its own life ---- */

static int supervisor_open_sockets(struct supervisor *supervisor, struct error *err)
{
    char path[MACHINE_DIRECTORY_MAX];

    snprintf(path, sizeof(path), "%s/events.sock", supervisor->options.directory);
    supervisor->host.publisher = publisher_open(path);
    if (supervisor->host.publisher) {
        /* Clients look for the control socket: it comes last. */
        snprintf(path, sizeof(path), "%s/control.sock", supervisor->options.directory);
        supervisor->control = control_socket_open(supervisor, supervisor->host.base, path);
    }
    if (!supervisor->control) {
        return error_set(err, ERROR_IO, errno, "cannot bind '%s': %s", path, strerror(errno));
    }
    return 0;
}

static int supervisor_open_events(struct supervisor *supervisor, struct error *err)
{
    struct event_base *base = supervisor->host.base;
    int leash_fd = supervisor->options.leash_fd;

    supervisor->terminate = evsignal_new(base, SIGTERM, supervisor_on_signal, supervisor);
    supervisor->interrupt = evsignal_new(base, SIGINT, supervisor_on_signal, supervisor);
    supervisor->changed = evsignal_new(base, SIGCHLD, supervisor_on_change_of_child, supervisor);
    supervisor->end_timer = evtimer_new(base, supervisor_on_end_timer, supervisor);
    if (!supervisor->terminate || !supervisor->interrupt || !supervisor->changed ||
        !supervisor->end_timer || evsignal_add(supervisor->changed, NULL) < 0 ||
        evsignal_add(supervisor->terminate, NULL) < 0 ||
        evsignal_add(supervisor->interrupt, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, 0, "cannot watch signals");
    }
    if (leash_fd < 0) {
        return 0;
    }
    fcntl(leash_fd, F_SETFL, fcntl(leash_fd, F_GETFL) | O_NONBLOCK);
    supervisor->leash =
        event_new(base, leash_fd, EV_READ | EV_PERSIST, supervisor_on_leash, supervisor);
    if (!supervisor->leash || event_add(supervisor->leash, NULL) < 0) {
        return error_set(err, ERROR_USAGE, errno, "descriptor %d cannot be watched", leash_fd);
    }
    return 0;
}

struct supervisor *supervisor_open(const struct supervisor_options *options, struct error *err)
{
    struct supervisor *supervisor = calloc(1, sizeof(*supervisor));

    if (!supervisor) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    supervisor->options = *options;
    TAILQ_INIT(&supervisor->machines);
    supervisor->host = (struct machine_host){
        .base = event_base_new(),
        .directory = options->directory,
        .programs = options->programs,
        .spare_ns = options->spare_s * NS_PER_S,
        .changed = supervisor_on_change,
        .context = supervisor,
    };
    if (!supervisor->host.base) {
        error_set(err, ERROR_INTERNAL, 0, "cannot make an event loop");
        goto fail;
    }
    supervisor->host.reaper = reaper_open(supervisor->host.base);
    if (!supervisor->host.reaper) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        goto fail;
    }
    if (supervisor_open_events(supervisor, err) || supervisor_open_sockets(supervisor, err)) {
        goto fail;
    }
    supervisor->host.compiler = compiler_open(
        &(struct compiler_host){
            .base = supervisor->host.base,
            .publisher = supervisor->host.publisher,
            .directory = options->directory,
            .programs = options->programs,
            .alone = options->leash_fd >= 0,
            .context = supervisor,
        },
        err);
    if (!supervisor->host.compiler) {
        goto fail;
    }
    if (options->load) {
        supervisor_load(supervisor);
    }
    return supervisor;

fail:
    supervisor_close(supervisor);
    return NULL;
}

void supervisor_run(struct supervisor *supervisor)
{
    event_base_dispatch(supervisor->host.base);
}

void supervisor_close(struct supervisor *supervisor)
{
    struct event *events[] = {supervisor->terminate, supervisor->interrupt, supervisor->changed,
                              supervisor->leash, supervisor->end_timer};

    control_socket_close(supervisor->control);
    supervisor->control = NULL; /* answers to its requests may still come below */
    while (!TAILQ_EMPTY(&supervisor->machines)) {
        supervisor_forget(supervisor, TAILQ_FIRST(&supervisor->machines), false);
    }
    compiler_close(supervisor->host.compiler);
    publisher_close(supervisor->host.publisher);
    reaper_close(supervisor->host.reaper);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    if (supervisor->host.base) {
        event_base_free(supervisor->host.base);
    }
    free(supervisor);
}
