/* How soon threads want to run (libshared/base/scheduling): what is asked for, and who inherits it.
 */
#include "libshared/base/scheduling.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The calling thread's slice, as the kernel tells it (struct sched_attr); 0 when it is too old. */
static uint64_t slice_ns(void)
{
    uint8_t attributes[48] = {0};
    uint64_t runtime;

    ck_assert_int_eq(syscall(SYS_sched_getattr, 0, attributes, (unsigned)sizeof(attributes), 0u),
                     0);
    memcpy(&runtime, attributes + 24, sizeof(runtime));
    return runtime;
}

START_TEST(prompt_threads_have_short_slices)
{
    uint64_t before = slice_ns();

    scheduling_set(SCHEDULING_PROMPT);
    uint64_t prompt = slice_ns();
    ck_assert(before == 0 ? prompt == 0 : prompt < before); /* 0: the kernel knows none */
    scheduling_set(SCHEDULING_ORDINARY);
    ck_assert_uint_eq(slice_ns(), before);
}
END_TEST

static void *slice_of_thread(void *argument)
{
    *(uint64_t *)argument = slice_ns();
    return NULL;
}

START_TEST(threads_and_processes_inherit_it)
{
    uint64_t other;
    pthread_t thread;
    int status;

    scheduling_set(SCHEDULING_PROMPT);
    ck_assert_int_eq(pthread_create(&thread, NULL, slice_of_thread, &other), 0);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(other, slice_ns());
    uint64_t mine = slice_ns();
    pid_t child = fork();
    if (child == 0) {
        _exit(slice_ns() == mine ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(the_priority_stays_what_it_was)
{
    ck_assert_int_eq(setpriority(PRIO_PROCESS, 0, 7), 0);
    scheduling_set(SCHEDULING_PROMPT);
    ck_assert_int_eq(getpriority(PRIO_PROCESS, 0), 7);
    scheduling_set(SCHEDULING_ORDINARY);
    ck_assert_int_eq(getpriority(PRIO_PROCESS, 0), 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scheduling");
    TCase *all = tcase_create("all");

    tcase_add_test(all, prompt_threads_have_short_slices);
    tcase_add_test(all, threads_and_processes_inherit_it);
    tcase_add_test(all, the_priority_stays_what_it_was);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}
