/* The further ports of virtio-console: who hears what of them, and whose bytes are whose. */
#define DRIVER_QUEUES 8 /* of three ports */
#include "tests/unit/device_host.h"
#include <linux/virtio_console.h>

extern const struct device_model device_model_virtio_console;

enum { TELL = 2, HEAR = 3, ROOMS = 8 };
enum { FIRST, STREAM, SCREEN, PORTS }; /* ports */

static struct device_host host;
static unsigned rooms; /* offered to TELL */

static unsigned receive_queue(unsigned port)
{
    return port ? 2 + 2 * port : 0;
}

static unsigned transmit_queue(unsigned port)
{
    return receive_queue(port) + 1;
}

/* An abstract socket that listens. */
static void address_of(struct sockaddr_un *address, unsigned port, bool plain)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "pv-ports-%d-%u-%d",
             (int)getpid(), port, plain);
}

static int serve(unsigned port, bool plain)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    address_of(&address, port, plain);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 16), 0);
    return fd;
}

/* A client with a name, or a plain one. */
static int join(unsigned port, uint64_t id)
{
    const struct console_hello hello = {.magic = CONSOLE_MAGIC, .id = id};
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address_of(&address, port, id == 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (id) {
        struct console_welcome welcome;
        ck_assert_int_eq(write(fd, &hello, sizeof(hello)), sizeof(hello));
        host_turn(&host);
        ck_assert_int_eq(read(fd, &welcome, sizeof(welcome)), sizeof(welcome));
    }
    host_turn(&host);
    return fd;
}

static void leave(int fd)
{
    close(fd);
    host_turn(&host);
}

static void start(bool restart)
{
    host_start(&host, &device_model_virtio_console, restart);
}

static void setup(void)
{
    host_open(&host);
    host_listen(&host);
    host.port_settings[0] = (char *)"org.test.0,path=/somewhere";
    host.port_settings[1] = (char *)"screen,console";
    host.port_count = 2;
    for (unsigned i = 0; i < host.port_count; i++) {
        host.ports[i] =
            (struct device_port){serve(i + 1, false), serve(i + 1, true), host_console_memory()};
    }
    rooms = 0;
    start(false);
}

static void teardown(void)
{
    for (unsigned i = 0; i < host.port_count; i++) {
        close(host.ports[i].listener);
        close(host.ports[i].plain);
        close(host.ports[i].memory);
    }
    host_close(&host);
}

static uint64_t buffer(unsigned queue, unsigned slot)
{
    return DRIVER_DATA + queue * 0x40000u + slot * 0x4000u;
}

static void offer_room(unsigned queue, unsigned slot)
{
    driver_describe(&host.driver, queue, slot, buffer(queue, slot), 64, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, queue, (uint16_t)slot);
    host_kick(&host, queue);
    host_turn(&host);
}

static void print(unsigned port, const char *text)
{
    static uint16_t slot;
    unsigned queue = transmit_queue(port);

    slot = (slot + 1) % DRIVER_QUEUE_SIZE;
    memcpy(driver_pointer(&host.driver, buffer(queue, slot)), text, strlen(text));
    driver_describe(&host.driver, queue, slot, buffer(queue, slot), (uint32_t)strlen(text), 0, 0);
    driver_offer(&host.driver, queue, slot);
    host_kick(&host, queue);
    host_turn(&host);
}

static void expect(int fd, const char *text)
{
    char bytes[128] = {0};
    ssize_t got = recv(fd, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);

    ck_assert_int_eq(got, text[0] ? (ssize_t)strlen(text) : -1);
    ck_assert_str_eq(bytes, text);
}

static void say_bytes(const void *bytes, size_t size)
{
    static uint16_t slot;

    slot = (slot + 1) % DRIVER_QUEUE_SIZE;
    memcpy(driver_pointer(&host.driver, buffer(HEAR, slot)), bytes, size);
    driver_describe(&host.driver, HEAR, slot, buffer(HEAR, slot), (uint32_t)size, 0, 0);
    driver_offer(&host.driver, HEAR, slot);
    host_kick(&host, HEAR);
    host_turn(&host);
}

static void say(uint32_t port, uint16_t event, uint16_t value)
{
    const struct virtio_console_control control = {.id = port, .event = event, .value = value};
    say_bytes(&control, sizeof(control));
}

/* The next message, "" when there is none. Its room is offered again. */
static const char *told(void)
{
    static char text[128];
    struct virtqueue_used_element element;
    struct virtio_console_control control;

    text[0] = '\0';
    if (driver_collect(&host.driver, TELL, &element)) {
        const uint8_t *bytes = driver_pointer(&host.driver, buffer(TELL, element.id));
        ck_assert_uint_ge(element.length, sizeof(control));
        memcpy(&control, bytes, sizeof(control));
        snprintf(text, sizeof(text), "%u %u %u%s%.*s", control.id, control.event, control.value,
                 element.length > sizeof(control) ? " " : "",
                 (int)(element.length - sizeof(control)), bytes + sizeof(control));
        offer_room(TELL, element.id);
    }
    return text;
}

static void activate(void)
{
    host_activate(&host, UINT64_MAX);
    for (unsigned slot = 0; slot < ROOMS; slot++) {
        offer_room(TELL, slot);
    }
}

/* As a driver does. */
static void introduce(void)
{
    activate();
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (uint32_t port = 0; port < PORTS; port++) {
        say(port, VIRTIO_CONSOLE_PORT_READY, 1);
        say(port, VIRTIO_CONSOLE_PORT_OPEN, 1);
    }
    while (told()[0]) {
    }
}

START_TEST(ports_are_introduced)
{
    struct virtio_console_config config;

    memcpy(&config, host.driver.state->config, sizeof(config));
    ck_assert_uint_eq(config.max_nr_ports, PORTS);
    activate();
    ck_assert_str_eq(told(), "");
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    ck_assert_str_eq(told(), "0 1 1");
    ck_assert_str_eq(told(), "1 1 1");
    ck_assert_str_eq(told(), "2 1 1");
    ck_assert_str_eq(told(), "");
    say(STREAM, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(told(), "1 7 1 org.test.0");
    ck_assert_str_eq(told(), "1 6 0"); /* nobody is there */
    ck_assert_str_eq(told(), "");
    say(SCREEN, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(told(), "2 4 1");
    ck_assert_str_eq(told(), "2 7 1 screen");
    ck_assert_str_eq(told(), "2 6 1");
    ck_assert_str_eq(told(), "");
}
END_TEST

START_TEST(the_guest_hears_who_is_there)
{
    introduce();
    int first = join(STREAM, 7), second = join(STREAM, 0);
    ck_assert_str_eq(told(), "1 6 1");
    leave(first);
    ck_assert_str_eq(told(), "");
    leave(second);
    /* The guest takes no input now, so that is seen a little later. */
    const char *text;
    while (!(text = told())[0]) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_str_eq(text, "1 6 0");
    int third = join(SCREEN, 8);
    ck_assert_str_eq(told(), ""); /* a terminal is always there */
    leave(third);
    ck_assert_str_eq(told(), "");
}
END_TEST

/* Somebody's terminal has so many columns and rows. */
static void size_port(unsigned port, uint64_t columns, uint64_t rows)
{
    const struct console_hello hello = {
        .magic = CONSOLE_MAGIC, .flags = CONSOLE_SIZE, .output = columns, .input = rows};
    struct sockaddr_un address;
    char byte;
    int fd = port ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : host_attach(&host, -1);

    if (port) {
        address_of(&address, port, false);
        ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    }
    ck_assert_int_eq(write(fd, &hello, sizeof(hello)), sizeof(hello));
    host_turn(&host);
    host_turn(&host);
    ck_assert_int_eq(read(fd, &byte, 1), 0); /* it is no client */
    leave(fd);
}

enum { COLUMNS = 0x6261, ROWS = 0x6463 }; /* "abcd", as they are sent */

static void expect_config(uint16_t columns, uint16_t rows)
{
    struct virtio_console_config config;

    memcpy(&config, host.driver.state->config, sizeof(config));
    ck_assert_uint_eq(config.cols, columns);
    ck_assert_uint_eq(config.rows, rows);
}

START_TEST(the_guest_hears_of_a_terminals_size)
{
    introduce();
    size_port(SCREEN, COLUMNS, ROWS);
    ck_assert_str_eq(told(), "2 5 1 abcd");
    size_port(SCREEN, COLUMNS, ROWS);
    ck_assert_str_eq(told(), ""); /* it has it already */
    size_port(SCREEN, 0, 24);
    size_port(SCREEN, 80, 0);
    size_port(SCREEN, 65536, 24);
    size_port(SCREEN, 80, UINT64_MAX);
    size_port(STREAM, 80, 24); /* no terminal */
    ck_assert_str_eq(told(), "");
    size_port(FIRST, COLUMNS + 1, ROWS);
    ck_assert_str_eq(told(), "0 5 1 bbcd");
    expect_config(COLUMNS + 1, ROWS);
    /* With another process, too. */
    device_destroy(host.device);
    start(true);
    host_turn(&host);
    while (told()[0]) {
    }
    say(SCREEN, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(told(), "2 4 1");
    ck_assert_str_eq(told(), "2 5 1 abcd");
    ck_assert_str_eq(told(), "2 7 1 screen");
    ck_assert_str_eq(told(), "2 6 1");
    ck_assert_str_eq(told(), "");
    expect_config(COLUMNS + 1, ROWS);
}
END_TEST

START_TEST(a_driver_of_one_port_reads_the_size)
{
    host_activate(&host, ~(UINT64_C(1) << VIRTIO_CONSOLE_F_MULTIPORT));
    expect_config(0, 0);
    size_port(FIRST, COLUMNS, ROWS);
    expect_config(COLUMNS, ROWS);
    ck_assert_uint_eq(host.driver.state->told, host.driver.state->generation); /* by an interrupt */
    size_port(SCREEN, 80, 24);
    expect_config(COLUMNS, ROWS);
}
END_TEST

START_TEST(a_driver_that_takes_no_size_hears_of_none)
{
    host_activate(&host, ~(UINT64_C(1) << VIRTIO_CONSOLE_F_SIZE));
    for (unsigned slot = 0; slot < ROOMS; slot++) {
        offer_room(TELL, slot);
    }
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    say(SCREEN, VIRTIO_CONSOLE_PORT_READY, 1);
    while (told()[0]) {
    }
    size_port(SCREEN, COLUMNS, ROWS);
    size_port(FIRST, COLUMNS, ROWS);
    ck_assert_str_eq(told(), "");
}
END_TEST

START_TEST(each_port_has_its_own_bytes)
{
    introduce();
    int stream = join(STREAM, 7), screen = join(SCREEN, 8), first = host_attach(&host, 0);

    print(STREAM, "to the stream");
    print(SCREEN, "to the screen");
    print(FIRST, "to the first");
    expect(stream, "to the stream");
    expect(screen, "to the screen");
    expect(first, "to the first");
    for (unsigned port = 0; port < PORTS; port++) {
        offer_room(receive_queue(port), 0);
    }
    ck_assert_int_eq(write(screen, "typed", 5), 5);
    host_turn(&host);
    struct virtqueue_used_element element;
    ck_assert(!driver_collect(&host.driver, receive_queue(STREAM), &element));
    ck_assert(!driver_collect(&host.driver, receive_queue(FIRST), &element));
    ck_assert(driver_collect(&host.driver, receive_queue(SCREEN), &element));
    ck_assert_uint_eq(element.length, 5);
    ck_assert_mem_eq(driver_pointer(&host.driver, buffer(receive_queue(SCREEN), 0)), "typed", 5);
    leave(stream);
    leave(screen);
    leave(first);
}
END_TEST

START_TEST(a_stream_gives_nothing_twice)
{
    introduce();
    print(STREAM, "kept ");
    int first = join(STREAM, 7);
    expect(first, "kept ");
    print(STREAM, "one ");
    int second = join(STREAM, 0);
    print(STREAM, "both ");
    expect(first, "one both ");
    expect(second, "both ");
    leave(first);
    leave(second);
    print(STREAM, "later");
    /* Also with another process. */
    device_destroy(host.device);
    start(true);
    host_turn(&host);
    int third = join(STREAM, 0);
    expect(third, "later");
    print(SCREEN, "shown ");
    int screen = join(SCREEN, 8), again = join(SCREEN, 0);
    expect(screen, "shown ");
    expect(again, "shown ");
    leave(third);
    leave(screen);
    leave(again);
}
END_TEST

/* Nobody reads the stream: it waits when a backlog is full, and no other port does. */
START_TEST(a_port_that_waits_holds_up_no_other)
{
    struct virtqueue_used_element element;
    unsigned queue = transmit_queue(STREAM);
    static uint8_t bytes[1 << 16];
    size_t got = 0;

    introduce();
    driver_describe(&host.driver, queue, 0, DRIVER_DATA + 0x400000, 3u << 20, 0, 0);
    driver_offer(&host.driver, queue, 0);
    host_kick(&host, queue);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, queue, &element));
    int screen = join(SCREEN, 8);
    print(SCREEN, "goes on");
    expect(screen, "goes on");
    ck_assert(driver_collect(&host.driver, transmit_queue(SCREEN), &element));
    int reader = join(STREAM, 7);
    while (got < 3u << 20) {
        host_turn(&host);
        ssize_t count = recv(reader, bytes, sizeof(bytes), MSG_DONTWAIT);
        got += count > 0 ? (size_t)count : 0;
    }
    ck_assert(driver_collect(&host.driver, queue, &element));
    leave(screen);
    leave(reader);
}
END_TEST

START_TEST(input_waits_until_the_guest_opens_the_port)
{
    struct virtqueue_used_element element;
    unsigned queue = receive_queue(STREAM);

    activate();
    offer_room(queue, 0);
    offer_room(queue, 1);
    int client = join(STREAM, 0);
    ck_assert_int_eq(write(client, "early", 5), 5);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, queue, &element));
    say(STREAM, VIRTIO_CONSOLE_PORT_OPEN, 1);
    ck_assert(driver_collect(&host.driver, queue, &element));
    /* The next process knows that it is open, and that another is not. */
    device_destroy(host.device);
    leave(client);
    start(true);
    host_turn(&host);
    client = join(STREAM, 0);
    ck_assert_int_eq(write(client, "late", 4), 4);
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, queue, &element));
    ck_assert_uint_eq(element.length, 4);
    offer_room(receive_queue(SCREEN), 0);
    int screen = join(SCREEN, 8);
    ck_assert_int_eq(write(screen, "x", 1), 1);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, receive_queue(SCREEN), &element));
    say(STREAM, VIRTIO_CONSOLE_PORT_OPEN, 0);
    offer_room(queue, 2);
    ck_assert_int_eq(write(client, "x", 1), 1);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, queue, &element));
    leave(client);
    leave(screen);
}
END_TEST

/* Its successor tells of every port again, and of who is there. */
START_TEST(a_successor_introduces_them_again)
{
    introduce();
    int client = join(STREAM, 0);
    ck_assert_str_eq(told(), "1 6 1");
    device_destroy(host.device);
    start(true);
    host_turn(&host);
    ck_assert_str_eq(told(), "0 1 1");
    ck_assert_str_eq(told(), "1 1 1");
    ck_assert_str_eq(told(), "2 1 1");
    say(STREAM, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(told(), "1 7 1 org.test.0");
    ck_assert_str_eq(told(), "1 6 0"); /* the plain client's connection ended */
    leave(client);
    client = join(STREAM, 0);
    ck_assert_str_eq(told(), "1 6 1");
    leave(client);
}
END_TEST

START_TEST(a_named_client_is_expected_back)
{
    introduce();
    int client = join(STREAM, 7);
    ck_assert_str_eq(told(), "1 6 1");
    device_destroy(host.device);
    start(true);
    host_turn(&host);
    say(STREAM, VIRTIO_CONSOLE_PORT_READY, 1);
    for (const char *text; (text = told())[0];) {
        ck_assert_str_ne(text, "1 6 0");
    }
    leave(client);
}
END_TEST

START_TEST(hostile_messages_do_no_harm)
{
    static const uint32_t ids[] = {0, 1, 2, 3, 6, 7, 31, 0x7fffffff, 0x80000000, UINT32_MAX};
    const uint8_t rubbish[64] = {1, 2, 3};

    activate();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
            for (uint16_t event = 0; event < 10; event++) {
                say(ids[i], event, (uint16_t)(round * 0x7fff));
                say(ids[i], event, 1);
                while (told()[0]) {
                }
            }
        }
        for (size_t size = 1; size < sizeof(rubbish); size++) {
            say_bytes(rubbish, size);
        }
    }
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
    introduce();
    int client = join(STREAM, 7);
    print(STREAM, "alive");
    expect(client, "alive");
    leave(client);
}
END_TEST

static void note(void *context)
{
    *(bool *)context = true;
}

START_TEST(a_reset_closes_them)
{
    struct virtqueue_used_element element;
    bool done = false;

    introduce();
    offer_room(receive_queue(STREAM), 0);
    virtio_device_reset(host.device, note, &done);
    ck_assert(done);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    activate();
    ck_assert_str_eq(told(), "");
    offer_room(receive_queue(STREAM), 0);
    int client = join(STREAM, 0);
    ck_assert_str_eq(told(), ""); /* the driver is not ready to hear that */
    ck_assert_int_eq(write(client, "x", 1), 1);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, receive_queue(STREAM), &element));
    leave(client);
}
END_TEST

START_TEST(stop_delivers_what_every_port_has)
{
    bool stopped = false;

    introduce();
    int stream = join(STREAM, 0), screen = join(SCREEN, 8);
    print(STREAM, "last words");
    print(SCREEN, "of both");
    device_stop(host.device, note, &stopped);
    while (!stopped) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    expect(stream, "last words");
    expect(screen, "of both");
    close(stream);
    close(screen);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console ports");
    TCase *tests = tcase_create("console ports");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, ports_are_introduced);
    tcase_add_test(tests, the_guest_hears_who_is_there);
    tcase_add_test(tests, the_guest_hears_of_a_terminals_size);
    tcase_add_test(tests, a_driver_of_one_port_reads_the_size);
    tcase_add_test(tests, a_driver_that_takes_no_size_hears_of_none);
    tcase_add_test(tests, each_port_has_its_own_bytes);
    tcase_add_test(tests, a_stream_gives_nothing_twice);
    tcase_add_test(tests, a_port_that_waits_holds_up_no_other);
    tcase_add_test(tests, input_waits_until_the_guest_opens_the_port);
    tcase_add_test(tests, a_successor_introduces_them_again);
    tcase_add_test(tests, a_named_client_is_expected_back);
    tcase_add_test(tests, hostile_messages_do_no_harm);
    tcase_add_test(tests, a_reset_closes_them);
    tcase_add_test(tests, stop_delivers_what_every_port_has);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
