/* vmctl stats: the counters of a running machine. */
#include "cli/commands/machine_request.h"
#include "cli/output.h"
#include "cli/values.h"

#include <inttypes.h>
#include <string.h>

enum statistic_unit { UNIT_COUNT, UNIT_BYTES, UNIT_TIME };

/* What is said beside a value. */
enum statistic_ratio {
    RATIO_NONE,
    RATIO_PER_THOUSAND, /* events a thousand instructions */
    RATIO_PER_MILLION,
    RATIO_OF, /* how much of `other` it is */
    RATIO_TO, /* how many times `other` it is */
};

/* How a counter is shown. Those that are not listed are shown by their names, last. */
static const struct statistic {
    const char *name;  /* in the message */
    const char *label; /* for people */
    enum statistic_unit unit;
    enum statistic_ratio ratio;
    const char *other;   /* for RATIO_OF and RATIO_TO */
    const char *derived; /* what JSON calls the ratio */
    const char *group;   /* begins a group, or NULL */
    const char *needs;   /* shown when that counter is not 0, or NULL */
} statistics[] = {
    {.name = "retired", .label = "guest instructions", .group = "guest"},
    {.name = "exceptions",
     .label = "exceptions",
     .ratio = RATIO_PER_MILLION,
     .derived = "exceptions_per_million"},
    {.name = "interrupts",
     .label = "interrupts",
     .ratio = RATIO_PER_MILLION,
     .derived = "interrupts_per_million"},
    {.name = "waits", .label = "waits for an interrupt"},
    {.name = "kicks",
     .label = "kicks of virtio queues",
     .ratio = RATIO_PER_MILLION,
     .derived = "kicks_per_million"},
    {.name = "device_interrupts",
     .label = "interrupts by virtio devices",
     .ratio = RATIO_PER_MILLION,
     .derived = "device_interrupts_per_million"},
    {.name = "device_messages",
     .needs = "messages",
     .label = "  sent as messages",
     .ratio = RATIO_OF,
     .other = "device_interrupts"},
    {.name = "messages", .needs = "messages", .label = "messages that processors got"},

    {.name = "blocks_decoded", .label = "blocks decoded", .group = "code"},
    {.name = "blocks_lowered",
     .needs = "code_bytes_max",
     .label = "blocks decoded again to interpret"},
    {.name = "blocks_compiled",
     .needs = "code_bytes_max",
     .label = "blocks compiled",
     .ratio = RATIO_OF,
     .other = "blocks_decoded",
     .derived = "compiled_share"},
    {.name = "blocks_dropped",
     .label = "blocks dropped",
     .ratio = RATIO_OF,
     .other = "blocks_decoded",
     .derived = "dropped_share"},
    {.name = "block_bytes", .label = "memory of decoded blocks", .unit = UNIT_BYTES},
    {.name = "code_bytes",
     .needs = "code_bytes_max",
     .label = "memory of compiled code",
     .unit = UNIT_BYTES,
     .ratio = RATIO_OF,
     .other = "code_bytes_max",
     .derived = "code_memory_share"},
    {.name = "code_bytes_max",
     .needs = "code_bytes_max",
     .label = "  its limit",
     .unit = UNIT_BYTES},
    {.name = "code_memory_full", .needs = "code_bytes_max", .label = "  times it was full"},
    {.name = "compiled_guest_bytes",
     .needs = "code_bytes_max",
     .label = "guest code compiled",
     .unit = UNIT_BYTES},
    {.name = "compiled_host_bytes",
     .needs = "code_bytes_max",
     .label = "  to host code",
     .unit = UNIT_BYTES,
     .ratio = RATIO_TO,
     .other = "compiled_guest_bytes",
     .derived = "expansion"},
    {.name = "compile_ns", .needs = "code_bytes_max", .label = "compile time", .unit = UNIT_TIME},
    {.name = "compile_median_ns",
     .needs = "code_bytes_max",
     .label = "  of a block, median",
     .unit = UNIT_TIME},
    {.name = "compile_p99_ns",
     .needs = "code_bytes_max",
     .label = "  of a block, 99th percentile",
     .unit = UNIT_TIME},

    {.name = "retired_optimised",
     .needs = "samples",
     .label = "instructions in regions",
     .group = "optimised code",
     .ratio = RATIO_OF,
     .other = "retired",
     .derived = "optimised_share"},
    {.name = "samples", .needs = "samples", .label = "samples of what runs"},
    {.name = "samples_optimised",
     .needs = "samples",
     .label = "  in regions",
     .ratio = RATIO_OF,
     .other = "samples",
     .derived = "samples_optimised_share"},
    {.name = "regions", .needs = "samples", .label = "regions in use"},
    {.name = "region_bytes", .needs = "samples", .label = "  their code", .unit = UNIT_BYTES},
    {.name = "regions_installed", .needs = "samples", .label = "regions installed"},
    {.name = "region_guest_bytes",
     .needs = "samples",
     .label = "  of guest code",
     .unit = UNIT_BYTES},
    {.name = "region_install_ns",
     .needs = "samples",
     .label = "  processor time for that",
     .unit = UNIT_TIME},
    {.name = "regions_dropped",
     .needs = "samples",
     .label = "  dropped",
     .ratio = RATIO_OF,
     .other = "regions_installed",
     .derived = "regions_dropped_share"},
    {.name = "regions_stale", .needs = "samples", .label = "  come too late"},
    {.name = "regions_refused", .needs = "samples", .label = "  refused"},
    {.name = "region_median_ns",
     .needs = "samples",
     .label = "from hot to installed, median",
     .unit = UNIT_TIME},
    {.name = "region_p99_ns", .needs = "samples", .label = "  99th percentile", .unit = UNIT_TIME},
    {.name = "region_compile_ns",
     .needs = "jit_lives",
     .label = "compile time of regions",
     .unit = UNIT_TIME},
    {.name = "region_compile_median_ns",
     .needs = "jit_lives",
     .label = "  of one, median",
     .unit = UNIT_TIME},
    {.name = "region_compile_p99_ns",
     .needs = "jit_lives",
     .label = "  of one, 99th percentile",
     .unit = UNIT_TIME},
    {.name = "region_requests", .needs = "jit_lives", .label = "regions asked for"},
    {.name = "region_fetches", .needs = "jit_lives", .label = "asked of the cache"},
    {.name = "regions_from_cache",
     .needs = "jit_lives",
     .label = "installed without compiling",
     .ratio = RATIO_OF,
     .other = "regions_installed",
     .derived = "cached_share"},
    {.name = "jit_lives", .needs = "jit_lives", .label = "compilers seen"},
    {.name = "jit_dropped", .needs = "jit_lives", .label = "their odd messages"},

    {.name = "jit_regions_compiled", .label = "regions", .group = "compiler, for all machines"},
    {.name = "jit_regions_refused", .label = "regions refused"},
    {.name = "jit_compile_ns", .label = "compile time", .unit = UNIT_TIME},
    {.name = "jit_compile_median_ns", .label = "  of a region, median", .unit = UNIT_TIME},
    {.name = "jit_compile_p99_ns", .label = "  of a region, 99th percentile", .unit = UNIT_TIME},
    {.name = "jit_code_bytes", .label = "host code", .unit = UNIT_BYTES},
    {.name = "jit_queued", .label = "regions that wait"},
    {.name = "jit_cancelled", .label = "cancelled"},
    {.name = "jit_poisoned", .label = "poisoned"},
    {.name = "jit_cache_hits", .label = "found in the cache"},
    {.name = "jit_cache_misses", .label = "not found"},
    {.name = "jit_cache_entries", .label = "regions in the cache"},
    {.name = "jit_cache_bytes", .label = "  their files", .unit = UNIT_BYTES},

    {.name = "tlb_misses",
     .label = "translation misses",
     .ratio = RATIO_PER_THOUSAND,
     .derived = "tlb_misses_per_thousand",
     .group = "slow paths"},
    {.name = "tlb_victims",
     .label = "  found without a walk",
     .ratio = RATIO_OF,
     .other = "tlb_misses"},
    {.name = "slow_accesses",
     .label = "slow accesses",
     .ratio = RATIO_PER_THOUSAND,
     .derived = "slow_accesses_per_thousand"},
    {.name = "slow_device", .label = "  to devices", .ratio = RATIO_OF, .other = "slow_accesses"},
    {.name = "slow_crossing",
     .label = "  across pages",
     .ratio = RATIO_OF,
     .other = "slow_accesses"},
    {.name = "slow_watched",
     .label = "  to watched pages",
     .ratio = RATIO_OF,
     .other = "slow_accesses"},
    {.name = "slow_misaligned", .label = "refused as misaligned"},
    {.name = "lookups",
     .label = "block look-ups",
     .ratio = RATIO_PER_THOUSAND,
     .derived = "lookups_per_thousand"},
    {.name = "exits_attention",
     .label = "calls for attention",
     .ratio = RATIO_PER_MILLION,
     .derived = "attention_per_million"},
};
#define STATISTICS (sizeof(statistics) / sizeof(statistics[0]))

static bool find_value(const Polyvisor__Response *response, const char *name, uint64_t *value)
{
    for (size_t i = 0; i < response->n_stats; i++) {
        if (strcmp(response->stats[i]->name, name) == 0) {
            *value = response->stats[i]->value;
            return true;
        }
    }
    return false;
}

/* False: there is none, or it would divide by nothing. */
static bool find_ratio(const Polyvisor__Response *response, const struct statistic *statistic,
                       uint64_t value, double *ratio)
{
    static const double scales[] = {
        [RATIO_PER_THOUSAND] = 1e3, [RATIO_PER_MILLION] = 1e6, [RATIO_OF] = 1, [RATIO_TO] = 1};
    const char *other = statistic->other != NULL ? statistic->other : "retired";
    uint64_t base = 0;

    if (statistic->ratio == RATIO_NONE || !find_value(response, other, &base) || base == 0) {
        return false;
    }
    *ratio = (double)value / (double)base * scales[statistic->ratio];
    return true;
}

static bool is_listed(const char *name)
{
    for (size_t i = 0; i < STATISTICS; i++) {
        if (strcmp(statistics[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- JSON ---- */

static json_t *derived_json(const Polyvisor__Response *response)
{
    json_t *derived = json_object();

    for (size_t i = 0; i < STATISTICS; i++) {
        uint64_t value;
        double ratio;

        if (statistics[i].derived != NULL && find_value(response, statistics[i].name, &value) &&
            find_ratio(response, &statistics[i], value, &ratio)) {
            json_object_set_new(derived, statistics[i].derived, json_real(ratio));
        }
    }
    return derived;
}

static int print_json(const char *name, const Polyvisor__Response *response, struct error *err)
{
    json_t *stats = json_object();

    for (size_t i = 0; i < response->n_stats; i++) {
        json_object_set_new(stats, response->stats[i]->name,
                            json_integer((json_int_t)response->stats[i]->value));
    }
    return output_json(json_pack("{s:o, s:o, s:o}", "name", output_json_text(name), "stats", stats,
                                 "derived", derived_json(response)),
                       err);
}

/* ---- a table ---- */

static void format_time(uint64_t nanoseconds, char *text, size_t size)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    double value = (double)nanoseconds;
    size_t unit = 0;

    while (value >= 1000 && unit < sizeof(units) / sizeof(units[0]) - 1) {
        value /= 1000;
        unit++;
    }
    snprintf(text, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void format_value(enum statistic_unit unit, uint64_t value, char *text, size_t size)
{
    switch (unit) {
    case UNIT_BYTES:
        value_format_size(value, text, size);
        break;
    case UNIT_TIME:
        format_time(value, text, size);
        break;
    case UNIT_COUNT:
        snprintf(text, size, "%" PRIu64, value);
        break;
    }
}

static void format_ratio(enum statistic_ratio kind, double ratio, char *text, size_t size)
{
    static const char *const formats[] = {
        [RATIO_PER_THOUSAND] = "%.3f a thousand instructions",
        [RATIO_PER_MILLION] = "%.3f a million instructions",
        [RATIO_OF] = "%.1f %%",
        [RATIO_TO] = "%.1f times",
    };

    snprintf(text, size, formats[kind], kind == RATIO_OF ? ratio * 100 : ratio);
}

static void add_row(struct output_table *table, const char *label, const char *value,
                    const char *ratio)
{
    char aligned[32] = "";

    if (value[0] != '\0') {
        snprintf(aligned, sizeof(aligned), "%20s", value);
    }
    output_table_add(table, label);
    output_table_add(table, aligned);
    output_table_add(table, ratio);
}

static bool is_shown(const Polyvisor__Response *response, const struct statistic *statistic)
{
    uint64_t value;

    if (statistic->needs != NULL &&
        (!find_value(response, statistic->needs, &value) || value == 0)) {
        return false;
    }
    return find_value(response, statistic->name, &value);
}

static void add_statistic(struct output_table *table, const Polyvisor__Response *response,
                          const struct statistic *statistic)
{
    uint64_t value;
    double ratio;
    char label[48], value_text[32], ratio_text[48] = "";

    if (!find_value(response, statistic->name, &value)) {
        return;
    }
    snprintf(label, sizeof(label), "  %s", statistic->label);
    format_value(statistic->unit, value, value_text, sizeof(value_text));
    if (find_ratio(response, statistic, value, &ratio)) {
        format_ratio(statistic->ratio, ratio, ratio_text, sizeof(ratio_text));
    }
    add_row(table, label, value_text, ratio_text);
}

static int print_table(const Polyvisor__Response *response, struct error *err)
{
    struct output_table table;
    bool others = false;

    output_table_open(&table, 3);
    for (size_t i = 0; i < STATISTICS; i++) {
        if (!is_shown(response, &statistics[i])) {
            continue;
        }
        if (statistics[i].group != NULL) {
            add_row(&table, statistics[i].group, "", "");
        }
        add_statistic(&table, response, &statistics[i]);
    }
    for (size_t i = 0; i < response->n_stats; i++) {
        const Polyvisor__Statistic *other = response->stats[i];
        char label[64], value[32];

        if (is_listed(other->name)) {
            continue;
        }
        if (!others) {
            add_row(&table, "others", "", "");
            others = true;
        }
        snprintf(label, sizeof(label), "  %s", other->name);
        format_value(UNIT_COUNT, other->value, value, sizeof(value));
        add_row(&table, label, value, "");
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
    .description =
        "Prints what the machine has counted since it started: guest instructions, decoded and "
        "compiled blocks and how long compiling takes, misses of address translation, slow memory "
        "accesses by reason, exceptions, interrupts and so on, with ratios to the instructions.\n"
        "With --json, 'stats' holds the counters (bytes, nanoseconds and events) and 'derived' the "
        "ratios.\n",
    .options = no_options,
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl stats build1", "The counters of build1"},
                 {"vmctl --json stats build1", "The same for programs"}},
    .run = run,
};
