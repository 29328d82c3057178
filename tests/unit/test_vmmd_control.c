/* What clients of the control socket may do to vmmd and to each other: nothing. */
#include "tests/unit/vmmd_service.h"

/* Clients that ask to wait and leave without a word cannot keep others from looking. */
START_TEST(open_requests_do_not_shut_out_those_that_are_answered_at_once)
{
    struct channel *leaver = channel_connect(CHANNEL_CONTROL, NN_REQ, control_path);
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__WaitRequest wait_request = POLYVISOR__WAIT_REQUEST__INIT;

    ck_assert_int_eq(ask_create("one", ""), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
    wait_request.name = "one";
    wait_request.timeout_ms = UINT32_MAX;
    request.wait = &wait_request;
    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    /* Each abandons the one before, which vmmd cannot know. */
    while (ask_wait("one", 0) != ERROR_BUSY) {
        ck_assert_int_eq(channel_send(leaver, &request.base, LONG_MS), 0);
    }
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_int_eq(ask_create("two", ""), ERROR_OK);
    ck_assert_int_eq(ask_remove("two"), ERROR_OK);
    channel_close(leaver);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        open_requests_do_not_shut_out_those_that_are_answered_at_once,
    };
    int status;

    if (service_stand_in(argc, argv, &status)) {
        return status;
    }
    Suite *suite = suite_create("vmmd: control");
    TCase *cases = tcase_create("control");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_set_timeout(cases, 240);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(cases, tests[i]);
    }
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
