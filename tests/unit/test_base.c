/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/base: errors, buffers, descriptors, messages, the event loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/msg.h"
#include "base/utc.h"

/* ---- err ---- */

static void err_set_gives_code_and_sentence(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(err_set(&e, EINVAL, "no %s in %d", "port", 7), -EINVAL);
	assert_int_equal(e.code, EINVAL);
	assert_string_equal(e.msg, "no port in 7");
}

static void err_sys_appends_the_reason(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(err_sys(&e, ENOENT, "open %s", "/x"), -ENOENT);
	assert_string_equal(e.msg, "open /x: No such file or directory");
}

static void err_wrap_puts_a_prefix(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(err_set(&e, EPERM, "not root"), -EPERM);
	assert_int_equal(err_wrap(&e, "start %s", "abc"), -EPERM);
	assert_string_equal(e.msg, "start abc: not root");
}

static void err_long_text_is_cut_not_overrun(void **state)
{
	struct err e = ERR_INIT;
	char text[4 * ERR_MSG_SIZE];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(err_set(&e, EIO, "%s", text), -EIO);
	assert_true(strlen(e.msg) < ERR_MSG_SIZE);
	assert_int_equal(err_wrap(&e, "%s", text), -EIO);
	assert_true(strlen(e.msg) < ERR_MSG_SIZE);
}

static void err_null_is_allowed(void **state)
{
	assert_int_equal(err_set(NULL, EINVAL, "x"), -EINVAL);
	assert_int_equal(err_sys(NULL, ENOENT, "x"), -ENOENT);
}

/* ---- buf ---- */

static void buf_appends_and_consumes(void **state)
{
	CLEAN_BUF struct buf b = BUF_INIT;

	assert_string_equal(buf_bytes(&b), "");
	assert_int_equal(buf_puts(&b, "hello "), 0);
	assert_int_equal(buf_printf(&b, "%d-%s", 42, "x"), 0);
	assert_string_equal(buf_bytes(&b), "hello 42-x");
	assert_int_equal(b.len, 10);
	buf_consume(&b, 6);
	assert_string_equal(buf_bytes(&b), "42-x");
	buf_consume(&b, 4);
	assert_int_equal(b.len, 0);
	assert_string_equal(buf_bytes(&b), "");
}

static void buf_keeps_bytes_over_growth_and_moves(void **state)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	unsigned int put = 0, got = 0;

	for (unsigned int round = 0; round < 2000; round++) {
		for (unsigned int i = 0; i < round % 37; i++) {
			uint8_t byte = (uint8_t)(put++ * 31U);

			assert_int_equal(buf_append(&b, &byte, 1), 0);
		}
		for (unsigned int i = 0; i < round % 29 && b.len; i++) {
			assert_int_equal((uint8_t)buf_bytes(&b)[0], (uint8_t)(got++ * 31U));
			buf_consume(&b, 1);
		}
	}
	assert_int_equal(put - got, b.len);
}

static void buf_limit_holds(void **state)
{
	CLEAN_BUF struct buf b = { .limit = 8 };

	assert_int_equal(buf_append(&b, "12345678", 8), 0);
	assert_int_equal(buf_append(&b, "9", 1), -E2BIG);
	assert_int_equal(buf_printf(&b, "%s", "9"), -E2BIG);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_string_equal(buf_bytes(&b), "12345678");
	buf_consume(&b, 1);
	assert_int_equal(buf_append(&b, "9", 1), 0);
	assert_string_equal(buf_bytes(&b), "23456789");
}

static void buf_printf_of_long_text(void **state)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	char text[5000];

	memset(text, 'q', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(buf_printf(&b, "%s!", text), 0);
	assert_int_equal(b.len, sizeof(text));
	assert_int_equal(buf_bytes(&b)[sizeof(text) - 1], '!');
}

static void buf_reads_and_writes_descriptors(void **state)
{
	CLEAN_BUF struct buf in = BUF_INIT;
	CLEAN_BUF struct buf out = BUF_INIT;
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(buf_puts(&out, "through a pipe"), 0);
	assert_int_equal(buf_write(&out, p[1]), 14);
	assert_int_equal(out.len, 0);
	assert_int_equal(buf_read(&in, p[0], 7), 7);
	assert_string_equal(buf_bytes(&in), "through");
	assert_int_equal(buf_read(&in, p[0], 100), 7);
	assert_string_equal(buf_bytes(&in), "through a pipe");
	assert_int_equal(close(p[1]), 0);
	assert_int_equal(buf_read(&in, p[0], 100), 0);
	assert_int_equal(close(p[0]), 0);
}

/* ---- fd ---- */

struct folder {
	char path[64];
	int fd;
};

static int folder_make(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	(void)snprintf(f->path, sizeof(f->path), "/tmp/walnut-unit-XXXXXX");
	if (!mkdtemp(f->path))
		return -1;
	f->fd = open(f->path, O_DIRECTORY | O_CLOEXEC);
	*state = f;
	return f->fd < 0 ? -1 : 0;
}

static int folder_remove(void **state)
{
	struct folder *f = *state;
	int rc;

	(void)close(f->fd);
	rc = fd_remove_tree(AT_FDCWD, f->path, NULL);
	free(f);
	return rc;
}

static void fd_files_round_trip(void **state)
{
	struct folder *f = *state;
	struct err e = ERR_INIT;
	CLEAN_FREE char *text = NULL;
	size_t len = 0;
	struct stat st;

	assert_int_equal(fd_replace_file(f->fd, "a", "one\0two", 7, 0640, &e), 0);
	text = fd_read_file(f->fd, "a", 100, &len, &e);
	assert_non_null(text);
	assert_int_equal(len, 7);
	assert_memory_equal(text, "one\0two", 8);
	assert_int_equal(fstatat(f->fd, "a", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(fd_write_file(f->fd, "a", O_WRONLY | O_TRUNC, "x", 1, &e), 0);
	free(text);
	text = fd_read_file(f->fd, "a", 100, &len, &e);
	assert_non_null(text);
	assert_string_equal(text, "x");
}

static void fd_read_file_refuses_too_large_and_absent(void **state)
{
	struct folder *f = *state;
	struct err e = ERR_INIT;
	size_t len;

	assert_int_equal(fd_replace_file(f->fd, "big", "0123456789", 10, 0600, &e), 0);
	assert_null(fd_read_file(f->fd, "big", 9, &len, &e));
	assert_int_not_equal(e.code, 0);
	e = ERR_INIT;
	assert_null(fd_read_file(f->fd, "absent", 9, &len, &e));
	assert_int_equal(e.code, ENOENT);
}

static void fd_open_beneath_does_not_leave_the_folder(void **state)
{
	struct folder *f = *state;
	struct err e = ERR_INIT;
	CLEAN_FD int fd = -1;
	struct stat st, inside;

	assert_int_equal(fd_replace_file(f->fd, "passwd", "mine", 4, 0600, &e), 0);
	assert_int_equal(fstatat(f->fd, "passwd", &inside, 0), 0);
	/* "/" and ".." and an absolute symlink all mean the folder itself */
	assert_int_equal(symlinkat("/passwd", f->fd, "absolute"), 0);
	assert_int_equal(symlinkat("../../../../../../passwd", f->fd, "relative"), 0);
	for (size_t i = 0; i < 4; i++) {
		static const char *const paths[] = { "/passwd", "../../passwd", "absolute", "relative" };

		fd = fd_open_beneath(f->fd, paths[i], O_RDONLY, 0, 0);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_ino, inside.st_ino);
		close_fd(&fd);
	}
	assert_int_equal(fd_open_beneath(f->fd, "absolute", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), -ELOOP);
	assert_int_equal(fd_open_beneath(f->fd, "none", O_RDONLY, 0, 0), -ENOENT);
}

/* as an engine meets it that removes the folder of a process which is about to end */
static void fd_remove_tree_beside_one_who_makes_files(void **state)
{
	struct folder *f = *state;
	struct err e = ERR_INIT;

	for (int round = 0; round < 20; round++) {
		char name[32];
		int tree;
		pid_t child;

		assert_int_equal(mkdirat(f->fd, "busy", 0700), 0);
		tree = openat(f->fd, "busy", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
		assert_true(tree >= 0);
		child = fork();
		if (child == 0) {
			for (int i = 0; i < 500; i++) {
				(void)snprintf(name, sizeof(name), "file%d", i);
				if (openat(tree, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) < 0 && errno != EMFILE)
					_exit(0); /* the folder is gone */
			}
			_exit(0);
		}
		while (faccessat(tree, "file9", F_OK, 0) < 0)
			; /* it is at work */
		(void)close(tree);
		assert_int_equal(fd_remove_tree(f->fd, "busy", &e), 0);
		assert_int_equal(waitpid(child, NULL, 0), child);
	}
}

static void fd_remove_tree_does_not_follow_symlinks(void **state)
{
	struct folder *f = *state;
	struct err e = ERR_INIT;
	char path[128];

	assert_int_equal(snprintf(path, sizeof(path), "%s/tree/a/b/c", f->path) < (int)sizeof(path), 1);
	assert_int_equal(fd_mkdir_p(path, 0700, &e), 0);
	assert_int_equal(fd_mkdir_p(path, 0700, &e), 0);
	assert_int_equal(fd_replace_file(f->fd, "kept", "k", 1, 0600, &e), 0);
	assert_int_equal(symlinkat("../kept", f->fd, "tree/link"), 0);
	assert_int_equal(symlinkat("..", f->fd, "tree/up"), 0);
	assert_int_equal(fd_remove_tree(f->fd, "tree", &e), 0);
	assert_int_equal(faccessat(f->fd, "tree", F_OK, 0), -1);
	assert_int_equal(faccessat(f->fd, "kept", F_OK, 0), 0);
	assert_int_equal(fd_remove_tree(f->fd, "tree", &e), 0);
}

static void fd_read_full_stops_at_the_end(void **state)
{
	char bytes[16];
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(fd_write_full(p[1], "abcdef", 6), 0);
	assert_int_equal(close(p[1]), 0);
	assert_int_equal(fd_read_full(p[0], bytes, 4), 4);
	assert_int_equal(fd_read_full(p[0], bytes, sizeof(bytes)), 2);
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(fd_read_full(-1, bytes, 1), -EBADF);
}

static void fd_passes_descriptors(void **state)
{
	int pair[2], p[2], got[FD_PASS_MAX];
	size_t ngot = 0;
	char byte = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(fd_send(pair[0], "m", 1, p, 2), 1);
	assert_int_equal(fd_recv(pair[1], &byte, 1, got, &ngot), 1);
	assert_int_equal(ngot, 2);
	assert_int_equal(byte, 'm');
	assert_int_equal(fcntl(got[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(fd_write_full(p[1], "z", 1), 0);
	assert_int_equal(fd_read_full(got[0], &byte, 1), 1);
	assert_int_equal(byte, 'z');
	for (size_t i = 0; i < 2; i++) {
		(void)close(got[i]);
		(void)close(p[i]);
	}
	(void)close(pair[0]);
	assert_int_equal(fd_recv(pair[1], &byte, 1, got, &ngot), 0);
	(void)close(pair[1]);
}

/* ---- msg ---- */

struct wire {
	int a, b;
	struct msg_stream s;
};

static int wire_make(void **state)
{
	struct wire *w = calloc(1, sizeof(*w));
	int pair[2];

	if (!w || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	w->a = pair[0];
	w->b = pair[1];
	msg_stream_init(&w->s, w->b, true);
	*state = w;
	return 0;
}

static int wire_remove(void **state)
{
	struct wire *w = *state;

	msg_stream_fini(&w->s);
	cleanup_fd(&w->a);
	cleanup_fd(&w->b);
	free(w);
	return 0;
}

static void msg_round_trip(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;
	CLEAN_JSON json_t *request = msg_request(7, "exec", json_pack("{s:i}", "n", 3));
	CLEAN_JSON json_t *got = NULL;

	assert_int_equal(msg_send(w->a, request, NULL, 0, &e), 0);
	assert_int_equal(msg_recv(&w->s, &got, NULL, NULL, &e), 1);
	assert_int_equal(json_int(got, "id", 0), 7);
	assert_string_equal(json_str(got, "method", ""), "exec");
	assert_int_equal(json_int(json_object_get(got, "params"), "n", 0), 3);
}

static void msg_several_in_one_read(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;

	for (int i = 1; i <= 50; i++) {
		CLEAN_JSON json_t *m = msg_request(i, "m", NULL);

		assert_int_equal(msg_send(w->a, m, NULL, 0, &e), 0);
	}
	for (int i = 1; i <= 50; i++) {
		CLEAN_JSON json_t *m = NULL;

		assert_int_equal(msg_recv(&w->s, &m, NULL, NULL, &e), 1);
		assert_int_equal(json_int(m, "id", 0), i);
	}
}

static void msg_byte_by_byte(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;
	static const char frame[] = "\x0c\0\0\0{\"event\":\"e\"";
	CLEAN_JSON json_t *m = NULL;

	assert_int_equal(fd_set_nonblock(w->b, true), 0);
	for (size_t i = 0; i < sizeof(frame) - 1; i++) {
		assert_int_equal(fd_write_full(w->a, frame + i, 1), 0);
		if (i < 4 + 11)
			assert_int_equal(msg_recv(&w->s, &m, NULL, NULL, &e), -EAGAIN);
	}
	/* the frame's length is that of text that is no whole object: refused, not waited for */
	assert_true(msg_recv(&w->s, &m, NULL, NULL, &e) < 0);
	assert_null(m);
}

static void msg_descriptors_stay_with_their_message(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;
	CLEAN_JSON json_t *first = msg_request(1, "plain", NULL);
	CLEAN_JSON json_t *second = msg_request(2, "with", NULL);
	int p[2], fds[FD_PASS_MAX];
	size_t nfds = 99;
	char byte = 0;

	assert_int_equal(pipe(p), 0);
	assert_int_equal(msg_send(w->a, first, NULL, 0, &e), 0);
	assert_int_equal(msg_send(w->a, second, p, 1, &e), 0);
	{
		CLEAN_JSON json_t *m = NULL;

		assert_int_equal(msg_recv(&w->s, &m, fds, &nfds, &e), 1);
		assert_int_equal(json_int(m, "id", 0), 1);
		assert_int_equal(nfds, 0);
	}
	{
		CLEAN_JSON json_t *m = NULL;

		assert_int_equal(msg_recv(&w->s, &m, fds, &nfds, &e), 1);
		assert_int_equal(json_int(m, "id", 0), 2);
		assert_int_equal(nfds, 1);
	}
	assert_int_equal(fd_write_full(p[1], "y", 1), 0);
	assert_int_equal(fd_read_full(fds[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	(void)close(fds[0]);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void msg_claiming_descriptors_it_has_not(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;
	static const char frame[] = "\x09\0\0\0{\"fds\":3}";
	int fds[FD_PASS_MAX];
	size_t nfds;
	CLEAN_JSON json_t *m = NULL;

	assert_int_equal(fd_write_full(w->a, frame, sizeof(frame) - 1), 0);
	assert_int_equal(msg_recv(&w->s, &m, fds, &nfds, &e), -EBADMSG);
}

static void msg_hostile_frames_are_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
	} frames[] = {
		{ "\0\0\0\0", 4 },
		{ "\xff\xff\xff\xff", 4 },
		{ "\x01\0\0\0{", 5 },
		{ "\x02\0\0\0[]", 6 },
		{ "\x04\0\0\0nope", 8 },
		{ "\x0d\0\0\0{\"a\":1,\"a\":2}", 17 },
		{ "\x06\0\0\0{\"a\":\0", 9 },
	};

	for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
		struct err e = ERR_INIT;
		CLEAN_JSON json_t *m = NULL;
		struct msg_stream s;
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		msg_stream_init(&s, pair[1], true);
		assert_int_equal(fd_write_full(pair[0], frames[i].bytes, frames[i].n), 0);
		assert_int_equal(close(pair[0]), 0);
		assert_true(msg_recv(&s, &m, NULL, NULL, &e) < 0);
		assert_true(e.code > 0);
		assert_true(e.msg[0] != '\0');
		assert_null(m);
		msg_stream_fini(&s);
		assert_int_equal(close(pair[1]), 0);
	}
}

static void msg_end_between_messages_is_no_error(void **state)
{
	struct wire *w = *state;
	struct err e = ERR_INIT;
	CLEAN_JSON json_t *m = NULL;

	close_fd(&w->a);
	assert_int_equal(msg_recv(&w->s, &m, NULL, NULL, &e), 0);
}

static void msg_errors_travel(void **state)
{
	struct err e = ERR_INIT, back = ERR_INIT;
	CLEAN_JSON json_t *bad = NULL;
	CLEAN_JSON json_t *good = msg_result(4, NULL);

	assert_int_equal(err_set(&e, ENOENT, "no such thing"), -ENOENT);
	bad = msg_error(3, &e);
	assert_int_equal(msg_failed(bad, &back), -ENOENT);
	assert_string_equal(back.msg, "no such thing");
	assert_int_equal(msg_failed(good, &back), 0);
}

/* ---- loop ---- */

struct seen {
	char order[16];
	size_t n;
	struct loop_source *other;
	int other_calls;
};

static void note_timer(struct loop *l, void *arg)
{
	struct seen *s = arg;

	s->order[s->n++] = '.';
	if (s->n == 3)
		loop_stop(l);
}

static void stop_early(struct loop *l, void *arg)
{
	struct seen *s = arg;

	s->order[s->n++] = '!';
}

static void loop_timers_fire_in_order_and_once(void **state)
{
	struct err e = ERR_INIT;
	struct loop *l = loop_new(&e);
	struct seen s = { 0 };
	struct loop_timer *cancelled;

	assert_non_null(l);
	assert_non_null(loop_add_timer(l, 20, note_timer, &s));
	assert_non_null(loop_add_timer(l, 1, note_timer, &s));
	cancelled = loop_add_timer(l, 5, stop_early, &s);
	assert_non_null(cancelled);
	assert_non_null(loop_add_timer(l, 10, note_timer, &s));
	loop_cancel(cancelled);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(s.n, 3);
	assert_null(memchr(s.order, '!', sizeof(s.order)));
	loop_free(l);
}

static void read_and_stop(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct seen *s = arg;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(fd, s->order, 1), 1);
	loop_stop(l);
}

static void loop_watches_descriptors(void **state)
{
	struct err e = ERR_INIT;
	struct loop *l = loop_new(&e);
	struct seen s = { 0 };
	int p[2];

	assert_non_null(l);
	assert_int_equal(pipe(p), 0);
	assert_non_null(loop_add_fd(l, p[0], EPOLLIN, read_and_stop, &s, &e));
	assert_int_equal(loop_step(l, 0, &e), 0);
	assert_int_equal(s.order[0], 0);
	assert_int_equal(fd_write_full(p[1], "k", 1), 0);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(s.order[0], 'k');
	loop_free(l);
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(p[1]), 0);
}

struct pair_arg {
	struct loop_source **self, **other;
	int *calls;
};

static void remove_both(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct pair_arg *a = arg;

	(*a->calls)++;
	loop_remove(*a->self);
	loop_remove(*a->other);
	*a->self = *a->other = NULL;
}

static void loop_sources_may_be_removed_in_callbacks(void **state)
{
	struct err e = ERR_INIT;
	struct loop *l = loop_new(&e);
	struct loop_source *one, *two;
	int calls = 0, p[2], q[2];
	struct pair_arg a = { &one, &two, &calls }, b = { &two, &one, &calls };

	assert_non_null(l);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(pipe(q), 0);
	one = loop_add_fd(l, p[0], EPOLLIN, remove_both, &a, &e);
	two = loop_add_fd(l, q[0], EPOLLIN, remove_both, &b, &e);
	assert_non_null(one);
	assert_non_null(two);
	assert_int_equal(fd_write_full(p[1], "x", 1), 0);
	assert_int_equal(fd_write_full(q[1], "x", 1), 0);
	assert_int_equal(loop_step(l, 100, &e), 0);
	assert_int_equal(loop_step(l, 0, &e), 0);
	assert_int_equal(calls, 1);
	loop_free(l);
	for (size_t i = 0; i < 2; i++) {
		(void)close(p[i]);
		(void)close(q[i]);
	}
}

/* ---- json ---- */

static void json_getters_have_defaults(void **state)
{
	struct err e = ERR_INIT;
	static const char text[] = "{\"s\":\"t\",\"i\":5,\"b\":true,\"z\":null}";
	CLEAN_JSON json_t *j = json_parse(text, strlen(text), "a test", &e);

	assert_non_null(j);
	assert_string_equal(json_str(j, "s", "d"), "t");
	assert_string_equal(json_str(j, "i", "d"), "d");
	assert_string_equal(json_str(j, "none", "d"), "d");
	assert_string_equal(json_str(j, "z", "d"), "d");
	assert_int_equal(json_int(j, "i", 9), 5);
	assert_int_equal(json_int(j, "s", 9), 9);
	assert_true(json_bool(j, "b", false));
	assert_true(json_bool(j, "i", true));
	assert_int_equal(json_int(NULL, "i", 9), 9);
}

static void json_bad_text_names_the_document(void **state)
{
	struct err e = ERR_INIT;

	assert_null(json_parse("{", 1, "the manifest", &e));
	assert_int_equal(e.code, EINVAL);
	assert_non_null(strstr(e.msg, "the manifest"));
}

/* Against gmtime(3): every day of 800 years around 1970, the ends of days, and times far away. */
static void utc_is_what_the_c_library_says(void **state)
{
	static const int64_t offsets[] = { 0, 1, 3599, 43200, 86399 };
	static const int64_t far[] = { INT32_MIN, INT32_MAX, 253402300799, -62135596800, 67767976233532799 };
	char ours[UTC_SIZE], theirs[96];
	struct tm tm;

	for (int64_t day = -146100; day < 146100; day++) {
		time_t t = day * 86400 + offsets[(day + 146100) % 5];

		assert_true(gmtime_r(&t, &tm) && strftime(theirs, sizeof(theirs), "%Y-%m-%dT%H:%M:%S", &tm));
		utc_format(t, ours, sizeof(ours));
		assert_string_equal(ours, theirs);
	}
	for (size_t i = 0; i < ARRAY_LEN(far); i++) {
		assert_non_null(gmtime_r(&far[i], &tm));
		(void)snprintf(theirs, sizeof(theirs), "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900,
			       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
		utc_format(far[i], ours, sizeof(ours));
		assert_string_equal(ours, theirs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(err_set_gives_code_and_sentence),
		cmocka_unit_test(err_sys_appends_the_reason),
		cmocka_unit_test(err_wrap_puts_a_prefix),
		cmocka_unit_test(err_long_text_is_cut_not_overrun),
		cmocka_unit_test(err_null_is_allowed),
		cmocka_unit_test(buf_appends_and_consumes),
		cmocka_unit_test(buf_keeps_bytes_over_growth_and_moves),
		cmocka_unit_test(buf_limit_holds),
		cmocka_unit_test(buf_printf_of_long_text),
		cmocka_unit_test(buf_reads_and_writes_descriptors),
		cmocka_unit_test_setup_teardown(fd_files_round_trip, folder_make, folder_remove),
		cmocka_unit_test_setup_teardown(fd_read_file_refuses_too_large_and_absent, folder_make, folder_remove),
		cmocka_unit_test_setup_teardown(fd_open_beneath_does_not_leave_the_folder, folder_make, folder_remove),
		cmocka_unit_test_setup_teardown(fd_remove_tree_does_not_follow_symlinks, folder_make, folder_remove),
		cmocka_unit_test_setup_teardown(fd_remove_tree_beside_one_who_makes_files, folder_make, folder_remove),
		cmocka_unit_test(fd_read_full_stops_at_the_end),
		cmocka_unit_test(fd_passes_descriptors),
		cmocka_unit_test_setup_teardown(msg_round_trip, wire_make, wire_remove),
		cmocka_unit_test_setup_teardown(msg_several_in_one_read, wire_make, wire_remove),
		cmocka_unit_test_setup_teardown(msg_byte_by_byte, wire_make, wire_remove),
		cmocka_unit_test_setup_teardown(msg_descriptors_stay_with_their_message, wire_make, wire_remove),
		cmocka_unit_test_setup_teardown(msg_claiming_descriptors_it_has_not, wire_make, wire_remove),
		cmocka_unit_test(msg_hostile_frames_are_refused),
		cmocka_unit_test_setup_teardown(msg_end_between_messages_is_no_error, wire_make, wire_remove),
		cmocka_unit_test(msg_errors_travel),
		cmocka_unit_test(loop_timers_fire_in_order_and_once),
		cmocka_unit_test(loop_watches_descriptors),
		cmocka_unit_test(loop_sources_may_be_removed_in_callbacks),
		cmocka_unit_test(utc_is_what_the_c_library_says),
		cmocka_unit_test(json_getters_have_defaults),
		cmocka_unit_test(json_bad_text_names_the_document),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
