/*
 * The values people write: numbers, and sizes with a suffix. Every parser takes the whole text or
 * refuses it: no spaces, no signs, nothing after the value, no overflow.
 */
#ifndef POLYVISOR_BASE_VALUES_H
#define POLYVISOR_BASE_VALUES_H

#include <stdint.h>

/* For values with units of their own: the digits that `text` starts with; *end is what follows
 * them. 0, -EINVAL: there are none, -ERANGE: more than 64 bits. */
int value_parse_digits(const char *text, uint64_t *number, const char **end);

/* A decimal number from `minimum` to `maximum`. 0, -EINVAL when it is no number, -ERANGE when it
 * is out of range. *number is only written on success. */
int value_parse_number(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *number);

/* Bytes: a decimal number and one of K, M, G, T (powers of 1024, either case) or nothing. 0,
 * -EINVAL, or -ERANGE when the result passes 64 bits. */
int value_parse_size(const char *text, uint64_t *bytes);

#endif
