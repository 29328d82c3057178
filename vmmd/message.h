/* What protobuf-c leaves out: copying messages and setting their strings. */
#ifndef POLYVISOR_VMMD_MESSAGE_H
#define POLYVISOR_VMMD_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

/* Free the fields, of it and of the messages in it, that this version does not know: whoever keeps
 * a message is to know how large it is. */
void message_drop_unknown(ProtobufCMessage *message);
/* A deep copy without unknown fields, to be freed with protobuf_c_message_free_unpacked; NULL
 * without memory. */
ProtobufCMessage *message_copy(const ProtobufCMessage *message);
/* Replace a string of an unpacked (or copied) message. 0 or -ENOMEM. */
int message_set_string(char **field, const char *value);

#endif
