#include "cli/values.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DURATION_MAX_MS (24u * 60 * 60 * 1000)

int value_parse_duration(const char *text, uint32_t *milliseconds)
{
    static const struct {
        const char *suffix;
        uint64_t factor;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60 * 1000}};
    uint64_t value = 0;
    const char *end = text;
    int status = value_parse_digits(text, &value, &end);

    if (status == -EINVAL) {
        return status;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].suffix) != 0) {
            continue;
        }
        if (status != 0 || value > DURATION_MAX_MS / units[i].factor) {
            return -ERANGE;
        }
        *milliseconds = (uint32_t)(value * units[i].factor);
        return 0;
    }
    return -EINVAL;
}

void value_format_size(uint64_t bytes, char *text, size_t capacity)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;

    while (unit < 6 && (bytes >> (10 * (unit + 1))) != 0) {
        unit++;
    }
    uint64_t scale = UINT64_C(1) << (10 * unit);
    if (bytes % scale == 0) {
        snprintf(text, capacity, "%" PRIu64 " %s", bytes / scale, units[unit]);
    } else {
        snprintf(text, capacity, "%.1f %s", (double)bytes / (double)scale, units[unit]);
    }
}

void value_format_duration(uint64_t seconds, char *text, size_t capacity)
{
    static const struct {
        uint64_t below, large, small;
        char large_unit, small_unit;
    } forms[] = {
        {60 * 60, 60, 1, 'm', 's'},
        {24 * 60 * 60, 60 * 60, 60, 'h', 'm'},
        {UINT64_MAX, 24 * 60 * 60, 60 * 60, 'd', 'h'},
    };
    size_t form = 0;

    if (seconds < 60) {
        snprintf(text, capacity, "%" PRIu64 "s", seconds);
        return;
    }
    while (form < 2 && seconds >= forms[form].below) {
        form++;
    }
    snprintf(text, capacity, "%" PRIu64 "%c %02" PRIu64 "%c", seconds / forms[form].large,
             forms[form].large_unit, seconds % forms[form].large / forms[form].small,
             forms[form].small_unit);
}
