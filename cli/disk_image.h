/*
 * vmctl disk on image files, without any vmmd: make, look at, resize, check. The file is locked as
 * its users do it, so one that is in use is refused.
 */
#ifndef POLYVISOR_CLI_DISK_IMAGE_H
#define POLYVISOR_CLI_DISK_IMAGE_H

#include "cli/command.h"

struct disk_options {
    bool shrink, chain;
    uint64_t size;       /* 0: not given */
    const char *format;  /* NULL: by the file's name */
    const char *backing; /* as it is to stand in the image, or NULL */
    const char *backing_format;
    uint64_t cluster_bytes; /* 0: not given */
    const char *repair;     /* "leaks", "all" or NULL */
};

/* Each returns as command.run does; `file` is as given. */
int disk_image_create(const struct invocation *invocation, const char *file, struct error *err);
int disk_image_info(const struct invocation *invocation, const char *file, struct error *err);
int disk_image_resize(const struct invocation *invocation, const char *file, uint64_t bytes,
                      struct error *err);
int disk_image_check(const struct invocation *invocation, const char *file, struct error *err);

#endif
