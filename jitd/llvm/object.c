/*
 * What LLVM's object holds is bounded by what a region can be; it is read as carefully as anything
 * that was not made here.
 */
#include "jitd/llvm/object.h"
#include "jitd/llvm/lowering.h"
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define SECTIONS_MAX 64u
#define PLACED_NONE  UINT32_MAX

struct object {
    const uint8_t *bytes;
    size_t size;
    Elf64_Ehdr header;
    Elf64_Shdr sections[SECTIONS_MAX];
    uint32_t placed[SECTIONS_MAX]; /* offset in the blob's code */
    const Elf64_Sym *symbols;
    size_t symbol_count;
    const char *names;
    size_t names_size;
    uint32_t exit_count;
    struct object_code *out;
};

static bool in_object(const struct object *object, uint64_t offset, uint64_t size)
{
    return offset <= object->size && size <= object->size - offset;
}

static bool read_headers(struct object *object)
{
    if (!in_object(object, 0, sizeof(object->header))) {
        return false;
    }
    memcpy(&object->header, object->bytes, sizeof(object->header));
    const Elf64_Ehdr *header = &object->header;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_shnum > SECTIONS_MAX ||
        header->e_shentsize != sizeof(Elf64_Shdr) ||
        !in_object(object, header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr))) {
        return false;
    }
    memcpy(object->sections, object->bytes + header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr));
    for (unsigned i = 0; i < header->e_shnum; i++) {
        const Elf64_Shdr *section = &object->sections[i];
        if (section->sh_type != SHT_NOBITS && section->sh_type != SHT_NULL &&
            !in_object(object, section->sh_offset, section->sh_size)) {
            return false;
        }
    }
    return true;
}

static bool find_symbols(struct object *object)
{
    for (unsigned i = 0; i < object->header.e_shnum; i++) {
        const Elf64_Shdr *section = &object->sections[i];
        if (section->sh_type == SHT_SYMTAB && section->sh_link < object->header.e_shnum &&
            section->sh_offset % 8 == 0) {
            const Elf64_Shdr *names = &object->sections[section->sh_link];
            object->symbols = (const Elf64_Sym *)(const void *)(object->bytes + section->sh_offset);
            object->symbol_count = section->sh_size / sizeof(Elf64_Sym);
            object->names = (const char *)object->bytes + names->sh_offset;
            object->names_size = names->sh_size;
            return names->sh_size > 0 && object->names[names->sh_size - 1] == 0;
        }
    }
    return false;
}

static const char *symbol_name(const struct object *object, const Elf64_Sym *symbol)
{
    return symbol->st_name < object->names_size ? object->names + symbol->st_name : "";
}

/* Executable sections first, then constants. */
static bool place_sections(struct object *object)
{
    uint64_t at = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < object->header.e_shnum; i++) {
            const Elf64_Shdr *section = &object->sections[i];
            bool executable = section->sh_flags & SHF_EXECINSTR;
            if (section->sh_type != SHT_PROGBITS || !(section->sh_flags & SHF_ALLOC) ||
                section->sh_size == 0 || executable == (pass == 1)) {
                continue;
            }
            uint64_t align = section->sh_addralign ? section->sh_addralign : 1;
            if (align > 64 || section->sh_size > BLOB_CODE_MAX || section->sh_flags & SHF_WRITE) {
                return false;
            }
            at = (at + align - 1) & ~(align - 1);
            object->placed[i] = (uint32_t)at;
            at += section->sh_size;
            if (at > BLOB_CODE_MAX - BLOB_ALIGN) {
                return false;
            }
        }
    }
    object->out->size = (uint32_t)((at + BLOB_ALIGN - 1) & ~(uint64_t)(BLOB_ALIGN - 1));
    object->out->bytes = calloc(1, object->out->size ? object->out->size : BLOB_ALIGN);
    if (!object->out->bytes) {
        return false;
    }
    for (unsigned i = 0; i < object->header.e_shnum; i++) {
        if (object->placed[i] != PLACED_NONE) {
            memcpy(object->out->bytes + object->placed[i],
                   object->bytes + object->sections[i].sh_offset, object->sections[i].sh_size);
        }
    }
    return true;
}

/* Where in the installed code the symbol is. */
static bool symbol_place(const struct object *object, uint64_t index, int64_t *place)
{
    if (index >= object->symbol_count) {
        return false;
    }
    const Elf64_Sym *symbol = &object->symbols[index];
    if (symbol->st_shndx == SHN_UNDEF) {
        const char *name = symbol_name(object, symbol);
        int64_t tables = object->out->size;
        if (strcmp(name, SYMBOL_EXITS) == 0) {
            *place = tables;
            return true;
        }
        *place = tables + (int64_t)object->exit_count * 8;
        return strcmp(name, SYMBOL_PAGES) == 0;
    }
    if (symbol->st_shndx >= object->header.e_shnum ||
        object->placed[symbol->st_shndx] == PLACED_NONE) {
        return false;
    }
    *place = (int64_t)object->placed[symbol->st_shndx] + (int64_t)symbol->st_value;
    return true;
}

static bool relocate_one(const struct object *object, unsigned target, const Elf64_Rela *rela)
{
    uint64_t type = ELF64_R_TYPE(rela->r_info);
    int64_t place;
    if (rela->r_offset > object->sections[target].sh_size ||
        object->sections[target].sh_size - rela->r_offset < sizeof(int32_t) ||
        (type != R_X86_64_PC32 && type != R_X86_64_PLT32) ||
        !symbol_place(object, ELF64_R_SYM(rela->r_info), &place)) {
        return false;
    }
    uint32_t at = object->placed[target] + (uint32_t)rela->r_offset;
    int64_t value = place + rela->r_addend - at;
    int32_t displacement = (int32_t)value;
    memcpy(object->out->bytes + at, &displacement, sizeof(displacement));
    return displacement == value;
}

static bool relocate(const struct object *object)
{
    for (unsigned i = 0; i < object->header.e_shnum; i++) {
        const Elf64_Shdr *section = &object->sections[i];
        if ((section->sh_type != SHT_RELA && section->sh_type != SHT_REL) ||
            section->sh_info >= object->header.e_shnum ||
            object->placed[section->sh_info] == PLACED_NONE) {
            continue;
        }
        if (section->sh_type == SHT_REL) {
            return false;
        }
        for (uint64_t j = 0; j < section->sh_size / sizeof(Elf64_Rela); j++) {
            Elf64_Rela rela;
            memcpy(&rela, object->bytes + section->sh_offset + j * sizeof(rela), sizeof(rela));
            if (!relocate_one(object, section->sh_info, &rela)) {
                return false;
            }
        }
    }
    return true;
}

static bool find_entry(const struct object *object)
{
    for (size_t i = 0; i < object->symbol_count; i++) {
        const Elf64_Sym *symbol = &object->symbols[i];
        int64_t place;
        if (symbol->st_shndx != SHN_UNDEF &&
            strcmp(symbol_name(object, symbol), SYMBOL_ENTRY) == 0 &&
            symbol_place(object, i, &place) && place >= 0 && place < object->out->size) {
            object->out->entry = (uint32_t)place;
            return true;
        }
    }
    return false;
}

bool object_extract(const uint8_t *bytes, size_t size, uint32_t exit_count, struct object_code *out,
                    struct error *err)
{
    struct object object = {.bytes = bytes, .size = size, .exit_count = exit_count, .out = out};
    *out = (struct object_code){0};
    memset(object.placed, 0xff, sizeof(object.placed));
    if (read_headers(&object) && find_symbols(&object) && place_sections(&object) &&
        relocate(&object) && find_entry(&object)) {
        return true;
    }
    free(out->bytes);
    *out = (struct object_code){0};
    error_set(err, ERROR_UNSUPPORTED, 0,
              "the region's code is too large or refers to something outside of it");
    return false;
}
