/*
 * Guest physical memory: RAM regions mapped from memfds that vmmd owns, and the code map.
 *
 * Every process that maps guest RAM uses this; vmmd creates, the others attach. Guest-physical
 * addresses are hostile: memory_pointer checks the whole range without overflow. Lookup is
 * lock-free and any thread may call it once the regions are added.
 *
 * The code map has one byte a 4 KiB page of RAM. It is how a device process tells vcpud that it
 * wrote to a page from which code was translated (self-modifying code must stay exact even when
 * the writer is a disk): vcpud sets MEMORY_PAGE_CODE before it decodes; a device, after writing,
 * sets MEMORY_PAGE_DEVICE_WROTE when it finds MEMORY_PAGE_CODE, then raises `device_wrote` in the
 * map's header; vcpud looks before it delivers a device's interrupt and at each instruction-fetch
 * barrier of the guest.
 */
#ifndef POLYVISOR_MEM_MEMORY_H
#define POLYVISOR_MEM_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_PAGE_SHIFT   12
#define MEMORY_PAGE_SIZE    4096u
#define MEMORY_REGIONS_MAX  4
#define MEMORY_CODEMAP_HEAD 64 /* bytes before the first page's byte */

enum memory_page_flags {
    MEMORY_PAGE_CODE = 1,         /* code was translated from this page */
    MEMORY_PAGE_DEVICE_WROTE = 2, /* and a device wrote to it since */
    MEMORY_PAGE_RESERVED = 4,     /* a load-reserved watches this page for stores */
};

struct memory_codemap_head {
    _Atomic uint32_t device_wrote; /* counts; any change means: scan for DEVICE_WROTE */
};

struct memory_region {
    uint64_t base;       /* guest-physical, page-aligned */
    uint64_t size;       /* bytes, page-aligned */
    uint8_t *host;       /* MAP_SHARED mapping of the memfd */
    uint64_t first_page; /* index of its first byte in the code map */
};

struct memory {
    unsigned region_count;
    struct memory_region regions[MEMORY_REGIONS_MAX];
    struct memory_codemap_head *codemap;
    _Atomic uint8_t *page_flags; /* codemap + MEMORY_CODEMAP_HEAD */
    uint64_t page_count;
};

/* Make a sealed-size memfd of `size` bytes. Descriptor or negative errno. */
int memory_create_fd(const char *name, uint64_t size);
/* Map `size` bytes of `fd` at guest address `base`. 0 or negative errno (-EINVAL when misaligned,
 * overlapping or larger than the memfd). The descriptor stays the caller's. */
int memory_add_region(struct memory *memory, int fd, uint64_t base, uint64_t size);
/* Map the code map; its size must cover all regions, which must have been added before. */
int memory_attach_codemap(struct memory *memory, int fd);
uint64_t memory_codemap_size(uint64_t ram_bytes); /* bytes of the memfd for that much RAM */
void memory_close(struct memory *memory);

/* Host pointer for [address, address + size), which must lie within one region; NULL otherwise. */
static inline void *memory_pointer(const struct memory *memory, uint64_t address, uint64_t size)
{
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t offset = address - region->base;
        if (offset < region->size && size <= region->size - offset) {
            return region->host + offset;
        }
    }
    return NULL;
}

/* The flags byte of the page that holds `address`, or NULL when that is not RAM. */
static inline _Atomic uint8_t *memory_page_flags(const struct memory *memory, uint64_t address)
{
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t offset = address - region->base;
        if (offset < region->size) {
            return &memory->page_flags[region->first_page + (offset >> MEMORY_PAGE_SHIFT)];
        }
    }
    return NULL;
}

/* For device processes: report that [address, address + size) was written. Call after the bytes
 * are in place and before the completion becomes visible to the guest. */
void memory_device_wrote(struct memory *memory, uint64_t address, uint64_t size);

/* For device processes: give the host back what whole pages of [address, address + size) take; from
 * then on they read as zero, and take memory again when they are written. All mappings of all
 * processes stay valid. It is a write, and reported as one. Returns the bytes of the pages, 0 when
 * the range is not RAM or holds no whole page of the host, or negative errno. */
int64_t memory_release(struct memory *memory, uint64_t address, uint64_t size);

#endif
