/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a json-file log: one object a line {"log","stream","time"}, as Docker writes it. The log is a sequence of files,
 * ID-json.log.N (oldest) ... ID-json.log.1, ID-json.log, which the shim rotates while they are read.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/container.h"

#define LOGS_FILES_MAX 1000
#define LOGS_PIECE     262144

struct logs_reader {
	int fds[LOGS_FILES_MAX]; /* oldest first: rotated files, then the current one; owned */
	size_t n, at;
	char *path;
	struct logs_options options;
	struct buf in;
	off_t offset; /* in fds[at], of the first byte not yet given out */
	bool past;
};

/* Lines in the file from its end; if it has more than @tail of them, *start is where the last @tail begin. */
static long logs_count(int fd, long tail, off_t *start)
{
	off_t at = lseek(fd, 0, SEEK_END), size = at;
	char block[65536];
	long seen = 0;

	*start = 0;
	while (at > 0) {
		size_t n = at < (off_t)sizeof(block) ? (size_t)at : sizeof(block);

		at -= (off_t)n;
		if (pread(fd, block, n, at) != (ssize_t)n)
			return -EIO;
		for (size_t i = n; i-- > 0;)
			if (block[i] == '\n' && at + (off_t)i != size - 1 && ++seen == tail) {
				*start = at + (off_t)i + 1;
				return seen;
			}
	}
	return size > 0 ? seen + 1 : 0;
}

/* Stand where the last @tail lines of all files begin. */
static int logs_seek_tail(struct logs_reader *r, long tail)
{
	r->at = r->n ? r->n - 1 : 0;
	if (!r->n)
		return 0;
	if (tail == 0)
		return lseek(r->fds[r->at], 0, SEEK_END) < 0 ? -errno : 0;
	for (;; r->at--) {
		off_t start;
		long lines = logs_count(r->fds[r->at], tail, &start);

		if (lines < 0 || lseek(r->fds[r->at], start, SEEK_SET) < 0)
			return -EIO;
		tail -= lines;
		if (tail <= 0 || start > 0 || !r->at)
			return 0;
	}
}

static int logs_push(struct logs_reader *r, const char *path)
{
	int fd = r->n < LOGS_FILES_MAX ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

	if (fd < 0)
		return r->n < LOGS_FILES_MAX ? -errno : -EMFILE;
	r->fds[r->n++] = fd;
	return 0;
}

/* Opens path.N ... path.1, path. They stay readable when they are renamed or removed meanwhile. */
static int logs_open_all(struct logs_reader *r)
{
	char name[PATH_MAX];
	int last = 0;

	while (last < LOGS_FILES_MAX - 1) {
		(void)snprintf(name, sizeof(name), "%s.%d", r->path, last + 1);
		if (access(name, F_OK))
			break;
		last++;
	}
	for (int i = last; i > 0; i--) {
		(void)snprintf(name, sizeof(name), "%s.%d", r->path, i);
		(void)logs_push(r, name); /* rotated away just now: its lines are gone, as with Docker */
	}
	int rc = logs_push(r, r->path);

	return rc == -ENOENT ? 0 : rc;
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
	int rc = logs_open_all(r);

	if (!rc && o->tail >= 0)
		rc = logs_seek_tail(r, o->tail);
	if (rc < 0) {
		(void)err_sys(err, -rc, "read the log %s", path);
		logs_close(r);
		return NULL;
	}
	if (r->n)
		r->offset = lseek(r->fds[r->at], 0, SEEK_CUR);
	return r;
}

void logs_close(struct logs_reader *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		cleanup_fd(&r->fds[i]);
	free(r->path);
	buf_free(&r->in);
	free(r);
}

/* At the end of the last file that is open: is there a newer one? Return: true when there is more to read. */
static bool logs_follow_rotation(struct logs_reader *r)
{
	char name[PATH_MAX];
	struct stat ours, st;
	int newer = -1;

	if (!r->n)
		return !logs_push(r, r->path);
	if (fstat(r->fds[r->at], &ours) || stat(r->path, &st) || (st.st_ino == ours.st_ino && st.st_dev == ours.st_dev))
		return false;
	/* rotated: ours may be path.N now, and the files after it are path.N-1 ... path */
	for (int i = 1; i < LOGS_FILES_MAX && newer < 0; i++) {
		(void)snprintf(name, sizeof(name), "%s.%d", r->path, i);
		if (stat(name, &st))
			break;
		if (st.st_ino == ours.st_ino && st.st_dev == ours.st_dev)
			newer = i - 1;
	}
	for (size_t i = 0; i < r->n; i++)
		cleanup_fd(&r->fds[i]);
	r->n = r->at = 0;
	r->offset = 0;
	for (int i = newer < 0 ? 0 : newer; i >= 0; i--) {
		(void)snprintf(name, sizeof(name), i ? "%s.%d" : "%s", r->path, i);
		(void)logs_push(r, name);
	}
	return r->n;
}

void logs_position(const struct logs_reader *r, uint64_t *inode, int64_t *offset)
{
	struct stat st;

	*inode = r->n && !fstat(r->fds[r->at], &st) ? st.st_ino : 0;
	*offset = r->offset;
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

	while (out->len - before < LOGS_PIECE && !r->past) {
		ssize_t n = r->n ? buf_read(&r->in, r->fds[r->at], 65536) : 0;
		char *end;

		if (n < 0)
			return n;
		while (!r->past && (end = memchr(buf_bytes(&r->in), '\n', r->in.len))) {
			size_t len = (size_t)(end - buf_bytes(&r->in));

			if (logs_line(r, buf_bytes(&r->in), len, out))
				return -ENOMEM;
			buf_consume(&r->in, len + 1);
			r->offset += (off_t)len + 1;
		}
		if (n)
			continue;
		if (r->n && r->at + 1 < r->n) {
			close_fd(&r->fds[r->at++]);
			r->offset = 0;
			continue;
		}
		if (!logs_follow_rotation(r))
			break;
	}
	*past_until = r->past;
	return (ssize_t)(out->len - before);
}
