/* vmctl version: of vmctl, and of the vmmd that answers, if one does. */
#include "cli/client.h"
#include "cli/output.h"

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__VersionRequest version = POLYVISOR__VERSION_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    request.body_case = POLYVISOR__REQUEST__BODY_VERSION;
    request.version = &version;
    int status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0 && status != -ERROR_CONNECT) {
        return status;
    }
    const char *answer = response != NULL ? response->version : NULL;
    if (invocation->globals->json) {
        status = output_json(json_pack("{s:s, s:o}", "vmctl", POLYVISOR_VERSION, "vmmd",
                                       answer != NULL ? output_json_text(answer) : json_null()),
                             err);
    } else {
        printf("vmctl %s\nvmmd ", POLYVISOR_VERSION);
        output_printable(stdout, answer != NULL ? answer : "is not running");
        putchar('\n');
        status = output_flush(err);
    }
    client_free(response);
    return status;
}

const struct command command_version = {
    .name = "version",
    .summary = "show the versions of vmctl and vmmd",
    .usage = "[OPTION...]",
    .description = "Prints the version of vmctl and of the vmmd that answers. No vmmd is no error "
                   "here.\n",
    .options = no_options,
    .examples = {{"vmctl version", "Both versions"}},
    .run = run,
};
