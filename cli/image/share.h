/*
 * What belongs to polyvisor and is no program: the recipe of images, the agents of guests. It is in
 * ../share/polyvisor beside the folder of vmctl, where it was built as where it was installed.
 */
#ifndef POLYVISOR_CLI_IMAGE_SHARE_H
#define POLYVISOR_CLI_IMAGE_SHARE_H

#include "libshared/base/error.h"
#include <limits.h>

/* The path of `name` ("image/build-image") into `path`. -ERROR_UNSUPPORTED when it is not there. */
int share_path(const char *name, char path[PATH_MAX], struct error *err);
/* vmctl's own program. */
int share_own_program(char path[PATH_MAX], struct error *err);

#endif
