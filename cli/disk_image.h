/*
 * vmctl disk on image files, without any vmmd: make, look at, resize, check. The file is locked as
 * its users do it, so one that is in use is refused.
 */
#ifndef POLYVISOR_CLI_DISK_IMAGE_H
#define POLYVISOR_CLI_DISK_IMAGE_H

#include "cli/command.h"
#include "libshared/disk/chain.h"

struct disk_options {
    bool shrink, chain;
    uint64_t size;       /* 0: not given */
    const char *format;  /* NULL: by the file's name */
    const char *backing; /* as it is to stand in the image, or NULL */
    const char *backing_format;
    char *backing_folder;   /* where backing files may be, too, or NULL */
    uint64_t cluster_bytes; /* 0: not given */
    const char *repair;     /* "leaks", "all" or NULL */
};

/* Open what lies under `fd`: below the folder of the image itself, or below one that the user named
 * (the option, or else the folder of the backing file that is to be). disk_chain_open otherwise. */
int disk_open_chain(struct disk_chain *chain, int fd, const char *path,
                    const struct disk_options *options, struct error *err);

/* Open a file or block device without locking it. The descriptor or a negative code. */
int disk_open_file(const char *path, bool write, struct error *err);
/* Whether it begins as a qcow2 image does; a guest can have written that to a raw disk. */
bool disk_has_qcow2_magic(int fd);

/* Each returns as command.run does; `file` is as given. disk_image_info: disk_info.c. */
int disk_image_create(const struct invocation *invocation, const char *file, struct error *err);
int disk_image_info(const struct invocation *invocation, const char *file, struct error *err);
int disk_image_resize(const struct invocation *invocation, const char *file, uint64_t bytes,
                      struct error *err);
int disk_image_check(const struct invocation *invocation, const char *file, struct error *err);

#endif
