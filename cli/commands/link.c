/* vmctl link: plug or pull the cable of a network card. */
#include "cli/commands/machine_request.h"
#include <stdio.h>
#include <string.h>

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__LinkRequest link = POLYVISOR__LINK_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    const char *state = invocation->positionals[2];
    char done[96];

    if (strcmp(state, "up") != 0 && strcmp(state, "down") != 0) {
        error_set(err, ERROR_USAGE, 0, "a cable is 'up' or 'down', not '%.40s'", state);
        error_hint(err, "vmctl link NAME net0 down");
        return -ERROR_USAGE;
    }
    link.name = machine_argument(invocation);
    link.card = (char *)invocation->positionals[1];
    link.up = strcmp(state, "up") == 0;
    request.body_case = POLYVISOR__REQUEST__BODY_LINK;
    request.link = &link;
    snprintf(done, sizeof(done), "has %.60s %s", link.card, link.up ? "plugged in" : "unplugged");
    return machine_request(invocation, &request, 0, done, err);
}

const struct command command_link = {
    .name = "link",
    .summary = "plug or pull the cable of a network card",
    .usage = "[OPTION...] NAME CARD up|down",
    .description =
        "The guest sees its interface lose or get its carrier, and nothing passes while the cable "
        "is pulled. The cards of a machine are net0, net1 and so on, in the order of their --net; "
        "'vmctl show' lists them. A machine that is started has all its cables plugged in.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 3,
    .positionals_max = 3,
    .examples = {{"vmctl link build1 net0 down", "Pull the cable of build1's first card"},
                 {"vmctl link build1 net0 up", "Plug it in again"}},
    .run = run,
};
