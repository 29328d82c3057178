/* What vmctl disk info shows, and what else looks at image files. */
#ifndef POLYVISOR_CLI_DISK_INFO_H
#define POLYVISOR_CLI_DISK_INFO_H

#include "libshared/base/error.h"
#include <stdbool.h>

/* Whether a file's name says that it is a qcow2 image. */
bool disk_is_qcow2_name(const char *path);
/* Open a file or block device without locking it. The descriptor or a negative code. */
int disk_open_file(const char *path, bool write, struct error *err);

#endif
