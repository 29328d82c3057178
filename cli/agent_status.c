#include "cli/agent_status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word; /* the agent's, and of --json */
    bool is_number;
} facts[AGENT_FACTS] = {
    [AGENT_FACT_VERSION] = {"version", false},
    [AGENT_FACT_ISA] = {"isa", false},
    [AGENT_FACT_KERNEL] = {"kernel", false},
    [AGENT_FACT_UPTIME] = {"uptime_s", true},
    [AGENT_FACT_AGENT_UPTIME] = {"agent_uptime_s", true},
    [AGENT_FACT_INTERVAL] = {"clock_interval_s", true},
    [AGENT_FACT_STEPS] = {"clock_steps", true},
    [AGENT_FACT_DIFFERENCE] = {"clock_difference_ms", true},
};

static bool is_number(const char *text)
{
    const char *digits = text + (*text == '-');

    errno = 0;
    strtoll(text, NULL, 10);
    return *digits != '\0' && digits[strspn(digits, "0123456789")] == '\0' && errno == 0;
}

static void take_line(struct agent_status *status, const char *line, size_t length)
{
    for (unsigned i = 0; i < AGENT_FACTS; i++) {
        char value[AGENT_STATUS_ROOM];
        size_t word = strlen(facts[i].word);

        if (length <= word || length - word - 1 >= sizeof(value) || line[word] != ' ' ||
            memcmp(line, facts[i].word, word) != 0) {
            continue;
        }
        memcpy(value, line + word + 1, length - word - 1);
        value[length - word - 1] = '\0';
        if (!facts[i].is_number || is_number(value)) {
            memcpy(status->values[i], value, sizeof(value));
        }
    }
}

void agent_status_parse(struct agent_status *status, const char *text, size_t size)
{
    memset(status, 0, sizeof(*status));
    size = strnlen(text, size);
    while (size > 0) {
        const char *end = memchr(text, '\n', size);
        size_t length = end != NULL ? (size_t)(end - text) : size;

        take_line(status, text, length);
        length += end != NULL;
        text += length;
        size -= length;
    }
}

void agent_status_json(const struct agent_status *status, json_t *object)
{
    for (unsigned i = 0; i < AGENT_FACTS; i++) {
        const char *value = status->values[i];
        json_object_set_new(object, facts[i].word,
                            !value[0]            ? json_null()
                            : facts[i].is_number ? json_integer(strtoll(value, NULL, 10))
                                                 : output_json_text(value));
    }
}

static void add(struct output_table *table, const char *title, const char *value)
{
    output_table_add(table, title);
    output_table_add(table, value[0] ? value : "it does not tell");
}

void agent_status_rows(const struct agent_status *status, struct output_table *table)
{
    const char(*values)[AGENT_STATUS_ROOM] = status->values;
    const char *interval = values[AGENT_FACT_INTERVAL];
    const char *difference = values[AGENT_FACT_DIFFERENCE];
    char text[4 * AGENT_STATUS_ROOM];

    add(table, "Version:", values[AGENT_FACT_VERSION]);
    add(table, "ISA:", values[AGENT_FACT_ISA]);
    add(table, "Kernel:", values[AGENT_FACT_KERNEL]);
    snprintf(text, sizeof(text), "%s s, the agent %s s", values[AGENT_FACT_UPTIME],
             values[AGENT_FACT_AGENT_UPTIME]);
    add(table, "Up:", values[AGENT_FACT_UPTIME][0] ? text : "");
    if (strcmp(interval, "0") == 0) {
        add(table, "Clock:", "left alone");
        return;
    }
    snprintf(text, sizeof(text), "looked at every %s s, set %s times%s%s%s", interval,
             values[AGENT_FACT_STEPS], difference[0] ? ", " : "", difference,
             difference[0] ? " ms behind the real-time clock" : "");
    add(table, "Clock:", interval[0] ? text : "");
}
