/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a json-file log: one object a line {"log","stream","time"}, as Docker writes it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/container.h"

struct logs_reader {
	int fd;
	char *path;
	struct logs_options options;
	struct buf in;
	bool past;
};

/* Position of the first of the last @tail lines. */
static int logs_seek_tail(int fd, long tail)
{
	off_t at = lseek(fd, 0, SEEK_END), size = at;
	char block[8192];
	long seen = 0;

	if (tail == 0)
		return at < 0 ? -errno : 0;
	while (at > 0) {
		size_t n = at < (off_t)sizeof(block) ? (size_t)at : sizeof(block);

		at -= (off_t)n;
		if (pread(fd, block, n, at) != (ssize_t)n)
			return -EIO;
		for (size_t i = n; i-- > 0;)
			if (block[i] == '\n' && at + (off_t)i != size - 1 && ++seen == tail)
				return lseek(fd, at + (off_t)i + 1, SEEK_SET) < 0 ? -errno : 0;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

struct logs_reader *logs_open(const char *path, const struct logs_options *o, struct err *err)
{
	struct logs_reader *r = calloc(1, sizeof(*r));

	if (!r || !(r->path = strdup(path))) {
		free(r);
		(void)err_sys(err, ENOMEM, "read the log");
		return NULL;
	}
	r->options = *o;
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0 && errno != ENOENT) {
		(void)err_sys(err, errno, "open %s", path);
		logs_close(r);
		return NULL;
	}
	if (r->fd >= 0 && o->tail >= 0 && logs_seek_tail(r->fd, o->tail) < 0) {
		(void)err_set(err, EIO, "cannot read %s", path);
		logs_close(r);
		return NULL;
	}
	return r;
}

void logs_close(struct logs_reader *r)
{
	if (!r)
		return;
	cleanup_fd(&r->fd);
	free(r->path);
	buf_free(&r->in);
	free(r);
}

static int logs_line(struct logs_reader *r, const char *line, size_t n, struct buf *out)
{
	CLEAN_JSON json_t *j = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
	const json_t *text = json_object_get(j, "log");
	const char *time = json_str(j, "time", "");
	bool is_err = !strcmp(json_str(j, "stream", "stdout"), "stderr");
	const struct logs_options *o = &r->options;
	size_t len = json_string_length(text), stamp = o->timestamps ? strlen(time) + 1 : 0;
	int64_t at = 0;
	unsigned char head[8] = { is_err ? 2 : 1 };

	if (!text || (is_err ? !o->err : !o->out))
		return 0;
	if ((o->since_ns || o->until_ns) && !engine_parse_time(time, &at)) {
		if (at < o->since_ns)
			return 0;
		if (o->until_ns && at > o->until_ns) {
			r->past = true;
			return 0;
		}
	}
	for (int i = 0; i < 4; i++)
		head[4 + i] = (unsigned char)((len + stamp) >> (24 - 8 * i));
	if (o->mux && buf_append(out, head, 8))
		return -ENOMEM;
	if (stamp && buf_printf(out, "%s ", time))
		return -ENOMEM;
	return buf_append(out, json_string_value(text), len) ? -ENOMEM : 0;
}

ssize_t logs_next(struct logs_reader *r, struct buf *out, bool *past_until)
{
	size_t before = out->len;

	if (r->fd < 0) {
		r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
		if (r->fd < 0)
			return errno == ENOENT ? 0 : -errno;
	}
	while (out->len - before < 262144 && !r->past) {
		ssize_t n = buf_read(&r->in, r->fd, 65536);
		char *end;

		if (n < 0)
			return n;
		while (!r->past && (end = memchr(buf_bytes(&r->in), '\n', r->in.len))) {
			size_t len = (size_t)(end - buf_bytes(&r->in));

			if (logs_line(r, buf_bytes(&r->in), len, out))
				return -ENOMEM;
			buf_consume(&r->in, len + 1);
		}
		if (!n)
			break;
	}
	*past_until = r->past;
	return (ssize_t)(out->len - before);
}
