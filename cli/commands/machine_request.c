#include "cli/commands/machine_request.h"

#include "cli/machine_view.h"
#include "cli/output.h"

char *machine_argument(const struct invocation *invocation)
{
    return (char *)invocation->positionals[0];
}

int machine_request(const struct invocation *invocation, Polyvisor__Request *request,
                    uint32_t extra_ms, const char *done, struct error *err)
{
    const char *name = invocation->positionals[0];
    Polyvisor__Response *response = NULL;
    int status = client_ask(invocation, request, extra_ms, &response, err);

    if (status != 0) {
        return status;
    }
    if (invocation->globals->json) {
        json_t *object = response->n_machines > 0
                             ? machine_json(response->machines[0])
                             : json_pack("{s:o}", "name", output_json_text(name));

        status = output_json(object, err);
    } else {
        output_status(invocation->globals, "%s %s", name, done);
    }
    client_free(response);
    return status;
}
