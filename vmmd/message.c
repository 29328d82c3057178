#include "vmmd/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

ProtobufCMessage *message_copy(const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *buffer = malloc(size ? size : 1);

    if (!buffer) {
        return NULL;
    }
    protobuf_c_message_pack(message, buffer);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, size, buffer);
    free(buffer);
    return copy;
}

int message_set_string(char **field, const char *value)
{
    char *copy = strdup(value);

    if (!copy) {
        return -ENOMEM;
    }
    if (*field != protobuf_c_empty_string) {
        free(*field);
    }
    *field = copy;
    return 0;
}
