/* Addresses of network disks: what they may be, and that each mistake is refused. */
#include "libshared/nbd/uri.h"
#include "tests/unit/suite.h"

static struct nbd_uri uri;
static struct error err;

static int parse(const char *text)
{
    error_clear(&err);
    return nbd_uri_parse(text, ERROR_USAGE, &uri, &err);
}

START_TEST(hosts)
{
    ck_assert_int_eq(parse("nbd://server"), 0);
    ck_assert(!uri.is_unix);
    ck_assert_str_eq(uri.host, "server");
    ck_assert_str_eq(uri.port, NBD_PORT_DEFAULT);
    ck_assert_str_eq(uri.export_name, "");
    ck_assert_int_eq(parse("nbd://server:1234/"), 0);
    ck_assert_str_eq(uri.port, "1234");
    ck_assert_int_eq(parse("nbd://[fe80::1]:99/a/b"), 0);
    ck_assert_str_eq(uri.host, "fe80::1");
    ck_assert_str_eq(uri.port, "99");
    ck_assert_str_eq(uri.export_name, "a/b");
    ck_assert_int_eq(parse("nbd://127.0.0.1/with%20space%2f%25"), 0);
    ck_assert_str_eq(uri.export_name, "with space/%");
}
END_TEST

START_TEST(unix_sockets)
{
    ck_assert_int_eq(parse("nbd+unix:///disk?socket=/run/nbd/a.sock"), 0);
    ck_assert(uri.is_unix);
    ck_assert_str_eq(uri.export_name, "disk");
    ck_assert_str_eq(uri.socket, "/run/nbd/a.sock");
    ck_assert_int_eq(parse("nbd+unix://?socket=/run/a%2Cb"), 0);
    ck_assert_str_eq(uri.export_name, "");
    ck_assert_str_eq(uri.socket, "/run/a,b");
}
END_TEST

START_TEST(mistakes)
{
    char long_name[NBD_EXPORT_MAX + 32];
    static const char *const wrong[] = {
        "nbd://",
        "nbd:///export",
        "nbd://:10/e",
        "nbd://host:/e",
        "nbd://host:0/e",
        "nbd://host:65536/e",
        "nbd://host:1x/e",
        "nbd://host:123456/e",
        "nbd://[::1/e",
        "nbd://[::1]x/e",
        "nbd://user@host/e",
        "nbd://ho st/e",
        "nbd://host/e?socket=/x/y",
        "nbd://host/e#part",
        "nbd://host/%",
        "nbd://host/%2",
        "nbd://host/%zz",
        "nbd://host/%00",
        "nbd+unix:///e",
        "nbd+unix:///e?socket=relative",
        "nbd+unix:///e?socket=/root.sock",
        "nbd+unix:///e?socket=",
        "nbd+unix:///e?sock=/x/y",
        "nbd+unix:///e?socket=/x/y&tls=on",
        "nbd+unix://host/e?socket=/x/y",
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(parse(wrong[i]) == -ERROR_USAGE, "%s", wrong[i]);
        ck_assert(err.message[0] && err.hint[0]);
    }
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    memcpy(long_name, "nbd://h/", 8);
    ck_assert_int_eq(parse(long_name), -ERROR_USAGE);
    ck_assert_int_eq(parse("nbds://host/e"), -ERROR_UNSUPPORTED);
    ck_assert_int_eq(parse("nbds+unix:///e?socket=/x/y"), -ERROR_UNSUPPORTED);
    ck_assert_int_eq(parse("nbd+vsock://2/e"), -ERROR_UNSUPPORTED);
}
END_TEST

START_TEST(files_are_none)
{
    ck_assert(nbd_uri_is("nbd://x") && nbd_uri_is("nbds://x") && nbd_uri_is("nbd+unix:///x"));
    ck_assert(!nbd_uri_is("/dev/nbd0") && !nbd_uri_is("./nbd://x") && !nbd_uri_is("nbd.img"));
    ck_assert(!nbd_uri_is("nbd/x://y") && !nbd_uri_is("http://nbd") && !nbd_uri_is(""));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd_uri");
    TCase *tests = tcase_create("uri");

    tcase_add_test(tests, hosts);
    tcase_add_test(tests, unix_sockets);
    tcase_add_test(tests, mistakes);
    tcase_add_test(tests, files_are_none);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
