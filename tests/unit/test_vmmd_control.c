/* What clients of the control socket may do to vmmd and to each other: nothing. */
#include "tests/unit/suite.h"
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

/* Create with fields that no version knows, in the configuration and in a disk of it. */
static enum error_code ask_create_stuffed(const char *name, size_t bytes)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    Polyvisor__DiskConfig disk = POLYVISOR__DISK_CONFIG__INIT, *disks[] = {&disk};
    uint8_t *data = calloc(1, bytes);
    ProtobufCMessageUnknownField unknown = {
        .tag = 1000, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .data = data};
    char kernel[96], path[96];

    ck_assert_ptr_nonnull(data);
    unknown.len = bytes;
    for (size_t i = 0, length = bytes - 4; i < 4; i++, length >>= 7) { /* its length, in 4 bytes */
        data[i] = (uint8_t)((length & 0x7f) | (i < 3 ? 0x80 : 0));
    }
    snprintf(kernel, sizeof(kernel), "%s/bin/vcpud", base);
    snprintf(path, sizeof(path), "%s/disk", base);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    close(fd);
    disk.path = path;
    disk.base.n_unknown_fields = config.base.n_unknown_fields = 1;
    disk.base.unknown_fields = config.base.unknown_fields = &unknown;
    config.name = (char *)name;
    config.kernel = kernel;
    config.cpus = 1;
    config.memory_bytes = 64 << 20;
    config.n_disks = 1;
    config.disks = disks;
    create.config = &config;
    request.create = &create;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    enum error_code code = ask(&request);
    free(data);
    return code;
}

START_TEST(unknown_fields_are_not_kept)
{
    ck_assert_int_eq(ask_create_stuffed("one", 400000), ERROR_OK);
    ck_assert_uint_eq(machine()->config->n_disks, 1);
    ck_assert_uint_lt(polyvisor__machine_info__get_packed_size(machine()), 1024);
    ck_assert_int_eq(ask_create_stuffed("two", 400000), ERROR_OK);
    ck_assert_int_eq(ask_create_stuffed("three", 400000), ERROR_OK);
    ck_assert_int_eq(ask_list(), ERROR_OK);
    ck_assert_uint_eq(response->n_machines, 3);
}
END_TEST

/* The longest descriptions there can be do not fit in one message. */
START_TEST(a_long_list_comes_in_pages)
{
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    Polyvisor__DiskConfig disks[16], *list[16];
    static char paths[16][4000], kernel[96], append[2001];
    enum { COUNT = 24 };
    char name[16], last[64] = "";
    int pages = 0, machines = 0;

    snprintf(kernel, sizeof(kernel), "%s/bin/vcpud", base);
    memset(append, 'a', sizeof(append) - 1);
    for (int i = 0; i < 16; i++) {
        char path[96];
        polyvisor__disk_config__init(&disks[i]);
        snprintf(path, sizeof(path), "%s/d%d", base, i);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        ck_assert_int_eq(ftruncate(fd, 4096), 0);
        close(fd);
        /* The same file by a long path: "/./././". */
        size_t length = strlen(base);
        memcpy(paths[i], base, length);
        while (length < 3900) {
            memcpy(paths[i] + length, "/.", 2);
            length += 2;
        }
        snprintf(paths[i] + length, sizeof(paths[i]) - length, "/d%d", i);
        disks[i].path = paths[i];
        list[i] = &disks[i];
    }
    config.name = name;
    config.kernel = kernel;
    config.append = append;
    config.cpus = 1;
    config.memory_bytes = 64 << 20;
    config.n_disks = 16;
    config.disks = list;
    create.config = &config;
    request.create = &create;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "m%02d", i);
        ck_assert_int_eq(ask(&request), ERROR_OK);
    }
    do {
        ck_assert_int_eq(ask_list_after(last), ERROR_OK);
        ck_assert_uint_gt(response->n_machines, 0);
        for (size_t i = 0; i < response->n_machines; i++) {
            ck_assert_int_lt(strcmp(last, response->machines[i]->config->name), 0);
            strcpy(last, response->machines[i]->config->name);
        }
        machines += (int)response->n_machines;
        pages++;
    } while (response->more);
    ck_assert_int_eq(machines, COUNT);
    ck_assert_int_gt(pages, 1);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {
        open_requests_do_not_shut_out_those_that_are_answered_at_once,
        unknown_fields_are_not_kept,
        a_long_list_comes_in_pages,
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
    return suite_run(suite);
}
