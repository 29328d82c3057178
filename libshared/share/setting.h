/*
 * What `--share` says: a directory of the host that the guest can mount as a virtio file system.
 * vmctl checks the text early, vmmd keeps it, the device process reads it again.
 *
 *   DIR:TAG[,readonly][,cache=auto|always|never][,uid=N][,gid=N]
 *
 * The guest mounts it by its tag: mount -t virtiofs TAG WHERE. What belongs to the user whom the
 * device runs as belongs in the guest to uid and gid, root if nothing is said. A comma in DIR is
 * written twice; the tag begins behind the last colon.
 */
#ifndef POLYVISOR_SHARE_SETTING_H
#define POLYVISOR_SHARE_SETTING_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stdint.h>

#define SHARES_MAX     4    /* of one machine */
#define SHARE_PATH_MAX 2047 /* bytes */
#define SHARE_TAG_MAX  36   /* Virtio 1.2, 5.11.4 */

enum share_cache {
    SHARE_CACHE_AUTO,   /* contents while the host's file is unchanged; names are asked for */
    SHARE_CACHE_ALWAYS, /* nobody but the guest changes anything */
    SHARE_CACHE_NEVER,  /* every read is the host's */
};

struct share_setting {
    char path[SHARE_PATH_MAX + 1];
    char tag[SHARE_TAG_MAX + 1];
    enum share_cache cache;
    uint32_t uid, gid; /* in the guest, of what belongs to the device's user */
    bool read_only;
};

/* Read `text`. 0, or the negative `code` (of the kind of error that a wrong text is to the caller)
 * with *err set. */
int share_setting_parse(const char *text, enum error_code code, struct share_setting *setting,
                        struct error *err);
/* The text that says the same, allocated; NULL when memory is short. */
char *share_setting_format(const struct share_setting *setting);
/* "auto" */
const char *share_cache_name(enum share_cache cache);

#endif
