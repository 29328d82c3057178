#include "libshared/mem/memory.h"
#include "libshared/base/fence.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int memory_create_fd(const char *name, uint64_t size)
{
    if (size == 0 || size > INT64_MAX) {
        return -EINVAL;
    }
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    /* Sealed, because a process that could shrink it would kill the others with SIGBUS. */
    if (ftruncate(fd, (off_t)size) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int cause = errno;
        close(fd);
        return -cause;
    }
    return fd;
}

/* Map `size` bytes of `fd`, which must have them. */
static int map_shared(int fd, uint64_t size, void **mapping)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    if (status.st_size < 0 || (uint64_t)status.st_size < size) {
        return -EINVAL;
    }
    *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return *mapping == MAP_FAILED ? -errno : 0;
}

int memory_add_region(struct memory *memory, int fd, uint64_t base, uint64_t size)
{
    if (memory->region_count == MEMORY_REGIONS_MAX || size == 0 ||
        (base | size) % MEMORY_PAGE_SIZE != 0 || base > UINT64_MAX - size) {
        return -EINVAL;
    }
    uint64_t first_page = 0;
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *other = &memory->regions[i];
        if (base < other->base + other->size && other->base < base + size) {
            return -EINVAL;
        }
        first_page += other->size >> MEMORY_PAGE_SHIFT;
    }
    void *mapping;
    int result = map_shared(fd, size, &mapping);
    if (result != 0) {
        return result;
    }
    memory->regions[memory->region_count++] = (struct memory_region){
        .base = base, .size = size, .host = mapping, .first_page = first_page};
    memory->page_count = first_page + (size >> MEMORY_PAGE_SHIFT);
    return 0;
}

uint64_t memory_codemap_size(uint64_t ram_bytes)
{
    uint64_t pages = (ram_bytes >> MEMORY_PAGE_SHIFT) + (ram_bytes % MEMORY_PAGE_SIZE != 0);
    return MEMORY_CODEMAP_HEAD + pages;
}

int memory_attach_codemap(struct memory *memory, int fd)
{
    void *mapping;
    int result = map_shared(fd, MEMORY_CODEMAP_HEAD + memory->page_count, &mapping);
    if (result != 0) {
        return result;
    }
    memory->codemap = mapping;
    memory->page_flags = (_Atomic uint8_t *)mapping + MEMORY_CODEMAP_HEAD;
    return 0;
}

void memory_close(struct memory *memory)
{
    for (unsigned i = 0; i < memory->region_count; i++) {
        munmap(memory->regions[i].host, memory->regions[i].size);
    }
    if (memory->codemap) {
        munmap(memory->codemap, MEMORY_CODEMAP_HEAD + memory->page_count);
    }
    memset(memory, 0, sizeof(*memory));
}

void memory_device_wrote(struct memory *memory, uint64_t address, uint64_t size)
{
    if (size == 0 || !memory->codemap || !memory_pointer(memory, address, size)) {
        return;
    }
    /* The engine sets MEMORY_PAGE_CODE, then copies the bytes; we wrote the bytes, then look for
     * the flag. With a full fence on both sides at least one of us sees the other. */
    fence_full();
    bool noticed = false;
    uint64_t last = address + (size - 1);
    for (uint64_t page = address >> MEMORY_PAGE_SHIFT; page <= last >> MEMORY_PAGE_SHIFT; page++) {
        _Atomic uint8_t *flags = memory_page_flags(memory, page << MEMORY_PAGE_SHIFT);
        if (atomic_load_explicit(flags, memory_order_relaxed) & MEMORY_PAGE_CODE) {
            atomic_fetch_or(flags, MEMORY_PAGE_DEVICE_WROTE);
            noticed = true;
        }
    }
    if (noticed) {
        atomic_fetch_add(&memory->codemap->device_wrote, 1);
    }
}

int64_t memory_release(struct memory *memory, uint64_t address, uint64_t size)
{
    const uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t start = (uintptr_t)memory_pointer(memory, address, size);

    if (!start || size == 0) {
        return 0;
    }
    uintptr_t first = (start + mask) & ~mask, end = (start + size) & ~mask;
    if (first >= end) {
        return 0;
    }
    /* Through the mapping, so that no descriptor of the memory need be kept for it. */
    int cause = madvise((void *)first, end - first, MADV_REMOVE) == 0 ? 0 : errno;
    memory_device_wrote(memory, address + (first - start), end - first); /* perhaps a part of it */
    return cause ? -cause : (int64_t)(end - first);
}
