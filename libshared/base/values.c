#include "libshared/base/values.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

int value_parse_digits(const char *text, uint64_t *number, const char **end)
{
    uint64_t value = 0;
    bool overflow = false;

    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        overflow |= __builtin_mul_overflow(value, 10u, &value);
        overflow |= __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value);
    }
    *number = value;
    *end = text;
    return overflow ? -ERANGE : 0;
}

int value_parse_number(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *number)
{
    uint64_t value = 0;
    const char *end = text;
    int status = value_parse_digits(text, &value, &end);

    if (status == -EINVAL || *end != '\0') {
        return -EINVAL;
    }
    if (status != 0 || value < minimum || value > maximum) {
        return -ERANGE;
    }
    *number = value;
    return 0;
}

int value_parse_size(const char *text, uint64_t *bytes)
{
    static const struct {
        char suffix;
        unsigned shift;
    } units[] = {{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};
    uint64_t value = 0;
    const char *end = text;
    unsigned shift = 0;
    int status = value_parse_digits(text, &value, &end);

    if (status == -EINVAL) {
        return status;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (*end == units[i].suffix || *end == units[i].suffix + ('a' - 'A')) {
            shift = units[i].shift;
            end++;
            break;
        }
    }
    if (*end != '\0') {
        return -EINVAL;
    }
    if (status != 0 || value > (UINT64_MAX >> shift)) {
        return -ERANGE;
    }
    *bytes = value << shift;
    return 0;
}
