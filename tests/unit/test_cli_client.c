/* vmctl's side of the control socket, against servers that are missing, foreign or broken. */
#include "cli/client.h"
#include "cli/probe.h"
#include "libshared/ipc/channel.h"
#include "proto/event.pb-c.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <errno.h>
#include <limits.h>
#include <nanomsg/nn.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char directory[64], path[96];

static void make_directory(void)
{
    snprintf(directory, sizeof(directory), "/tmp/cli-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/control.sock", directory);
}

static void remove_directory(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(directory), 0);
}

static int listen_plainly(int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    memcpy(address.sun_path, path, strlen(path) + 1);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

static enum error_code open_within(uint32_t timeout_ms, struct error *err)
{
    struct client client;
    int status = client_open(&client, directory, timeout_ms, -1, err);

    if (status == 0) {
        client_close(&client);
        return ERROR_OK;
    }
    ck_assert_int_eq(-status, err->code);
    ck_assert_str_ne(err->message, "");
    ck_assert_str_ne(err->hint, "");
    return err->code;
}

static enum error_code try_open(struct error *err)
{
    return open_within(300, err);
}

/* ---- Nobody there ---- */

START_TEST(a_missing_directory_is_no_daemon)
{
    struct error err = {0};

    snprintf(directory, sizeof(directory), "/tmp/cli-test-missing");
    ck_assert_int_eq(try_open(&err), ERROR_CONNECT);
    ck_assert_ptr_nonnull(strstr(err.hint, "vmmd --runtime-dir /tmp/cli-test-missing"));
}
END_TEST

START_TEST(a_missing_socket_is_no_daemon)
{
    struct error err = {0};

    ck_assert_int_eq(try_open(&err), ERROR_CONNECT);
    ck_assert_ptr_nonnull(strstr(err.hint, "vmmd --runtime-dir"));
}
END_TEST

START_TEST(a_file_is_no_socket)
{
    struct error err = {0};

    fclose(fopen(path, "w"));
    ck_assert_int_eq(try_open(&err), ERROR_CONNECT);
    ck_assert_ptr_nonnull(strstr(err.message, "not a socket"));
}
END_TEST

START_TEST(a_link_is_no_socket)
{
    struct error err = {0};

    ck_assert_int_eq(symlink("/nowhere", path), 0);
    ck_assert_int_eq(try_open(&err), ERROR_CONNECT);
}
END_TEST

START_TEST(a_dead_socket_is_no_daemon)
{
    struct error err = {0};

    close(listen_plainly(SOCK_STREAM));
    ck_assert_int_eq(try_open(&err), ERROR_CONNECT);
    ck_assert_ptr_nonnull(strstr(err.message, "nobody listens"));
}
END_TEST

START_TEST(a_directory_open_to_others_is_refused)
{
    struct error err = {0};

    ck_assert_int_eq(chmod(directory, 0777), 0);
    ck_assert_int_eq(try_open(&err), ERROR_PERMISSION);
}
END_TEST

START_TEST(a_long_path_is_refused)
{
    struct client client;
    struct error err = {0};
    char lengthy[200];

    snprintf(lengthy, sizeof(lengthy),
             "%s/./././././././././././././././././././././././././././././././"
             "./././././././././././././././",
             directory);
    ck_assert_int_eq(client_open(&client, lengthy, 300, -1, &err), -ERROR_CONFIG);
}
END_TEST

/* ---- Somebody else there ---- */

struct server {
    int listener;
    const void *greeting; /* sent to each client at once */
    size_t greeting_size;
    bool hang_up;
    unsigned deaf;     /* hangs up on so many without a word */
    const void *reply; /* to whatever comes after a greeting */
    size_t reply_size;
    int stop[2];
    pthread_t thread;
};

static void serve_client(const struct server *server, int fd)
{
    uint8_t bytes[4096];

    send(fd, server->greeting, server->greeting_size, MSG_NOSIGNAL);
    if (server->hang_up) {
        shutdown(fd, SHUT_WR);
    }
    if (recv(fd, bytes, 8, MSG_WAITALL) == 8 && recv(fd, bytes, sizeof(bytes), 0) > 0) {
        send(fd, server->reply, server->reply_size, MSG_NOSIGNAL);
        if (server->hang_up) {
            shutdown(fd, SHUT_RDWR);
        }
    }
}

struct server_client {
    const struct server *server;
    int fd;
    pthread_t thread;
};

static void *serve_one(void *data)
{
    struct server_client *client = data;

    serve_client(client->server, client->fd);
    return NULL;
}

/* Accept until told to stop: nanomsg connects again and again. */
static void *serve(void *data)
{
    struct server *server = data;
    struct server_client clients[256];
    size_t count = 0;

    for (;;) {
        struct pollfd polls[] = {{.fd = server->listener, .events = POLLIN},
                                 {.fd = server->stop[0], .events = POLLIN}};

        poll(polls, 2, -1);
        if (polls[1].revents != 0) {
            break;
        }
        int fd = accept(server->listener, NULL, NULL);
        if (count == 256 || server->deaf) {
            server->deaf -= server->deaf > 0;
            close(fd);
            continue;
        }
        clients[count] = (struct server_client){.server = server, .fd = fd};
        pthread_create(&clients[count].thread, NULL, serve_one, &clients[count]);
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        shutdown(clients[i].fd, SHUT_RDWR);
        pthread_join(clients[i].thread, NULL);
        close(clients[i].fd);
    }
    return NULL;
}

static void server_start(struct server *server)
{
    server->listener = listen_plainly(SOCK_STREAM);
    ck_assert_int_eq(pipe(server->stop), 0);
    ck_assert_int_eq(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
    close(server->stop[1]);
    pthread_join(server->thread, NULL);
    close(server->stop[0]);
    close(server->listener);
}

static enum error_code try_server(struct server *server, struct error *err)
{
    server_start(server);
    enum error_code code = open_within(server->greeting_size ? 20000 : 300, err);
    server_stop(server);
    return code;
}

#define REP_GREETING "\0SP\0\0\x31\0\0"

START_TEST(garbage_is_a_foreign_socket)
{
    struct server http = {.greeting = "HTTP/1.1 400 Bad Request\r\n", .greeting_size = 26};
    struct error err = {0};

    ck_assert_int_eq(try_server(&http, &err), ERROR_PROTOCOL);
    ck_assert_ptr_nonnull(strstr(err.message, "not the socket of a vmmd"));
}
END_TEST

START_TEST(another_protocol_is_a_foreign_socket)
{
    struct server publisher = {.greeting = "\0SP\0\0\x20\0\0", .greeting_size = 8};
    struct error err = {0};

    ck_assert_int_eq(try_server(&publisher, &err), ERROR_PROTOCOL);
}
END_TEST

START_TEST(hanging_up_is_a_foreign_socket)
{
    struct server shy = {.greeting = REP_GREETING, .greeting_size = 5, .hang_up = true};
    struct error err = {0};

    ck_assert_int_eq(try_server(&shy, &err), ERROR_PROTOCOL);
}
END_TEST

START_TEST(one_that_was_held_up_is_tried_again)
{
    struct server slow = {.greeting = REP_GREETING, .greeting_size = 8, .deaf = 2};
    struct error err = {0};

    ck_assert_int_eq(try_server(&slow, &err), ERROR_OK);
}
END_TEST

START_TEST(one_that_hangs_up_each_time_is_foreign)
{
    struct server closed = {.greeting = "", .greeting_size = 0, .deaf = UINT_MAX};
    struct error err = {0};

    /* On a busy host the last of several attempts may not come to its end in time. */
    enum error_code code = try_server(&closed, &err);
    ck_assert(code == ERROR_PROTOCOL || code == ERROR_CONNECT);
    ck_assert_ptr_nonnull(strstr(err.message, code == ERROR_PROTOCOL ? "not the socket of a vmmd"
                                                                     : "nobody answers"));
}
END_TEST

START_TEST(silence_is_no_daemon)
{
    struct server silent = {.greeting = "", .greeting_size = 0};
    struct error err = {0};

    ck_assert_int_eq(try_server(&silent, &err), ERROR_CONNECT);
    ck_assert_int_eq(err.cause, ETIMEDOUT);
}
END_TEST

START_TEST(a_packet_socket_is_foreign)
{
    struct error err = {0};
    int fd = listen_plainly(SOCK_SEQPACKET);

    ck_assert_int_eq(try_open(&err), ERROR_PROTOCOL);
    close(fd);
}
END_TEST

START_TEST(a_probe_outlives_what_it_is_sent)
{
    struct error err = {0};
    struct channel *publisher = channel_bind(CHANNEL_EVENT, NN_PUB, path);
    Polyvisor__Event event = POLYVISOR__EVENT__INIT;

    int probe = probe_open(directory, "control.sock", NN_SUB, NN_PUB, 20000, -1, &err);
    ck_assert_int_ge(probe, 0);
    ck_assert(!probe_gone(probe));
    struct pollfd readable = {.fd = probe, .events = POLLIN};
    while (poll(&readable, 1, 20) == 0) { /* until nanomsg knows us */
        ck_assert_int_eq(channel_send(publisher, &event.base, 1000), 0);
    }
    ck_assert(!probe_gone(probe));
    ck_assert_int_eq(channel_send(publisher, &event.base, 1000), 0);
    channel_close(publisher);
    while (!probe_gone(probe)) {
        poll(&readable, 1, 100);
    }
    close(probe);
}
END_TEST

/* ---- A server that greets well and answers badly ---- */

static enum error_code ask_version(uint32_t timeout_ms, struct error *err)
{
    Polyvisor__VersionRequest version = POLYVISOR__VERSION_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    struct client client;

    request.body_case = POLYVISOR__REQUEST__BODY_VERSION;
    request.version = &version;
    ck_assert_int_eq(client_open(&client, directory, timeout_ms, -1, err), 0);
    int status = client_call(&client, &request, 0, NULL, err);
    client_close(&client);
    return (enum error_code) - status;
}

START_TEST(no_answer_is_a_timeout)
{
    struct server mute = {.greeting = REP_GREETING, .greeting_size = 8};
    struct error err = {0};

    server_start(&mute);
    ck_assert_int_eq(ask_version(2000, &err), ERROR_TIMEOUT);
    ck_assert_str_ne(err.hint, "");
    server_stop(&mute);
}
END_TEST

START_TEST(an_oversized_answer_is_no_hang)
{
    /* One message of 2^62 bytes. */
    struct server huge = {.greeting = REP_GREETING,
                          .greeting_size = 8,
                          .reply = "\1\x40\0\0\0\0\0\0\0",
                          .reply_size = 9};
    struct error err = {0};

    server_start(&huge);
    enum error_code code = ask_version(2000, &err);
    ck_assert_msg(code == ERROR_TIMEOUT || code == ERROR_PROTOCOL || code == ERROR_CONNECT, "%s",
                  error_code_text(code));
    server_stop(&huge);
}
END_TEST

struct responder {
    struct channel *channel;
    enum { ANSWER, WRONG_ID, ERROR_ANSWER, OTHER_KIND } behaviour;
    pthread_t thread;
};

static void *respond(void *data)
{
    struct responder *responder = data;
    ProtobufCMessage *message = NULL;
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    Polyvisor__Error error = POLYVISOR__ERROR__INIT;

    if (channel_receive(responder->channel, &polyvisor__request__descriptor, &message, 20000) !=
        0) {
        return NULL;
    }
    response.id = ((Polyvisor__Request *)message)->id;
    protobuf_c_message_free_unpacked(message, NULL);
    if (responder->behaviour == WRONG_ID) {
        response.id += 5;
    } else if (responder->behaviour == ERROR_ANSWER) {
        error.code = "not-found";
        error.message = "no machine\n\033[2J";
        error.hint = "a hint";
        response.error = &error;
    }
    channel_send(responder->channel, &response.base, 5000);
    return NULL;
}

static enum error_code ask_responder(int behaviour, struct error *err)
{
    struct responder responder = {
        .channel =
            channel_bind(behaviour == OTHER_KIND ? CHANNEL_VCPU : CHANNEL_CONTROL, NN_REP, path),
        .behaviour = behaviour,
    };
    ck_assert_ptr_nonnull(responder.channel);
    ck_assert_int_eq(pthread_create(&responder.thread, NULL, respond, &responder), 0);
    enum error_code code = ask_version(20000, err);
    pthread_join(responder.thread, NULL);
    channel_close(responder.channel);
    return code;
}

START_TEST(an_answer_is_an_answer)
{
    struct error err = {0};

    ck_assert_int_eq(ask_responder(ANSWER, &err), ERROR_OK);
}
END_TEST

START_TEST(an_answer_to_another_question_is_refused)
{
    struct error err = {0};

    ck_assert_int_eq(ask_responder(WRONG_ID, &err), ERROR_PROTOCOL);
}
END_TEST

START_TEST(an_error_arrives_whole_and_tame)
{
    struct error err = {0};

    ck_assert_int_eq(ask_responder(ERROR_ANSWER, &err), ERROR_NOT_FOUND);
    ck_assert_str_eq(err.message, "no machine??[2J");
    ck_assert_str_eq(err.hint, "a hint");
    ck_assert_str_eq(err.component, "vmmd");
}
END_TEST

START_TEST(a_foreign_message_is_refused)
{
    struct error err = {0};
    int answering = nn_socket(AF_SP, NN_REP);
    char address[128];
    Polyvisor__VersionRequest version = POLYVISOR__VERSION_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    struct client client;
    static const struct {
        const char *bytes;
        size_t size;
    } answers[] = {
        {"hello", 5},                                 /* no frame */
        {"", 0},                                      /* nothing */
        {"PVM1\1\0\0\0\5\0\0\0abc", 15},              /* cut short */
        {"PVM1\1\0\0\0\2\0\0\0abc", 15},              /* too long */
        {"PVM1\2\0\0\0\0\0\0\0", 12},                 /* another conversation */
        {"PVM1\1\0\0\0\4\0\0\0\377\377\377\377", 16}, /* no message */
    };
    snprintf(address, sizeof(address), "ipc://%s", path);
    ck_assert_int_ge(nn_bind(answering, address), 0);
    request.body_case = POLYVISOR__REQUEST__BODY_VERSION;
    request.version = &version;
    ck_assert_int_eq(client_open(&client, directory, 20000, -1, &err), 0);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        char received[256];

        ck_assert_int_eq(client_send(&client, &request, 20000, &err), 0);
        ck_assert_int_gt(nn_recv(answering, received, sizeof(received), 0), 0);
        ck_assert_int_eq(nn_send(answering, answers[i].bytes, answers[i].size, 0),
                         (int)answers[i].size);
        ck_assert_msg(client_receive(&client, 20000, &response, &err) == -ERROR_PROTOCOL, "%zu", i);
        ck_assert_str_ne(err.hint, "");
    }
    client_close(&client);
    nn_close(answering);
}
END_TEST

START_TEST(the_end_of_vmmd_ends_a_call)
{
    struct error err = {0};
    struct responder responder = {.channel = channel_bind(CHANNEL_CONTROL, NN_REP, path)};
    Polyvisor__WaitRequest wait = POLYVISOR__WAIT_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;
    struct client client;

    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    request.wait = &wait;
    ck_assert_int_eq(client_open(&client, directory, 20000, -1, &err), 0);
    ck_assert_int_eq(client_send(&client, &request, 20000, &err), 0);
    ck_assert_int_eq(client_receive(&client, 20, &response, &err), 0);
    ck_assert_ptr_null(response);
    channel_close(responder.channel);
    ck_assert_int_eq(client_receive(&client, 600000, &response, &err), -ERROR_CONNECT);
    /* And again: a loop that asks must not take it for "nothing yet". */
    ck_assert_int_eq(client_receive(&client, 0, &response, &err), -ERROR_CONNECT);
    ck_assert_str_ne(err.hint, "");
    client_close(&client);
}
END_TEST

START_TEST(a_call_can_be_interrupted)
{
    struct error err = {0};
    struct channel *channel = channel_bind(CHANNEL_CONTROL, NN_REP, path);
    Polyvisor__ListRequest list = POLYVISOR__LIST_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    struct client client;
    int interrupt[2];

    ck_assert_int_eq(pipe(interrupt), 0);
    request.body_case = POLYVISOR__REQUEST__BODY_LIST;
    request.list = &list;
    ck_assert_int_eq(client_open(&client, directory, 600000, interrupt[0], &err), 0);
    ck_assert_int_eq(write(interrupt[1], "x", 1), 1);
    ck_assert_int_eq(client_call(&client, &request, 0, NULL, &err), -ERROR_CANCELLED);
    client_close(&client);
    channel_close(channel);
    close(interrupt[0]);
    close(interrupt[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli_client");
    TCase *nowhere = tcase_create("nowhere");
    TCase *tests = tcase_create("all");

    tcase_add_test(nowhere, a_missing_directory_is_no_daemon);
    suite_add_tcase(suite, nowhere);
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, make_directory, remove_directory);
    tcase_add_test(tests, a_missing_socket_is_no_daemon);
    tcase_add_test(tests, a_file_is_no_socket);
    tcase_add_test(tests, a_link_is_no_socket);
    tcase_add_test(tests, a_dead_socket_is_no_daemon);
    tcase_add_test(tests, a_directory_open_to_others_is_refused);
    tcase_add_test(tests, a_long_path_is_refused);
    tcase_add_test(tests, garbage_is_a_foreign_socket);
    tcase_add_test(tests, another_protocol_is_a_foreign_socket);
    tcase_add_test(tests, hanging_up_is_a_foreign_socket);
    tcase_add_test(tests, one_that_was_held_up_is_tried_again);
    tcase_add_test(tests, one_that_hangs_up_each_time_is_foreign);
    tcase_add_test(tests, silence_is_no_daemon);
    tcase_add_test(tests, a_packet_socket_is_foreign);
    tcase_add_test(tests, a_probe_outlives_what_it_is_sent);
    tcase_add_test(tests, no_answer_is_a_timeout);
    tcase_add_test(tests, an_oversized_answer_is_no_hang);
    tcase_add_test(tests, an_answer_is_an_answer);
    tcase_add_test(tests, an_answer_to_another_question_is_refused);
    tcase_add_test(tests, an_error_arrives_whole_and_tame);
    tcase_add_test(tests, a_foreign_message_is_refused);
    tcase_add_test(tests, the_end_of_vmmd_ends_a_call);
    tcase_add_test(tests, a_call_can_be_interrupted);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
