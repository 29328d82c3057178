/*
 * Messages from the fuzzer's bytes: along a message's description, so that most parse, with fields
 * left out, repeated, nested and set to numbers and words that mean something; and some that do
 * not parse at all. As they travel, with the frame of libshared/ipc/channel.h.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_MESSAGE_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_MESSAGE_H

#include "tests/fuzz/fuzz_input.h"
#include <protobuf-c/protobuf-c.h>

#define FUZZ_FRAME_HEAD  12u
#define FUZZ_FRAME_MAX   65536u
#define FUZZ_NESTING_MAX 6u

/* What a target knows better than its bytes. */
struct fuzz_words {
    const char *const *texts; /* for strings */
    unsigned count;
    /* For strings that would be used for something: true when it has one for this field. May be
     * NULL. */
    bool (*text)(struct fuzz_input *input, const ProtobufCFieldDescriptor *field,
                 const char **text);
    /* For fields of bytes: writes at most `room`; the bytes written, or SIZE_MAX: any. May be NULL.
     */
    size_t (*bytes)(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint8_t *to,
                    size_t room);
    /* For numbers: true when it has one for this field. May be NULL. */
    bool (*number)(struct fuzz_input *input, const ProtobufCFieldDescriptor *field,
                   uint64_t *value);
};

struct fuzz_writer {
    struct fuzz_input *input;
    const struct fuzz_words *words;
    uint8_t *to, *end;
};

static inline void fuzz_write(struct fuzz_writer *writer, const void *bytes, size_t size)
{
    size_t room = (size_t)(writer->end - writer->to);
    size = size < room ? size : room;
    if (size) {
        memcpy(writer->to, bytes, size);
        writer->to += size;
    }
}

static inline void fuzz_write_varint(struct fuzz_writer *writer, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        fuzz_write(writer, &byte, 1);
        value >>= 7;
    } while (value);
}

static inline void fuzz_write_fields(struct fuzz_writer *writer,
                                     const ProtobufCMessageDescriptor *type, unsigned nesting);

static inline void fuzz_write_text(struct fuzz_writer *writer,
                                   const ProtobufCFieldDescriptor *field)
{
    unsigned how = (unsigned)fuzz_take(writer->input, 1);
    const char *text;
    size_t size;

    if (writer->words->text && field && writer->words->text(writer->input, field, &text)) {
        size = strlen(text);
    } else if (how < 208 && writer->words->count) {
        text = writer->words->texts[how % writer->words->count];
        size = strlen(text);
    } else if (how == 255) { /* a long one */
        static const char filler[3000] = {[0 ... 2999] = 'x'};
        text = filler;
        size = (size_t)fuzz_take(writer->input, 2) % sizeof(filler);
    } else {
        text = (const char *)fuzz_bytes(writer->input, how & 31, &size);
    }
    fuzz_write_varint(writer, size);
    fuzz_write(writer, text, size);
}

static inline void fuzz_write_bytes(struct fuzz_writer *writer,
                                    const ProtobufCFieldDescriptor *field)
{
    static uint8_t own[FUZZ_FRAME_MAX];
    size_t size = SIZE_MAX;
    const uint8_t *bytes = own;

    if (writer->words->bytes) {
        size = writer->words->bytes(writer->input, field, own, sizeof(own));
    }
    if (size == SIZE_MAX) {
        bytes = fuzz_bytes(writer->input, fuzz_take(writer->input, 1), &size);
    }
    fuzz_write_varint(writer, size);
    fuzz_write(writer, bytes, size);
}

/* A message in a message: its length comes first, so it is written apart. */
static inline void fuzz_write_nested(struct fuzz_writer *writer,
                                     const ProtobufCFieldDescriptor *field, unsigned nesting)
{
    uint8_t *room = malloc(FUZZ_FRAME_MAX);
    struct fuzz_writer inner = *writer;

    fuzz_require(room != NULL, "memory");
    inner.to = room;
    inner.end = room + FUZZ_FRAME_MAX;
    if (nesting < FUZZ_NESTING_MAX) {
        fuzz_write_fields(&inner, field->descriptor, nesting + 1);
    }
    fuzz_write_varint(writer, (size_t)(inner.to - room));
    fuzz_write(writer, room, (size_t)(inner.to - room));
    free(room);
}

static inline void fuzz_write_field(struct fuzz_writer *writer,
                                    const ProtobufCFieldDescriptor *field, unsigned nesting)
{
    static const uint8_t wire[] = {
        [PROTOBUF_C_TYPE_SFIXED32] = 5, [PROTOBUF_C_TYPE_FIXED32] = 5,
        [PROTOBUF_C_TYPE_FLOAT] = 5,    [PROTOBUF_C_TYPE_SFIXED64] = 1,
        [PROTOBUF_C_TYPE_FIXED64] = 1,  [PROTOBUF_C_TYPE_DOUBLE] = 1,
        [PROTOBUF_C_TYPE_STRING] = 2,   [PROTOBUF_C_TYPE_BYTES] = 2,
        [PROTOBUF_C_TYPE_MESSAGE] = 2,
    };
    unsigned kind = wire[field->type];
    uint64_t value;

    fuzz_write_varint(writer, field->id << 3 | kind);
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        fuzz_write_text(writer, field);
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        fuzz_write_bytes(writer, field);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        fuzz_write_nested(writer, field, nesting);
    } else {
        if (!writer->words->number || !writer->words->number(writer->input, field, &value)) {
            value = fuzz_number(writer->input);
        }
        if (kind == 0) {
            fuzz_write_varint(writer, value);
        } else {
            fuzz_write(writer, &value, kind == 1 ? 8 : 4);
        }
    }
}

/* Of the fields of which a message has one, one; of the others, those that the bytes want. */
static inline void fuzz_write_fields(struct fuzz_writer *writer,
                                     const ProtobufCMessageDescriptor *type, unsigned nesting)
{
    unsigned choices = 0, choice;

    for (unsigned i = 0; i < type->n_fields; i++) {
        choices += (type->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
    }
    choice = choices ? fuzz_pick(writer->input, choices + 1) : 0;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        unsigned count;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            count = choice-- == 0;
        } else {
            unsigned how = (unsigned)fuzz_take(writer->input, 1);
            count = how < 64 ? 0 : field->label == PROTOBUF_C_LABEL_REPEATED ? how & 3 : 1;
            count = how == 255 && field->label == PROTOBUF_C_LABEL_REPEATED ? 40 : count;
        }
        while (count--) {
            fuzz_write_field(writer, field, nesting);
        }
    }
}

/* A framed message of that type and conversation; its size, at most FUZZ_FRAME_MAX. */
static inline size_t fuzz_frame(struct fuzz_input *input, const struct fuzz_words *words,
                                const ProtobufCMessageDescriptor *type, uint16_t kind, uint8_t *to)
{
    struct fuzz_writer writer = {input, words, to + FUZZ_FRAME_HEAD, to + FUZZ_FRAME_MAX};
    unsigned how = (unsigned)fuzz_take(input, 1);

    if (how < 8) { /* no message */
        size_t size;
        const uint8_t *bytes = fuzz_bytes(input, fuzz_take(input, 1), &size);
        fuzz_write(&writer, bytes, size);
    } else {
        fuzz_write_fields(&writer, type, 0);
    }
    if (how == 8) { /* a field that no version knows */
        fuzz_write_varint(&writer, 1000 << 3 | 2);
        fuzz_write_text(&writer, NULL);
    }
    size_t size = (size_t)(writer.to - to) - (how == 9 ? 1 : 0);
    uint32_t length = (uint32_t)(size - FUZZ_FRAME_HEAD) + (how == 10);
    uint16_t zero = how == 11;

    memcpy(to, "PVM1", 4);
    kind = (uint16_t)(kind + (how == 12));
    memcpy(to + 4, &kind, 2);
    memcpy(to + 6, &zero, 2);
    memcpy(to + 8, &length, 4);
    return how == 13 ? (size_t)fuzz_take(input, 1) % size : size;
}

#endif
