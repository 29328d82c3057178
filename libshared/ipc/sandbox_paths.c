/*
 * What may be done with the files that are in view (Landlock). The directory is the machine's, or
 * vmmd's own: the records from which a later vmmd takes up its machines are there. A process makes
 * its socket there and opens nothing, even where its filter lets it open files for another job.
 */
#include "libshared/base/log.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/ipc/sandbox_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

#define FILES_READ (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE)
#define FILES_ALL  (FILES_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)
#define READ       (FILES_READ | LANDLOCK_ACCESS_FS_READ_DIR)
#define EVERYTHING ((LANDLOCK_ACCESS_FS_REFER << 1) - 1 + LANDLOCK_ACCESS_FS_TRUNCATE)

/* Let `access` be had below `path`, if it is there. `handled`: what the kernel knows. */
static int allow(int rules, const char *path, uint64_t access, uint64_t handled)
{
    struct landlock_path_beneath_attr beneath = {
        .parent_fd = open(path, O_PATH | O_CLOEXEC),
    };
    struct stat status;
    int result = 0;

    if (beneath.parent_fd < 0 || fstat(beneath.parent_fd, &status) < 0) {
        result = errno == ENOENT ? 0 : -1;
    } else {
        access &= S_ISDIR(status.st_mode) ? handled : handled & FILES_ALL;
        beneath.allowed_access = access;
        result = access ? (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH,
                                       &beneath, 0)
                        : 0;
    }
    if (beneath.parent_fd >= 0) {
        int cause = errno;
        close(beneath.parent_fd);
        errno = cause;
    }
    return result;
}

static int allow_all(int rules, const struct sandbox_isolation *isolation, uint64_t handled)
{
    int result = allow(rules, isolation->directory, LANDLOCK_ACCESS_FS_MAKE_SOCK, handled);

    for (unsigned i = 0; isolation->also && isolation->also[i] && result == 0; i++) {
        result = allow(rules, isolation->also[i], EVERYTHING, handled);
    }
    if (result == 0 && isolation->share) {
        result =
            allow(rules, SANDBOX_SHARE, isolation->share_read_only ? READ : EVERYTHING, handled);
    }
    return result;
}

int sandbox_restrict_paths(const struct sandbox_isolation *isolation)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    if (version < 2) { /* the first one would forbid to rename from folder to folder */
        log_debug("this host's kernel does not restrict what is done with files");
        return 0;
    }
    struct landlock_ruleset_attr attributes = {
        .handled_access_fs = version < 3 ? EVERYTHING & ~LANDLOCK_ACCESS_FS_TRUNCATE : EVERYTHING,
    };
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
    if (rules < 0) {
        return -1;
    }
    int result = allow_all(rules, isolation, attributes.handled_access_fs);
    if (result == 0) {
        result = (int)syscall(SYS_landlock_restrict_self, rules, 0);
    }
    int cause = errno;
    close(rules);
    errno = cause;
    return result;
}
