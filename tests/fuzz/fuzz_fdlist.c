/* The list of inherited descriptors, from any text. */
#include "libshared/ipc/fdlist.h"
#include "tests/fuzz/fuzz_input.h"
#include <fcntl.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct fdlist list, again;
    char *text = malloc(size + 1);

    fuzz_require(text != NULL, "memory");
    memcpy(text, bytes, size);
    text[size] = '\0';
    setenv(FDLIST_ENVIRONMENT, text, 1);
    free(text);
    int result = fdlist_inherit(&list);
    fuzz_require(getenv(FDLIST_ENVIRONMENT) == NULL, "it is read once");
    fuzz_require(list.count <= FDLIST_MAX, "it is bounded");
    for (size_t i = 0; i < list.count; i++) {
        fuzz_require(strlen(list.entries[i].name) < sizeof(list.entries[i].name) &&
                         list.entries[i].name[0],
                     "a descriptor has a name");
        fuzz_require(fcntl(list.entries[i].fd, F_GETFD) & FD_CLOEXEC,
                     "it is open, and closed on exec");
    }
    if (result == 0 && list.count > 0) {
        char *written = fdlist_environment(&list);
        fuzz_require(written != NULL, "memory");
        setenv(FDLIST_ENVIRONMENT, strchr(written, '=') + 1, 1);
        fuzz_require(fdlist_inherit(&again) == 0 && again.count == list.count,
                     "what is written is read");
        free(written);
        size_t count = list.count;
        for (size_t i = 0; i < count; i++) {
            const struct fdlist_entry entry = again.entries[i];
            fuzz_require(fdlist_take(&list, "%s", entry.name) == entry.fd, "each is taken by name");
            fuzz_require(fdlist_take(&list, "%s", entry.name) < 0, "and once");
        }
        fuzz_require(list.count == 0, "all were taken");
    }
    return 0;
}
