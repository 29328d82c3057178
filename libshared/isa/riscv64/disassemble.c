/* Text for one instruction, from the decoder's own table and the patterns in operands.def. */
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/riscv64.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct writer {
    char *text;
    size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *writer, const char *format,
                                                      ...)
{
    va_list arguments;
    int length;
    if (writer->length >= writer->size) {
        return;
    }
    va_start(arguments, format);
    length =
        vsnprintf(writer->text + writer->length, writer->size - writer->length, format, arguments);
    va_end(arguments);
    writer->length += length > 0 ? (size_t)length : 0;
}

static const char *pattern(unsigned operands)
{
    static const char *const patterns[] = {
#define OPERANDS(name, text) text,
#include "libshared/isa/riscv64/operands.def"
#undef OPERANDS
    };
    return patterns[operands];
}

static void put_csr(struct writer *writer, unsigned number)
{
    char name[24];
    if (riscv64_csr_name(number, name, sizeof(name))) {
        put(writer, "%s", name);
    } else {
        put(writer, "0x%x", number);
    }
}

/* A set of FENCE: input, output, reads, writes. */
static void put_fence_set(struct writer *writer, unsigned set)
{
    static const char letters[] = "iorw";
    if (!set) {
        put(writer, "0");
    }
    for (unsigned i = 0; i < 4; i++) {
        if (set >> (3 - i) & 1) {
            put(writer, "%c", letters[i]);
        }
    }
}

static void put_round(struct writer *writer, unsigned round)
{
    static const char *const names[8] = {"rne", "rtz", "rdn", "rup", "rmm", "rm5", "rm6", NULL};
    if (names[round]) {
        put(writer, ", %s", names[round]);
    }
}

static void put_ordering(struct writer *writer, uint32_t word)
{
    static const char *const names[4] = {"", ".rl", ".aq", ".aqrl"};
    put(writer, "%s", names[word >> 25 & 3]);
}

static void put_target(struct writer *writer, uint64_t target)
{
    put(writer, "0x%" PRIx64, target);
}

/* One letter of a pattern. */
static void put_operand(struct writer *writer, char kind, uint32_t word, uint64_t pc)
{
    switch (kind) {
    case 'd':
        put(writer, "%s", riscv64_register_name(field_rd(word)));
        break;
    case 's':
        put(writer, "%s", riscv64_register_name(field_rs1(word)));
        break;
    case 't':
        put(writer, "%s", riscv64_register_name(field_rs2(word)));
        break;
    case 'D':
        put(writer, "%s", riscv64_float_register_name(field_rd(word)));
        break;
    case 'S':
        put(writer, "%s", riscv64_float_register_name(field_rs1(word)));
        break;
    case 'T':
        put(writer, "%s", riscv64_float_register_name(field_rs2(word)));
        break;
    case 'R':
        put(writer, "%s", riscv64_float_register_name(field_rs3(word)));
        break;
    case 'i':
        put(writer, "%d", (int)field_i(word));
        break;
    case 'o':
        put(writer, "%d", (int)field_s(word));
        break;
    case 'b':
        put_target(writer, pc + (uint64_t)field_b(word));
        break;
    case 'j':
        put_target(writer, pc + (uint64_t)field_j(word));
        break;
    case 'u':
        put(writer, "0x%x", word >> 12);
        break;
    case 'h':
        put(writer, "%u", field_shift(word));
        break;
    case 'c':
        put_csr(writer, field_csr(word));
        break;
    case 'z':
    case 'k':
        put(writer, "%u", field_rs1(word));
        break;
    case 'p':
        put_fence_set(writer, word >> 24 & 15);
        break;
    case 'q':
        put_fence_set(writer, word >> 20 & 15);
        break;
    case 'm':
        put_round(writer, field_round(word));
        break;
    default:
        put(writer, "%c", kind);
        break;
    }
}

static void put_instruction(struct writer *writer, const struct riscv64_instruction *instruction,
                            uint32_t word, uint64_t pc)
{
    const char *letters = pattern(instruction->operands);
    put(writer, "%s", instruction->name);
    if (*letters == 'a') {
        put_ordering(writer, word);
        letters++;
    }
    if (*letters) {
        put(writer, " ");
    }
    for (; *letters; letters++) {
        put_operand(writer, *letters, word, pc);
    }
}

unsigned riscv64_disassemble(const uint8_t *bytes, unsigned available, uint64_t pc, char *text,
                             size_t size)
{
    struct writer writer = {.text = text, .size = size};
    const struct riscv64_instruction *instruction;
    unsigned length;
    uint32_t word;

    if (size > 0) {
        text[0] = '\0';
    }
    if (available < 2) {
        return 0;
    }
    word = (uint32_t)(bytes[0] | bytes[1] << 8);
    length = (word & 3) == 3 ? 4 : 2;
    if (available < length) {
        return 0;
    }
    if (length == 4) {
        word |= (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    }
    instruction = riscv64_find(length == 2 ? riscv64_expand((uint16_t)word) : word);
    if (!instruction) {
        return 0;
    }
    put_instruction(&writer, instruction, length == 2 ? riscv64_expand((uint16_t)word) : word, pc);
    return length;
}
