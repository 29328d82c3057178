/*
 * Limits of a disk's or a network card's traffic, as people write them and as numbers. vmctl checks
 * the words early, vmmd keeps them, the device's process follows them (devd/limit): all with this
 * one parser.
 *
 *   disks   bps= bps-read= bps-write=  bytes a second;    iops= iops-read= iops-write=  requests
 *   cards   bps= bps-rx= bps-tx=       bytes a second;    pps= pps-rx= pps-tx=          frames
 *
 * and each of them with "-burst" behind its name: how much may pass at once after a pause. All that
 * apply to a request hold at the same time. A value is a decimal number and a unit: of bytes K, M,
 * G, T and KiB to TiB are powers of 1024, kB, KB to TB of 1000; of requests and frames K, M, G are
 * powers of 1000. "off" or 0: no limit.
 */
#ifndef POLYVISOR_LIMIT_SETTING_H
#define POLYVISOR_LIMIT_SETTING_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum limit_kind { LIMIT_BYTES, LIMIT_OPERATIONS, LIMIT_KINDS };
/* Of both directions together, and of each: a disk's reads and writes, what a card's guest receives
 * and transmits. */
enum limit_direction { LIMIT_IN, LIMIT_OUT, LIMIT_BOTH, LIMIT_DIRECTIONS };
enum limit_device { LIMIT_DISK, LIMIT_NET };

#define LIMIT_RATE_MAX  (UINT64_C(1) << 40) /* a second */
#define LIMIT_BURST_MAX (UINT64_C(1) << 50)
#define LIMIT_TEXT_MAX  512 /* of all of them, with the NUL */

struct limit {
    uint64_t rate;  /* a second; 0: no limit */
    uint64_t burst; /* 0: what passes in a tenth of a second */
};

struct limits {
    struct limit of[LIMIT_KINDS][LIMIT_DIRECTIONS];
};

/* Read one word "NAME=VALUE". 0, -ENOENT when it is none of these words, or the negative `code`
 * with *err set. A rate that changes has its burst back at what it is without a word. */
int limits_parse_word(enum limit_device device, const char *word, enum error_code code,
                      struct limits *limits, struct error *err);
/* Whether they fit together; after the last word. 0, or the negative `code` with *err set. */
int limits_check(enum limit_device device, const struct limits *limits, enum error_code code,
                 struct error *err);
/* Change `limits` by words with commas between them, all or none: as both above, but an unknown
 * word is an error, too. "off" alone takes all away; "" changes nothing. */
int limits_parse(enum limit_device device, const char *text, enum error_code code,
                 struct limits *limits, struct error *err);
/* The words that say the same, "" when there is no limit. */
void limits_format(enum limit_device device, const struct limits *limits, char *text,
                   size_t capacity);
bool limits_any(const struct limits *limits);
/* The burst that holds: the given one, or what follows from the rate. */
uint64_t limit_burst(const struct limit *limit);
/* The name of a word without "-burst": "bps-read". */
const char *limit_name(enum limit_device device, enum limit_kind kind,
                       enum limit_direction direction);

#endif
