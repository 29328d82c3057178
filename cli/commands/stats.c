/* vmctl stats: the counters of a running machine. */
#include "cli/commands/machine_request.h"
#include "cli/output.h"

#include <inttypes.h>

static int print_json(const char *name, const Polyvisor__Response *response, struct error *err)
{
    json_t *stats = json_object();

    for (size_t i = 0; i < response->n_stats; i++) {
        json_object_set_new(stats, response->stats[i]->name,
                            json_integer((json_int_t)response->stats[i]->value));
    }
    return output_json(json_pack("{s:o, s:o}", "name", output_json_text(name), "stats", stats),
                       false, err);
}

static int print_table(const Polyvisor__Response *response, struct error *err)
{
    struct output_table table;

    output_table_open(&table, 2);
    for (size_t i = 0; i < response->n_stats; i++) {
        char value[32];

        snprintf(value, sizeof(value), "%20" PRIu64, response->stats[i]->value);
        output_table_add(&table, response->stats[i]->name);
        output_table_add(&table, value);
    }
    return output_table_print(&table, stdout, err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    Polyvisor__StatsRequest stats = POLYVISOR__STATS_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    stats.name = machine_argument(invocation);
    request.body_case = POLYVISOR__REQUEST__BODY_STATS;
    request.stats = &stats;
    int status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    status = invocation->globals->json ? print_json(stats.name, response, err)
                                       : print_table(response, err);
    client_free(response);
    return status;
}

const struct command command_stats = {
    .name = "stats",
    .summary = "show the counters of a running machine",
    .usage = "[OPTION...] NAME",
    .description = "Prints what the machine has counted since it started: guest instructions, "
                   "decoded blocks, misses of address translation, exceptions and so on.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl stats build1", "The counters of build1"}},
    .run = run,
};
