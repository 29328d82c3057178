/* vmctl balloon: how much memory the guest of a running machine has. */
#include "cli/commands/machine_request.h"
#include "cli/output.h"
#include "cli/values.h"

#include <inttypes.h>
#include <string.h>

struct balloon_options {
    bool statistics;
};

static const struct option_spec balloon_options[] = {
    {.name = "stats",
     .type = &option_flag,
     .summary = "ask the guest for its own view of its memory",
     .offset = offsetof(struct balloon_options, statistics)},
    {.name = NULL},
};

static int print_json(const char *name, const Polyvisor__BalloonInfo *info, struct error *err)
{
    json_t *statistics = json_object();

    for (size_t i = 0; i < info->n_statistics; i++) {
        json_object_set_new(statistics, info->statistics[i]->name,
                            json_integer((json_int_t)info->statistics[i]->value));
    }
    return output_json(
        json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:o}", "name",
                  output_json_text(name), "memory_bytes", (json_int_t)info->memory_bytes,
                  "target_bytes", (json_int_t)info->target_bytes, "guest_bytes",
                  (json_int_t)info->guest_bytes, "resident_bytes", (json_int_t)info->resident_bytes,
                  "inflated_bytes", (json_int_t)info->inflated_bytes, "deflated_bytes",
                  (json_int_t)info->deflated_bytes, "released_bytes",
                  (json_int_t)info->released_bytes, "reported_bytes",
                  (json_int_t)info->reported_bytes, "driver", info->driver, "deflate_on_oom",
                  info->deflate_on_oom, "reporting", info->reporting, "statistics_age_ms",
                  (json_int_t)info->statistics_age_ms, "statistics", statistics),
        err);
}

static void add_size(struct output_table *table, const char *title, uint64_t bytes)
{
    char text[32];

    value_format_size(bytes, text, sizeof(text));
    output_table_add(table, title);
    output_table_add(table, text);
}

/* The guest's counters are bytes where their name says so, and plain numbers otherwise. */
static void add_statistic(struct output_table *table, const Polyvisor__Statistic *statistic)
{
    char title[64], text[32];
    size_t length = strlen(statistic->name);
    bool bytes = length > 6 && strcmp(statistic->name + length - 6, "_bytes") == 0;

    snprintf(title, sizeof(title), "  %.*s:", (int)(bytes ? length - 6 : length), statistic->name);
    for (char *c = title; *c; c++) {
        *c = *c == '_' ? ' ' : *c;
    }
    if (bytes) {
        add_size(table, title, statistic->value);
        return;
    }
    snprintf(text, sizeof(text), "%" PRIu64, statistic->value);
    output_table_add(table, title);
    output_table_add(table, text);
}

static int print_text(const Polyvisor__BalloonInfo *info, struct error *err)
{
    struct output_table table;

    output_table_open(&table, 2);
    add_size(&table, "Machine:", info->memory_bytes);
    add_size(&table, "Guest shall have:", info->target_bytes);
    add_size(&table, "Guest has:", info->guest_bytes);
    add_size(&table, "Resident on the host:", info->resident_bytes);
    add_size(&table, "Reported free so far:", info->reported_bytes);
    output_table_add(&table, "Guest's driver:");
    output_table_add(&table, !info->driver ? "none"
                             : info->reporting && info->deflate_on_oom
                                 ? "there, reports free pages, deflates on OOM"
                             : info->reporting      ? "there, reports free pages"
                             : info->deflate_on_oom ? "there, deflates on OOM"
                                                    : "there");
    if (info->n_statistics) {
        output_table_add(&table, "Guest's own view:");
        output_table_add(&table, "");
    }
    for (size_t i = 0; i < info->n_statistics; i++) {
        add_statistic(&table, info->statistics[i]);
    }
    return output_table_print(&table, stdout, err);
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct balloon_options *options = invocation->settings;
    Polyvisor__BalloonRequest balloon = POLYVISOR__BALLOON_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    int status;

    balloon.name = (char *)invocation->positionals[0];
    balloon.set = invocation->positional_count > 1;
    balloon.statistics = options->statistics;
    if (balloon.set && value_parse_size(invocation->positionals[1], &balloon.memory_bytes) != 0) {
        error_set(err, ERROR_USAGE, 0, "'%.40s' is no size", invocation->positionals[1]);
        error_hint(err, "bytes, or a number with K, M, G or T: 512M");
        return -ERROR_USAGE;
    }
    request.body_case = POLYVISOR__REQUEST__BODY_BALLOON;
    request.balloon = &balloon;
    status = client_ask(invocation, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    if (response->balloon == NULL) {
        status = error_set(err, ERROR_PROTOCOL, 0, "vmmd answered without the balloon");
    } else if (invocation->globals->json) {
        status = print_json(balloon.name, response->balloon, err);
    } else if (balloon.set && !balloon.statistics) {
        output_status(invocation->globals, "the guest of %s was told%s", balloon.name,
                      response->balloon->driver ? "" : ", but has no driver for its balloon yet");
    } else {
        status = print_text(response->balloon, err);
    }
    client_free(response);
    return status;
}

const struct command command_balloon = {
    .name = "balloon",
    .summary = "change how much memory a guest has, or look at it",
    .usage = "[OPTION...] NAME [SIZE]",
    .description =
        "With SIZE the guest is told to keep that much of the machine's memory and to give the "
        "rest back; a larger SIZE lets it take memory again. It does so as fast as it can: look "
        "with 'vmctl balloon NAME'. What it gave back is the host's at once. A guest that would "
        "have to kill a process for want of memory takes some back (deflate-on-oom).\n"
        "Without SIZE it shows what the guest has, and what of it is resident on the host. Free "
        "memory is given back without being asked for, some seconds after it became free, where "
        "the guest's kernel reports it: Linux from 5.7, with the module virtio_balloon loaded.\n"
        "--stats asks the guest for its own view. One that does not answer within some seconds is "
        "shown with what it said before; 'statistics_age_ms' in --json says how old that is.\n",
    .options = balloon_options,
    .settings_size = sizeof(struct balloon_options),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 2,
    .examples = {{"vmctl balloon build1 256M", "Leave build1's guest 256 MiB"},
                 {"vmctl balloon build1 --stats", "Show what it has, and its own view of it"}},
    .run = run,
};
