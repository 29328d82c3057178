#include "vmmd/vcpu/confine.h"
#include "libshared/ipc/runtime.h"
#include "libshared/ipc/sandbox.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* Lower soft and hard limit to `value`, never raise them. */
static int limit_lower(int resource, rlim_t value)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0) {
        return -errno;
    }
    if (limit.rlim_max > value) {
        limit.rlim_max = value;
    }
    limit.rlim_cur = limit.rlim_max < value ? limit.rlim_max : value;
    return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

int confine_process(const char *control_path, struct error *err)
{
    char directory[RUNTIME_PATH_MAX];
    const char *end = strrchr(control_path, '/');
    const struct sandbox_isolation isolation = {.directory = directory};

    snprintf(directory, sizeof(directory), "%.*s", end ? (int)(end - control_path) : 0,
             control_path);
    int result = sandbox_isolate(&isolation, err);
    if (result < 0) {
        return result;
    }
    result = limit_lower(RLIMIT_CORE, 0);
    if (result == 0) {
        result = limit_lower(RLIMIT_NOFILE, TUNABLE_OPEN_FILES);
    }
    if (result != 0) {
        return error_set(err, ERROR_PERMISSION, -result, "cannot lower resource limits: %s",
                         strerror(-result));
    }
    return 0;
}

int confine_seal(struct error *err)
{
    return sandbox_seal(SANDBOX_PROCESSOR, NULL, err);
}
