/*
 * A disk image that `vmctl run --image` can boot: its boot partition (the EFI system partition of a
 * GUID partition table) has the kernel, the initrd, the command line and a few words about the
 * image, each a file with a short name. The image keeps them up to date itself when its kernel
 * changes.
 */
#ifndef POLYVISOR_CLI_IMAGE_FILE_H
#define POLYVISOR_CLI_IMAGE_FILE_H

#include "cli/image/fat.h"

#define IMAGE_KERNEL       "VMLINUX"
#define IMAGE_INITRD       "INITRD.IMG"
#define IMAGE_COMMAND_LINE "CMDLINE.TXT"
#define IMAGE_PROPERTIES   "IMAGE.INF"

#define IMAGE_COMMAND_LINE_MAX 1024
#define IMAGE_TEXT_MAX         4096 /* of a file of text */
#define IMAGE_BOOT_FILE_MAX    (UINT32_C(1) << 30)

/* What an image says of itself: hostile text, of printable ASCII; empty where it says nothing. */
struct image_properties {
    char arch[16], distribution[32], suite[32], kernel[96], built[32], packages[1024];
    char polyvisor[32]; /* the version that made it, and */
    char agent[16];     /* what its agent speaks: AGENT_VERSION then */
};

struct image_file {
    int fd;
    uint64_t bytes;      /* the disk's size */
    uint64_t used_bytes; /* what it takes on the host */
    struct fat boot;
    char command_line[IMAGE_COMMAND_LINE_MAX];
    struct image_properties properties;
};

/* Open an image and read what it says. 0 or a negative code with *err set: NOT_FOUND, DISK, IO,
 * PERMISSION. On failure nothing is left open. */
int image_file_open(struct image_file *image, const char *path, struct error *err);
void image_file_close(struct image_file *image);
/* Write one of its boot files to a new file `path`. 0 or a negative code with *err set. */
int image_file_extract(struct image_file *image, const char *name, const char *path,
                       struct error *err);

/* Read the lines KEY=VALUE of IMAGE.INF. Unknown keys are passed over. */
void image_properties_parse(const char *text, struct image_properties *properties);

#endif
