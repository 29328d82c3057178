/*
 * What vmctl agent makes of what a guest's agent tells of itself: any bytes. What is shown has no
 * control characters, what goes to programs is JSON of the announced types, and values are what
 * the agent said.
 */
#include "cli/agent_status.h"
#include "tests/fuzz/fuzz_input.h"

/* The lines of all facts, whose values the input chooses. */
static const char *const lines[] = {
    "version ",        "isa ",
    "kernel ",         "uptime_s ",
    "agent_uptime_s ", "clock_interval_s ",
    "clock_steps ",    "clock_difference_ms ",
    "nonsense ",
};
static const char *const values[] = {
    "0", "-1", "9223372036854775807", "9223372036854775808", " 7", "+7", "\x1b[2J", "\xc2\x9b[2J"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static size_t say(struct fuzz_input *input, char *text, size_t room)
{
    size_t length = 0;

    while (input->size > 0 && room - length > 64) {
        unsigned how = (unsigned)fuzz_take(input, 1);
        size_t count;
        if (how < 16) {
            length +=
                (size_t)snprintf(text + length, room - length, "%s%s\n", lines[how % COUNT(lines)],
                                 values[fuzz_pick(input, COUNT(values))]);
            continue;
        }
        if (how < 64) {
            length +=
                (size_t)snprintf(text + length, room - length, "%s", lines[how % COUNT(lines)]);
        }
        const uint8_t *bytes = fuzz_bytes(input, how, &count);
        count = count < room - length ? count : room - length;
        memcpy(text + length, bytes, count);
        length += count;
    }
    return length;
}

static void check_shown(const struct agent_status *status)
{
    struct output_table table;
    struct error err;
    char *shown = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&shown, &size);

    fuzz_require(file != NULL, "memory");
    output_table_open(&table, 2);
    agent_status_rows(status, &table);
    fuzz_require(output_table_print(&table, file, &err) == 0, "a table is printed");
    fclose(file);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)shown[i], next = i + 1 < size ? (uint8_t)shown[i + 1] : 0;
        fuzz_require((byte >= 0x20 && byte != 0x7f) || byte == '\n', "no control characters");
        fuzz_require(byte != 0xc2 || next < 0x80 || next >= 0xa0, "none of two bytes");
    }
    free(shown);
}

static void check_json(const struct agent_status *status)
{
    json_t *object = json_object(), *value;
    const char *key;

    agent_status_json(status, object);
    fuzz_require(json_object_size(object) == AGENT_FACTS, "all facts are told");
    unsigned i = 0;
    json_object_foreach(object, key, value)
    {
        bool number = i >= AGENT_FACT_UPTIME;
        fuzz_require(status->values[i][0]
                         ? json_is_integer(value) == number && json_is_string(value) == !number
                         : json_is_null(value),
                     key);
        char text[32];
        snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
        fuzz_require(!number || strlen(text) <= strlen(status->values[i]) || !status->values[i][0],
                     "a number is the one that was told");
        i++;
    }
    char *text = json_dumps(object, JSON_COMPACT);
    fuzz_require(text != NULL, "it is written");
    free(text);
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct agent_status status;
    char *text = malloc(AGENT_STATUS_MAX);

    fuzz_require(text != NULL, "memory");
    size_t length = say(&input, text, AGENT_STATUS_MAX);
    char *exact = malloc(length ? length : 1); /* so that a byte beyond is seen */
    fuzz_require(exact != NULL, "memory");
    memcpy(exact, text, length);
    agent_status_parse(&status, exact, length);
    for (unsigned i = 0; i < AGENT_FACTS; i++) {
        size_t value = strnlen(status.values[i], AGENT_STATUS_ROOM);
        fuzz_require(value < AGENT_STATUS_ROOM, "a value has an end");
        fuzz_require(value == 0 || memmem(exact, length, status.values[i], value) != NULL,
                     "a value was said");
    }
    check_shown(&status);
    check_json(&status);
    free(exact);
    free(text);
    return 0;
}
