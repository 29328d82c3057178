/*
 * What a file is, told from its first bytes: so that the wrong kernel gets a message that names
 * what was given instead of a machine that hangs.
 */
#ifndef POLYVISOR_VCPU_BOOT_IDENTIFY_H
#define POLYVISOR_VCPU_BOOT_IDENTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOT_IDENTIFY_BYTES 4096 /* as many as are worth reading */

struct boot_identity {
    const char *name; /* "an x86 Linux kernel (bzImage)" */
    const char *hint; /* what to do, "" when there is nothing to say, NULL: wrong architecture */
};

/* What the file that begins with these bytes (fewer than BOOT_IDENTIFY_BYTES when it is short) is;
 * NULL when they say nothing. RISC-V Linux Images and 64-bit RISC-V ELF files are recognised
 * by their loaders first, and are not looked for here. */
const struct boot_identity *boot_identify(const uint8_t *bytes, size_t size);

#endif
