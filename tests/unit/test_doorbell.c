/* A device process shares the open files of its eventfds with vcpud: it can make them blocking, and
 * take what vcpud was about to. No thread of vcpud may wait for that. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/device/doorbell.h"
#include "vmmd/vcpu/interrupt_thread.h"
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ROUNDS 20000

START_TEST(taking_never_waits)
{
    int fd = eventfd(0, 0); /* blocking */
    ck_assert_int_eq(doorbell_take(fd), -EAGAIN);
    ck_assert_int_eq(doorbell_ring(fd), 0);
    ck_assert_int_eq(doorbell_ring(fd), 0);
    ck_assert_int_eq(doorbell_take(fd), 0);
    ck_assert_int_eq(doorbell_take(fd), -EAGAIN);
    close(fd);
    ck_assert_int_eq(doorbell_take(fd), -EBADF);
}
END_TEST

START_TEST(a_full_bell_rings_anyway)
{
    const uint64_t full = UINT64_MAX - 1;
    int fd = eventfd(0, EFD_NONBLOCK);
    ck_assert(write(fd, &full, sizeof(full)) == sizeof(full));
    ck_assert_int_eq(doorbell_ring(fd), -EAGAIN);
    ck_assert_int_eq(doorbell_take(fd), 0);
    close(fd);
}
END_TEST

static void heard(void *context, unsigned number)
{
    (void)number;
    atomic_fetch_add((_Atomic unsigned *)context, 1);
}

/* The device rings and takes its own ring back while the thread is between waiting and taking; then
 * another device must still be heard. */
START_TEST(the_interrupt_thread_never_waits_for_a_device)
{
    struct error err = {0};
    struct interrupt_thread *thread = interrupt_thread_create(&err);
    int stolen = eventfd(0, 0), honest = eventfd(0, EFD_NONBLOCK);
    _Atomic unsigned stolen_count = 0, honest_count = 0;

    ck_assert_ptr_nonnull(thread);
    ck_assert_int_eq(interrupt_thread_watch(thread, stolen, heard, &stolen_count, 0, &err), 0);
    ck_assert_int_eq(interrupt_thread_watch(thread, honest, heard, &honest_count, 0, &err), 0);
    ck_assert_int_eq(interrupt_thread_start(thread, &err), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned before = atomic_load(&honest_count);
        ck_assert_int_eq(doorbell_ring(stolen), 0);
        for (volatile unsigned pause = 0; pause < i % 2000 * 10; pause++) { /* hit every moment */
        }
        doorbell_take(stolen);
        ck_assert_int_eq(doorbell_ring(honest), 0);
        while (atomic_load(&honest_count) == before) { /* the test's timeout bounds it */
            sched_yield();
        }
    }
    interrupt_thread_destroy(thread); /* closes the descriptors */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpud: doorbells");
    TCase *cases = tcase_create("doorbells");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, taking_never_waits);
    tcase_add_test(cases, a_full_bell_rings_anyway);
    tcase_add_test(cases, the_interrupt_thread_never_waits_for_a_device);
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
