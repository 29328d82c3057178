/* The text of --net: what it may say, what it becomes, and that each mistake is named. */
#include "libshared/net/setting.h"
#include "tests/unit/suite.h"
#include <arpa/inet.h>
#include <stdio.h>

static struct net_setting setting;
static struct error err;

static int parse(const char *text)
{
    error_clear(&err);
    return net_setting_parse(text, ERROR_USAGE, &setting, &err);
}

START_TEST(the_plain_kinds)
{
    ck_assert_int_eq(parse("user"), 0);
    ck_assert_int_eq(setting.kind, NET_USER);
    ck_assert_uint_eq(setting.queues, 1);
    ck_assert_uint_eq(setting.mtu, 0);
    ck_assert(!setting.has_mac);
    ck_assert_int_eq(parse("tap,ifname=tap0"), 0);
    ck_assert_int_eq(setting.kind, NET_TAP);
    ck_assert_str_eq(setting.ifname, "tap0");
    ck_assert_int_eq(parse("link,path=/tmp/a,,b"), 0);
    ck_assert_int_eq(setting.kind, NET_LINK);
    ck_assert_str_eq(setting.path, "/tmp/a,b");
}
END_TEST

START_TEST(properties_of_every_kind)
{
    static const uint8_t mac[] = {0x52, 0x54, 0x00, 0xAB, 0xcd, 0xef};

    ck_assert_int_eq(parse("user,mac=52:54:00:AB:cd:ef,mtu=9000,queues=4"), 0);
    ck_assert(setting.has_mac);
    ck_assert_mem_eq(setting.mac, mac, sizeof(mac));
    ck_assert_uint_eq(setting.mtu, 9000);
    ck_assert_uint_eq(setting.queues, 4);
    ck_assert_int_eq(parse("link,queues=7,path=/l"), 0);
    ck_assert_int_eq(parse("tap,mtu=65521,ifname=t"), 0);
}
END_TEST

START_TEST(forwards)
{
    char text[64];

    ck_assert_int_eq(parse("user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-10.0.2.9:5353,"
                           "hostfwd=tcp:[::1]:8080-:80,hostfwd=udp:[::]:9-[fec0::9]:99"),
                     0);
    ck_assert_uint_eq(setting.forward_count, 4);
    ck_assert(!setting.forwards[0].is_udp);
    ck_assert_int_eq(setting.forwards[0].host.ip4.sin_port, htons(2222));
    ck_assert_uint_eq(setting.forwards[0].host.ip4.sin_addr.s_addr, htonl(0x7f000001));
    ck_assert_uint_eq(setting.forwards[0].guest.ip4.sin_addr.s_addr, 0);
    ck_assert(setting.forwards[1].is_udp);
    ck_assert_uint_eq(setting.forwards[1].guest.ip4.sin_addr.s_addr, htonl(0x0a000209));
    /* The guest's side follows the family of the host's. */
    ck_assert_int_eq(setting.forwards[2].guest.any.sa_family, AF_INET6);
    ck_assert_int_eq(setting.forwards[2].guest.ip6.sin6_port, htons(80));
    net_address_format(&setting.forwards[3].guest, text, sizeof(text));
    ck_assert_str_eq(text, "[fec0::9]:99");
    net_address_format(&setting.forwards[0].host, text, sizeof(text));
    ck_assert_str_eq(text, "127.0.0.1:2222");
}
END_TEST

START_TEST(what_is_written_reads_the_same)
{
    static const char *const texts[] = {
        "user",
        "user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-10.0.2.9:5353",
        "user,hostfwd=tcp:[::1]:8080-:80,hostfwd=udp:[::]:9-[fec0::9]:99,mac=52:54:00:ab:cd:ef",
        "tap,ifname=tap0,mtu=1400,queues=2",
        "link,path=/l,packed=off",
        "link,path=/tmp/a,,b,,,,c,mac=02:00:00:00:00:01",
        "tap,ifname=a,,b,,",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_int_eq(parse(texts[i]), 0);
        char *again = net_setting_format(&setting);
        ck_assert_str_eq(again, texts[i]);
        free(again);
    }
}
END_TEST

START_TEST(each_mistake_is_named)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "unknown kind of network ''"},
        {"bridge", "unknown kind of network 'bridge'"},
        {"user,", "unknown word ''"},
        {"user,colour=red", "unknown word 'colour=red'"},
        {"user,ifname=tap0", "takes no 'ifname=tap0'"},
        {"tap,ifname=t,hostfwd=tcp::1-:1", "takes no 'hostfwd="},
        {"tap", "no ifname= in 'tap'"},
        {"tap,ifname=", "not the name of an interface"},
        {"tap,ifname=../x", "not the name of an interface"},
        {"tap,ifname=sixteencharacters", "not the name of an interface"},
        {"link", "no path= in 'link'"},
        {"link,path=", "no file in"},
        {"user,mac=1", "not an Ethernet address '1'"},
        {"user,mac=00:00:00:00:00:00", "not an Ethernet address"},
        {"user,mac=52:54:00:12:34:5g", "not an Ethernet address"},
        {"user,mac=52-54-00-12-34-56", "not an Ethernet address"},
        {"user,mac=52:54:00:12:34:56:78", "not an Ethernet address"},
        {"user,mac=53:54:00:12:34:56", "a group's address"},
        {"user,mtu=1279", "not an MTU"},
        {"user,mtu=65522", "not an MTU"},
        {"user,mtu=1500x", "not an MTU"},
        {"user,queues=0", "not a number of queues"},
        {"user,queues=8", "not a number of queues"},
        {"user,packed=maybe", "neither on nor off"},
        {"user,hostfwd=", "not a rule ''"},
        {"user,hostfwd=tcp:22-:22", "not a rule"},
        {"user,hostfwd=tcp::22", "not a rule"},
        {"user,hostfwd=tcp::0-:22", "not a rule"},
        {"user,hostfwd=tcp::65536-:22", "not a rule"},
        {"user,hostfwd=sctp::22-:22", "not a rule"},
        {"user,hostfwd=tcp:localhost:22-:22", "not a rule"},
        {"user,hostfwd=tcp:::1:22-:22", "not a rule"},
        {"user,hostfwd=tcp:[::1:22-:22", "not a rule"},
        {"user,hostfwd=tcp:[]:22-:22", "not a rule"},
        {"user,hostfwd=tcp:[::1]:22-10.0.2.15:22", "not a rule"},
        {"user,hostfwd=tcp:127.0.0.1:22-[fec0::1]:22", "not a rule"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(parse(cases[i].text) == -ERROR_USAGE, "%s", cases[i].text);
        ck_assert_msg(strstr(err.message, cases[i].message) != NULL, "%s: %s", cases[i].text,
                      err.message);
        ck_assert_msg(err.hint[0] != '\0', "%s", cases[i].text);
    }
}
END_TEST

START_TEST(too_many_forwards)
{
    char text[2048] = "user";

    for (unsigned i = 0; i < NET_FORWARDS_MAX; i++) {
        sprintf(text + strlen(text), ",hostfwd=tcp::%u-:1", 1000 + i);
    }
    ck_assert_int_eq(parse(text), 0);
    strcat(text, ",hostfwd=tcp::1-:1");
    ck_assert_int_eq(parse(text), -ERROR_USAGE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("network settings");
    TCase *tests = tcase_create("text");

    tcase_add_test(tests, the_plain_kinds);
    tcase_add_test(tests, properties_of_every_kind);
    tcase_add_test(tests, forwards);
    tcase_add_test(tests, what_is_written_reads_the_same);
    tcase_add_test(tests, each_mistake_is_named);
    tcase_add_test(tests, too_many_forwards);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
