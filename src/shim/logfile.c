/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Docker's json-file log: one object a line,
 *	{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}
 * A line longer than 16 KiB is written in parts; only the last one's text ends with \n,
 * and all carry the time of the first. Text that is not UTF-8 becomes U+FFFD; a part never
 * ends inside a character. Output is encoded into one buffer and written with one write(2)
 * per chunk that the container wrote, so the log keeps up with a pipe.
 */
#include "shim/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"

struct line {
	struct buf text;      /* what was read of it */
	struct timespec time; /* of its first part */
	bool partial;         /* parts of it were written */
};

struct logfile {
	int fd;
	char *path;
	int64_t size, max_size;
	int max_files;
	bool failed;
	struct line lines[2];
	struct buf out;
	time_t stamp_second;
	char stamp[24];
};

static int open_current(struct logfile *log, struct err *err)
{
	struct stat st;

	log->fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (log->fd < 0)
		return err_sys(err, errno, "open the log %s", log->path);
	log->size = fstat(log->fd, &st) < 0 ? 0 : st.st_size;
	return 0;
}

struct logfile *logfile_open(const char *path, int64_t max_size, int max_files, struct err *err)
{
	struct logfile *log = calloc(1, sizeof(*log));

	if (!log || !(log->path = strdup(path))) {
		(void)err_sys(err, ENOMEM, "open the log %s", path);
		free(log);
		return NULL;
	}
	log->max_size = max_size;
	log->max_files = max_files < 1 ? 1 : max_files;
	log->stamp_second = -1;
	if (open_current(log, err) < 0) {
		free(log->path);
		free(log);
		return NULL;
	}
	return log;
}

/* Renames path.N-1 to path.N … and path to path.1, then opens a new file. */
static void rotate(struct logfile *log)
{
	struct err err = ERR_INIT;

	for (int i = log->max_files - 1; i > 0; i--) {
		CLEAN_FREE char *from = NULL;
		CLEAN_FREE char *to = NULL;

		if (asprintf(&to, "%s.%d", log->path, i) < 0) {
			to = NULL;
			return;
		}
		if (i == 1)
			from = strdup(log->path);
		else if (asprintf(&from, "%s.%d", log->path, i - 1) < 0)
			from = NULL;
		if (from && rename(from, to) < 0 && errno != ENOENT)
			log_warn("rotate the log %s: %s", log->path, strerror(errno));
	}
	if (log->max_files == 1)
		(void)unlink(log->path);
	close_fd(&log->fd);
	if (open_current(log, &err) < 0)
		log_error("%s", err.msg);
}

static void flush_out(struct logfile *log)
{
	int rc = log->fd < 0 ? -EBADF : 0;

	if (!log->out.len)
		return;
	if (!rc)
		rc = fd_write_full(log->fd, buf_bytes(&log->out), log->out.len);
	if (rc < 0 && !log->failed)
		log_error("write the log %s: %s", log->path, strerror(-rc));
	log->failed = rc < 0;
	log->size += (int64_t)log->out.len;
	buf_consume(&log->out, log->out.len);
	if (log->max_size > 0 && log->size >= log->max_size)
		rotate(log);
}

/* The length of the UTF-8 character at @p: 0 if it is not one, -1 if it is cut off by the end. */
static int utf8_len(const unsigned char *p, size_t n)
{
	unsigned char c = p[0], lo = 0x80, hi = 0xbf;
	int len;

	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		len = 2;
	else if (c >= 0xe0 && c <= 0xef)
		len = 3;
	else if (c >= 0xf0 && c <= 0xf4)
		len = 4;
	else
		return 0;
	if (c == 0xe0)
		lo = 0xa0;
	else if (c == 0xed)
		hi = 0x9f;
	else if (c == 0xf0)
		lo = 0x90;
	else if (c == 0xf4)
		hi = 0x8f;
	for (int i = 1; i < len; i++) {
		if ((size_t)i >= n)
			return -1;
		if (p[i] < lo || p[i] > hi)
			return 0;
		lo = 0x80;
		hi = 0xbf;
	}
	return len;
}

/* How many of @n bytes can be written without cutting the last character. */
static size_t whole_chars(const char *text, size_t n)
{
	for (size_t back = 1; back <= 3 && back < n; back++) {
		const unsigned char *p = (const unsigned char *)text + n - back;

		if ((*p & 0xc0) == 0x80)
			continue;
		return utf8_len(p, back) == -1 ? n - back : n;
	}
	return n;
}

/* Writes the text as the inside of a JSON string; @to has room for 6 bytes for each. Return: the end. */
static char *escape(char *to, const char *text, size_t n)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)text[i];
		int len;

		if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&') {
			*to++ = (char)c;
			i++;
			continue;
		}
		len = utf8_len((const unsigned char *)text + i, n - i);
		if (len > 1) {
			memcpy(to, text + i, (size_t)len);
			to += len;
			i += (size_t)len;
			continue;
		}
		i++;
		if (len < 1) {
			memcpy(to, "\\ufffd", 6);
			to += 6;
		} else if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t') {
			*to++ = '\\';
			*to++ = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : (char)c;
		} else {
			memcpy(to, "\\u00", 4);
			to[4] = hex[c >> 4];
			to[5] = hex[c & 15];
			to += 6;
		}
	}
	return to;
}

/* RFC 3339 with nanoseconds, trailing zeros dropped as Go does. */
static size_t format_time(struct logfile *log, const struct timespec *ts, char out[48])
{
	struct tm tm;
	size_t n;

	if (ts->tv_sec != log->stamp_second) {
		(void)gmtime_r(&ts->tv_sec, &tm);
		(void)strftime(log->stamp, sizeof(log->stamp), "%Y-%m-%dT%H:%M:%S", &tm);
		log->stamp_second = ts->tv_sec;
	}
	n = (size_t)snprintf(out, 48, "%s.%09ld", log->stamp, ts->tv_nsec);
	while (out[n - 1] == '0')
		n--;
	if (out[n - 1] == '.')
		n--;
	out[n++] = 'Z';
	return n;
}

static void put_record(struct logfile *log, int stream, const struct timespec *ts, const char *text, size_t n)
{
	static const char head[] = "{\"log\":\"", *const tails[] = { "\",\"stream\":\"stdout\",\"time\":\"",
								     "\",\"stream\":\"stderr\",\"time\":\"" };
	const char *tail = tails[stream == 2];
	char *start = buf_reserve(&log->out, n * 6 + 128), *to = start;
	char stamp[48];
	size_t stamp_len;

	if (!start)
		return;
	memcpy(to, head, sizeof(head) - 1);
	to = escape(to + sizeof(head) - 1, text, n);
	memcpy(to, tail, strlen(tail));
	to += strlen(tail);
	stamp_len = format_time(log, ts, stamp);
	memcpy(to, stamp, stamp_len);
	to += stamp_len;
	memcpy(to, "\"}\n", 3);
	buf_commit(&log->out, (size_t)(to + 3 - start));
	if (log->out.len >= 65536 || (log->max_size > 0 && log->size + (int64_t)log->out.len >= log->max_size))
		flush_out(log);
}

/* Writes a line or a part of one. @n includes the \n, when @last. */
static void put_part(struct logfile *log, int stream, struct line *line, const char *text, size_t n, bool last)
{
	if (!line->partial)
		(void)clock_gettime(CLOCK_REALTIME, &line->time);
	put_record(log, stream, &line->time, text, n);
	line->partial = !last;
}

void logfile_write(struct logfile *log, int stream, const char *bytes, size_t n)
{
	struct line *line = &log->lines[stream == 2];

	while (n) {
		const char *nl = memchr(bytes, '\n', n);
		size_t take = nl ? (size_t)(nl - bytes) + 1 : n;
		size_t room = LOGFILE_LINE_MAX - line->text.len;
		bool full = (nl ? take - 1 : take) >= room && !(nl && take - 1 == room);

		if (nl && !full && !line->text.len) {
			put_part(log, stream, line, bytes, take, true); /* the common case: not copied */
			bytes += take;
			n -= take;
			continue;
		}
		if (full)
			take = room;
		if (buf_append(&line->text, bytes, take) < 0)
			break;
		bytes += take;
		n -= take;
		if (full) {
			size_t whole = whole_chars(buf_bytes(&line->text), line->text.len);

			put_part(log, stream, line, buf_bytes(&line->text), whole, false);
			buf_consume(&line->text, whole);
		} else if (nl) {
			put_part(log, stream, line, buf_bytes(&line->text), line->text.len, true);
			buf_consume(&line->text, line->text.len);
		}
	}
	flush_out(log);
}

static void put_line(const char *line, size_t n, void (*put)(void *arg, int stream, const char *bytes, size_t n),
		     void *arg)
{
	CLEAN_JSON json_t *record = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
	const json_t *text = json_object_get(record, "log");

	if (json_is_string(text))
		put(arg, strcmp(json_str(record, "stream", ""), "stderr") ? 1 : 2, json_string_value(text),
		    json_string_length(text));
}

void logfile_rest(struct logfile *log, uint64_t inode, int64_t offset,
		  void (*put)(void *arg, int stream, const char *bytes, size_t n), void *arg)
{
	CLEAN_FD int fd = open(log->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	CLEAN_BUF struct buf in = BUF_INIT;
	struct stat st;
	char *end;

	if (fd >= 0 && !fstat(fd, &st) && lseek(fd, st.st_ino == inode ? offset : 0, SEEK_SET) >= 0) {
		while (buf_read(&in, fd, 65536) > 0) {
			while ((end = memchr(buf_bytes(&in), '\n', in.len))) {
				put_line(buf_bytes(&in), (size_t)(end - buf_bytes(&in)), put, arg);
				buf_consume(&in, (size_t)(end - buf_bytes(&in)) + 1);
			}
		}
	}
	for (int i = 0; i < 2; i++)
		if (log->lines[i].text.len)
			put(arg, i + 1, buf_bytes(&log->lines[i].text), log->lines[i].text.len);
}

void logfile_finish(struct logfile *log)
{
	for (int i = 0; i < 2; i++) {
		struct line *line = &log->lines[i];

		if (line->text.len)
			put_part(log, i + 1, line, buf_bytes(&line->text), line->text.len, true);
		buf_consume(&line->text, line->text.len);
	}
	flush_out(log);
}

void logfile_close(struct logfile *log)
{
	if (!log)
		return;
	logfile_finish(log);
	for (int i = 0; i < 2; i++)
		buf_free(&log->lines[i].text);
	buf_free(&log->out);
	close_fd(&log->fd);
	free(log->path);
	free(log);
}
