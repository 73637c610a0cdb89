/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 request heads and chunked bodies (RFC 9112, RFC 9110, RFC 3986).
 *
 * A head is parsed in place: separators become NULs and the result points into
 * the caller's bytes. What could make two parsers disagree about where a request
 * ends (RFC 9112 section 11.2) is refused: Content-Length together with
 * Transfer-Encoding, several different lengths, a transfer coding other than
 * "chunked", folded lines, blanks before a colon, control characters.
 */
#include "api/http_parse.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

size_t http_head_end(const char *bytes, size_t len)
{
	const char *end = memmem(bytes, len, "\r\n\r\n", 4);

	return end ? (size_t)(end - bytes) + 4 : 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int http_decode(char *text, bool plus)
{
	char *out = text;

	for (const char *in = text; *in; in++) {
		if (*in == '%') {
			int high = hex_digit(in[1]);
			int low = high < 0 ? -1 : hex_digit(in[2]);

			if (low < 0 || (high == 0 && low == 0))
				return -EINVAL;
			*out++ = (char)(high * 16 + low);
			in += 2;
		} else {
			*out++ = plus && *in == '+' ? ' ' : *in;
		}
	}
	*out = '\0';
	return 0;
}

static bool is_token(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
		      strchr("!#$%&'*+-.^_`|~", *s)))
			return false;
	return true;
}

/* has_word - is @word in the comma-separated list? */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	while (*list) {
		size_t len;

		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if (len == n && !strncasecmp(list, word, n))
			return true;
		list += len;
	}
	return false;
}

static int parse_length(struct http_head *h, const char *value, struct err *err)
{
	int64_t n = 0;

	if (!*value || strlen(value) > 18)
		return err_set(err, EINVAL, "bad Content-Length"), 400;
	for (; *value; value++) {
		if (*value < '0' || *value > '9')
			return err_set(err, EINVAL, "bad Content-Length"), 400;
		n = n * 10 + (*value - '0');
	}
	if (h->content_length >= 0 && h->content_length != n)
		return err_set(err, EINVAL, "several different Content-Length headers"), 400;
	h->content_length = n;
	return 0;
}

static int note_field(struct http_head *h, const char *name, const char *value, struct err *err)
{
	if (!strcasecmp(name, "content-length"))
		return parse_length(h, value, err);
	if (!strcasecmp(name, "transfer-encoding")) {
		if (h->chunked || strcasecmp(value, "chunked"))
			return err_set(err, EINVAL, "transfer encoding not supported: only chunked is"), 501;
		h->chunked = true;
	} else if (!strcasecmp(name, "connection")) {
		if (has_word(value, "close"))
			h->keep_alive = false;
		else if (h->http_minor == 0 && has_word(value, "keep-alive"))
			h->keep_alive = true;
	} else if (!strcasecmp(name, "expect")) {
		h->expect_continue = !strcasecmp(value, "100-continue");
	} else if (!strcasecmp(name, "upgrade")) {
		h->upgrade = *value != '\0';
	}
	return 0;
}

static int parse_fields(struct http_head *h, char *at, struct err *err)
{
	while (*at) {
		char *end = strstr(at, "\r\n");
		char *colon = strchr(at, ':');
		int status;

		if (!end || end == at)
			break;
		*end = '\0';
		if (!colon || colon > end)
			return err_set(err, EINVAL, "malformed header line"), 400;
		*colon++ = '\0';
		if (!is_token(at))
			return err_set(err, EINVAL, "malformed header name"), 400;
		colon += strspn(colon, " \t");
		for (char *tail = end; tail > colon && (tail[-1] == ' ' || tail[-1] == '\t');)
			*--tail = '\0';
		for (const char *p = colon; *p; p++)
			if ((unsigned char)*p < ' ' && *p != '\t')
				return err_set(err, EINVAL, "control character in a header"), 400;
		if (h->nfields == HTTP_FIELDS_MAX)
			return err_set(err, E2BIG, "too many headers"), 431;
		h->fields[h->nfields++] = (struct http_pair){ at, colon };
		status = note_field(h, at, colon, err);
		if (status)
			return status;
		at = end + 2;
	}
	if (h->chunked && h->content_length >= 0)
		return err_set(err, EINVAL, "both Content-Length and Transfer-Encoding"), 400;
	if (h->chunked && h->http_minor == 0)
		return err_set(err, EINVAL, "Transfer-Encoding in HTTP/1.0"), 400;
	return 0;
}

static int parse_query(struct http_head *h, char *query, struct err *err)
{
	for (char *part; (part = strsep(&query, "&"));) {
		char *value = strchr(part, '=');

		if (!*part)
			continue;
		if (h->nquery == HTTP_QUERY_MAX)
			return err_set(err, E2BIG, "too many query parameters"), 400;
		if (value)
			*value++ = '\0';
		else
			value = part + strlen(part);
		if (http_decode(part, true) || http_decode(value, true))
			return err_set(err, EINVAL, "malformed percent-encoding in the query"), 400;
		h->query[h->nquery++] = (struct http_pair){ part, value };
	}
	return 0;
}

/* parse_version - take "/vMAJOR.MINOR" off the path. */
static int parse_version(struct http_head *h, struct err *err)
{
	const char *at = h->path + 2;
	long part[2] = { 0, 0 };

	h->api_minor = HTTP_API_MINOR;
	if (strncmp(h->path, "/v", 2) || *at < '0' || *at > '9')
		return 0;
	for (int i = 0; i < 2; i++) {
		const char *from = at;

		while (*at >= '0' && *at <= '9' && at - from < 4)
			part[i] = part[i] * 10 + (*at++ - '0');
		if (at == from || *at != (i ? '/' : '.'))
			return 0;
		at += !i;
	}
	if (part[0] > 1 || (part[0] == 1 && part[1] > HTTP_API_MINOR))
		return err_set(err, EINVAL, "client version %ld.%ld is too new. Maximum supported API version is 1.%d",
			       part[0], part[1], HTTP_API_MINOR),
		       400;
	if (part[0] < 1 || part[1] < HTTP_API_MINIMUM)
		return err_set(err, EINVAL,
			       "client version %ld.%ld is too old. Minimum supported API version is 1.%d, please "
			       "upgrade your client to a newer version",
			       part[0], part[1], HTTP_API_MINIMUM),
		       400;
	h->api_minor = (int)part[1];
	h->path = at;
	return 0;
}

int http_head_parse(char *bytes, size_t len, struct http_head *h, struct err *err)
{
	char *target, *version, *query, *end;
	int status;

	memset(h, 0, sizeof(*h));
	h->content_length = -1;
	if (memchr(bytes, '\0', len))
		return err_set(err, EINVAL, "a NUL in the request's head"), 400;
	bytes[len] = '\0';
	end = strstr(bytes, "\r\n");
	if (!end)
		return err_set(err, EINVAL, "malformed request"), 400;
	*end = '\0';
	target = strchr(bytes, ' ');
	version = target ? strchr(target + 1, ' ') : NULL;
	if (!version)
		return err_set(err, EINVAL, "malformed request line"), 400;
	*target++ = '\0';
	*version++ = '\0';
	if (!is_token(bytes))
		return err_set(err, EINVAL, "malformed method"), 400;
	if (strncmp(version, "HTTP/1.", 7) || (version[7] != '0' && version[7] != '1') || version[8])
		return err_set(err, EINVAL, "HTTP version not supported"), 505;
	h->http_minor = version[7] - '0';
	h->keep_alive = h->http_minor == 1;
	h->method = bytes;
	/* the absolute form: http://host/path */
	if (!strncasecmp(target, "http://", 7)) {
		target = strchr(target + 7, '/');
		if (!target)
			return err_set(err, EINVAL, "malformed request target"), 400;
	}
	if (*target != '/')
		return err_set(err, EINVAL, "malformed request target"), 400;
	for (const char *p = target; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 127)
			return err_set(err, EINVAL, "control character in the request target"), 400;
	query = strchr(target, '?');
	if (query)
		*query++ = '\0';
	if (http_decode(target, false))
		return err_set(err, EINVAL, "malformed percent-encoding in the path"), 400;
	h->path = target;
	status = parse_fields(h, end + 2, err);
	if (!status && query)
		status = parse_query(h, query, err);
	return status ? status : parse_version(h, err);
}

/* chunk_char - one byte outside of chunk data. Return: 0 or -EINVAL. */
static int chunk_char(struct http_chunks *c, char byte)
{
	int digit;

	switch (c->state) {
	case HTTP_CHUNK_SIZE:
		digit = hex_digit(byte);
		if (digit >= 0) {
			if (++c->digits > 15)
				return -EINVAL;
			c->left = c->left * 16 + (uint64_t)digit;
			return 0;
		}
		if (!c->digits || (byte != '\r' && byte != ';' && byte != ' ' && byte != '\t'))
			return -EINVAL;
		c->state = HTTP_CHUNK_EXT;
		c->cr = byte == '\r';
		return 0;
	case HTTP_CHUNK_EXT:
		if (c->cr) {
			if (byte != '\n')
				return -EINVAL;
			c->state = c->left ? HTTP_CHUNK_DATA : HTTP_CHUNK_TRAILER;
			c->digits = 0;
			c->line = 0;
			c->cr = false;
			return 0;
		}
		break;
	case HTTP_CHUNK_END:
		if (byte != (c->cr ? '\n' : '\r'))
			return -EINVAL;
		if (c->cr)
			c->state = HTTP_CHUNK_SIZE;
		c->cr = !c->cr;
		return 0;
	default: /* HTTP_CHUNK_TRAILER */
		if (c->cr) {
			if (byte != '\n')
				return -EINVAL;
			c->cr = false;
			if (!c->line)
				c->state = HTTP_CHUNK_DONE;
			c->line = 0;
			return 0;
		}
		break;
	}
	if (byte == '\n' || byte == '\0' || ++c->trailer > 16384)
		return -EINVAL;
	c->cr = byte == '\r';
	c->line += !c->cr;
	return 0;
}

long http_chunks_next(struct http_chunks *c, const char *bytes, size_t len, const char **data, size_t *ndata)
{
	size_t at = 0;

	*data = bytes;
	*ndata = 0;
	while (at < len && c->state != HTTP_CHUNK_DONE) {
		if (c->state == HTTP_CHUNK_DATA) {
			*data = bytes + at;
			*ndata = len - at < c->left ? len - at : (size_t)c->left;
			c->left -= *ndata;
			if (!c->left)
				c->state = HTTP_CHUNK_END;
			return (long)(at + *ndata);
		}
		if (chunk_char(c, bytes[at]))
			return -EINVAL;
		at++;
	}
	return (long)at;
}

static bool match_from(const char *pattern, const char *path, size_t at, struct http_param *params, size_t *n)
{
	const char *close;
	bool any;
	size_t max, slot = *n;

	while (*pattern && *pattern != '{') {
		if (*pattern++ != path[at])
			return false;
		at++;
	}
	if (!*pattern)
		return !path[at];
	close = strchr(pattern, '}');
	if (!close || slot == HTTP_PARAMS_MAX)
		return false;
	any = close[-1] == '*';
	max = any ? strlen(path + at) : strcspn(path + at, "/");
	for (size_t len = max; len > 0; len--) {
		params[slot] = (struct http_param){ pattern + 1, (size_t)(close - pattern) - (any ? 3 : 1), at, len };
		*n = slot + 1;
		if (match_from(close + 1, path, at + len, params, n))
			return true;
		if (!any)
			break;
	}
	*n = slot;
	return false;
}

bool http_match(const char *pattern, const char *path, struct http_param *params, size_t *nparams)
{
	*nparams = 0;
	return match_from(pattern, path, 0, params, nparams);
}
