/* vmctl list: the machines of a vmmd. */
#include "cli/client.h"
#include "cli/machine_view.h"
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>

static int print_json(const Polyvisor__Response *response, struct error *err)
{
    json_t *machines = json_array();

    for (size_t i = 0; i < response->n_machines; i++) {
        json_array_append_new(machines, machine_json(response->machines[i]));
    }
    return output_json(json_pack("{s:o}", "machines", machines), err);
}

static int print_table(const Polyvisor__Response *response, struct error *err)
{
    struct output_table table;

    output_table_open(&table, MACHINE_ROW_COLUMNS);
    machine_row_header(&table);
    for (size_t i = 0; i < response->n_machines; i++) {
        machine_row(&table, response->machines[i]);
    }
    return output_table_print(&table, stdout, err);
}

static int print_names(const Polyvisor__Response *response, struct error *err)
{
    for (size_t i = 0; i < response->n_machines; i++) {
        output_printable(stdout, machine_name(response->machines[i]));
        putchar('\n');
    }
    return output_flush(err);
}

/* Move the machines of `page` behind those of `all`, and release the page. */
static int append_page(Polyvisor__Response *all, Polyvisor__Response *page, struct error *err)
{
    size_t count = all->n_machines + page->n_machines;
    Polyvisor__MachineInfo **machines =
        realloc(all->machines, (count + 1) * sizeof(Polyvisor__MachineInfo *));
    int status = 0;

    if (machines == NULL) {
        status = error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    } else {
        all->machines = machines;
        for (size_t i = 0; i < page->n_machines; i++) {
            machines[all->n_machines++] = page->machines[i];
        }
        all->more = page->more && page->n_machines > 0;
        page->n_machines = 0;
    }
    client_free(page);
    return status;
}

/* All machines, however many answers they take. */
static int ask_all(struct client *client, Polyvisor__Response **all, struct error *err)
{
    Polyvisor__ListRequest list = POLYVISOR__LIST_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    request.body_case = POLYVISOR__REQUEST__BODY_LIST;
    request.list = &list;
    int status = client_call(client, &request, 0, all, err);
    while (status == 0 && (*all)->more && (*all)->n_machines > 0) {
        Polyvisor__Response *page = NULL;

        list.after = (char *)machine_name((*all)->machines[(*all)->n_machines - 1]);
        status = client_call(client, &request, 0, &page, err);
        if (status == 0) {
            status = append_page(*all, page, err);
        }
    }
    return status;
}

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__Response *response = NULL;
    struct client client;
    int status = client_open(&client, invocation->runtime_directory,
                             invocation->globals->timeout_ms, -1, err);

    if (status != 0) {
        return status;
    }
    status = ask_all(&client, &response, err);
    client_close(&client);
    if (status != 0) {
        client_free(response);
        return status;
    }
    if (invocation->globals->json) {
        status = print_json(response, err);
    } else if (invocation->globals->quiet) {
        status = print_names(response, err);
    } else {
        status = print_table(response, err);
    }
    client_free(response);
    return status;
}

const struct command command_list = {
    .name = "list",
    .summary = "list the machines",
    .usage = "[OPTION...]",
    .description = "Prints one line for each machine that vmmd knows. PID is the process that "
                   "executes the guest. With --quiet only the names are printed.\n"
                   "Machines of 'vmctl run' have a vmmd of their own and are not listed.\n",
    .options = no_options,
    .examples = {{"vmctl list", "A table of all machines"},
                 {"vmctl list --json", "The same with everything known, for programs"}},
    .run = run,
};
