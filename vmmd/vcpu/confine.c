#include "vmmd/vcpu/confine.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
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

int confine_process(struct error *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return error_set(err, ERROR_PERMISSION, errno, "cannot give up gaining privileges: %s",
                         strerror(errno));
    }
    int result = limit_lower(RLIMIT_CORE, 0);
    if (result == 0) {
        result = limit_lower(RLIMIT_NOFILE, TUNABLE_OPEN_FILES);
    }
    if (result != 0) {
        return error_set(err, ERROR_PERMISSION, -result, "cannot lower resource limits: %s",
                         strerror(-result));
    }
    return 0;
}
