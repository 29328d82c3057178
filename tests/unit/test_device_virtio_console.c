/* virtio-console from both of its ends. */
#include "tests/unit/store_steps.h"

#include "tests/unit/console_client.h"
#include "tests/unit/device_host.h"
#include <linux/virtio_console.h>
#include <signal.h>
#include <sys/wait.h>

extern const struct device_model device_model_virtio_console;

enum { RECEIVE, TRANSMIT, TELL, HEAR };

#define MULTIPORT (UINT64_C(1) << VIRTIO_CONSOLE_F_MULTIPORT)

static struct device_host host;

static void setup(void)
{
    host_open(&host);
    host_listen(&host);
    host_start(&host, &device_model_virtio_console, false);
}

static void teardown(void)
{
    host_close(&host);
}

static uint64_t buffer(unsigned queue, unsigned slot)
{
    return DRIVER_DATA + queue * 0x40000u + slot * 0x4000u;
}

static void offer_text(unsigned slot, const char *text)
{
    memcpy(driver_pointer(&host.driver, buffer(TRANSMIT, slot)), text, strlen(text));
    driver_describe(&host.driver, TRANSMIT, slot, buffer(TRANSMIT, slot), (uint32_t)strlen(text), 0,
                    0);
    driver_offer(&host.driver, TRANSMIT, (uint16_t)slot);
    host_kick(&host, TRANSMIT);
}

static void offer_room(unsigned queue, unsigned slot, uint32_t size)
{
    driver_describe(&host.driver, queue, slot, buffer(queue, slot), size, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, queue, (uint16_t)slot);
    host_kick(&host, queue);
}

static void expect_output(int client, const char *text)
{
    char bytes[64] = {0};

    host_turn(&host);
    ck_assert_int_eq(recv(client, bytes, sizeof(bytes) - 1, MSG_DONTWAIT), (ssize_t)strlen(text));
    ck_assert_str_eq(bytes, text);
}

static void expect_input(unsigned slot, const char *text)
{
    struct virtqueue_used_element element;

    host_turn(&host);
    ck_assert(driver_collect(&host.driver, RECEIVE, &element));
    ck_assert_uint_eq(element.id, slot);
    ck_assert_uint_eq(element.length, strlen(text));
    ck_assert_mem_eq(driver_pointer(&host.driver, buffer(RECEIVE, slot)), text, strlen(text));
}

static void note(void *context)
{
    *(bool *)context = true;
}

START_TEST(carries_bytes_both_ways)
{
    struct virtqueue_used_element element;
    int client = host_attach(&host, 0);

    host_activate(&host, 0);
    offer_text(0, "hello ");
    offer_text(1, "world");
    expect_output(client, "hello world");
    ck_assert(driver_collect(&host.driver, TRANSMIT, &element));
    ck_assert(driver_collect(&host.driver, TRANSMIT, &element));
    ck_assert(host_called(&host, TRANSMIT));

    ck_assert_int_eq(write(client, "typed", 5), 5);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, RECEIVE, &element)); /* no room yet */
    offer_room(RECEIVE, 0, 3);
    expect_input(0, "typ");
    ck_assert(host_called(&host, RECEIVE));
    offer_room(RECEIVE, 1, 3);
    expect_input(1, "ed");
    close(client);
}
END_TEST

static void note_queue(void *context, unsigned queue)
{
    (void)queue;
    *(bool *)context = true;
}

/* A buffer that waits for input does not hold up the reset of its queue. */
START_TEST(a_queue_is_reset_while_a_buffer_is_held)
{
    int client = host_attach(&host, 0);
    bool done = false;

    host_activate(&host, 0);
    offer_room(RECEIVE, 0, 10);
    host_turn(&host);
    atomic_store(&host.driver.state->queues[RECEIVE].enabled, 0);
    virtio_queue_reset(host.device, RECEIVE, note_queue, &done);
    ck_assert(done);
    ck_assert_int_eq(write(client, "typed", 5), 5);
    host_turn(&host);
    offer_text(0, "out"); /* the other queue goes on */
    expect_output(client, "out");

    driver_set_queues(&host.driver, 4);
    ck_assert_int_eq(virtio_queue_enable(host.device, RECEIVE), 0);
    offer_room(RECEIVE, 1, 10);
    expect_input(1, "typed");
    close(client);
}
END_TEST

START_TEST(a_lossless_client_holds_the_queue)
{
    struct virtqueue_used_element element;
    int client = host_attach(&host, CONSOLE_LOSSLESS);
    static uint8_t bytes[1 << 16];
    size_t written = 0, got = 0;
    const size_t total = 3u << 20;
    const uint32_t size = 12000;
    bool busy[4] = {false}, same = true, full = false;

    host_activate(&host, UINT64_MAX & ~MULTIPORT);
    host_turn(&host);
    while (got < total) {
        for (unsigned slot = 0; slot < 4; slot++) {
            if (!busy[slot] && written < total) {
                uint8_t *data = driver_pointer(&host.driver, buffer(TRANSMIT, slot));
                uint32_t count = total - written < size ? (uint32_t)(total - written) : size;
                for (uint32_t i = 0; i < count; i++, written++) {
                    data[i] = (uint8_t)(written * 13 + written / 256);
                }
                driver_describe(&host.driver, TRANSMIT, slot, buffer(TRANSMIT, slot), count, 0, 0);
                driver_offer(&host.driver, TRANSMIT, (uint16_t)slot);
                busy[slot] = true;
            }
        }
        host_kick(&host, TRANSMIT);
        event_base_loop(host.base, EVLOOP_NONBLOCK);
        full |= busy[0] && busy[1] && busy[2] && busy[3];
        while (driver_collect(&host.driver, TRANSMIT, &element)) {
            busy[element.id] = false;
            full = false;
        }
        if (!full && written < total) {
            continue; /* until the queue is held */
        }
        ssize_t count = recv(client, bytes, sizeof(bytes), MSG_DONTWAIT);
        for (ssize_t i = 0; i < count; i++, got++) {
            same &= bytes[i] == (uint8_t)(got * 13 + got / 256);
        }
    }
    ck_assert(same);
    close(client);
}
END_TEST

/* The pings of vmmd must be answered in between. */
START_TEST(a_huge_buffer_takes_many_turns)
{
    struct virtqueue_used_element element;
    unsigned turns = 0;

    host_activate(&host, 0);
    for (uint16_t i = 0; i < 4; i++) {
        driver_describe(&host.driver, TRANSMIT, i, DRIVER_DATA, 16u << 20,
                        i < 3 ? VIRTQUEUE_NEXT : 0, (uint16_t)(i + 1));
    }
    driver_offer(&host.driver, TRANSMIT, 0);
    host_kick(&host, TRANSMIT);
    for (; !driver_collect(&host.driver, TRANSMIT, &element); turns++) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_ge(turns, 64);
    offer_text(8, "next");
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, TRANSMIT, &element));
}
END_TEST

static void say(unsigned slot, uint16_t event, uint16_t value)
{
    struct virtio_console_control control = {.id = 0, .event = event, .value = value};

    memcpy(driver_pointer(&host.driver, buffer(HEAR, slot)), &control, sizeof(control));
    driver_describe(&host.driver, HEAR, slot, buffer(HEAR, slot), sizeof(control), 0, 0);
    driver_offer(&host.driver, HEAR, (uint16_t)slot);
    host_kick(&host, HEAR);
    host_turn(&host);
}

static void expect_told(uint16_t event, uint16_t value, const char *text)
{
    struct virtqueue_used_element element;
    struct virtio_console_control control;

    ck_assert(driver_collect(&host.driver, TELL, &element));
    ck_assert_uint_eq(element.length, sizeof(control) + strlen(text));
    const uint8_t *bytes = driver_pointer(&host.driver, buffer(TELL, element.id));
    memcpy(&control, bytes, sizeof(control));
    ck_assert_uint_eq(control.id, 0);
    ck_assert_uint_eq(control.event, event);
    ck_assert_uint_eq(control.value, value);
    ck_assert_mem_eq(bytes + sizeof(control), text, strlen(text));
}

START_TEST(introduces_its_port)
{
    struct virtqueue_used_element element;
    int client = host_attach(&host, 0);

    host_activate(&host, UINT64_MAX);
    for (unsigned slot = 0; slot < 8; slot++) {
        offer_room(TELL, slot, 64);
    }
    offer_room(RECEIVE, 0, 64);
    ck_assert_int_eq(write(client, "early", 5), 5);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, TELL, &element));
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect_told(VIRTIO_CONSOLE_PORT_ADD, 1, "");
    say(1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_told(VIRTIO_CONSOLE_CONSOLE_PORT, 1, "");
    expect_told(VIRTIO_CONSOLE_PORT_NAME, 1, "polyvisor.console");
    expect_told(VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    ck_assert(!driver_collect(&host.driver, RECEIVE, &element));
    say(2, VIRTIO_CONSOLE_PORT_OPEN, 1);
    expect_input(0, "early");
    say(3, 99, 1); /* unknown, and too short: no harm */
    driver_describe(&host.driver, HEAR, 4, buffer(HEAR, 4), 3, 0, 0);
    driver_offer(&host.driver, HEAR, 4);
    host_kick(&host, HEAR);
    host_turn(&host);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);

    /* The next process introduces the port again and goes on where this one stopped. */
    offer_room(RECEIVE, 1, 64);
    host_turn(&host);
    device_destroy(host.device);
    close(client);
    host_start(&host, &device_model_virtio_console, true);
    host_turn(&host);
    expect_told(VIRTIO_CONSOLE_PORT_ADD, 1, "");
    client = host_attach(&host, 0);
    ck_assert_int_eq(write(client, "late", 4), 4);
    expect_input(1, "late");
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
    close(client);
}
END_TEST

START_TEST(reset_gives_buffers_back)
{
    struct virtqueue_used_element element;
    int client = host_attach(&host, 0);

    host_activate(&host, 0);
    offer_room(RECEIVE, 0, 64);
    host_turn(&host);
    ck_assert_uint_eq(host.driver.state->queues[RECEIVE].inflight[0].status, VIRTIO_IN_FLIGHT);
    bool done = false;
    virtio_device_reset(host.device, note, &done);
    ck_assert(done);
    ck_assert_uint_eq(host.driver.state->queues[RECEIVE].inflight[0].status, VIRTIO_FREE);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    ck_assert_int_eq(write(client, "x", 1), 1);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, RECEIVE, &element));
    host_activate(&host, 0);
    offer_room(RECEIVE, 5, 64);
    expect_input(5, "x");
    close(client);
}
END_TEST

/* A transmit buffer that was taken in part and goes with its queue: the next one is printed whole. */
START_TEST(a_queue_reset_forgets_the_buffer_in_part)
{
    int client = host_attach(&host, CONSOLE_LOSSLESS);
    static char got[1 << 16];
    char last[16] = {0};
    bool done = false;

    host_activate(&host, 0);
    host_turn(&host);
    driver_describe(&host.driver, TRANSMIT, 0, DRIVER_DATA, 4u << 20, 0, 0);
    driver_offer(&host.driver, TRANSMIT, 0);
    host_kick(&host, TRANSMIT);
    host_turn(&host);
    atomic_store(&host.driver.state->queues[TRANSMIT].enabled, 0);
    virtio_queue_reset(host.device, TRANSMIT, note_queue, &done);
    ck_assert(done);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    ck_assert_int_eq(virtio_queue_enable(host.device, TRANSMIT), 0);
    offer_text(1, "whole words");
    for (unsigned quiet = 0; quiet < 10;) {
        host_turn(&host);
        ssize_t count = recv(client, got, sizeof(got), MSG_DONTWAIT);
        quiet = count > 0 ? 0 : quiet + 1;
        if (count >= 11) {
            memcpy(last, got + count - 11, 11);
        }
    }
    ck_assert_str_eq(last, "whole words");
    close(client);
}
END_TEST

START_TEST(emergency_write)
{
    int client = host_attach(&host, 0);
    const uint8_t bytes[8] = {'!'};

    ck_assert_int_eq(virtio_device_config_write(host.device, 8, bytes, 4), 0);
    expect_output(client, "!");
    ck_assert_int_lt(virtio_device_config_write(host.device, 0, bytes, 2), 0);
    ck_assert_int_lt(virtio_device_config_write(host.device, 8, bytes, 3), 0);
    ck_assert_int_lt(virtio_device_config_write(host.device, UINT32_MAX, bytes, 8), 0);
    ck_assert_int_lt(virtio_device_config_write(host.device, 256, bytes, 1), 0);
    close(client);
}
END_TEST

/* The process of a killed one's successor. */
static pid_t start_process(bool mortal)
{
    long steps = mortal ? rand() % 60 : 0;
    pid_t pid = fork();
    if (pid == 0) {
        steps_to_live = steps;
        host.base = event_base_new();
        host_start(&host, &device_model_virtio_console, true);
        event_base_dispatch(host.base);
        _exit(1);
    }
    return pid;
}

/* The guest's driver: four buffers a direction. The bytes received so far. */
static uint64_t guest_turn(uint64_t *written, uint64_t received, uint64_t until)
{
    static bool busy[4], room[4];
    struct virtqueue_used_element element;

    while (driver_collect(&host.driver, TRANSMIT, &element)) {
        ck_assert(busy[element.id]);
        busy[element.id] = false;
    }
    while (driver_collect(&host.driver, RECEIVE, &element)) {
        const uint8_t *bytes = driver_pointer(&host.driver, buffer(RECEIVE, element.id));
        ck_assert(room[element.id]);
        ck_assert_uint_gt(element.length, 0);
        for (uint32_t i = 0; i < element.length; i++, received++) {
            ck_assert_uint_eq(bytes[i], console_client_byte(received));
        }
        room[element.id] = false;
    }
    for (unsigned slot = 0; slot < 4; slot++) {
        if (!busy[slot] && *written < until) {
            uint8_t *bytes = driver_pointer(&host.driver, buffer(TRANSMIT, slot));
            uint32_t size = (uint32_t)(1 + rand() % 700);
            size = size < until - *written ? size : (uint32_t)(until - *written);
            for (uint32_t i = 0; i < size; i++) {
                bytes[i] = console_client_byte((*written)++);
            }
            driver_describe(&host.driver, TRANSMIT, slot, buffer(TRANSMIT, slot), size, 0, 0);
            driver_offer(&host.driver, TRANSMIT, (uint16_t)slot);
            host_kick(&host, TRANSMIT);
            busy[slot] = true;
        }
        if (!room[slot]) {
            offer_room(RECEIVE, slot, (uint32_t)(1 + rand() % 60));
            room[slot] = true;
        }
    }
    return received;
}

/* Whenever the process dies: its client gets every byte that the guest wrote, the guest every one
 * that was typed, none twice. */
START_TEST(killed_processes_lose_nothing)
{
    enum { TOTAL = 400000, TYPED = 60000, LIVES = 150 };
    struct console_client client = {.host = &host, .fd = -1, .flags = CONSOLE_LOSSLESS};
    uint64_t written = 0, received = 0;
    unsigned lives = 1, rounds = 0;

    srand(4712);
    host_activate(&host, 0);
    device_destroy(host.device);
    host.device = NULL;
    pid_t pid = start_process(true);
    for (unsigned end = 1; client.output < TOTAL || received < TYPED; rounds++) {
        if (rounds == end && lives < LIVES) {
            kill(pid, SIGKILL);
        }
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            pid = start_process(++lives < LIVES);
            end = rounds + 1 + (unsigned)rand() % 1000;
        }
        received = guest_turn(&written, received, TOTAL);
        console_client_turn(&client, received + 500 < TYPED ? received + 500 : TYPED);
    }
    ck_assert_uint_eq(client.output, TOTAL);
    ck_assert_uint_eq(received, TYPED);
    ck_assert_uint_eq(lives, LIVES);
    console_client_close(&client);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
END_TEST

START_TEST(stop_delivers_what_was_offered)
{
    int client = host_attach(&host, 0);
    bool stopped = false;
    char bytes[16] = {0};

    host_activate(&host, 0);
    host_turn(&host);
    offer_text(0, "power");
    offer_text(1, " down");
    device_stop(host.device, note, &stopped);
    while (!stopped) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(recv(client, bytes, sizeof(bytes), 0), 10);
    ck_assert_str_eq(bytes, "power down");
    ck_assert_int_eq(recv(client, bytes, sizeof(bytes), 0), 0);
    close(client);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-console");
    TCase *tests = tcase_create("virtio-console");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, carries_bytes_both_ways);
    tcase_add_test(tests, a_queue_is_reset_while_a_buffer_is_held);
    tcase_add_test(tests, a_lossless_client_holds_the_queue);
    tcase_add_test(tests, a_huge_buffer_takes_many_turns);
    tcase_add_test(tests, introduces_its_port);
    tcase_add_test(tests, reset_gives_buffers_back);
    tcase_add_test(tests, a_queue_reset_forgets_the_buffer_in_part);
    tcase_add_test(tests, emergency_write);
    tcase_add_test(tests, killed_processes_lose_nothing);
    tcase_add_test(tests, stop_delivers_what_was_offered);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
