/*
 * What a guest's agent tells of itself: lines "WORD VALUE" (agent/status.c). It is hostile text:
 * words that are not known are passed over, and so are values that make no sense.
 */
#ifndef POLYVISOR_CLI_AGENT_STATUS_H
#define POLYVISOR_CLI_AGENT_STATUS_H

#include "cli/output.h"

#define AGENT_STATUS_MAX  4096 /* bytes of its answer that are looked at */
#define AGENT_STATUS_ROOM 120  /* of a value, its end included */

enum agent_fact {
    AGENT_FACT_VERSION,
    AGENT_FACT_ISA,
    AGENT_FACT_KERNEL,
    AGENT_FACT_UPTIME,
    AGENT_FACT_AGENT_UPTIME,
    AGENT_FACT_INTERVAL,
    AGENT_FACT_STEPS,
    AGENT_FACT_DIFFERENCE,
    AGENT_FACTS
};

struct agent_status {
    char values[AGENT_FACTS][AGENT_STATUS_ROOM]; /* "": it does not tell */
};

/* `size` bytes of an answer; what is beyond a zero byte is not looked at. */
void agent_status_parse(struct agent_status *status, const char *text, size_t size);
/* Add each fact to a JSON object: a text, a number or null. */
void agent_status_json(const struct agent_status *status, json_t *object);
/* Add rows for people to a table of two columns. */
void agent_status_rows(const struct agent_status *status, struct output_table *table);

#endif
