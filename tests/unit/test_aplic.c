/* The APLIC: source modes, what makes an interrupt pending and what takes that away, forwarding as
 * messages, and hostile accesses. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/irqchip/aplic.h"
#include <check.h>

#define SOURCES 96

enum {
    DOMAINCFG = 0x0000,
    SETIP = 0x1c00,
    SETIPNUM = 0x1cdc,
    IN_CLRIP = 0x1d00,
    CLRIPNUM = 0x1ddc,
    SETIE = 0x1e00,
    SETIENUM = 0x1edc,
    CLRIE = 0x1f00,
    CLRIENUM = 0x1fdc,
    SETIPNUM_LE = 0x2000,
    SETIPNUM_BE = 0x2004,
    GENMSI = 0x3000,
};
enum { INACTIVE, DETACHED, EDGE1 = 4, EDGE0, LEVEL1, LEVEL0 };

static struct aplic *aplic;
static unsigned sent, last_hart, last_identity;

static void take(void *context, unsigned hart, unsigned identity)
{
    ck_assert_ptr_eq(context, &sent);
    sent++;
    last_hart = hart;
    last_identity = identity;
}

static uint32_t get(uint64_t offset)
{
    uint64_t value = 0;
    ck_assert(aplic_bus_ops.read(aplic, offset, 4, &value));
    return (uint32_t)value;
}

static void put(uint64_t offset, uint32_t value)
{
    ck_assert(aplic_bus_ops.write(aplic, offset, 4, value));
}

static uint64_t sourcecfg(unsigned source)
{
    return source * 4;
}

static uint64_t target(unsigned source)
{
    return 0x3000 + source * 4;
}

static bool pending(unsigned source)
{
    return get(SETIP + source / 32 * 4) >> (source % 32) & 1;
}

/* An active source with hart 2, identity 70 as its target, in an enabled domain. */
static void activate(unsigned source, unsigned mode)
{
    put(DOMAINCFG, 0x100);
    put(sourcecfg(source), mode);
    put(target(source), 2u << 18 | 70);
}

static void set_up(void)
{
    const struct aplic_output output = {.send = take, .context = &sent};
    aplic = aplic_create(SOURCES, &output);
    ck_assert_ptr_nonnull(aplic);
    sent = 0;
}

static void tear_down(void)
{
    aplic_destroy(aplic);
}

START_TEST(the_domain_sends_messages_and_nothing_else)
{
    ck_assert_uint_eq(get(DOMAINCFG), 0x80000004);
    put(DOMAINCFG, UINT32_MAX);
    ck_assert_uint_eq(get(DOMAINCFG), 0x80000104); /* IE; DM and BE are fixed */
    put(DOMAINCFG, ~UINT32_C(0x100));
    ck_assert_uint_eq(get(DOMAINCFG), 0x80000004);
}
END_TEST

START_TEST(source_modes)
{
    for (unsigned value = 0; value < 8; value++) {
        put(sourcecfg(5), DETACHED);
        put(sourcecfg(5), value | 0xfffff8f8u); /* reserved bits */
        ck_assert_uint_eq(get(sourcecfg(5)), value == 2 || value == 3 ? DETACHED : value);
    }
    put(sourcecfg(5), LEVEL1);
    put(sourcecfg(5), 0x400 | LEVEL0); /* there is no child to delegate to */
    ck_assert_uint_eq(get(sourcecfg(5)), INACTIVE);
    put(sourcecfg(SOURCES), EDGE1);
    ck_assert_uint_eq(get(sourcecfg(SOURCES)), EDGE1);
    put(sourcecfg(SOURCES + 1), EDGE1);
    ck_assert_uint_eq(get(sourcecfg(SOURCES + 1)), 0);
    put(sourcecfg(1023), EDGE1);
    ck_assert_uint_eq(get(sourcecfg(1023)), 0);
}
END_TEST

START_TEST(an_inactive_source_is_all_zeros)
{
    put(target(5), UINT32_MAX);
    put(SETIENUM, 5);
    put(SETIPNUM, 5);
    put(SETIP, UINT32_MAX);
    put(SETIE, UINT32_MAX);
    ck_assert_uint_eq(get(target(5)) | get(SETIE) | get(SETIP), 0);
    activate(5, DETACHED);
    put(DOMAINCFG, 0);
    put(SETIENUM, 5);
    put(SETIPNUM, 5);
    ck_assert_uint_eq(get(SETIE) & get(SETIP), 1u << 5);
    put(sourcecfg(5), INACTIVE);
    ck_assert_uint_eq(get(target(5)) | get(SETIE) | get(SETIP), 0);
    put(sourcecfg(5), DETACHED);
    ck_assert_uint_eq(get(SETIE) | get(SETIP), 0);
}
END_TEST

START_TEST(target_fields)
{
    activate(7, DETACHED);
    put(target(7), UINT32_MAX);
    ck_assert_uint_eq(get(target(7)), 0xfffc07ff); /* no guest index, bit 11 reserved */
    put(target(SOURCES + 1), UINT32_MAX);
    ck_assert_uint_eq(get(target(SOURCES + 1)), 0);
}
END_TEST

START_TEST(a_level_is_forwarded_once_until_it_is_asked_for_again)
{
    activate(10, LEVEL1);
    put(SETIENUM, 10);
    ck_assert_uint_eq(sent, 0);
    aplic_set_source(aplic, 10, true);
    ck_assert_uint_eq(sent, 1);
    ck_assert_uint_eq(last_hart, 2);
    ck_assert_uint_eq(last_identity, 70);
    ck_assert(!pending(10)); /* forwarding took it */
    ck_assert_uint_eq(get(IN_CLRIP), 1u << 10);
    aplic_set_source(aplic, 10, true);
    ck_assert_uint_eq(sent, 1);
    put(SETIPNUM_LE, 10); /* the handler is done, and the level still there */
    ck_assert_uint_eq(sent, 2);
    aplic_set_source(aplic, 10, false);
    put(SETIPNUM_LE, 10); /* and now it is not */
    put(SETIPNUM, 10);
    put(SETIP, 1u << 10);
    ck_assert_uint_eq(sent, 2);
    ck_assert(!pending(10));
    aplic_set_source(aplic, 10, true);
    ck_assert_uint_eq(sent, 3);
}
END_TEST

START_TEST(a_level_that_goes_is_no_longer_pending)
{
    activate(40, LEVEL1);
    aplic_set_source(aplic, 40, true);
    ck_assert(pending(40)); /* not enabled yet */
    aplic_set_source(aplic, 40, false);
    ck_assert(!pending(40));
    put(SETIENUM, 40);
    ck_assert_uint_eq(sent, 0);
    put(CLRIENUM, 40);
    aplic_set_source(aplic, 40, true);
    put(CLRIPNUM, 40); /* the level stays, but nothing is pending */
    ck_assert(!pending(40));
    ck_assert_uint_eq(get(IN_CLRIP + 4), 1u << 8);
    put(SETIENUM, 40);
    ck_assert_uint_eq(sent, 0);
    put(SETIPNUM, 40);
    ck_assert_uint_eq(sent, 1);
}
END_TEST

START_TEST(inverted_sources)
{
    activate(3, LEVEL0);
    ck_assert_uint_eq(get(IN_CLRIP), 1u << 3); /* low is asserted */
    ck_assert(pending(3));
    aplic_set_source(aplic, 3, true);
    ck_assert(!pending(3));
    put(SETIENUM, 3);
    aplic_set_source(aplic, 3, false);
    ck_assert_uint_eq(sent, 1);

    aplic_set_source(aplic, 4, true);
    activate(4, EDGE0);
    put(SETIENUM, 4);
    ck_assert_uint_eq(sent, 1);
    aplic_set_source(aplic, 4, false);
    ck_assert_uint_eq(sent, 2);
    aplic_set_source(aplic, 4, true);
    ck_assert_uint_eq(sent, 2);
}
END_TEST

START_TEST(edges_stay_pending)
{
    activate(20, EDGE1);
    aplic_set_source(aplic, 20, true);
    aplic_set_source(aplic, 20, false);
    ck_assert(pending(20));
    put(SETIENUM, 20);
    ck_assert_uint_eq(sent, 1);
    ck_assert(!pending(20));
    aplic_set_source(aplic, 20, true);
    aplic_set_source(aplic, 20, true);
    ck_assert_uint_eq(sent, 2);
    put(SETIPNUM, 20); /* software may, whatever the wire */
    ck_assert_uint_eq(sent, 3);
    put(CLRIE, 1u << 20);
    put(SETIPNUM, 20);
    put(IN_CLRIP, 1u << 20);
    put(SETIE, 1u << 20);
    ck_assert_uint_eq(sent, 3);
}
END_TEST

START_TEST(detached_sources_ignore_their_wire)
{
    activate(20, DETACHED);
    put(SETIENUM, 20);
    aplic_set_source(aplic, 20, true);
    ck_assert_uint_eq(sent, 0);
    ck_assert_uint_eq(get(IN_CLRIP), 0);
    put(SETIPNUM_LE, 20);
    ck_assert_uint_eq(sent, 1);
}
END_TEST

START_TEST(the_domain_enable_holds_messages_back)
{
    activate(10, LEVEL1);
    activate(11, EDGE1);
    put(SETIE, 3u << 10);
    put(DOMAINCFG, 0);
    aplic_set_source(aplic, 10, true);
    aplic_set_source(aplic, 11, true);
    ck_assert_uint_eq(sent, 0);
    put(GENMSI, 1u << 18 | 9); /* this one is not held back */
    ck_assert_uint_eq(sent, 1);
    ck_assert_uint_eq(last_hart, 1);
    ck_assert_uint_eq(last_identity, 9);
    ck_assert_uint_eq(get(GENMSI), 1u << 18 | 9); /* not busy */
    put(DOMAINCFG, 0x100);
    ck_assert_uint_eq(sent, 3);
}
END_TEST

START_TEST(a_level_that_is_there_when_its_source_becomes_active)
{
    aplic_set_source(aplic, 10, true);
    activate(10, LEVEL1);
    ck_assert(pending(10));
    put(SETIENUM, 10);
    ck_assert_uint_eq(sent, 1);
}
END_TEST

START_TEST(bits_and_numbers_of_every_source)
{
    put(DOMAINCFG, 0);
    for (unsigned i = 1; i <= SOURCES; i++) {
        put(sourcecfg(i), DETACHED);
    }
    for (unsigned i = 0; i < 1024; i++) {
        bool exists = i >= 1 && i <= SOURCES;
        uint32_t bit = exists ? 1u << (i % 32) : 0;
        put(SETIENUM, i);
        ck_assert_uint_eq(get(SETIE + i / 32 * 4), bit);
        put(CLRIE + i / 32 * 4, 1u << (i % 32));
        ck_assert_uint_eq(get(SETIE + i / 32 * 4), 0);
        put(SETIE + i / 32 * 4, 1u << (i % 32));
        put(SETIPNUM, i);
        ck_assert_uint_eq(get(SETIE + i / 32 * 4), bit);
        ck_assert_uint_eq(get(SETIP + i / 32 * 4), bit);
        put(CLRIPNUM, i);
        put(CLRIENUM, i);
        ck_assert_uint_eq(get(SETIE + i / 32 * 4) | get(SETIP + i / 32 * 4), 0);
    }
    put(SETIENUM, UINT32_MAX);
    put(SETIPNUM, 0x80000001);
    for (unsigned word = 0; word < 4; word++) {
        ck_assert_uint_eq(get(SETIE + word * 4) | get(SETIP + word * 4), 0);
    }
}
END_TEST

START_TEST(what_only_writes_reads_as_zero)
{
    static const uint16_t offsets[] = {SETIPNUM,  CLRIPNUM,    SETIENUM,    CLRIENUM, CLRIE,
                                       CLRIE + 4, SETIPNUM_LE, SETIPNUM_BE, 0x1000,   0x1bc0,
                                       0x1bc4,    0x1bff & ~3, 0x2ffc};
    activate(10, DETACHED);
    put(SETIENUM, 10);
    for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        ck_assert_uint_eq(get(offsets[i]), 0);
    }
    put(SETIPNUM_BE, 10u << 24); /* little-endian only */
    put(SETIPNUM_BE, 10);
    ck_assert_uint_eq(sent, 0);
}
END_TEST

START_TEST(odd_accesses_are_refused)
{
    static const struct {
        uint64_t offset;
        unsigned size;
    } cases[] = {{0, 1}, {0, 2}, {0, 8}, {2, 4}, {APLIC_SIZE, 4}, {UINT64_MAX - 3, 4}};
    uint64_t value;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert(!aplic_bus_ops.read(aplic, cases[i].offset, cases[i].size, &value));
        ck_assert(!aplic_bus_ops.write(aplic, cases[i].offset, cases[i].size, 1));
    }
    aplic_set_source(aplic, 0, true);
    aplic_set_source(aplic, SOURCES + 1, true);
    aplic_set_source(aplic, UINT32_MAX, true);
    const struct aplic_output output = {.send = take, .context = &sent};
    ck_assert_ptr_null(aplic_create(0, &output));
    ck_assert_ptr_null(aplic_create(APLIC_SOURCES_MAX + 1, &output));
}
END_TEST

START_TEST(reset_keeps_the_wires_only)
{
    activate(10, LEVEL1);
    put(SETIENUM, 10);
    aplic_set_source(aplic, 10, true);
    aplic_reset(aplic);
    ck_assert_uint_eq(get(DOMAINCFG), 0x80000004);
    ck_assert_uint_eq(get(sourcecfg(10)) | get(target(10)) | get(SETIE) | get(SETIP), 0);
    activate(10, LEVEL1);
    ck_assert_uint_eq(get(IN_CLRIP), 1u << 10);
    ck_assert(pending(10));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("aplic");
    TCase *tests = tcase_create("aplic");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_domain_sends_messages_and_nothing_else);
    tcase_add_test(tests, source_modes);
    tcase_add_test(tests, an_inactive_source_is_all_zeros);
    tcase_add_test(tests, target_fields);
    tcase_add_test(tests, a_level_is_forwarded_once_until_it_is_asked_for_again);
    tcase_add_test(tests, a_level_that_goes_is_no_longer_pending);
    tcase_add_test(tests, inverted_sources);
    tcase_add_test(tests, edges_stay_pending);
    tcase_add_test(tests, detached_sources_ignore_their_wire);
    tcase_add_test(tests, the_domain_enable_holds_messages_back);
    tcase_add_test(tests, a_level_that_is_there_when_its_source_becomes_active);
    tcase_add_test(tests, bits_and_numbers_of_every_source);
    tcase_add_test(tests, what_only_writes_reads_as_zero);
    tcase_add_test(tests, odd_accesses_are_refused);
    tcase_add_test(tests, reset_keeps_the_wires_only);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
