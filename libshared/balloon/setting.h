/*
 * What `--balloon` says. vmctl checks the text early, vmmd completes and keeps it, the device
 * process reads it again.
 *
 *   off
 *   [on][,memory=SIZE][,deflate-on-oom=on|off][,reporting=on|off]
 *
 * SIZE is what the guest has from its start on: bytes, or a number with K, M, G or T.
 */
#ifndef POLYVISOR_BALLOON_SETTING_H
#define POLYVISOR_BALLOON_SETTING_H

#include "libshared/base/error.h"
#include <stdint.h>

#define BALLOON_SETTING_MAX 96 /* bytes of a formatted setting, its end included */

struct balloon_setting {
    bool present;
    bool deflate_on_oom; /* the guest takes memory back before it kills a process for want of it */
    bool reporting;      /* the guest tells which of its pages are free */
    uint64_t memory;     /* bytes that the guest has at first; 0: all of the machine's */
};

/* Read `text`; an empty one is the default: all of it on. 0, or the negative `code` (of the kind of
 * error that a wrong text is to the caller) with *err set. */
int balloon_setting_parse(const char *text, enum error_code code, struct balloon_setting *setting,
                          struct error *err);
/* The text that says the same, with nothing left out. */
void balloon_setting_format(const struct balloon_setting *setting, char text[BALLOON_SETTING_MAX]);

#endif
