/*
 * What people write on a command line besides numbers and sizes: durations, under the same rules;
 * and how sizes and durations are printed.
 */
#ifndef POLYVISOR_CLI_VALUES_H
#define POLYVISOR_CLI_VALUES_H

#include "libshared/base/values.h"
#include <stddef.h>
#include <stdint.h>

/* A duration in milliseconds: a decimal number and "ms", "s", "m" or nothing (seconds). 0, -EINVAL,
 * or -ERANGE above one day. */
int value_parse_duration(const char *text, uint32_t *milliseconds);

/* "512 MiB", "1.5 GiB", "12 B": exact when a unit divides it, else with one decimal. */
void value_format_size(uint64_t bytes, char *text, size_t capacity);

/* "12s", "4m 05s", "2h 03m", "5d 04h". */
void value_format_duration(uint64_t seconds, char *text, size_t capacity);

#endif
