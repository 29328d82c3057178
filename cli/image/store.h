/*
 * Where images are kept that have a name: one file NAME.img in $POLYVISOR_IMAGE_DIR, else
 * $XDG_DATA_HOME/polyvisor/images, else /var/lib/polyvisor/images for root and
 * ~/.local/share/polyvisor/images for others. A file appears there by rename, whole or not at all.
 */
#ifndef POLYVISOR_CLI_IMAGE_STORE_H
#define POLYVISOR_CLI_IMAGE_STORE_H

#include "libshared/base/error.h"
#include <limits.h>

#define STORE_SUFFIX ".img"

/* Where data of that kind ("images") are kept: the folder that the variable names, else below
 * $XDG_DATA_HOME, /var/lib or the user's home. It need not exist. 0 or a negative code with *err
 * set. */
int store_data_directory(const char *variable, const char *kind, char path[PATH_MAX],
                         struct error *err);
/* Make a folder and those above it that do not exist, the last one with `mode`. `path` is changed
 * meanwhile. 0 or a negative code with *err set. */
int store_make_folders(char path[PATH_MAX], unsigned mode, struct error *err);

/* The store's folder; it need not exist. 0 or a negative code with *err set. */
int store_directory(char path[PATH_MAX], struct error *err);
/* The same, made with its parents when it does not exist. */
int store_make_directory(char path[PATH_MAX], struct error *err);
/* The file of the image of that name, which need not exist. -ERROR_USAGE for what is no name. */
int store_path(const char *name, char path[PATH_MAX], struct error *err);
/* The file that people mean: a path (something with a slash, or ending in .img or .raw), else a
 * name in the store, else a file of that name here. 0 with an absolute path of something that
 * exists, -ERROR_NOT_FOUND and others with *err set. */
int store_resolve(const char *text, char path[PATH_MAX], struct error *err);

/* Call `visit` with the name and path of each image, sorted by name, until it returns non-zero. 0,
 * what it returned, or a negative code with *err set. No folder: no images. */
int store_walk(int (*visit)(void *context, const char *name, const char *path, struct error *err),
               void *context, struct error *err);

#endif
