/* The power key (virtio-input) from the driver's side. */
#include "tests/unit/device_host.h"
#include <linux/input-event-codes.h>
#include <linux/virtio_input.h>
#include <string.h>

#define EVENTS 0
#define STATUS 1
#define PRESS  4 /* events of one press */

extern const struct device_model device_model_virtio_input;
extern const struct device_model device_model_virtio_rng;

static struct device_host host;

static void setup(void)
{
    host_open(&host);
    host_start(&host, &device_model_virtio_input, false);
}

static void teardown(void)
{
    host_close(&host);
}

/* ---- helpers ---- */

static uint64_t buffer_address(unsigned index)
{
    return DRIVER_DATA + index * sizeof(struct virtio_input_event);
}

/* Give the device an event buffer, each with a descriptor of its own. */
static void offer_buffer(uint16_t index, uint32_t size)
{
    memset(driver_pointer(&host.driver, buffer_address(index)), 0xee,
           sizeof(struct virtio_input_event));
    driver_describe(&host.driver, EVENTS, index, buffer_address(index), size, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, EVENTS, index);
}

static void offer_buffers(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        offer_buffer((uint16_t)i, sizeof(struct virtio_input_event));
    }
    host_kick(&host, EVENTS);
    host_turn(&host);
}

/* The next event; false when there is none. */
static bool collect(struct virtio_input_event *event)
{
    struct virtqueue_used_element element;

    if (!driver_collect(&host.driver, EVENTS, &element)) {
        return false;
    }
    ck_assert_uint_eq(element.length, sizeof(*event));
    memcpy(event, driver_pointer(&host.driver, buffer_address(element.id)), sizeof(*event));
    return true;
}

static void expect_event(unsigned type, unsigned code, unsigned value)
{
    struct virtio_input_event event;

    ck_assert(collect(&event));
    ck_assert_uint_eq(event.type, type);
    ck_assert_uint_eq(event.code, code);
    ck_assert_uint_eq(event.value, value);
}

static void expect_press(void)
{
    expect_event(EV_KEY, KEY_POWER, 1);
    expect_event(EV_SYN, SYN_REPORT, 0);
    expect_event(EV_KEY, KEY_POWER, 0);
    expect_event(EV_SYN, SYN_REPORT, 0);
}

static void expect_nothing(void)
{
    struct virtio_input_event event;
    ck_assert(!collect(&event));
}

static enum error_code press(void)
{
    struct error err;

    error_clear(&err);
    ck_assert(device_power_key(host.device, &err) == 0 || err.code != ERROR_OK);
    return err.code;
}

static int write_config(uint32_t offset, uint8_t value)
{
    return virtio_device_config_write(host.device, offset, &value, 1);
}

/* The configuration after select and subsel were written one after the other, as drivers do. */
static const struct virtio_input_config *ask(uint8_t select, uint8_t subsel)
{
    const struct virtio_state *state = host.driver.state;
    uint32_t before = state->generation;
    uint8_t seen[sizeof(state->config)];

    memcpy(seen, (const void *)state->config, sizeof(seen));
    ck_assert_int_eq(write_config(0, select), 0);
    ck_assert_int_eq(write_config(1, subsel), 0);
    /* A change has another number; what is the same may keep it. */
    if (memcmp(seen, (const void *)state->config, sizeof(seen)) != 0) {
        ck_assert_uint_ne(state->generation, before);
    }
    ck_assert_uint_eq(host.driver.state->generation & 1, 0);
    return (const struct virtio_input_config *)host.driver.state->config;
}

/* The process dies and another takes over. */
static void restart(void)
{
    device_destroy(host.device);
    host_start(&host, &device_model_virtio_input, true);
}

/* ---- tests ---- */

START_TEST(describes_one_key)
{
    const struct virtio_input_config *config = ask(VIRTIO_INPUT_CFG_ID_NAME, 0);
    static const char name[] = "polyvisor power key";

    ck_assert_uint_eq(host.driver.state->device_id, 18);
    ck_assert_uint_eq(host.driver.state->queue_count, 2);
    ck_assert_uint_eq(host.driver.state->config_length, sizeof(*config));
    ck_assert_uint_eq(config->size, sizeof(name) - 1);
    ck_assert_mem_eq(config->u.string, name, sizeof(name)); /* a zero follows */

    config = ask(VIRTIO_INPUT_CFG_ID_DEVIDS, 0);
    ck_assert_uint_eq(config->size, sizeof(config->u.ids));
    ck_assert_uint_eq(config->u.ids.vendor, 0x1af4);
    ck_assert_uint_eq(config->u.string[sizeof(config->u.ids)], 0);

    config = ask(VIRTIO_INPUT_CFG_EV_BITS, EV_KEY);
    ck_assert_uint_eq(config->size, KEY_POWER / 8 + 1);
    for (unsigned bit = 0; bit < 8 * sizeof(config->u.bitmap); bit++) {
        ck_assert_uint_eq(config->u.bitmap[bit / 8] >> bit % 8 & 1, bit == KEY_POWER);
    }
}
END_TEST

START_TEST(answers_nothing_else)
{
    for (unsigned select = 0; select < 256; select++) {
        for (unsigned subsel = 0; subsel < 256; subsel++) {
            bool known = (select == VIRTIO_INPUT_CFG_ID_NAME && subsel == 0) ||
                         (select == VIRTIO_INPUT_CFG_ID_DEVIDS && subsel == 0) ||
                         (select == VIRTIO_INPUT_CFG_EV_BITS && subsel == EV_KEY);
            const struct virtio_input_config *config = ask((uint8_t)select, (uint8_t)subsel);
            ck_assert_uint_eq(config->size != 0, known);
            ck_assert_uint_eq(config->select, select);
            ck_assert_uint_eq(config->subsel, subsel);
        }
    }
}
END_TEST

START_TEST(takes_only_select_and_subsel)
{
    static const uint8_t both[4] = {VIRTIO_INPUT_CFG_EV_BITS, EV_KEY};
    const struct virtio_input_config *config = (const void *)host.driver.state->config;

    ck_assert_int_eq(virtio_device_config_write(host.device, 0, both, 2), 0);
    ck_assert_uint_eq(config->size, KEY_POWER / 8 + 1);
    ck_assert_int_lt(virtio_device_config_write(host.device, 0, both, 4), 0);
    ck_assert_int_lt(virtio_device_config_write(host.device, 1, both, 2), 0);
    ck_assert_int_lt(write_config(2, 1), 0);
    ck_assert_int_lt(write_config(8, 1), 0);
    ck_assert_int_lt(write_config(UINT32_MAX, 1), 0);
    ck_assert_uint_eq(config->size, KEY_POWER / 8 + 1);
    /* The driver waits for the answer: an interrupt would only disturb it. */
    host_activate(&host, UINT64_MAX);
    ask(VIRTIO_INPUT_CFG_ID_NAME, 0);
    ck_assert(!host_called(&host, 2));
}
END_TEST

START_TEST(a_press_is_four_events)
{
    host_activate(&host, UINT64_MAX);
    offer_buffers(2 * PRESS);
    expect_nothing();
    ck_assert_int_eq(press(), ERROR_OK);
    ck_assert(host_called(&host, EVENTS));
    expect_press();
    expect_nothing();
    ck_assert_int_eq(press(), ERROR_OK);
    expect_press();
    expect_nothing();
}
END_TEST

START_TEST(a_press_waits_for_buffers)
{
    host_activate(&host, UINT64_MAX);
    offer_buffers(1);
    ck_assert_int_eq(press(), ERROR_OK);
    expect_event(EV_KEY, KEY_POWER, 1);
    expect_nothing();
    /* Pressing on meanwhile is the same press. */
    ck_assert_int_eq(press(), ERROR_OK);
    ck_assert_int_eq(press(), ERROR_OK);
    offer_buffers(DRIVER_QUEUE_SIZE);
    expect_event(EV_SYN, SYN_REPORT, 0);
    expect_event(EV_KEY, KEY_POWER, 0);
    expect_event(EV_SYN, SYN_REPORT, 0);
    expect_nothing();
}
END_TEST

START_TEST(nobody_listens)
{
    ck_assert_int_eq(press(), ERROR_STATE); /* no driver */
    host.driver.state->queues[EVENTS].enabled = 0;
    host_activate(&host, UINT64_MAX);
    ck_assert_int_eq(press(), ERROR_STATE); /* no queue */
    device_destroy(host.device);
    host_start(&host, &device_model_virtio_rng, false);
    ck_assert_int_eq(press(), ERROR_UNSUPPORTED); /* no key */
}
END_TEST

static void note_reset(void *context)
{
    ++*(unsigned *)context;
}

START_TEST(a_reset_forgets_the_press)
{
    unsigned resets = 0;

    host_activate(&host, UINT64_MAX);
    offer_buffers(1);
    ck_assert_int_eq(press(), ERROR_OK);
    expect_event(EV_KEY, KEY_POWER, 1);
    virtio_device_reset(host.device, note_reset, &resets);
    ck_assert_uint_eq(resets, 1);
    ck_assert_int_eq(press(), ERROR_STATE);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    host_activate(&host, UINT64_MAX);
    offer_buffers(PRESS);
    expect_nothing();
    ck_assert_int_eq(press(), ERROR_OK);
    expect_press();
}
END_TEST

START_TEST(a_successor_goes_on)
{
    host_activate(&host, UINT64_MAX);
    ask(VIRTIO_INPUT_CFG_EV_BITS, EV_KEY);
    offer_buffers(1 + PRESS);
    ck_assert_int_eq(press(), ERROR_OK);
    expect_press();
    restart();
    /* The driver finds the answer to its last question, and the key works without being set up. */
    ck_assert_uint_eq(host.driver.state->config[2], KEY_POWER / 8 + 1);
    expect_nothing();
    offer_buffer(5, sizeof(struct virtio_input_event));
    offer_buffer(6, sizeof(struct virtio_input_event));
    offer_buffer(7, sizeof(struct virtio_input_event));
    ck_assert_int_eq(press(), ERROR_OK);
    expect_press();
}
END_TEST

START_TEST(a_successor_gives_back_what_was_taken)
{
    static struct virtqueue ring;
    static struct virtqueue_chain chain;

    host_activate(&host, UINT64_MAX);
    offer_buffers(1 + PRESS);
    /* Died between taking the first buffer and completing it. */
    ck_assert_int_eq(virtqueue_open(&ring, &host.driver.memory, &host.driver.state->queues[EVENTS],
                                    driver_features(&host.driver)),
                     0);
    ck_assert_int_eq(virtqueue_take(&ring, &chain), 1);
    restart();
    expect_event(EV_SYN, SYN_REPORT, 0);
    expect_nothing();
    ck_assert_int_eq(press(), ERROR_OK);
    expect_press();
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

START_TEST(small_buffers_break_the_device)
{
    host_activate(&host, UINT64_MAX);
    offer_buffer(0, sizeof(struct virtio_input_event) - 1);
    ck_assert_int_eq(press(), ERROR_OK);
    expect_nothing();
    ck_assert_uint_eq(host.driver.state->needs_reset, 1);
    ck_assert_int_eq(press(), ERROR_STATE);
}
END_TEST

START_TEST(status_events_are_taken)
{
    struct virtqueue_used_element element;

    host_activate(&host, UINT64_MAX);
    driver_describe(&host.driver, STATUS, 3, DRIVER_DATA, 8, 0, 0);
    driver_offer(&host.driver, STATUS, 3);
    host_kick(&host, STATUS);
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, STATUS, &element));
    ck_assert_uint_eq(element.id, 3);
    ck_assert_uint_eq(element.length, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-input");
    TCase *tests = tcase_create("power key");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, describes_one_key);
    tcase_add_test(tests, answers_nothing_else);
    tcase_add_test(tests, takes_only_select_and_subsel);
    tcase_add_test(tests, a_press_is_four_events);
    tcase_add_test(tests, a_press_waits_for_buffers);
    tcase_add_test(tests, nobody_listens);
    tcase_add_test(tests, a_reset_forgets_the_press);
    tcase_add_test(tests, a_successor_goes_on);
    tcase_add_test(tests, a_successor_gives_back_what_was_taken);
    tcase_add_test(tests, small_buffers_break_the_device);
    tcase_add_test(tests, status_events_are_taken);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
