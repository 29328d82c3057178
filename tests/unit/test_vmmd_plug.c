/*
 * How vmmd plugs devices in and out: each phase of it, and what becomes of it when somebody
 * refuses, is slow or dies. Stand-ins are the processes (vmmd_stand_ins.h); after each failure vmmd
 * has what it had before.
 */
#include "tests/unit/suite.h"
#include "tests/unit/vmmd_service.h"

static char image[96];

static void set_up_image(void)
{
    set_up();
    snprintf(image, sizeof(image), "%s/image", base);
    int fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
}

static void start(const char *behaviour)
{
    ck_assert_int_eq(ask_create("one", behaviour), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK);
}

static enum error_code ask_attach(const char *disk, const char *net, const char *vsock)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__DeviceAttachRequest attach = POLYVISOR__DEVICE_ATTACH_REQUEST__INIT;
    Polyvisor__DiskConfig config = POLYVISOR__DISK_CONFIG__INIT;

    attach.name = "one";
    config.path = (char *)(disk ? disk : "");
    attach.disk = disk ? &config : NULL;
    attach.net = (char *)(net ? net : "");
    attach.vsock = (char *)(vsock ? vsock : "");
    request.device_attach = &attach;
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_ATTACH;
    return ask(&request);
}

static enum error_code ask_detach(const char *device, bool force, uint32_t timeout_ms)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__DeviceDetachRequest detach = POLYVISOR__DEVICE_DETACH_REQUEST__INIT;

    detach.name = "one";
    detach.device = (char *)device;
    detach.force = force;
    detach.timeout_ms = timeout_ms;
    request.device_detach = &detach;
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_DETACH;
    return ask(&request);
}

/* The state of a device, or -1: there is none. */
static int state_of(const char *id)
{
    ck_assert_int_eq(ask_list(), ERROR_OK);
    for (size_t i = 0; i < machine()->n_devices; i++) {
        if (!strcmp(machine()->devices[i]->id, id)) {
            return (int)machine()->devices[i]->state;
        }
    }
    return -1;
}

static void await_absence(const char *id)
{
    while (state_of(id) >= 0) {
        fake_sleep_ms(10);
    }
}

/* Sockets and the like that a client of vmmd sees come and go have settled when two counts agree
 * with what is wanted: bounded by the test's time. */
static void await_descriptors(int wanted)
{
    while (count_descriptors_of(supervisor_pid) != wanted) {
        fake_sleep_ms(10);
    }
}

START_TEST(each_kind_comes_and_goes)
{
    char vsock[96];

    snprintf(vsock, sizeof(vsock), "path=%s/vsock", base);
    start("");
    int before = count_descriptors_of(supervisor_pid);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
        ck_assert_str_eq(response->device, "disk0");
        ck_assert_int_eq(ask_attach(NULL, "user", NULL), ERROR_OK);
        ck_assert_str_eq(response->device, "net0");
        ck_assert_int_eq(ask_attach(NULL, NULL, vsock), ERROR_OK);
        ck_assert_str_eq(response->device, "vsock0");
        ck_assert_int_eq(state_of("disk0"), POLYVISOR__DEVICE_STATE__DEVICE_RUNNING);
        ck_assert_int_eq(ask_detach("vsock0", false, 0), ERROR_OK);
        ck_assert_int_eq(ask_detach("disk0", false, 0), ERROR_OK);
        ck_assert_int_eq(ask_detach("net0", false, 0), ERROR_OK);
        ck_assert_int_eq(state_of("disk0"), -1);
        await_descriptors(before);
    }
}
END_TEST

START_TEST(what_makes_no_sense_is_refused)
{
    start("");
    ck_assert_int_eq(ask_attach(NULL, NULL, NULL), ERROR_PROTOCOL);
    ck_assert_int_eq(ask_attach(image, "user", NULL), ERROR_PROTOCOL);
    ck_assert_int_eq(ask_attach("/nowhere/image", NULL, NULL), ERROR_DISK);
    ck_assert_int_eq(ask_attach(NULL, "warp", NULL), ERROR_CONFIG);
    ck_assert_int_eq(ask_detach("disk0", false, 0), ERROR_NOT_FOUND);
    ck_assert_int_eq(ask_detach("", false, 0), ERROR_NOT_FOUND);
    ck_assert_int_eq(ask_detach("serial0", true, 0), ERROR_UNSUPPORTED);
    ck_assert_int_eq(ask_detach("rng0", true, 0), ERROR_UNSUPPORTED);
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_BUSY);
}
END_TEST

START_TEST(there_are_as_many_places_as_were_wanted)
{
    start("");
    int before = count_descriptors_of(supervisor_pid);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(ask_attach(NULL, "user", NULL), ERROR_OK);
    }
    ck_assert_int_eq(ask_attach(NULL, "user", NULL), ERROR_BUSY);
    ck_assert_str_ne(response->error->hint, "");
    ck_assert_int_eq(ask_detach("net3", false, 0), ERROR_OK);
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK); /* the place is of any kind */
    ck_assert_int_eq(ask_attach(NULL, "user", NULL), ERROR_BUSY);
    ck_assert_int_eq(ask_detach("disk0", false, 0), ERROR_OK);
    ck_assert_int_eq(ask_attach(NULL, "user", NULL), ERROR_OK);
    ck_assert_str_eq(response->device, "net3"); /* the first free number */
    for (int i = 0; i < 8; i++) {
        char id[8];
        snprintf(id, sizeof(id), "net%d", i);
        ck_assert_int_eq(ask_detach(id, false, 0), ERROR_OK);
    }
    await_descriptors(before);
}
END_TEST

/* ---- in ---- */

static const struct {
    const char *device, *vcpud; /* what they do */
    enum error_code code;
} refusals[] = {
    {"disk0:refuse", "", ERROR_DISK},
    {"disk0:die-early", "", ERROR_CRASHED},
    {"", "attach-denied", ERROR_CONFIG},
};

START_TEST(what_cannot_be_had_is_taken_back)
{
    restart_supervisor_with(refusals[_i].device);
    start(refusals[_i].vcpud);
    int before = count_descriptors_of(supervisor_pid);
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(ask_attach(image, NULL, NULL), refusals[_i].code);
        ck_assert_int_eq(state_of("disk0"), -1);
        await_descriptors(before);
    }
    /* The image is free, and the machine as well as before. */
    int fd = open(image, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    close(fd);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_RUNNING);
}
END_TEST

START_TEST(a_process_that_dies_over_it_is_followed_by_another)
{
    restart_supervisor_with("disk0:die-early-once");
    start("");
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    ck_assert_int_eq(state_of("disk0"), POLYVISOR__DEVICE_STATE__DEVICE_RUNNING);
    ck_assert_int_eq(ask_detach("disk0", false, 0), ERROR_OK);
}
END_TEST

/* ---- out ---- */

START_TEST(it_waits_for_the_driver)
{
    start("busy");
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    ck_assert_int_eq(ask_detach("disk0", false, LONG_MS), ERROR_OK);
    ck_assert_int_eq(state_of("disk0"), -1);
}
END_TEST

START_TEST(what_the_driver_keeps_stays)
{
    start("driver-keeps");
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    for (uint32_t timeout = 0; timeout < 200; timeout += 100) {
        ck_assert_int_eq(ask_detach("disk0", false, timeout), ERROR_BUSY);
        ck_assert_ptr_nonnull(strstr(response->error->hint, "0000:00:03.0"));
        ck_assert_int_eq(state_of("disk0"), POLYVISOR__DEVICE_STATE__DEVICE_RUNNING);
    }
}
END_TEST

/* vcpud does not have it: what was to be done is done. */
START_TEST(what_vcpud_does_not_know_is_out)
{
    start("detach-unknown");
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    ck_assert_int_eq(ask_detach("disk0", false, 0), ERROR_OK);
    ck_assert_int_eq(state_of("disk0"), -1);
}
END_TEST

/* Out by force: the image is free at once, the rest when the driver has let go. */
START_TEST(force_frees_the_image_first)
{
    char id[16];

    start("driver-keeps");
    int before = count_descriptors_of(supervisor_pid);
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    ck_assert_int_eq(ask_detach("disk0", true, 0), ERROR_OK);
    ck_assert_int_eq(ask_attach(image, NULL, NULL), ERROR_OK);
    snprintf(id, sizeof(id), "%s", response->device); /* disk1, unless the driver was quick */
    if (strcmp(id, "disk0")) {
        await_absence("disk0");
    }
    ck_assert_int_eq(ask_detach(id, true, 0), ERROR_OK);
    await_absence(id);
    await_descriptors(before);
}
END_TEST

/* ---- the machine's end ---- */

START_TEST(the_end_of_vcpud_ends_it)
{
    static const char *const behaviours[] = {"attach-dies", "detach-dies"};

    start(behaviours[_i]);
    enum error_code code = ask_attach(image, NULL, NULL);
    code = code == ERROR_OK ? ask_detach("disk0", false, LONG_MS) : code;
    ck_assert(code == ERROR_CRASHED || code == ERROR_CANCELLED);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(machine()->state, POLYVISOR__MACHINE_STATE__MACHINE_CRASHED);
    ck_assert_int_eq(machine()->n_processes, 0);
}
END_TEST

/* Killed while a device's process is mute: whoever asked hears that it is over. */
START_TEST(a_machine_that_is_killed_answers)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__DeviceAttachRequest attach = POLYVISOR__DEVICE_ATTACH_REQUEST__INIT;
    ProtobufCMessage *message;
    struct error err;

    restart_supervisor_with("net0:mute");
    start("");
    struct channel *other = channel_connect(CHANNEL_CONTROL, NN_REQ, control_path);
    attach.name = "one";
    attach.net = "user";
    request.id = 77;
    request.device_attach = &attach;
    request.body_case = POLYVISOR__REQUEST__BODY_DEVICE_ATTACH;
    ck_assert_int_eq(channel_send(other, &request.base, LONG_MS), 0);
    while (state_of("net0") != POLYVISOR__DEVICE_STATE__DEVICE_ATTACHING) {
        fake_sleep_ms(10);
    }
    ck_assert_int_eq(ask_detach("net0", true, 0), ERROR_BUSY); /* one thing at a time */
    ck_assert_int_eq(ask_kill("one"), ERROR_OK);
    ck_assert_int_eq(channel_receive(other, &polyvisor__response__descriptor, &message, LONG_MS),
                     0);
    error_from_message(&err, ((Polyvisor__Response *)message)->error);
    ck_assert_int_eq(err.code, ERROR_CANCELLED);
    protobuf_c_message_free_unpacked(message, NULL);
    channel_close(other);
    ck_assert_int_eq(ask_wait("one", LONG_MS), ERROR_OK);
    ck_assert_int_eq(ask_start("one", false), ERROR_OK); /* without what was plugged in */
    ck_assert_int_eq(state_of("net0"), -1);
}
END_TEST

int main(int argc, char **argv)
{
    int status;

    if (service_stand_in(argc, argv, &status)) {
        return status;
    }
    Suite *suite = suite_create("vmmd: plugging");
    TCase *cases = tcase_create("plugging");
    tcase_add_checked_fixture(cases, set_up_image, tear_down);
    tcase_set_timeout(cases, 240);
    tcase_add_test(cases, each_kind_comes_and_goes);
    tcase_add_test(cases, what_makes_no_sense_is_refused);
    tcase_add_test(cases, there_are_as_many_places_as_were_wanted);
    tcase_add_loop_test(cases, what_cannot_be_had_is_taken_back, 0,
                        sizeof(refusals) / sizeof(refusals[0]));
    tcase_add_test(cases, a_process_that_dies_over_it_is_followed_by_another);
    tcase_add_test(cases, it_waits_for_the_driver);
    tcase_add_test(cases, what_the_driver_keeps_stays);
    tcase_add_test(cases, what_vcpud_does_not_know_is_out);
    tcase_add_test(cases, force_frees_the_image_first);
    tcase_add_loop_test(cases, the_end_of_vcpud_ends_it, 0, 2);
    tcase_add_test(cases, a_machine_that_is_killed_answers);
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
