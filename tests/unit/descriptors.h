/* How many descriptors a process has open: nothing may leak. */
#ifndef POLYVISOR_TESTS_UNIT_DESCRIPTORS_H
#define POLYVISOR_TESTS_UNIT_DESCRIPTORS_H

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

static inline int count_descriptors_of(pid_t pid)
{
    char path[64];
    int count = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder)) {
        count++;
    }
    closedir(folder);
    return count;
}

static inline int count_descriptors(void)
{
    return count_descriptors_of(getpid());
}

#endif
