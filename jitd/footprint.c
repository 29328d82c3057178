#include "jitd/footprint.h"
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* One file of the process. Segments that cannot be written are as the file has them: LLVM's is 120
 * MB, a quarter of which a day's work touches. */
static int unmap_code(struct dl_phdr_info *info, size_t size, void *argument)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size, (void)argument;

    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) {
            continue;
        }
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        uintptr_t end = (start + segment->p_filesz) / page * page;
        start = (start + page - 1) / page * page;
        if (start < end) {
            madvise((void *)start, end - start, MADV_DONTNEED);
        }
    }
    return 0;
}

void footprint_shrink(void)
{
    malloc_trim(0);
    dl_iterate_phdr(unmap_code, NULL);
}
