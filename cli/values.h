/*
 * The values people write on a command line: numbers, sizes with a suffix, durations. Every parser
 * takes the whole text or refuses it: no spaces, no signs, nothing after the value, no overflow.
 */
#ifndef POLYVISOR_CLI_VALUES_H
#define POLYVISOR_CLI_VALUES_H

#include <stddef.h>
#include <stdint.h>

/* A decimal number from `minimum` to `maximum`. 0, -EINVAL when it is no number, -ERANGE when it
 * is out of range. *number is only written on success. */
int value_parse_number(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *number);

/* Bytes: a decimal number and one of K, M, G, T (powers of 1024, either case) or nothing. 0,
 * -EINVAL, or -ERANGE when the result passes 64 bits. */
int value_parse_size(const char *text, uint64_t *bytes);

/* A duration in milliseconds: a decimal number and "ms", "s", "m" or nothing (seconds). 0, -EINVAL,
 * or -ERANGE above one day. */
int value_parse_duration(const char *text, uint32_t *milliseconds);

/* "512 MiB", "1.5 GiB", "12 B": exact when a unit divides it, else with one decimal. */
void value_format_size(uint64_t bytes, char *text, size_t capacity);

/* "12s", "4m 05s", "2h 03m", "5d 04h". */
void value_format_duration(uint64_t seconds, char *text, size_t capacity);

#endif
