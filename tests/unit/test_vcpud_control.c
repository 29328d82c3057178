/* vcpud's whole life as vmmd sees it: configure, start, pause, reset, power off, stop, errors. */
#include "tests/unit/suite.h"
#include "tests/unit/vcpud_host.h"

/* --- tests ----------------------------------------------------------------------------------- */

START_TEST(test_power_off)
{
    hand_over("kernel", make_image(POWER_OFF, sizeof(POWER_OFF)));
    configure(4);
    ASK(PING);
    ck_assert_ptr_null(reply->error);
    ASK(START);
    ck_assert_ptr_null(reply->error);
    NOTICE(POWER_OFF);
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(STATS);
    ck_assert_ptr_nonnull(reply->stats);
    ck_assert_uint_gt(reply->stats->retired, 5);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    join();
}
END_TEST

START_TEST(test_guest_reboots_itself)
{
    hand_over("kernel", make_image(REBOOT_TWICE, sizeof(REBOOT_TWICE)));
    configure(2);
    ASK(START);
    NOTICE(RESET);
    NOTICE(RESET);
    NOTICE(POWER_OFF);
    ASK(STOP);
    join();
}
END_TEST

START_TEST(test_pause_and_reset_on_request)
{
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    configure(2);
    ASK(PAUSE);
    expect_error(ERROR_STATE);
    ASK(START);
    ASK(START);
    expect_error(ERROR_STATE);
    for (unsigned i = 0; i < 20; i++) {
        ASK(PAUSE);
        ck_assert_ptr_null(reply->error);
        ASK(STATS);
        uint64_t retired = reply->stats->retired;
        ASK(PING);
        ASK(STATS);
        ck_assert_uint_eq(reply->stats->retired, retired);
        if (i % 3 == 0) {
            ASK(RESET);
            ck_assert_ptr_null(reply->error);
        }
        ASK(START);
        ck_assert_ptr_null(reply->error);
        ASK(RESET);
        ck_assert_ptr_null(reply->error);
    }
    ASK(STOP);
    join();
}
END_TEST

/* Its own code, again and again while it runs: it must go on each time. */
START_TEST(test_code_of_a_running_guest)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__CodeRequest code = POLYVISOR__CODE_REQUEST__INIT;
    uint64_t retired = 0;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CODE;
    request.code = &code;
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    send_request(&request);
    receive();
    expect_error(ERROR_STATE);
    configure(2);
    ASK(START);
    for (unsigned i = 0; i < 20; i++) {
        code.at_pc = true;
        send_request(&request);
        receive();
        ck_assert_ptr_nonnull(reply->code);
        ck_assert_uint_eq(reply->code->n_blocks, 1);
        do {
            ASK(STATS);
        } while (reply->stats->retired == retired);
        retired = reply->stats->retired;
    }
    code.at_pc = false;
    code.address = 0x1000;
    send_request(&request);
    receive();
    expect_error(ERROR_NOT_FOUND);
    ck_assert_ptr_null(reply->code);
    code.cpu = 2;
    send_request(&request);
    receive();
    expect_error(ERROR_NOT_FOUND);
    ASK(STOP);
    join();
}
END_TEST

/* Receive until the guest's end is told; everything else must be a notice, too. */
static void hear_end(void)
{
    do {
        receive();
        ck_assert_uint_eq(reply->id, 0);
    } while (reply->notice != POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF);
    ending_heard = reply->notice;
}

/* Whatever the first vmmd got of what happened, and whether it did before it ended: the next one
 * gets to know that the guest has ended, at the latest when it asks. */
START_TEST(test_vmmd_dies_and_comes_back)
{
    hand_over("kernel", make_image(REBOOT_TWICE, sizeof(REBOOT_TWICE)));
    configure(1);
    ASK(START);
    if (_i == 0) {
        channel_close(vmmd); /* what the guest does now, nobody hears */
        usleep(100000);
    } else {
        hear_end();
        channel_close(vmmd); /* and tells nobody */
        ending_heard = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE;
    }
    connect_vmmd();
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuPing ping = POLYVISOR__VCPU_PING__INIT;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_PING;
    request.ping = &ping;
    bool asked = false;
    while (!ending_heard || asked) {
        if (!asked) {
            send_request(&request); /* as beats do */
        }
        receive();
        asked = reply->id == 0;
        if (reply->notice == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF) {
            ending_heard = reply->notice;
        }
    }
    ASK(STOP);
    join();
}
END_TEST

START_TEST(test_requests_out_of_order)
{
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(PAUSE);
    expect_error(ERROR_STATE);
    ASK(RESET);
    expect_error(ERROR_STATE);
    ASK(STATS);
    expect_error(ERROR_STATE);
    ASK(PING);
    ck_assert_ptr_null(reply->error);
    Polyvisor__VcpuRequest empty = POLYVISOR__VCPU_REQUEST__INIT;
    send_request(&empty);
    receive();
    expect_error(ERROR_PROTOCOL);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    join();
}
END_TEST

static const struct bad_configuration {
    const char *arch, *engine;
    unsigned cpus;
    uint64_t bytes;
    bool has_kernel;
    Polyvisor__VcpuDevice device; /* kind NULL: none */
    enum error_code code;
} BAD[] = {
    {"vax", "interp", 1, MEMORY_BYTES, true, {0}, ERROR_UNSUPPORTED},
    {"riscv64", "warp", 1, MEMORY_BYTES, true, {0}, ERROR_UNSUPPORTED},
    {"riscv64", "interp", 0, MEMORY_BYTES, true, {0}, ERROR_CONFIG},
    {"riscv64", "interp", 9, MEMORY_BYTES, true, {0}, ERROR_CONFIG},
    {"riscv64", "interp", 1, MEMORY_BYTES * 2, true, {0}, ERROR_MEMORY},
    {"riscv64", "interp", 1, 12345, true, {0}, ERROR_MEMORY},
    {"riscv64", "interp", 1, MEMORY_BYTES, false, {0}, ERROR_KERNEL},
    {"riscv64",
     "interp",
     1,
     MEMORY_BYTES,
     true,
     {.id = "x", .kind = "toaster"},
     ERROR_INTERNAL}, /* its descriptors are missing */
    {"riscv64",
     "interp",
     1,
     MEMORY_BYTES,
     true,
     {.id = "x", .kind = "virtio-rng", .queue_count = 99},
     ERROR_CONFIG},
};

START_TEST(test_bad_configurations)
{
    const struct bad_configuration *bad = &BAD[_i];
    Polyvisor__VcpuDevice wanted = POLYVISOR__VCPU_DEVICE__INIT;
    if (bad->has_kernel) {
        hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    }
    wanted.id = bad->device.id;
    wanted.kind = bad->device.kind;
    wanted.queue_count = bad->device.queue_count;
    configure_as(bad->arch, bad->engine, bad->cpus, bad->bytes, wanted.kind ? &wanted : NULL);
    expect_error(bad->code);
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(STOP);
    join();
}
END_TEST

/* --- a reset that a device holds up ---------------------------------------------------------- */

static void hand_over_device(void)
{
    hand_over("dev.rng0.state", make_device_state());
    hand_over("dev.rng0.kick.0", eventfd(0, EFD_NONBLOCK));
    hand_over("dev.rng0.call.0", eventfd(0, EFD_NONBLOCK));
    hand_over("dev.rng0.call.1", eventfd(0, EFD_NONBLOCK));
    snprintf(transport_path, sizeof(transport_path), "%s/rng0.sock", directory);
}

/* Up to where a CPU stands in a write to the device's configuration. */
static void run_into_device(void)
{
    Polyvisor__VcpuDevice rng = POLYVISOR__VCPU_DEVICE__INIT;
    hand_over("kernel", make_image(TOUCH_AND_REBOOT, sizeof(TOUCH_AND_REBOOT)));
    hand_over_device();
    rng.id = "rng0";
    rng.kind = "virtio-rng";
    rng.transport_path = transport_path;
    rng.pci_slot = 1;
    rng.queue_count = 1;
    configure_as("riscv64", "interp", 1, MEMORY_BYTES, &rng);
    ck_assert_ptr_null(reply->error);
    device = channel_connect(CHANNEL_TRANSPORT, NN_PAIR, transport_path);
    ck_assert_ptr_nonnull(device);
    ASK(START);
}

/* Up to where vcpud says that the device holds up the reset. The images are not loaded then. */
static void run_into_stuck_reset(void)
{
    const uint32_t mark = 0x12345678;
    run_into_device();
    take_config_write(true);
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK);
    ck_assert_str_eq(reply->device, "rng0");
    memcpy(ram + KERNEL_OFFSET, &mark, sizeof(mark)); /* as a read that was in flight may */
    for (unsigned i = 0; i < 10; i++) {
        ASK(PING);
    }
    ck_assert_int_eq(memcmp(ram + KERNEL_OFFSET, &mark, sizeof(mark)), 0);
}

static void leave_stuck_reset(void)
{
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET);
    take_config_write(true);
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x6f);
    ASK(STOP);
    channel_close(device);
    join();
}

START_TEST(test_reset_waits_for_a_device)
{
    ProtobufCMessage *message;
    run_into_stuck_reset();
    /* Whatever was asked of it meanwhile. */
    while (channel_receive(device, &polyvisor__transport_request__descriptor, &message, 0) == 0) {
        Polyvisor__TransportReply answer = POLYVISOR__TRANSPORT_REPLY__INIT;
        answer.id = ((Polyvisor__TransportRequest *)message)->id;
        ck_assert_int_eq(channel_send(device, &answer.base, TIMEOUT_MS), 0);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    leave_stuck_reset();
}
END_TEST

START_TEST(test_reset_goes_on_when_a_device_is_gone)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuDeviceGone gone = POLYVISOR__VCPU_DEVICE_GONE__INIT;
    run_into_stuck_reset();
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_DEVICE_GONE;
    request.device_gone = &gone;
    gone.device = "disk0"; /* another */
    send_request(&request);
    receive_answer();
    ASK(PING);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x78);
    gone.device = "rng0";
    send_request(&request);
    receive_answer();
    ck_assert_ptr_null(reply->error);
    leave_stuck_reset();
}
END_TEST

/* What vmmd may ask while a reset waits. */
START_TEST(test_requests_during_a_reset)
{
    run_into_stuck_reset();
    ASK(PAUSE);
    ck_assert_ptr_null(reply->error);
    ASK(STATS);
    ck_assert_ptr_null(reply->error);
    ASK(RESET);
    ck_assert_ptr_null(reply->error);
    ASK(START);
    ck_assert_ptr_null(reply->error);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x78);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    channel_close(device);
    join();
}
END_TEST

/* A CPU waits for a device that takes its request and is mute from then on. Whoever asks vcpud
 * something does not wait for that device, and a reset or an end does not leave the CPU to it: its
 * deadline, which would be told, never passes. */
START_TEST(test_cpus_that_wait_for_a_device)
{
    run_into_device();
    take_config_write(false);
    ASK(PAUSE);
    expect_error(ERROR_BUSY);
    ASK(STATS);
    ck_assert_ptr_null(reply->error);
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
    join();
}
END_TEST

START_TEST(test_terminate_signal)
{
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    configure(1);
    ASK(START);
    kill(getpid(), SIGTERM);
    join();
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("vcpud_control");
    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_power_off);
    tcase_add_test(cases, test_guest_reboots_itself);
    tcase_add_test(cases, test_pause_and_reset_on_request);
    tcase_add_test(cases, test_code_of_a_running_guest);
    tcase_add_loop_test(cases, test_vmmd_dies_and_comes_back, 0, 2);
    tcase_add_test(cases, test_requests_out_of_order);
    tcase_add_loop_test(cases, test_bad_configurations, 0, sizeof(BAD) / sizeof(BAD[0]));
    tcase_add_test(cases, test_reset_waits_for_a_device);
    tcase_add_test(cases, test_reset_goes_on_when_a_device_is_gone);
    tcase_add_test(cases, test_requests_during_a_reset);
    tcase_add_loop_test(cases, test_cpus_that_wait_for_a_device, 0, 2);
    tcase_add_test(cases, test_terminate_signal);
    Suite *suite = suite_create("vcpud_control");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
