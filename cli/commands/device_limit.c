#include "cli/commands/device_limit.h"

#include "cli/client.h"
#include "cli/machine_view.h"
#include "cli/output.h"
#include "libshared/limit/setting.h"

#include <stdio.h>
#include <string.h>

/* The words with commas between them; vmmd knows what kind of device it is. */
static int join_words(const struct invocation *invocation, char *text, size_t capacity,
                      struct error *err)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 3; i < invocation->positional_count; i++) {
        used += (size_t)snprintf(text + used, capacity - used, "%s%s", i > 3 ? "," : "",
                                 invocation->positionals[i]);
        if (used >= capacity) {
            return error_set(err, ERROR_USAGE, 0, "too many words");
        }
    }
    return 0;
}

static const Polyvisor__DeviceInfo *find_device(const Polyvisor__MachineInfo *machine,
                                                const char *id)
{
    for (size_t i = 0; i < machine->n_devices; i++) {
        if (strcmp(machine->devices[i]->id, id) == 0) {
            return machine->devices[i];
        }
    }
    return NULL;
}

static int show(const struct invocation *invocation, struct error *err)
{
    const char *name = invocation->positionals[1], *id = invocation->positionals[2];
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status = client_ask_machine(invocation, name, &response, &machine, err);

    if (status != 0) {
        return status;
    }
    const Polyvisor__DeviceInfo *device = find_device(machine, id);
    if (device == NULL) {
        status = error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no running device '%.40s'",
                           name, id);
        error_hint(err,
                   "'vmctl device list %s' shows its devices; 'vmctl show %s' the limits of "
                   "one that does not run",
                   name, name);
    } else if (invocation->globals->json) {
        status = output_json(device_limits_json(device), err);
    } else {
        printf("%s\n", device->limits[0] ? device->limits : "off");
    }
    client_free(response);
    return status;
}

int device_limit_run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__DeviceLimitRequest limit = POLYVISOR__DEVICE_LIMIT_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    char words[LIMIT_TEXT_MAX];

    if (invocation->positional_count == 3) {
        return show(invocation, err);
    }
    int status = join_words(invocation, words, sizeof(words), err);
    if (status != 0) {
        return status;
    }
    limit.name = (char *)invocation->positionals[1];
    limit.device = (char *)invocation->positionals[2];
    limit.limits = words;
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_LIMIT;
    request.device_limit = &limit;
    status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (invocation->globals->json && response->n_machines) {
        status = output_json(machine_json(response->machines[0]), err);
    } else {
        output_status(invocation->globals, "%s of %s: %s", limit.device, limit.name, words);
    }
    client_free(response);
    return status;
}
