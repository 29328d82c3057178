/* The 16550A as a guest sees it, through the register channel, and its console. */
#include "tests/unit/store_steps.h"

#include "devd/mmio.h"
#include "tests/unit/console_client.h"
#include "tests/unit/device_host.h"
#include "tests/unit/suite.h"
#include <signal.h>
#include <sys/wait.h>

extern const struct device_model device_model_serial;

enum { RBR = 0, THR = 0, DLL = 0, IER = 1, DLM = 1, IIR = 2, FCR = 2, LCR, MCR, LSR, MSR, SCR };

static struct device_host host;

static void setup(void)
{
    host_open(&host);
    host_listen(&host);
    host_start(&host, &device_model_serial, false);
}

static void teardown(void)
{
    host_close(&host);
}

/* ---- vcpud's end of the channel ---- */

static void post(uint32_t offset, uint64_t value, unsigned size, bool is_read)
{
    host_post(&host, offset, value, size, is_read);
    if (atomic_load(&host.channel->device_sleeps)) {
        host_kick(&host, 0);
    }
}

static void put(uint32_t offset, uint8_t value)
{
    post(offset, value, 1, false);
    host_turn(&host);
    ck_assert_uint_eq(atomic_load(&host.channel->tail), atomic_load(&host.channel->head));
}

static uint8_t get(uint32_t offset)
{
    eventfd_t count;

    post(offset, 0, 1, true);
    while (atomic_load(&host.channel->answer_sequence) != host.sequence) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(eventfd_read(host.reply, &count), 0);
    return (uint8_t)atomic_load(&host.channel->answer_value);
}

static bool level(void)
{
    return atomic_load(&host.channel->irq_level);
}

static void type(int client, const char *text)
{
    ck_assert_int_eq(write(client, text, strlen(text)), (ssize_t)strlen(text));
    host_turn(&host);
}

static void expect_output(int client, const char *text)
{
    char bytes[64] = {0};

    host_turn(&host);
    ssize_t got = recv(client, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);
    ck_assert_int_eq(got, *text ? (ssize_t)strlen(text) : -1);
    ck_assert_str_eq(bytes, text);
}

/* ---- Tests ---- */

START_TEST(reset_values)
{
    host_turn(&host);
    ck_assert_uint_eq(get(IER), 0);
    ck_assert_uint_eq(get(IIR), 0x01);
    ck_assert_uint_eq(get(LCR), 0);
    ck_assert_uint_eq(get(MCR), 0);
    ck_assert_uint_eq(get(LSR), 0x60);
    ck_assert_uint_eq(get(MSR), 0xb0);
    ck_assert(!level());
}
END_TEST

START_TEST(scratch_divisor_and_masks)
{
    put(SCR, 0xa5);
    ck_assert_uint_eq(get(SCR), 0xa5);
    put(LCR, 0x83);
    put(DLL, 0x34);
    put(DLM, 0x12);
    ck_assert_uint_eq(get(DLL), 0x34);
    ck_assert_uint_eq(get(DLM), 0x12);
    put(LCR, 0x03);
    ck_assert_uint_eq(get(LCR), 0x03);
    put(IER, 0xf0);
    ck_assert_uint_eq(get(IER), 0); /* only four bits exist, and DLM was another register */
    put(MCR, 0xff);
    ck_assert_uint_eq(get(MCR), 0x1f);
    put(FCR, 0x01);
    ck_assert_uint_eq(get(IIR) & 0xc0, 0xc0);
    put(FCR, 0x00);
    ck_assert_uint_eq(get(IIR) & 0xc0, 0);
    put(LSR, 0xff); /* not writable */
    ck_assert_uint_eq(get(LSR), 0x60);
    ck_assert_uint_eq(get(8), 0);
    ck_assert_uint_eq(get(0xffff), 0);
}
END_TEST

START_TEST(output_reaches_clients)
{
    int client = host_attach(&host, 0);

    put(THR, 'h');
    put(THR, 'i');
    expect_output(client, "hi");
    ck_assert_uint_eq(get(LSR), 0x60);
    close(client);
}
END_TEST

START_TEST(empty_interrupt)
{
    put(IER, 0x02);
    ck_assert(level()); /* enabling it while empty raises it */
    ck_assert(host_called(&host, 0));
    ck_assert_uint_eq(get(IIR), 0x02);
    ck_assert(!level()); /* reading IIR took it back */
    ck_assert_uint_eq(get(IIR), 0x01);
    put(THR, 'x');
    ck_assert(level()); /* written and gone again */
    put(IER, 0x00);
    ck_assert(!level());
    put(IER, 0x02);
    ck_assert(level());
    ck_assert_uint_eq(get(IIR), 0x02);
}
END_TEST

START_TEST(receive_without_fifo)
{
    int client = host_attach(&host, 0);

    put(IER, 0x01);
    type(client, "abc");
    ck_assert(level());
    ck_assert_uint_eq(get(IIR), 0x04);
    ck_assert_uint_eq(get(LSR), 0x61);
    ck_assert_uint_eq(get(RBR), 'a');
    /* The others waited on the line, nothing overran. */
    host_turn(&host);
    ck_assert_uint_eq(get(LSR), 0x61);
    ck_assert_uint_eq(get(RBR), 'b');
    host_turn(&host);
    ck_assert_uint_eq(get(RBR), 'c');
    host_turn(&host);
    ck_assert_uint_eq(get(LSR), 0x60);
    ck_assert(!level());
    ck_assert_uint_eq(get(RBR), 0);
    close(client);
}
END_TEST

START_TEST(receive_fifo_trigger_and_timeout)
{
    int client = host_attach(&host, 0);

    put(FCR, 0x81); /* trigger at 8 */
    put(IER, 0x01);
    type(client, "1234567");
    /* Below the trigger only the timeout interrupts. */
    while (!level()) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(get(IIR), 0xcc);
    ck_assert_uint_eq(get(RBR), '1');
    ck_assert(!level()); /* a read ends the timeout condition */
    type(client, "89");
    ck_assert(level());
    ck_assert_uint_eq(get(IIR), 0xc4);
    for (char c = '2'; c <= '9'; c++) {
        ck_assert_uint_eq(get(RBR), (uint8_t)c);
    }
    ck_assert(!level());
    close(client);
}
END_TEST

START_TEST(nothing_typed_is_lost_when_the_port_is_set_up)
{
    int client = host_attach(&host, 0);
    char got[64] = {0};
    unsigned count = 0;
    const char *text = "a line that is longer than the FIFO of the port\n";

    type(client, text);
    put(FCR, 0x01);
    put(FCR, 0x07); /* clears what has come */
    ck_assert_uint_eq(get(LSR), 0x60);
    ck_assert_uint_eq(get(RBR), 0); /* as drivers do */
    put(FCR, 0x00);
    put(FCR, 0xc1);
    ck_assert_uint_eq(get(RBR), 0);
    put(IER, 0x01);
    while (count < strlen(text)) {
        while (!(get(LSR) & 1)) {
            event_base_loop(host.base, EVLOOP_ONCE);
        }
        got[count++] = (char)get(RBR);
    }
    ck_assert_str_eq(got, text);
    close(client);
}
END_TEST

START_TEST(polled_guests_receive_too)
{
    int client = host_attach(&host, 0);

    put(FCR, 0x07);
    type(client, "p");
    while (!(get(LSR) & 1)) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(get(RBR), 'p');
    close(client);
}
END_TEST

START_TEST(loopback)
{
    int client = host_attach(&host, 0);

    put(FCR, 0x01);
    put(MCR, 0x10);
    type(client, "line");
    for (unsigned i = 0; i < 16; i++) {
        put(THR, (uint8_t)('A' + i));
    }
    expect_output(client, "");
    ck_assert_uint_eq(get(LSR), 0x61);
    put(IER, 0x04);
    ck_assert(!level());
    put(THR, 'Z'); /* one too many */
    ck_assert(level());
    ck_assert_uint_eq(get(IIR), 0xc6);
    ck_assert_uint_eq(get(LSR), 0x63);
    ck_assert_uint_eq(get(LSR), 0x61); /* reading took the overrun back */
    ck_assert(!level());
    for (unsigned i = 0; i < 16; i++) {
        ck_assert_uint_eq(get(RBR), 'A' + i);
    }
    ck_assert_uint_eq(get(LSR), 0x60);
    put(FCR, 0x00);
    put(THR, 'x');
    put(THR, 'y'); /* without FIFO the newer one stays */
    ck_assert_uint_eq(get(LSR), 0x63);
    ck_assert_uint_eq(get(RBR), 'y');
    put(LCR, 0x40); /* a break arrives as a zero character */
    ck_assert_uint_eq(get(LSR), 0x71);
    ck_assert_uint_eq(get(LSR), 0x61);
    ck_assert_uint_eq(get(RBR), 0);
    close(client);
}
END_TEST

START_TEST(modem_lines_in_loopback)
{
    ck_assert_uint_eq(get(MSR), 0xb0);
    put(IER, 0x08);
    put(MCR, 0x10); /* all outputs off: CTS, DSR and DCD go */
    ck_assert(level());
    ck_assert_uint_eq(get(IIR), 0x00);
    ck_assert_uint_eq(get(MSR), 0x0b);
    ck_assert(!level());
    ck_assert_uint_eq(get(MSR), 0x00);
    put(MCR, 0x1a); /* RTS is CTS, OUT2 is DCD */
    ck_assert_uint_eq(get(MSR), 0x99);
    put(MCR, 0x14); /* RI on: no delta */
    ck_assert_uint_eq(get(MSR), 0x49);
    put(MCR, 0x10); /* RI off: delta */
    ck_assert_uint_eq(get(MSR), 0x04);
}
END_TEST

START_TEST(interrupt_priority)
{
    put(FCR, 0x01);
    put(MCR, 0x10);
    get(MSR);
    put(MCR, 0x11);
    for (unsigned i = 0; i < 17; i++) {
        put(THR, 'o');
    }
    put(IER, 0x0f);
    ck_assert_uint_eq(get(IIR), 0xc6); /* line status */
    get(LSR);
    ck_assert_uint_eq(get(IIR), 0xc4); /* received */
    for (unsigned i = 0; i < 16; i++) {
        get(RBR);
    }
    ck_assert_uint_eq(get(IIR), 0xc2); /* empty */
    ck_assert_uint_eq(get(IIR), 0xc0); /* modem */
    get(MSR);
    ck_assert_uint_eq(get(IIR), 0xc1);
}
END_TEST

START_TEST(shadow_of_line_status)
{
    int client = host_attach(&host, 0);

    host_turn(&host);
    ck_assert_uint_eq(atomic_load(&host.channel->shadow_valid), 1u << LSR);
    ck_assert_uint_eq(atomic_load(&host.channel->shadow[LSR]), 0x60);
    put(IER, 0x01);
    type(client, "x");
    ck_assert_uint_eq(atomic_load(&host.channel->shadow[LSR]), 0x61);
    get(RBR);
    ck_assert_uint_eq(atomic_load(&host.channel->shadow[LSR]), 0x60);
    put(MCR, 0x10);
    put(THR, '1');
    put(THR, '2'); /* overrun: LSR has a side effect now */
    ck_assert_uint_eq(atomic_load(&host.channel->shadow_valid), 0);
    get(LSR);
    ck_assert_uint_eq(atomic_load(&host.channel->shadow_valid), 1u << LSR);
    close(client);
}
END_TEST

/* A guest that looks at the shadow before each FIFO of output loses nothing, whatever the client.
 */
START_TEST(lossless_output)
{
    int client = host_attach(&host, CONSOLE_LOSSLESS);
    const size_t total = 3 * CONSOLE_BACKLOG;
    size_t written = 0, got = 0;
    bool held = false, same = true;
    static uint8_t bytes[1 << 16];

    host_turn(&host);
    while (got < total) {
        for (unsigned burst = 0; burst < 24 && written < total; burst++) {
            if (!(atomic_load(&host.channel->shadow[LSR]) & 0x20)) {
                held = true;
                break;
            }
            for (unsigned i = 0; i < 16 && written < total; i++) {
                host_post(&host, THR, (uint8_t)(written * 7 + written / 256), 1, false);
                written++;
            }
        }
        host_kick(&host, 0);
        event_base_loop(host.base, EVLOOP_NONBLOCK);
        if (!held && written < total) {
            continue; /* let it fill up first */
        }
        ssize_t count = recv(client, bytes, sizeof(bytes), MSG_DONTWAIT);
        for (ssize_t i = 0; i < count; i++, got++) {
            same &= bytes[i] == (uint8_t)(got * 7 + got / 256);
        }
    }
    ck_assert(held);
    ck_assert(same);
    close(client);
}
END_TEST

START_TEST(hostile_accesses)
{
    post(RBR, 0, 3, true);
    post(0xffffffff, 1, 8, false);
    post(0xffffffff, 1, 255, false);
    post(RBR, 0, 0, true);
    host_turn(&host);
    ck_assert_uint_eq(atomic_load(&host.channel->answer_sequence), host.sequence);
    /* A position that cannot be: dropped, and the channel goes on. */
    atomic_store(&host.channel->head, atomic_load(&host.channel->head) + 100000);
    host_kick(&host, 0);
    host_turn(&host);
    ck_assert_uint_eq(atomic_load(&host.channel->tail), atomic_load(&host.channel->head));
    put(SCR, 1);
    ck_assert_uint_eq(get(SCR), 1);
}
END_TEST

START_TEST(wakeups_are_not_lost)
{
    /* The device says it sleeps, and an access posted without a kick is found by the next look. */
    host_turn(&host);
    ck_assert_uint_eq(atomic_load(&host.channel->device_sleeps), 1);
    for (unsigned i = 0; i < 10000; i++) {
        post(SCR, (uint8_t)i, 1, false);
        event_base_loop(host.base, EVLOOP_NONBLOCK);
        if (atomic_load(&host.channel->tail) != atomic_load(&host.channel->head)) {
            ck_abort_msg("access %u was left behind", i);
        }
    }
}
END_TEST

START_TEST(registers_survive_the_process)
{
    int client = host_attach(&host, 0);

    put(LCR, 0x83);
    put(DLL, 0x55);
    put(LCR, 0x03);
    put(FCR, 0xc1);
    put(IER, 0x05);
    put(SCR, 0x42);
    type(client, "rest");
    ck_assert_uint_eq(get(RBR), 'r');
    post(SCR, 0x43, 1, false); /* posted, not taken yet */
    device_destroy(host.device);
    close(client);

    host_start(&host, &device_model_serial, true);
    host_turn(&host);
    ck_assert_uint_eq(get(SCR), 0x43);
    ck_assert_uint_eq(get(IER), 0x05);
    ck_assert_uint_eq(get(IIR) & 0xc0, 0xc0);
    ck_assert_uint_eq(get(RBR), 'e');
    ck_assert_uint_eq(get(RBR), 's');
    ck_assert_uint_eq(get(RBR), 't');
    put(LCR, 0x83);
    ck_assert_uint_eq(get(DLL), 0x55);
}
END_TEST

/* vcpud can write where the registers are saved: a receiver that holds more than it has room for.
 */
START_TEST(hostile_saved_registers)
{
    enum { HEAD = 16, SLOT = 496, REGISTERS = 24, SAVED_FCR = 1, SAVED_MCR = 3, SAVED_COUNT = 12 };
    static const uint8_t counts[] = {2, 5, 16, 255};
    char text[2048];

    memset(text, 'x', sizeof(text));
    for (unsigned i = 0; i < sizeof(counts); i++) {
        for (unsigned fifo = 0; fifo < 2; fifo++) {
            device_destroy(host.device);
            for (unsigned slot = 0; slot < 2; slot++) {
                uint8_t *saved = host.channel->device_state + HEAD + slot * SLOT + REGISTERS;
                saved[SAVED_FCR] = (uint8_t)fifo;
                saved[SAVED_MCR] = 0;
                saved[SAVED_COUNT] = counts[i];
                saved[SAVED_COUNT + 1] = fifo ? counts[i] : 0;
            }
            host_start(&host, &device_model_serial, true);
            int client = host_attach(&host, 0);
            host_turn(&host);
            ck_assert_int_gt(write(client, text, sizeof(text)), 0);
            host_turn(&host);
            put(MCR, 0x10); /* and what comes back in loopback */
            for (unsigned n = 0; n < 300; n++) {
                put(THR, 'y');
            }
            for (unsigned n = 0; n < 40 && get(LSR) & 1; n++) {
                ck_assert_uint_lt(n, 16); /* no more than the receiver holds */
                get(RBR);
            }
            close(client);
        }
    }
}
END_TEST

/* A process that is killed at any moment: every access is acted on exactly once. The scratch
 * register would not tell, so the receive FIFO in loopback does. */
START_TEST(killed_processes_act_once)
{
    eventfd_t ignored;
    pid_t pid = 0;

    put(FCR, 0x01);
    put(MCR, 0x10);
    device_destroy(host.device);
    host.device = NULL;
    for (unsigned i = 0; i < 3000; i++) {
        if (i % 30 == 0) {
            if (pid) {
                kill(pid, SIGKILL);
                waitpid(pid, NULL, 0);
            }
            pid = fork();
            if (pid == 0) {
                host.base = event_base_new();
                host_start(&host, &device_model_serial, true);
                event_base_dispatch(host.base);
                _exit(1);
            }
        }
        post(THR, (uint8_t)i, 1, false);
        post(RBR, 0, 1, true);
        if (i % 30 == 29) {
            continue; /* the process dies while this is on its way */
        }
        while (atomic_load(&host.channel->answer_sequence) != host.sequence) {
        }
        ck_assert_uint_eq(atomic_load(&host.channel->answer_value), (uint8_t)i);
        eventfd_read(host.reply, &ignored);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
END_TEST

/* What the process of a killed one does. */
static pid_t start_process(bool mortal)
{
    long steps = mortal ? rand() % 1500 : 0;
    pid_t pid = fork();
    if (pid == 0) {
        steps_to_live = steps;
        host.base = event_base_new();
        host_start(&host, &device_model_serial, true);
        event_base_dispatch(host.base);
        _exit(1);
    }
    return pid;
}

/* A guest that reads what was typed, one register access after the other. */
static uint64_t guest_reads(uint64_t received)
{
    static uint32_t asked = SCR; /* the register that was asked for last */
    eventfd_t ignored;

    if (received == 0 && asked == SCR) {
        asked = LSR;
        host_post(&host, LSR, 0, 1, true);
    }
    if (atomic_load(&host.channel->answer_sequence) != host.sequence) {
        return received;
    }
    uint8_t value = (uint8_t)atomic_load(&host.channel->answer_value);
    eventfd_read(host.reply, &ignored);
    if (asked == RBR) {
        ck_assert_uint_eq(value, console_client_byte(received));
        received++;
    }
    asked = asked == LSR && (value & 1) ? RBR : LSR;
    host_post(&host, asked, 0, 1, true);
    return received;
}

static bool ring_has_room(void)
{
    return atomic_load(&host.channel->head) - atomic_load(&host.channel->tail) <
           MMIO_CHANNEL_RING - 4;
}

/* Whenever the process dies: its client gets every byte that the guest wrote, the guest every one
 * that was typed, none twice. */
START_TEST(killed_processes_lose_nothing_of_the_console)
{
    enum { TOTAL = 20000, LIVES = 150 };
    struct console_client client = {.host = &host, .fd = -1, .flags = CONSOLE_LOSSLESS};
    uint64_t written = 0, received = 0;
    unsigned lives = 1;
    unsigned rounds = 0;

    put(FCR, 0x01);
    put(IER, 0x01);
    device_destroy(host.device);
    host.device = NULL;
    srand(4711);
    pid_t pid = start_process(true);
    for (unsigned end = 1; written < TOTAL || received < TOTAL || client.output < TOTAL; rounds++) {
        if (rounds == end && lives < LIVES) {
            kill(pid, SIGKILL);
        }
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            pid = start_process(++lives < LIVES);
            end = rounds + 1 + (unsigned)rand() % 2000;
        }
        while (written < TOTAL && written < client.output + 3000 && ring_has_room()) {
            host_post(&host, THR, console_client_byte(written++), 1, false);
        }
        host_kick(&host, 0);
        console_client_turn(&client, received + 500 < TOTAL ? received + 500 : TOTAL);
        received = guest_reads(received);
    }
    ck_assert_uint_eq(client.output, TOTAL);
    ck_assert_uint_eq(lives, LIVES);
    console_client_close(&client);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
END_TEST

static void note(void *context)
{
    *(bool *)context = true;
}

START_TEST(stop_delivers_posted_output)
{
    int client = host_attach(&host, 0);
    bool stopped = false;
    char bytes[8] = {0};

    host_turn(&host);
    for (const char *c = "bye"; *c; c++) {
        post(THR, (uint8_t)*c, 1, false);
    }
    device_stop(host.device, note, &stopped);
    while (!stopped) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(recv(client, bytes, sizeof(bytes), 0), 3);
    ck_assert_str_eq(bytes, "bye");
    ck_assert_int_eq(recv(client, bytes, sizeof(bytes), 0), 0);
    close(client);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial");
    TCase *tests = tcase_create("serial");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, reset_values);
    tcase_add_test(tests, scratch_divisor_and_masks);
    tcase_add_test(tests, output_reaches_clients);
    tcase_add_test(tests, empty_interrupt);
    tcase_add_test(tests, receive_without_fifo);
    tcase_add_test(tests, receive_fifo_trigger_and_timeout);
    tcase_add_test(tests, nothing_typed_is_lost_when_the_port_is_set_up);
    tcase_add_test(tests, polled_guests_receive_too);
    tcase_add_test(tests, loopback);
    tcase_add_test(tests, modem_lines_in_loopback);
    tcase_add_test(tests, interrupt_priority);
    tcase_add_test(tests, shadow_of_line_status);
    tcase_add_test(tests, lossless_output);
    tcase_add_test(tests, hostile_accesses);
    tcase_add_test(tests, wakeups_are_not_lost);
    tcase_add_test(tests, registers_survive_the_process);
    tcase_add_test(tests, hostile_saved_registers);
    tcase_add_test(tests, killed_processes_act_once);
    tcase_add_test(tests, killed_processes_lose_nothing_of_the_console);
    tcase_add_test(tests, stop_delivers_posted_output);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
