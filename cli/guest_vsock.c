#include "cli/guest_vsock.h"

#include "cli/client.h"
#include "cli/machine_view.h"
#include "libshared/vsock/setting.h"

#include <stdio.h>

/* The setting of its vsock, which may have been plugged in later; "": it has none. */
static const char *vsock_text(const Polyvisor__MachineInfo *machine)
{
    for (size_t i = 0; i < machine->n_devices; i++) {
        if (machine->devices[i]->vsock[0]) {
            return machine->devices[i]->vsock;
        }
    }
    return "";
}

static int machine_vsock(const Polyvisor__MachineInfo *machine, char *path, size_t size,
                         struct error *err)
{
    struct vsock_setting setting;
    const char *name = machine->config->name;

    if (machine->n_processes == 0) {
        error_set(err, ERROR_STATE, 0, "machine '%s' does not run (%s)", name,
                  machine_state_text(machine->state));
        error_hint(err, "start it with 'vmctl start %s'", name);
        return -ERROR_STATE;
    }
    const char *text = vsock_text(machine);
    if (!text[0]) {
        error_set(err, ERROR_CONFIG, 0, "machine '%s' has no vsock", name);
        error_hint(err, "create it with --vsock path=FILE, and run polyvisor-agent in the guest");
        return -ERROR_CONFIG;
    }
    int status = vsock_setting_parse(text, ERROR_PROTOCOL, &setting, err);
    if (status == 0) {
        snprintf(path, size, "%s", setting.path);
    }
    return status;
}

int guest_vsock_path(const struct invocation *invocation, const char *name, const char *vsock,
                     char *path, size_t size, struct error *err)
{
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;

    if (vsock) {
        snprintf(path, size, "%s", vsock);
        return 0;
    }
    int status = client_ask_machine(invocation, name, &response, &machine, err);
    if (status != 0) {
        return status;
    }
    status = machine_vsock(machine, path, size, err);
    client_free(response);
    return status;
}
