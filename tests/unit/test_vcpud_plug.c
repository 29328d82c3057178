/* Devices that come and go while vcpud has a guest: descriptors that are handed over, sockets that
 * were bound in advance, what is wrong with either, and CPUs that wait for such a device. */
#include "libshared/ipc/handover.h"
#include "tests/unit/descriptors.h"
#include "tests/unit/suite.h"
#include "tests/unit/vcpud_host.h"

#define PLACES 3

static int handover;   /* the test's end */
static uint64_t given; /* the number of the last message */
static char place_paths[PLACES][64];

static void set_up_places(void)
{
    int ends[2];

    setup();
    given = 0;
    ck_assert_int_eq(handover_pair(ends), 0);
    hand_over("handover", ends[1]);
    handover = ends[0];
    for (unsigned i = 0; i < PLACES; i++) {
        snprintf(place_paths[i], sizeof(place_paths[i]), "%s/spare%u.sock", directory, i);
    }
}

/* Configured, with places for devices to come; not started. */
static void run_with_places(int kernel)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuConfigure configuration = POLYVISOR__VCPU_CONFIGURE__INIT;
    char *paths[PLACES];

    hand_over("kernel", kernel);
    for (unsigned i = 0; i < PLACES; i++) {
        paths[i] = place_paths[i];
    }
    configuration.name = "test";
    configuration.arch = "riscv64";
    configuration.engine = "interp";
    configuration.cpus = 1;
    configuration.memory_bytes = MEMORY_BYTES;
    configuration.append = "";
    configuration.n_spare_transports = PLACES;
    configuration.spare_transports = paths;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE;
    request.configure = &configuration;
    send_request(&request);
    receive();
    ck_assert_uint_eq(reply->id, last_id);
    ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
}

static void end(void)
{
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    close(handover);
    join();
}

/* The descriptors of a random number device of that name, as the next number. `called`: it has
 * signalled before vcpud knows it. */
static void give(const char *id, bool called)
{
    struct fdlist list = {.count = 0};

    ck_assert_int_eq(fdlist_add(&list, make_device_state(), "dev.%s.state", id), 0);
    ck_assert_int_eq(fdlist_add(&list, eventfd(0, EFD_NONBLOCK), "dev.%s.kick.0", id), 0);
    ck_assert_int_eq(fdlist_add(&list, eventfd(called, EFD_NONBLOCK), "dev.%s.call.0", id), 0);
    ck_assert_int_eq(fdlist_add(&list, eventfd(called, EFD_NONBLOCK), "dev.%s.call.1", id), 0);
    ck_assert_int_eq(handover_send(handover, ++given, &list), 0);
    fdlist_close(&list);
}

static void send_attach(const char *id, const char *kind, unsigned slot, unsigned queues,
                        const char *socket, uint64_t number)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuAttach attach = POLYVISOR__VCPU_ATTACH__INIT;
    Polyvisor__VcpuDevice wanted = POLYVISOR__VCPU_DEVICE__INIT;

    wanted.id = (char *)id;
    wanted.kind = (char *)kind;
    wanted.transport_path = (char *)socket;
    wanted.pci_slot = slot;
    wanted.queue_count = queues;
    attach.device = &wanted;
    attach.handover = number;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_ATTACH;
    request.attach = &attach;
    send_request(&request);
}

static void attach(const char *id, unsigned slot, unsigned place)
{
    give(id, false);
    send_attach(id, "virtio-rng", slot, 1, place_paths[place], given);
    receive_answer();
    ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
}

static void detach(const char *id, bool force)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuDetach wanted = POLYVISOR__VCPU_DETACH__INIT;

    wanted.device = (char *)id;
    wanted.force = force;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_DETACH;
    request.detach = &wanted;
    send_request(&request);
    receive_answer();
}

/* It may have called already, and the interrupt thread may look at any time. */
START_TEST(devices_come_and_go_and_leave_nothing)
{
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    ASK(START);
    int before = count_descriptors();
    for (unsigned i = 0; i < 200; i++) {
        give("rng5", true);
        send_attach("rng5", "virtio-rng", 5, 1, place_paths[i % PLACES], given);
        receive_answer();
        ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
        detach("rng5", false);
        ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
        ck_assert_int_eq(count_descriptors(), before);
    }
    attach("rng5", 5, 0); /* one is there at the end */
    end();
}
END_TEST

START_TEST(several_are_plugged_in_at_a_time)
{
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    ASK(START);
    give("rng5", false);
    give("rng6", false);
    give("rng7", false);
    for (unsigned i = 0; i < 3; i++) {
        const char id[] = {'r', 'n', 'g', (char)('5' + i), '\0'};
        send_attach(id, "virtio-rng", 5 + i, 1, place_paths[i], given - 2 + i);
    }
    last_id -= 3;
    for (unsigned i = 0; i < 3; i++) {
        last_id++;
        receive_answer();
        ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
    }
    end();
}
END_TEST

/* Requests that failed before they were sent leave descriptors, even for a device of that name. */
START_TEST(what_was_handed_over_in_vain_is_dropped)
{
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    attach("rng5", 5, 0);
    detach("rng5", false);
    int before = count_descriptors();
    give("rng5", false);
    give("rng5", false);
    give("rng6", false);
    attach("rng5", 5, 0);
    detach("rng5", false);
    ck_assert_int_eq(count_descriptors(), before);
    /* One that was not handed over. What is the next one's is not lost by it. */
    send_attach("rng5", "virtio-rng", 5, 1, place_paths[0], given + 1);
    receive_answer();
    expect_error(ERROR_INTERNAL);
    given++;
    attach("rng5", 5, 0);
    end();
}
END_TEST

static const struct {
    const char *id, *kind;
    unsigned slot, queues, place;
    enum error_code code;
} bad_attachments[] = {
    {"", "virtio-rng", 6, 1, 1, ERROR_CONFIG},
    {"an id that is much too long to be one, whatever it says there", "virtio-rng", 6, 1, 1,
     ERROR_CONFIG},
    {"rng5", "virtio-rng", 6, 1, 1, ERROR_EXISTS},
    {"rng6", "serial", 6, 1, 1, ERROR_UNSUPPORTED},
    {"rng6", "toaster", 6, 1, 1, ERROR_UNSUPPORTED},
    {"rng6", "virtio-rng", 5, 1, 1, ERROR_CONFIG},  /* that slot is taken */
    {"rng6", "virtio-rng", 32, 1, 1, ERROR_CONFIG}, /* there is none of that number */
    {"rng6", "virtio-rng", 0, 1, 1, ERROR_CONFIG},  /* the bridge's */
    {"rng6", "virtio-rng", 6, 0, 1, ERROR_CONFIG},
    {"rng6", "virtio-rng", 6, 99, 1, ERROR_CONFIG},
    {"rng6", "virtio-rng", 6, 2, 1, ERROR_INTERNAL}, /* more than descriptors */
    {"rng7", "virtio-rng", 6, 1, 1, ERROR_INTERNAL}, /* another's descriptors */
    {"rng6", "virtio-rng", 6, 1, 0, ERROR_BUSY},     /* another's socket */
};

START_TEST(what_cannot_be_plugged_in_leaves_nothing)
{
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    ASK(START);
    attach("rng5", 5, 0);
    int before = count_descriptors();
    for (unsigned again = 0; again < 3; again++) {
        give("rng6", true);
        send_attach(bad_attachments[_i].id, bad_attachments[_i].kind, bad_attachments[_i].slot,
                    bad_attachments[_i].queues, place_paths[bad_attachments[_i].place], given);
        receive_answer();
        expect_error(bad_attachments[_i].code);
        ck_assert_int_eq(count_descriptors(), before);
    }
    attach("rng6", 6, 1);
    end();
}
END_TEST

START_TEST(requests_without_sense)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuAttach nothing = POLYVISOR__VCPU_ATTACH__INIT;

    send_attach("rng5", "virtio-rng", 5, 1, place_paths[0], 1);
    receive_answer();
    expect_error(ERROR_STATE); /* there is no guest yet */
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_ATTACH;
    request.attach = &nothing;
    send_request(&request);
    receive_answer();
    expect_error(ERROR_PROTOCOL);
    detach("rng5", false);
    expect_error(ERROR_NOT_FOUND);
    detach("", true);
    expect_error(ERROR_NOT_FOUND);
    end();
}
END_TEST

/* By force it stays until it is asked for again. */
START_TEST(force_is_the_first_of_two_steps)
{
    run_with_places(make_image(LOOP, sizeof(LOOP)));
    attach("rng5", 5, 0);
    detach("rng5", true);
    ck_assert_ptr_null(reply->error);
    give("rng5", false);
    send_attach("rng5", "virtio-rng", 5, 1, place_paths[1], given);
    receive_answer();
    expect_error(ERROR_EXISTS);
    detach("rng5", false);
    ck_assert_ptr_null(reply->error);
    attach("rng5", 5, 0);
    end();
}
END_TEST

/* A CPU stands in a write to the configuration of a plugged-in device that is mute. As with those
 * that were there from the start, nobody waits for it: its deadline, which would be told, never
 * passes. */
START_TEST(cpus_that_wait_for_a_plugged_in_device)
{
    run_with_places(make_image(TOUCH_AND_REBOOT, sizeof(TOUCH_AND_REBOOT)));
    for (unsigned i = 0; i < 3; i++) { /* its socket has had others */
        attach("rng0", 1, 0);
        detach("rng0", false);
    }
    attach("rng0", 1, 0);
    device = channel_connect(CHANNEL_TRANSPORT, NN_PAIR, place_paths[0]);
    ck_assert_ptr_nonnull(device);
    ASK(START);
    take_config_write(false);
    ASK(STATS);
    ck_assert_ptr_null(reply->error);
    detach("rng0", false);
    expect_error(ERROR_BUSY);
    detach("rng0", true);
    ck_assert_ptr_null(reply->error);
    detach("rng0", false);
    expect_error(ERROR_BUSY);
    if (_i == 0) {
        ASK(RESET);
        ck_assert_ptr_null(reply->error);
        await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK);
        ck_assert_str_eq(reply->device, "rng0");
    }
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    ck_assert_uint_eq(deadlines_missed, 0);
    channel_close(device);
    close(handover);
    join();
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("vcpud_plug");
    tcase_add_checked_fixture(cases, set_up_places, NULL);
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, devices_come_and_go_and_leave_nothing);
    tcase_add_test(cases, several_are_plugged_in_at_a_time);
    tcase_add_test(cases, what_was_handed_over_in_vain_is_dropped);
    tcase_add_loop_test(cases, what_cannot_be_plugged_in_leaves_nothing, 0,
                        sizeof(bad_attachments) / sizeof(bad_attachments[0]));
    tcase_add_test(cases, requests_without_sense);
    tcase_add_test(cases, force_is_the_first_of_two_steps);
    tcase_add_loop_test(cases, cpus_that_wait_for_a_plugged_in_device, 0, 2);
    Suite *suite = suite_create("vcpud_plug");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
