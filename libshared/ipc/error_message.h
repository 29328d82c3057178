/* `struct error` as the messages of proto/ carry it. */
#ifndef POLYVISOR_IPC_ERROR_MESSAGE_H
#define POLYVISOR_IPC_ERROR_MESSAGE_H

#include "libshared/base/error.h"
#include "proto/error.pb-c.h"

/* Fill `message` with pointers into `err`, which must live as long as the message is used. */
void error_to_message(struct error *err, Polyvisor__Error *message);
/* Copy a received error; NULL clears `err`. The texts may be hostile: they are cut and made one
 * line. An unknown code becomes ERROR_INTERNAL, so that an error never turns into success. */
void error_from_message(struct error *err, const Polyvisor__Error *message);

#endif
