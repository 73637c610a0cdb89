/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 client (RFC 9112) over a unix socket: what the Docker Engine API needs, no more. */
#include "cli/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define HEAD_MAX  65536
#define REPLY_MAX ((size_t)256 << 20)

void reply_fini(struct reply *r)
{
	close_fd(&r->fd);
	buf_free(&r->in);
}

int client_connect(const struct client *c, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	CLEAN_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(err, errno, "create a socket");
	if (strlen(c->socket_path) >= sizeof(addr.sun_path))
		return err_set(err, ENAMETOOLONG, "the socket's path %s is too long", c->socket_path);
	memcpy(addr.sun_path, c->socket_path, strlen(c->socket_path) + 1);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return err_set(err, errno, "cannot connect to the engine at unix://%s: %s: %s", c->socket_path,
			       strerror(errno), errno == EACCES ? "use sudo" : "is walnutd running there?");
	return take_fd(&fd);
}

static int send_chunks(int sock, int body_fd, struct err *err)
{
	CLEAN_FREE char *piece = malloc(65536);
	char size[24];
	ssize_t got;
	int rc;

	if (!piece)
		return err_sys(err, ENOMEM, "send the request");
	do {
		got = read(body_fd, piece, 65536);
		if (got < 0)
			return err_sys(err, errno, "read the input");
		(void)snprintf(size, sizeof(size), "%zx\r\n", (size_t)got);
		rc = fd_write_full(sock, size, strlen(size));
		if (!rc)
			rc = fd_write_full(sock, piece, (size_t)got);
		if (!rc)
			rc = fd_write_full(sock, "\r\n", 2);
		/* The engine may answer early (an error) and close: its answer says why. */
		if (rc == -EPIPE || rc == -ECONNRESET)
			return 0;
		if (rc < 0)
			return err_sys(err, -rc, "send the request");
	} while (got > 0);
	return 0;
}

static int parse_head(struct reply *r, const char *head, struct err *err)
{
	const char *line = head, *value;

	if (sscanf(head, "HTTP/1.%*d %d", &r->status) != 1)
		return err_set(err, EBADMSG, "the engine's answer is not HTTP");
	r->left = -1;
	while ((line = strstr(line, "\r\n"))) {
		line += 2;
		value = strchr(line, ':');
		if (!value)
			break;
		value += 1 + strspn(value + 1, " ");
		if (!strncasecmp(line, "Content-Length:", 15))
			r->left = strtoll(value, NULL, 10);
		else if (!strncasecmp(line, "Transfer-Encoding:", 18))
			r->chunked = !strncasecmp(value, "chunked", 7);
	}
	r->upgraded = r->status == 101;
	if (r->status == 204 || r->status == 304)
		r->left = 0;
	if (r->chunked)
		r->left = 0;
	if (r->upgraded)
		r->left = -1;
	return 0;
}

static int read_head(struct reply *r, struct err *err)
{
	CLEAN_FREE char *head = NULL;
	char *end;
	ssize_t got;
	size_t len;
	int rc;

	for (;;) {
		end = strstr(buf_bytes(&r->in), "\r\n\r\n");
		if (end) {
			len = (size_t)(end - buf_bytes(&r->in)) + 4;
			head = strndup(buf_bytes(&r->in), len);
			if (!head)
				return err_sys(err, ENOMEM, "read the answer");
			buf_consume(&r->in, len);
			rc = parse_head(r, head, err);
			if (rc < 0 || r->status != 100)
				return rc;
			continue;
		}
		if (r->in.len > HEAD_MAX)
			return err_set(err, EBADMSG, "the engine's answer has no end of its head");
		got = buf_read(&r->in, r->fd, 16384);
		if (got < 0)
			return err_sys(err, (int)-got, "read the answer");
		if (!got)
			return err_set(err, ECONNRESET, "the engine closed the connection without an answer");
	}
}

int client_send(const struct client *c, const char *method, const char *path, const json_t *body, int body_fd,
		bool upgrade, struct reply *out, struct err *err)
{
	CLEAN_FREE char *text = body ? json_text(body) : NULL;
	CLEAN_BUF struct buf head = BUF_INIT;
	int rc;

	*out = (struct reply){ .fd = -1 };
	out->fd = client_connect(c, err);
	if (out->fd < 0)
		return out->fd;
	rc = buf_printf(&head, "%s /v1.47%s HTTP/1.1\r\nHost: walnut\r\nUser-Agent: walnut/" WALNUT_VERSION "\r\n%s",
			method, path, upgrade ? "Connection: Upgrade\r\nUpgrade: tcp\r\n" : "Connection: close\r\n");
	if (!rc && c->auth)
		rc = buf_printf(&head, "X-Registry-Auth: %s\r\n", c->auth);
	if (!rc && body_fd >= 0)
		rc = buf_puts(&head, "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n");
	else if (!rc && text)
		rc = buf_printf(&head, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(text),
				text);
	else if (!rc)
		rc = buf_puts(&head, "Content-Length: 0\r\n\r\n");
	if (!rc)
		rc = fd_write_full(out->fd, buf_bytes(&head), head.len);
	if (rc < 0)
		return err_sys(err, -rc, "send the request");
	if (body_fd >= 0) {
		rc = send_chunks(out->fd, body_fd, err);
		if (rc < 0)
			return rc;
	}
	return read_head(out, err);
}

/* Reads the line "SIZE CRLF" before a chunk, and the CRLF that ended the one before. Return: 1, 0 at the last, -errno. */
static int next_chunk(struct reply *r, struct err *err)
{
	char *end, *line;
	ssize_t got;

	for (;;) {
		line = buf_bytes(&r->in);
		if (r->in.len >= 2 && line[0] == '\r' && line[1] == '\n') {
			buf_consume(&r->in, 2);
			continue;
		}
		end = strstr(line, "\r\n");
		if (end) {
			r->left = strtoll(line, NULL, 16);
			buf_consume(&r->in, (size_t)(end - line) + 2);
			if (r->left < 0)
				return err_set(err, EBADMSG, "the engine's answer has a chunk of a wrong size");
			return r->left > 0;
		}
		got = buf_read(&r->in, r->fd, 16384);
		if (got <= 0)
			return err_set(err, ECONNRESET, "the engine closed the connection inside its answer");
	}
}

ssize_t reply_read(struct reply *r, void *bytes, size_t n, struct err *err)
{
	ssize_t got;
	int rc;

	if (r->chunked && !r->left) {
		rc = next_chunk(r, err);
		if (rc <= 0)
			return rc;
	}
	if (!r->left)
		return 0;
	if (!r->in.len) {
		got = buf_read(&r->in, r->fd, 65536);
		if (got < 0)
			return err_sys(err, (int)-got, "read the answer");
		if (!got)
			return r->left > 0
				       ? err_set(err, ECONNRESET, "the engine closed the connection inside its answer")
				       : 0;
	}
	if (r->left > 0 && n > (uint64_t)r->left)
		n = (size_t)r->left;
	if (n > r->in.len)
		n = r->in.len;
	memcpy(bytes, buf_bytes(&r->in), n);
	buf_consume(&r->in, n);
	if (r->left > 0)
		r->left -= (int64_t)n;
	return (ssize_t)n;
}

int reply_all(struct reply *r, struct buf *out, struct err *err)
{
	char piece[8192];
	ssize_t got;

	out->limit = REPLY_MAX;
	while ((got = reply_read(r, piece, sizeof(piece), err)) > 0)
		if (buf_append(out, piece, (size_t)got) < 0)
			return err_sys(err, ENOMEM, "read the answer");
	return (int)got;
}

int reply_error(struct reply *r, struct err *err)
{
	CLEAN_BUF struct buf body = BUF_INIT;
	CLEAN_JSON json_t *said = NULL;

	if (reply_all(r, &body, err) < 0)
		return -err->code;
	said = json_parse(buf_bytes(&body), body.len, "the engine's answer", NULL);
	return err_set(err, EREMOTEIO, "%s", json_str(said, "message", "the engine refuses without a reason"));
}

int client_json(const struct client *c, const char *method, const char *path, const json_t *body, json_t **out,
		struct err *err)
{
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_BUF struct buf text = BUF_INIT;
	int rc = client_send(c, method, path, body, -1, false, &r, err);

	if (out)
		*out = NULL;
	if (rc < 0)
		return rc;
	if (r.status >= 400)
		return reply_error(&r, err);
	rc = reply_all(&r, &text, err);
	if (rc < 0 || !out || !text.len)
		return rc;
	*out = json_parse(buf_bytes(&text), text.len, "the engine's answer", err);
	return *out ? 0 : -err->code;
}

char *url_encode(const char *text)
{
	static const char hex[] = "0123456789ABCDEF";
	char *out = malloc(strlen(text) * 3 + 1), *at = out;

	if (!out)
		return NULL;
	for (; *text; text++) {
		unsigned char ch = (unsigned char)*text;

		if ((ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
		    strchr("-._~", ch)) {
			*at++ = (char)ch;
		} else {
			*at++ = '%';
			*at++ = hex[ch >> 4];
			*at++ = hex[ch & 15];
		}
	}
	*at = '\0';
	return out;
}
