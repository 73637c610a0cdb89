/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server over real sockets, and its parser's refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/http.h"
#include "api/http_parse.h"
#include "base/cleanup.h"
#include "base/fd.h"

struct fixture {
	struct loop *loop;
	struct http_server *server;
	struct sockaddr_un address;
	char text[1 << 20];
	size_t len;
	int closed;
	struct http_conn *later;
	int hijacked;
	int pipe[2];
	int body_rc;
};

static void h_echo(struct http_conn *c, const struct http_request *r, void *arg)
{
	char text[512];

	snprintf(text, sizeof(text), "%s %s %d %zu %.100s q=%s id=%s", r->method, r->path, r->api_minor, r->body_len,
		 r->body, http_query(r, "q") ? http_query(r, "q") : "-",
		 http_param(r, "id") ? http_param(r, "id") : "-");
	http_reply_text(c, 200, "text/plain", text);
}

static void on_close(struct http_conn *c, void *arg)
{
	((struct fixture *)arg)->closed++;
}

static void h_later(struct http_conn *c, const struct http_request *r, void *arg)
{
	((struct fixture *)arg)->later = c;
}

static void h_stream(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct fixture *f = arg;

	f->later = c;
	http_on_close(c, on_close, f);
	http_stream_begin(c, 200, "application/json");
}

static void h_hijack(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct fixture *f = arg;
	CLEAN_BUF struct buf early = BUF_INIT;

	f->hijacked = http_hijack(c, "application/vnd.docker.raw-stream", &early);
	assert_true(f->hijacked >= 0);
	assert_int_equal(write(f->hijacked, buf_bytes(&early), early.len), (ssize_t)early.len);
}

static void body_done(struct http_conn *c, int rc, void *arg)
{
	struct fixture *f = arg;

	f->body_rc = rc;
	close_fd(&f->pipe[1]);
	http_reply_empty(c, rc ? 500 : 204);
}

static void h_load(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct fixture *f = arg;

	http_body_to_fd(c, f->pipe[1], body_done, f);
}

static void h_image(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_text(c, 200, "text/plain", http_param(r, "name"));
}

static void file_done(struct http_conn *c, int rc, void *arg)
{
	((struct fixture *)arg)->body_rc = rc;
	http_stream_end(c);
}

static void h_file(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct fixture *f = arg;

	http_stream_begin(c, 200, "application/x-tar");
	http_stream_fd(c, f->pipe[0], file_done, f);
}

static const struct http_route table[] = {
	{ "GET", "/echo", h_echo, false },   { "POST", "/echo/{id}/x", h_echo, false },
	{ "GET", "/later", h_later, false }, { "GET", "/stream", h_stream, false },
	{ "GET", "/file", h_file, false },   { "POST", "/hijack", h_hijack, false },
	{ "POST", "/load", h_load, true },   { "GET", "/images/{name:*}/json", h_image, false },
	{ NULL, NULL, NULL, false },
};
static const struct http_route *const tables[] = { table, NULL };

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = ERR_INIT;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	f->hijacked = f->pipe[0] = f->pipe[1] = -1;
	f->loop = loop_new(&err);
	f->address.sun_family = AF_UNIX;
	snprintf(f->address.sun_path + 1, 60, "walnut-test-http-%d", getpid());
	assert_int_equal(bind(fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
	assert_int_equal(listen(fd, 16), 0);
	f->server = http_server_new(f->loop, fd, tables, f, &err);
	assert_non_null(f->server);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_server_free(f->server);
	loop_free(f->loop);
	close_fd(&f->hijacked);
	close_fd(&f->pipe[0]);
	close_fd(&f->pipe[1]);
	free(f);
	return 0;
}

static int dial(struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
	assert_int_equal(fd_set_nonblock(fd, true), 0);
	return fd;
}

static void spin(struct fixture *f, int fd)
{
	struct err err = ERR_INIT;

	f->len = 0;
	for (int i = 0; i < 30; i++) {
		ssize_t n;

		assert_int_equal(loop_step(f->loop, 2, &err), 0);
		n = fd < 0 ? 0 : read(fd, f->text + f->len, sizeof(f->text) - 1 - f->len);
		if (n > 0)
			f->len += (size_t)n;
	}
	f->text[f->len] = '\0';
}

static void ask(struct fixture *f, int fd, const char *request)
{
	assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
	spin(f, fd);
}

#define assert_has(text, what)                                        \
	do {                                                          \
		if (!strstr(text, what))                              \
			fail_msg("\"%s\" is not in: %s", what, text); \
	} while (0)

static void test_plain(void **state)
{
	struct fixture *f = *state;
	CLEAN_FD int fd = dial(f);

	ask(f, fd, "GET /v1.41/echo?q=a%20b+c HTTP/1.1\r\nHost: d\r\n\r\n");
	assert_has(f->text, "HTTP/1.1 200 OK\r\n");
	assert_has(f->text, "GET /echo 41 0  q=a b c id=-");
	/* keep-alive, a body in pieces, then two at once */
	ask(f, fd, "POST /echo/abc/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe");
	assert_int_equal(f->len, 0);
	ask(f, fd, "llo");
	assert_has(f->text, "POST /echo/abc/x 47 5 hello q=- id=abc");
	ask(f, fd,
	    "POST /echo/z/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
	    "GET /echo?q=2nd HTTP/1.1\r\n\r\n");
	assert_has(f->text, "5 abcde");
	assert_has(f->text, "q=2nd");
	ask(f, fd, "HEAD /echo HTTP/1.1\r\n\r\n");
	assert_has(f->text, "Content-Length: ");
	assert_null(strstr(f->text, "HEAD /echo"));
	ask(f, fd, "GET /images/reg:5000/a%2Fb:1/json HTTP/1.1\r\n\r\n");
	assert_has(f->text, "reg:5000/a/b:1");
	ask(f, fd, "GET /nothing HTTP/1.1\r\n\r\n");
	assert_has(f->text, "404 Not Found");
	assert_has(f->text, "{\"message\":\"page not found\"}");
	ask(f, fd, "POST /echo/e/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	assert_string_equal(f->text, "HTTP/1.1 100 Continue\r\n\r\n");
	ask(f, fd, "ok");
	assert_has(f->text, "2 ok");
}

static void refused(struct fixture *f, const char *request, const char *with)
{
	CLEAN_FD int fd = dial(f);

	ask(f, fd, request);
	assert_has(f->text, with);
	assert_has(f->text, "Connection: close");
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;

	refused(f, "GET /v1.99/echo HTTP/1.1\r\n\r\n",
		"client version 1.99 is too new. Maximum supported API version is 1.47");
	refused(f, "GET /v1.12/echo HTTP/1.1\r\n\r\n",
		"client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a "
		"newer version");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nContent-Length : 1\r\n\r\n", "400");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n", "413");
	refused(f, "POST /echo/a/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed chunked body");
	refused(f, "GET /%00 HTTP/1.1\r\n\r\n", "400");
	refused(f, "GET /%zz HTTP/1.1\r\n\r\n", "400");
	refused(f, "GET / HTTP/2.0\r\n\r\n", "505");
	refused(f, "nonsense\r\n\r\n", "400");
}

static void test_later_and_gone(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f);

	ask(f, fd, "GET /later HTTP/1.1\r\n\r\n");
	assert_int_equal(f->len, 0);
	http_reply_json(f->later, 201, json_pack("{s:i}", "a", 1));
	spin(f, fd);
	assert_has(f->text, "{\"a\":1}\n");
	/* the client goes: an answer is still safe */
	ask(f, fd, "GET /later HTTP/1.1\r\n\r\n");
	close(fd);
	spin(f, -1);
	http_reply_empty(f->later, 204);
	fd = dial(f);
	ask(f, fd, "GET /stream HTTP/1.1\r\n\r\n");
	assert_has(f->text, "Transfer-Encoding: chunked");
	http_stream_write(f->later, "abc", 3);
	spin(f, fd);
	assert_string_equal(f->text, "3\r\nabc\r\n");
	close(fd);
	spin(f, -1);
	assert_int_equal(f->closed, 1);
	/* half-closed clients still get their answer */
	fd = dial(f);
	ask(f, fd, "GET /later HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	spin(f, fd);
	http_reply_text(f->later, 200, "text/plain", "half");
	spin(f, fd);
	assert_has(f->text, "half");
	close(fd);
}

static void test_hijack(void **state)
{
	struct fixture *f = *state;
	CLEAN_FD int fd = dial(f);

	ask(f, fd, "POST /hijack HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly");
	assert_has(f->text, "HTTP/1.1 101 UPGRADED\r\n");
	assert_has(f->text, "\r\n\r\nearly");
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(f->hijacked, f->text, 10), 1);
}

static void test_transfers(void **state)
{
	struct fixture *f = *state;
	CLEAN_FD int fd = dial(f);
	size_t sent = 0, got = 0, want = 3 << 20;
	static char piece[65536];
	struct err err = ERR_INIT;
	char head[128];

	assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	snprintf(head, sizeof(head), "POST /load HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", want);
	ask(f, fd, head);
	for (int i = 0; i < 100000 && got < want; i++) {
		ssize_t n =
			sent < want ? write(fd, piece, want - sent < sizeof(piece) ? want - sent : sizeof(piece)) : 0;

		sent += n > 0 ? (size_t)n : 0;
		assert_int_equal(loop_step(f->loop, 1, &err), 0);
		n = read(f->pipe[0], piece, 10000);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(got, want);
	spin(f, fd);
	assert_has(f->text, "204 No Content");
	assert_int_equal(f->body_rc, 0);
	close_fd(&f->pipe[0]);

	/* the reader of the body ends early: an answer, and no reset */
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	close_fd(&f->pipe[0]);
	ask(f, fd, "POST /load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n");
	assert_has(f->text, "500 ");
	assert_int_equal(write(fd, "5\r\nabcde\r\n", 10), 10);
	spin(f, fd);

	/* a pipe to a stream */
	close(take_fd(&fd));
	fd = dial(f);
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
	ask(f, fd, "GET /file HTTP/1.1\r\n\r\n");
	assert_int_equal(write(f->pipe[1], "one", 3), 3);
	spin(f, fd);
	assert_string_equal(f->text, "3\r\none\r\n");
	close_fd(&f->pipe[1]);
	spin(f, fd);
	assert_string_equal(f->text, "0\r\n\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_later_and_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hijack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transfers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
