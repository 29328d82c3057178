/*
 * Requests that cannot simply be done twice: those that make, remove or rename something. Before
 * such a request changes anything it writes down which files its names stand for. When the process
 * dies before the request is answered the next one is given the request again (libshared/virtio/
 * ring.h), finds what is written, and sees from the names whether it was done:
 *
 *   request                  was done when
 *   create, mknod, mkdir,    the name is there: it was not before
 *   symlink, link
 *   unlink, rmdir            the name does not stand for that file any more
 *   rename                   the new name stands for the file that the old one stood for, and the
 *                            old one does not
 *   rename, exchanging       each name stands for the other's file
 *
 * Then it only has to be answered. Everything else may be done twice.
 */
#ifndef POLYVISOR_DEVD_FS_INTENT_H
#define POLYVISOR_DEVD_FS_INTENT_H

#include "devd/fs/fs_internal.h"

/* Write down what the request is about to change; a NULL: there is no such file. */
void intent_begin(struct fs *fs, const struct fs_message *message,
                  const struct share_identity *source, const struct share_identity *target);
/* What an earlier process wrote down for this very request, or NULL. */
const struct share_intent *intent_of(const struct fs *fs, const struct fs_message *message);

#endif
