#include "vmmd/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void message_drop_own_unknown(ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        free(message->unknown_fields[i].data);
    }
    free(message->unknown_fields);
    message->unknown_fields = NULL;
    message->n_unknown_fields = 0;
}

/* The messages in a field: how many, and the first of them. */
static size_t message_list_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                                 ProtobufCMessage ***list)
{
    char *base = (char *)message;
    void *place = base + field->offset;

    if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return 0;
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        *list = *(ProtobufCMessage ***)place;
        return *(size_t *)(base + field->quantifier_offset);
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(uint32_t *)(base + field->quantifier_offset) != field->id) {
        return 0;
    }
    *list = place;
    return **list ? 1 : 0;
}

void message_drop_unknown(ProtobufCMessage *message)
{
    message_drop_own_unknown(message);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        ProtobufCMessage **list;
        size_t count = message_list_field(message, &message->descriptor->fields[i], &list);
        for (size_t k = 0; k < count; k++) {
            message_drop_unknown(list[k]);
        }
    }
}

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
    if (copy) {
        message_drop_unknown(copy);
    }
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
