/*
 * From an image, and from what cloud-init is to hear, to the settings of a machine: its kernel and
 * initrd are taken out of the image, and its disk is laid over it, or copied from it. The files
 * that this takes lie in a folder of the caller's.
 */
#ifndef POLYVISOR_CLI_IMAGE_MACHINE_IMAGE_H
#define POLYVISOR_CLI_IMAGE_MACHINE_IMAGE_H

#include "cli/command.h"
#include "cli/image/image_file.h"
#include "cli/image/seed.h"
#include "cli/machine_options.h"

/* What people say of it. */
struct machine_image {
    const char *image; /* as store_resolve takes it; NULL: none */
    uint64_t bytes;    /* of the disk; 0: as many as the image has */
    bool persistent;   /* the disk is the image itself */
    struct seed_setting cloud_init;
};

/* The lines of a table whose settings have a `struct machine_image` as `member`. */
#define MACHINE_IMAGE_OPTIONS(settings, member)                                                    \
    {.name = "image",                                                                              \
     .type = &option_text,                                                                         \
     .argument = "NAME|FILE",                                                                      \
     .summary = "boot an image that 'vmctl image build' made: its kernel, a disk of its own, a "   \
                "network and a vsock unless others are given",                                     \
     .offset = offsetof(settings, member.image)},                                                  \
        {.name = "image-size",                                                                     \
         .type = &option_size,                                                                     \
         .argument = "SIZE",                                                                       \
         .summary = "make the machine's disk so large instead of as large as the image; its root " \
                    "file system grows when it starts",                                            \
         .offset = offsetof(settings, member.bytes)},                                              \
    {                                                                                              \
        .name = "cloud-init", .type = &option_cloud_init,                                          \
        .argument = "USER-DATA[,meta-data=FILE][,network-config=FILE]",                            \
        .summary = "add a disk from which cloud-init takes these files (its NoCloud data "         \
                   "source); an image has cloud-init if it was built with --packages cloud-init",  \
        .offset = offsetof(settings, member.cloud_init)                                            \
    }

enum machine_image_disk {
    MACHINE_IMAGE_OVERLAY, /* for a machine that goes before its image does: made in an instant */
    MACHINE_IMAGE_COPY,    /* for one that stays, whatever becomes of the image */
};

/* Files in the folder. */
#define MACHINE_IMAGE_KERNEL    "kernel"
#define MACHINE_IMAGE_INITRD    "initrd"
#define MACHINE_IMAGE_DISK_COPY "disk.img" /* with `persistent` a link to the image */
#define MACHINE_IMAGE_OVERLAID  "disk.qcow2"
#define MACHINE_IMAGE_SEED      "seed.iso"

#define MACHINE_IMAGE_APPEND_MAX (2 * IMAGE_COMMAND_LINE_MAX)

/* Complete the settings of the machine `name` (they may own what is put there: options_release
 * frees it) with files in `folder` (absolute). `append` gets the command line and must outlive the
 * settings. What the image says of itself goes to *properties. Without an image and without
 * cloud-init: no effect. 0, or a negative code with *err set: NOT_FOUND, DISK, CONFIG, USAGE, IO.
 */
int machine_image_prepare(const struct machine_image *image, enum machine_image_disk how,
                          const char *folder, const char *name, struct machine_settings *machine,
                          char append[MACHINE_IMAGE_APPEND_MAX],
                          struct image_properties *properties, struct error *err);

/* Tell who wants cloud-init of an image of Debian that was built without. */
void machine_image_warn_seed(const struct machine_image *image,
                             const struct image_properties *properties,
                             const struct globals *globals);

/* Give the machine a vsock at `folder`/vsock unless it has one. -ERROR_CONFIG when the path is too
 * long for a socket. */
int machine_image_add_vsock(const char *folder, struct machine_settings *machine,
                            struct error *err);

/* Take kernel and initrd out of the disk in `folder` once more: the guest may have new ones. A
 * folder that has none of them, and a disk that is in use, are left alone. 0 or a negative code
 * with *err set; the old ones stay then. */
int machine_image_refresh(const char *folder, struct error *err);

#endif
