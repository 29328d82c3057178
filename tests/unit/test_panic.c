/* What is read of a console's output: the guest's kernel says that it panicked. */
#include "devd/panic.h"
#include "tests/unit/store_steps.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct event_base *base;
static struct console_memory *memory;
static struct panic_watch *watch;
static uint64_t written;
static unsigned told;
static char report[PANIC_REPORT_MAX];

static void panicked(void *context)
{
    (void)context;
    told++;
}

static void start(void)
{
    watch = panic_watch_create(base, memory, written, panicked, NULL);
    ck_assert_ptr_nonnull(watch);
}

static void setup(void)
{
    base = event_base_new();
    memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    written = told = 0;
    start();
}

static void teardown(void)
{
    panic_watch_destroy(watch);
    munmap(memory, sizeof(*memory));
    event_base_free(base);
}

static void print(const char *text)
{
    for (; *text; text++) {
        memory->ring[written++ % CONSOLE_RING] = (uint8_t)*text;
    }
}

static void look(void)
{
    panic_watch_look(watch, written);
}

static void expect(const char *text)
{
    if (!text) {
        ck_assert(!panic_watch_report(watch, report));
        return;
    }
    ck_assert(panic_watch_report(watch, report));
    ck_assert_str_eq(report, text);
}

static const char last_words[] = "login: [    8.1] sysrq: Trigger a crash\r\n"
                                 "[    8.2] Kernel panic - not syncing: sysrq\ttriggered crash\r\n"
                                 "[    8.3] Call Trace:\r\n"
                                 "[    8.4] ---[ end Kernel panic - not syncing: sysrq triggered "
                                 "crash ]---\r\n";

START_TEST(a_panic_is_read)
{
    print("Kernel panic is what this is not\nKernel panic - not syncing:\n");
    look();
    expect(NULL);
    print(last_words);
    look();
    expect("1 ended sysrq?triggered crash");
    ck_assert_uint_eq(told, 1);
    look();
    ck_assert_uint_eq(told, 1);
}
END_TEST

START_TEST(in_pieces_it_is_the_same)
{
    const size_t begins = (size_t)(strstr(last_words, "\r\n[    8.3]") - last_words);

    for (size_t i = 0; last_words[i]; i++) {
        const char piece[] = {last_words[i], '\0'};
        print(piece);
        look();
        bool whole = i > begins;
        ck_assert_int_eq(panic_watch_report(watch, report), whole);
        if (whole && i < strlen(last_words) - 2) {
            expect("1 begun sysrq?triggered crash");
        }
    }
    expect("1 ended sysrq?triggered crash");
}
END_TEST

START_TEST(each_one_counts)
{
    print("Kernel panic - not syncing: one\nKernel panic - not syncing: two\n");
    look();
    expect("2 begun two");
    print("---[ end Kernel panic - not syncing: two ]---\n");
    look();
    expect("2 ended two");
    print("---[ end Kernel panic - not syncing: two ]---\n");
    print("Kernel panic - not syncing: Kernel panic - not syncing: three\n");
    look();
    expect("4 begun three");
}
END_TEST

START_TEST(an_end_without_a_beginning_is_nothing)
{
    print("---[ end Kernel panic - not syncing: before our time ]---\n");
    look();
    expect(NULL);
}
END_TEST

START_TEST(what_is_kept_is_short_and_printable)
{
    char wanted[PANIC_REPORT_MAX] = "1 begun ";

    print("Kernel panic - not syncing: ");
    for (unsigned i = 0; i < 5000; i++) {
        print(i % 3 ? "\xc3" : "\x1b");
    }
    look();
    memset(wanted + strlen(wanted), '?', CONSOLE_PANIC_TEXT - 1);
    expect(wanted);
}
END_TEST

/* At each place of the window and of the ring. */
START_TEST(it_is_found_anywhere)
{
    for (unsigned i = 0; i < 600; i++) {
        for (unsigned filler = i % 3 ? 4096 - 300 + i : CONSOLE_RING / 150 + i; filler > 0;
             filler--) {
            print("Kern");
        }
        print("el panic - not syncing: Kernel panic - not syncing: here\n");
        look();
        char wanted[PANIC_REPORT_MAX];
        snprintf(wanted, sizeof(wanted), "%u begun here", 2 * (i + 1));
        expect(wanted);
    }
}
END_TEST

START_TEST(more_than_the_ring_holds_is_not_looked_at)
{
    print("Kernel panic - not syncing: lost\n");
    for (unsigned i = 0; i < CONSOLE_RING / 16; i++) {
        print("0123456789abcdef");
    }
    print("Kernel panic - not syncing: kept\n");
    look();
    expect("1 begun kept");
}
END_TEST

/* A process that dies at any instant, and its successors: nothing is lost or counted twice. */
START_TEST(a_successor_goes_on)
{
    for (long steps = 1; steps < 12; steps++) {
        memset(memory, 0, sizeof(*memory));
        written = 0;
        print("Kernel panic - not syncing: one\n");
        print(last_words);
        print("Kernel panic - not syncing: three\n");
        pid_t child = fork();
        if (child == 0) {
            steps_to_live = steps;
            start();
            look();
            _exit(0);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        panic_watch_destroy(watch);
        start();
        look();
        expect("3 begun three");
        ck_assert(WIFSIGNALED(status) || steps > 8);
    }
}
END_TEST

START_TEST(damaged_memory_is_survived)
{
    for (unsigned i = 0; i < 2; i++) {
        memory->panics[i] = (struct console_panic){.examined = UINT64_MAX, .count = 7, .ended = 9};
        memset(memory->panics[i].text, 0x80, sizeof(memory->panics[i].text));
    }
    atomic_store(&memory->panic_selected, 0xffffffff);
    print("some output");
    panic_watch_destroy(watch);
    start();
    ck_assert(panic_watch_report(watch, report));
    ck_assert_uint_eq(strlen(report), strlen("7 ended ") + CONSOLE_PANIC_TEXT - 1);
    print("Kernel panic - not syncing: new\n");
    look();
    expect("8 begun new");
}
END_TEST

/* News that come fast are told a little later, as one. */
START_TEST(it_is_not_told_all_the_time)
{
    for (unsigned i = 0; i < 1000; i++) {
        print("Kernel panic - not syncing: again\n");
        look();
    }
    ck_assert_uint_lt(told, 100);
    unsigned before = told;
    while (told == before) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    expect("1000 begun again");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("panic");
    TCase *tcase = tcase_create("panic");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, a_panic_is_read);
    tcase_add_test(tcase, in_pieces_it_is_the_same);
    tcase_add_test(tcase, each_one_counts);
    tcase_add_test(tcase, an_end_without_a_beginning_is_nothing);
    tcase_add_test(tcase, what_is_kept_is_short_and_printable);
    tcase_add_test(tcase, it_is_found_anywhere);
    tcase_add_test(tcase, more_than_the_ring_holds_is_not_looked_at);
    tcase_add_test(tcase, a_successor_goes_on);
    tcase_add_test(tcase, damaged_memory_is_survived);
    tcase_add_test(tcase, it_is_not_told_all_the_time);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
