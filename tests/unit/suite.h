/* How a test program ends: its suite is run, and its exit status says what came of it. */
#ifndef POLYVISOR_TESTS_SUITE_H
#define POLYVISOR_TESTS_SUITE_H

#include <check.h>
#include <stdlib.h>

/* Run the suite, print what failed, and release it. Returns the program's exit status. */
static inline int suite_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
