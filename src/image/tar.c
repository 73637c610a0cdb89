/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats: POSIX.1-2001 pax (XCU pax, "ustar Interchange Format" and "pax
 * Extended Header"), and GNU tar's manual, "Basic Tar Format". An entry is
 * collected from its extended headers (x, g, L, K), then its own header.
 */
#include "image/tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tar_pax {
	char *path, *link;
	bool has_size, has_mtime, has_uid, has_gid, has_real;
	uint64_t size, real_size;
	int64_t mtime;
	uint32_t mtime_nsec, uid, gid;
	unsigned sparse_major;
	struct tar_xattr xattrs[TAR_XATTRS_MAX];
	size_t nxattrs;
};

static void pax_clear(struct tar_pax *p)
{
	free(p->path);
	free(p->link);
	for (size_t i = 0; i < p->nxattrs; i++) {
		free(p->xattrs[i].name);
		free(p->xattrs[i].value);
	}
	*p = (struct tar_pax){ 0 };
}

static void entry_clear(struct tar_entry *e)
{
	free(e->path);
	free(e->link);
	free(e->segments);
	for (size_t i = 0; i < e->nxattrs; i++) {
		free(e->xattrs[i].name);
		free(e->xattrs[i].value);
	}
	memset(e, 0, sizeof(*e));
}

void tar_init(struct tar_reader *t, struct source *from)
{
	*t = (struct tar_reader){ .from = from };
}

void tar_fini(struct tar_reader *t)
{
	entry_clear(&t->entry);
	if (t->global)
		pax_clear(t->global);
	free(t->global);
	t->global = NULL;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/* number - octal, or GNU base-256 (first bit set). Return: false when it is neither or too large. */
static bool number(const uint8_t *p, size_t n, int64_t *out)
{
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		bool negative = p[0] & 0x40;

		v = negative ? UINT64_MAX : 0;
		for (i = 0; i < n; i++) {
			uint8_t b = i == 0 ? (uint8_t)(negative ? p[0] : p[0] & 0x7f) : p[i];

			if (i + 8 < n && b != (negative ? 0xff : 0))
				return false;
			v = v << 8 | b;
		}
		*out = (int64_t)v;
		return true;
	}
	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
		if (v >> 60)
			return false;
		v = v << 3 | (uint64_t)(p[i] - '0');
	}
	if (i < n && p[i] != 0 && p[i] != ' ')
		return false;
	*out = (int64_t)v;
	return true;
}

bool tar_header_valid(const uint8_t b[TAR_BLOCK])
{
	int64_t want;
	int64_t sum = 0, sum_signed = 0;

	if (all_zero(b, TAR_BLOCK))
		return true;
	if (!number(b + 148, 8, &want))
		return false;
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		uint8_t c = i >= 148 && i < 156 ? ' ' : b[i];

		sum += c;
		sum_signed += (int8_t)c;
	}
	return want == sum || want == sum_signed;
}

void tar_header_make(uint8_t b[TAR_BLOCK], const char *name, char type, uint32_t mode, uint64_t size, int64_t mtime)
{
	unsigned sum = 0;
	char text[16];

	memset(b, 0, TAR_BLOCK);
	memcpy(b, name, strnlen(name, 100));
	(void)snprintf(text, sizeof(text), "%07o", mode & 07777777U);
	memcpy(b + 100, text, 7);
	memcpy(b + 108, "0000000", 7);
	memcpy(b + 116, "0000000", 7);
	if (size >> 33) {
		b[124] = 0x80;
		for (size_t i = 0; i < 8; i++)
			b[128 + i] = (uint8_t)(size >> (56 - 8 * i));
	} else {
		(void)snprintf(text, sizeof(text), "%011llo", (unsigned long long)size);
		memcpy(b + 124, text, 11);
	}
	(void)snprintf(text, sizeof(text), "%011llo", (unsigned long long)(mtime < 0 ? 0 : mtime) & 077777777777ULL);
	memcpy(b + 136, text, 11);
	b[156] = (uint8_t)type;
	memcpy(b + 257, "ustar\00000", 8);
	memset(b + 148, ' ', 8);
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += b[i];
	(void)snprintf(text, sizeof(text), "%06o", sum);
	memcpy(b + 148, text, 7);
	b[155] = ' ';
}

static int tell(struct tar_reader *t, const void *bytes, size_t n, struct err *err)
{
	return t->literal ? t->literal(t->arg, bytes, n, err) : 0;
}

/* read_block - one block, told as a literal. Return: 1, 0 at the end, -errno. */
static int read_block(struct tar_reader *t, uint8_t b[TAR_BLOCK], struct err *err)
{
	long n = source_read(t->from, b, TAR_BLOCK, err);
	int rc;

	if (n < 0)
		return (int)n;
	rc = tell(t, b, (size_t)n, err);
	if (rc < 0)
		return rc;
	if (n != 0 && n < TAR_BLOCK)
		return err_set(err, EINVAL, "the tar archive is cut short (unexpected EOF)");
	return n != 0;
}

/* pass_literal - pass @n bytes of the archive as literals; copied to @to when not NULL. */
static int pass_literal(struct tar_reader *t, uint64_t n, uint8_t *to, struct err *err)
{
	while (n) {
		int rc = source_fill(t->from, err);

		if (rc < 0)
			return rc;
		if (rc == 0)
			return err_set(err, EINVAL, "the tar archive is cut short (unexpected EOF)");
		size_t step = t->from->n < n ? t->from->n : (size_t)n;

		if (to) {
			memcpy(to, t->from->p, step);
			to += step;
		}
		rc = tell(t, t->from->p, step, err);
		if (rc < 0)
			return rc;
		source_take(t->from, step);
		n -= step;
	}
	return 0;
}

static int set_text(char **to, const char *text, size_t n, struct err *err)
{
	if (n >= TAR_PATH_MAX)
		return err_set(err, ENAMETOOLONG, "a name in the tar archive is longer than %d bytes", TAR_PATH_MAX);
	free(*to);
	*to = strndup(text, n);
	return *to ? 0 : err_set(err, ENOMEM, "no memory to read the tar archive");
}

static bool parse_u64(const char *v, uint64_t max, uint64_t *out)
{
	char *end;

	if (*v < '0' || *v > '9')
		return false;
	errno = 0;
	*out = strtoull(v, &end, 10);
	return errno == 0 && *end == 0 && *out <= max;
}

/* parse_time - "[-]seconds[.fraction]" */
static bool parse_time(const char *v, int64_t *sec, uint32_t *nsec)
{
	bool negative = *v == '-';
	uint64_t whole = 0;
	uint32_t fraction = 0;
	int digits = 0;

	v += negative;
	if (*v < '0' || *v > '9')
		return false;
	for (; *v >= '0' && *v <= '9'; v++) {
		if (whole > (1ULL << 58))
			return false;
		whole = whole * 10 + (uint64_t)(*v - '0');
	}
	if (*v == '.') {
		for (v++; *v >= '0' && *v <= '9'; v++) {
			if (digits < 9) {
				fraction = fraction * 10 + (uint32_t)(*v - '0');
				digits++;
			}
		}
		for (; digits < 9; digits++)
			fraction *= 10;
	}
	if (*v)
		return false;
	*sec = negative ? -(int64_t)whole - (fraction ? 1 : 0) : (int64_t)whole;
	*nsec = negative && fraction ? 1000000000U - fraction : fraction;
	return true;
}

static int pax_xattr(struct tar_pax *p, const char *name, const char *value, size_t len, struct err *err)
{
	struct tar_xattr *x;
	size_t i;

	if (strlen(name) > 255 || !*name || len > 65535)
		return err_set(err, EINVAL, "an extended attribute in the tar archive has a bad name or size");
	for (i = 0; i < p->nxattrs && strcmp(p->xattrs[i].name, name) != 0; i++)
		;
	if (i == TAR_XATTRS_MAX)
		return err_set(err, E2BIG, "an entry of the tar archive has more than %d extended attributes",
			       TAR_XATTRS_MAX);
	x = &p->xattrs[i];
	if (i == p->nxattrs) {
		x->name = strdup(name);
		p->nxattrs++;
	}
	free(x->value);
	x->value = malloc(len + 1);
	x->len = len;
	if (!x->name || !x->value)
		return err_set(err, ENOMEM, "no memory to read the tar archive");
	memcpy(x->value, value, len);
	return 0;
}

static int pax_record(struct tar_pax *p, const char *key, const char *value, size_t len, struct err *err)
{
	uint64_t v = 0;
	bool ok = true;

	if (strncmp(key, "SCHILY.xattr.", 13) == 0)
		return pax_xattr(p, key + 13, value, len, err);
	if (strncmp(key, "GNU.sparse.", 11) == 0) {
		key += 11;
		if (!strcmp(key, "major")) {
			ok = parse_u64(value, 100, &v);
			p->sparse_major = (unsigned)v;
		} else if (!strcmp(key, "name")) {
			return set_text(&p->path, value, len, err);
		} else if (!strcmp(key, "realsize")) {
			ok = p->has_real = parse_u64(value, INT64_MAX >> 2, &p->real_size);
		} else if (strcmp(key, "minor") != 0) {
			return err_set(err, ENOTSUP,
				       "the tar archive has a sparse file of an old pax form (GNU.sparse.%.40s)", key);
		}
	} else if (!memchr(value, 0, len)) {
		if (!strcmp(key, "path"))
			return p->sparse_major ? 0 : set_text(&p->path, value, len, err);
		if (!strcmp(key, "linkpath"))
			return set_text(&p->link, value, len, err);
		if (!strcmp(key, "size"))
			ok = p->has_size = parse_u64(value, INT64_MAX >> 2, &p->size);
		else if (!strcmp(key, "mtime"))
			ok = p->has_mtime = parse_time(value, &p->mtime, &p->mtime_nsec);
		else if (!strcmp(key, "uid") && (ok = p->has_uid = parse_u64(value, UINT32_MAX - 1, &v)))
			p->uid = (uint32_t)v;
		else if (!strcmp(key, "gid") && (ok = p->has_gid = parse_u64(value, UINT32_MAX - 1, &v)))
			p->gid = (uint32_t)v;
	} else if (!strcmp(key, "path") || !strcmp(key, "linkpath")) {
		ok = false;
	}
	return ok ? 0 : err_set(err, EINVAL, "the tar archive has a bad pax record (%.60s)", key);
}

/* pax_parse - "LEN KEY=VALUE\n" records. @text is NUL-terminated and changed. */
static int pax_parse(struct tar_pax *p, char *text, size_t n, struct err *err)
{
	while (n) {
		char *end = NULL, *eq;
		unsigned long len;
		int rc;

		if (*text == 0 && all_zero((uint8_t *)text, n))
			break;
		if (*text < '0' || *text > '9')
			return err_set(err, EINVAL, "the tar archive has a damaged pax header");
		len = strtoul(text, &end, 10);
		if (len > n || *end != ' ' || len < (size_t)(end - text) + 3 || text[len - 1] != '\n')
			return err_set(err, EINVAL, "the tar archive has a damaged pax header");
		text[len - 1] = 0;
		end++;
		eq = memchr(end, '=', (size_t)(text + len - 1 - end));
		if (!eq || eq == end || memchr(end, 0, (size_t)(eq - end)))
			return err_set(err, EINVAL, "the tar archive has a damaged pax header");
		*eq = 0;
		rc = pax_record(p, end, eq + 1, (size_t)(text + len - 1 - (eq + 1)), err);
		if (rc < 0)
			return rc;
		text += len;
		n -= len;
	}
	return 0;
}

/* read_extension - the data of an x, g, L or K header, with its padding. */
static int read_extension(struct tar_reader *t, const uint8_t *h, char **out, size_t *len, struct err *err)
{
	int64_t size;
	int rc;

	if (!number(h + 124, 12, &size) || size < 0 || size > TAR_EXT_MAX)
		return err_set(err, EINVAL, "the tar archive has an extended header of a bad size");
	*out = malloc((size_t)size + 1);
	if (!*out)
		return err_set(err, ENOMEM, "no memory to read the tar archive");
	(*out)[size] = 0;
	*len = (size_t)size;
	rc = pass_literal(t, (uint64_t)size, (uint8_t *)*out, err);
	return rc < 0 ? rc : pass_literal(t, (uint64_t)(-size & (TAR_BLOCK - 1)), NULL, err);
}

static int extension(struct tar_reader *t, const uint8_t *h, struct tar_pax *pax, struct err *err)
{
	char *text = NULL;
	size_t len = 0;
	int rc = read_extension(t, h, &text, &len, err);

	if (rc < 0)
		goto out;
	if (h[156] == 'L') {
		rc = set_text(&pax->path, text, strlen(text), err);
	} else if (h[156] == 'K') {
		rc = set_text(&pax->link, text, strlen(text), err);
	} else if (h[156] == 'x') {
		rc = pax_parse(pax, text, len, err);
	} else {
		if (!t->global)
			t->global = calloc(1, sizeof(*t->global));
		rc = t->global ? pax_parse(t->global, text, len, err)
			       : err_set(err, ENOMEM, "no memory to read the tar archive");
	}
out:
	free(text);
	return rc;
}

/* apply - what extended headers say goes before the header itself. Moves the texts out of @p. */
static int apply(struct tar_entry *e, struct tar_pax *p, bool move, struct err *err)
{
	if (p->path && set_text(&e->path, p->path, strlen(p->path), err) < 0)
		return -ENOMEM;
	if (p->link && set_text(&e->link, p->link, strlen(p->link), err) < 0)
		return -ENOMEM;
	if (p->has_size)
		e->size = e->real_size = p->size;
	if (p->has_mtime) {
		e->mtime = p->mtime;
		e->mtime_nsec = p->mtime_nsec;
	}
	if (p->has_uid)
		e->uid = p->uid;
	if (p->has_gid)
		e->gid = p->gid;
	if (move) {
		memcpy(e->xattrs, p->xattrs, sizeof(e->xattrs));
		e->nxattrs = p->nxattrs;
		p->nxattrs = 0;
	}
	return 0;
}

static int add_segment(struct tar_entry *e, uint64_t offset, uint64_t len, struct err *err)
{
	uint64_t end = e->nsegments ? e->segments[e->nsegments - 1].offset + e->segments[e->nsegments - 1].len : 0;

	if (offset < end || offset > e->real_size || len > e->real_size - offset || e->nsegments >= TAR_SPARSE_MAX)
		return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
	if ((e->nsegments & (e->nsegments - 1)) == 0) {
		size_t room = e->nsegments ? 2 * e->nsegments : 1;
		struct tar_segment *more = realloc(e->segments, room * sizeof(*more));

		if (!more)
			return err_set(err, ENOMEM, "no memory to read the tar archive");
		e->segments = more;
	}
	e->segments[e->nsegments++] = (struct tar_segment){ offset, len };
	return 0;
}

static int old_sparse_map(struct tar_entry *e, const uint8_t *p, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++, p += 24) {
		int64_t offset, len;
		int rc;

		if (p[0] == 0)
			break;
		if (!number(p, 12, &offset) || !number(p + 12, 12, &len) || offset < 0 || len < 0)
			return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
		rc = add_segment(e, (uint64_t)offset, (uint64_t)len, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int old_sparse(struct tar_reader *t, const uint8_t *h, struct err *err)
{
	struct tar_entry *e = &t->entry;
	uint8_t more[TAR_BLOCK];
	int64_t real;
	int rc;

	if (!number(h + 483, 12, &real) || real < 0 || real > INT64_MAX >> 2)
		return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
	e->real_size = (uint64_t)real;
	e->sparse = true;
	e->type = '0';
	rc = old_sparse_map(e, h + 386, 4, err);
	for (bool extended = h[482]; rc >= 0 && extended; extended = more[504]) {
		rc = read_block(t, more, err);
		if (rc == 0)
			return err_set(err, EINVAL, "the tar archive is cut short (unexpected EOF)");
		if (rc > 0)
			rc = old_sparse_map(e, more, 21, err);
	}
	return rc < 0 ? rc : 0;
}

/* pax_number - a decimal line of the map that begins a pax 1.0 sparse file's data. */
static int pax_number(struct tar_reader *t, uint64_t *out, uint64_t *taken, struct err *err)
{
	uint64_t v = 0;

	for (int digits = 0;; digits++) {
		uint8_t c;
		int rc;

		if (digits > 18 || *taken >= t->entry.size)
			return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
		rc = pass_literal(t, 1, &c, err);
		if (rc < 0)
			return rc;
		(*taken)++;
		if (c == '\n' && digits)
			break;
		if (c < '0' || c > '9')
			return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
		v = v * 10 + (uint64_t)(c - '0');
	}
	*out = v;
	return 0;
}

static int pax_sparse(struct tar_reader *t, const struct tar_pax *p, struct err *err)
{
	struct tar_entry *e = &t->entry;
	uint64_t n, taken = 0, pad;
	int rc;

	if (!p->has_real)
		return err_set(err, EINVAL, "the tar archive has a sparse file without its size");
	e->real_size = p->real_size;
	e->sparse = true;
	rc = pax_number(t, &n, &taken, err);
	for (uint64_t i = 0; rc >= 0 && i < n; i++) {
		uint64_t offset = 0, len = 0;

		rc = pax_number(t, &offset, &taken, err);
		if (rc >= 0)
			rc = pax_number(t, &len, &taken, err);
		if (rc >= 0)
			rc = add_segment(e, offset, len, err);
	}
	if (rc < 0)
		return rc;
	pad = -taken & (TAR_BLOCK - 1);
	if (pad > e->size - taken)
		return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
	rc = pass_literal(t, pad, NULL, err);
	t->left = e->size - taken - pad;
	e->size = t->left;
	return rc;
}

static int basic_header(struct tar_reader *t, const uint8_t *h, struct err *err)
{
	struct tar_entry *e = &t->entry;
	bool posix = memcmp(h + 257, "ustar", 6) == 0;
	int64_t mode, uid, gid, size, mtime, major = 0, minor = 0;
	char name[260];
	size_t at = 0;

	if (!number(h + 100, 8, &mode) || !number(h + 108, 8, &uid) || !number(h + 116, 8, &gid) ||
	    !number(h + 124, 12, &size) || !number(h + 136, 12, &mtime) || size < 0 || size > INT64_MAX >> 2 ||
	    uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return err_set(err, EINVAL, "the tar archive has a header with a bad number");
	e->type = h[156] ? (char)h[156] : '0';
	if (e->type == '7')
		e->type = '0';
	if ((e->type == '3' || e->type == '4') && (!number(h + 329, 8, &major) || !number(h + 337, 8, &minor)))
		return err_set(err, EINVAL, "the tar archive has a device with a bad number");
	e->mode = (uint32_t)mode & 07777;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->size = e->real_size = (uint64_t)size;
	e->mtime = mtime;
	e->dev_major = (uint32_t)major;
	e->dev_minor = (uint32_t)minor;
	if (posix && h[345]) {
		at = strnlen((const char *)h + 345, 155);
		memcpy(name, h + 345, at);
		name[at++] = '/';
	}
	memcpy(name + at, h, 100);
	name[at + 100] = 0;
	if (set_text(&e->path, name, strlen(name), err) < 0)
		return -ENOMEM;
	return set_text(&e->link, (const char *)h + 157, strnlen((const char *)h + 157, 100), err);
}

/* finish - at the end-of-archive mark: the rest, whatever it is, is literal. */
static int finish(struct tar_reader *t, struct err *err)
{
	int rc;

	while ((rc = source_fill(t->from, err)) > 0) {
		rc = tell(t, t->from->p, t->from->n, err);
		if (rc < 0)
			return rc;
		source_take(t->from, t->from->n);
	}
	return rc;
}

static int own_header(struct tar_reader *t, const uint8_t *h, struct tar_pax *pax, struct err *err)
{
	struct tar_entry *e = &t->entry;
	size_t n;
	int rc = basic_header(t, h, err);

	if (rc >= 0 && t->global)
		rc = apply(e, t->global, false, err);
	if (rc >= 0)
		rc = apply(e, pax, true, err);
	if (rc < 0)
		return rc;
	n = strlen(e->path);
	if (e->type == '0' && n && e->path[n - 1] == '/' && !pax->sparse_major)
		e->type = '5'; /* before POSIX, folders were files with a slash */
	if (e->type >= '1' && e->type <= '6')
		e->size = 0; /* links and devices may state a size, but have no data */
	t->left = e->size;
	t->pad = (unsigned)(-e->size & (TAR_BLOCK - 1));
	if (e->type == 'S')
		rc = old_sparse(t, h, err);
	else if (pax->sparse_major == 1 && e->type == '0')
		rc = pax_sparse(t, pax, err);
	if (rc >= 0 && e->sparse) {
		uint64_t total = 0;

		for (size_t i = 0; i < e->nsegments; i++)
			total += e->segments[i].len;
		if (total != e->size)
			return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
	}
	return rc;
}

int tar_next(struct tar_reader *t, struct err *err)
{
	struct tar_pax pax = { 0 };
	uint8_t h[TAR_BLOCK];
	int rc = pass_literal(t, t->left, NULL, err);

	if (rc >= 0)
		rc = pass_literal(t, t->pad, NULL, err);
	t->left = 0;
	t->pad = 0;
	entry_clear(&t->entry);
	while (rc >= 0) {
		rc = read_block(t, h, err);
		if (rc == 0 && !t->any)
			rc = err_set(err, EINVAL, "the tar archive is empty");
		if (rc <= 0)
			break;
		if (all_zero(h, sizeof(h))) {
			rc = finish(t, err);
			break;
		}
		if (!tar_header_valid(h)) {
			rc = err_set(err, EINVAL,
				     t->any ? "the tar archive is damaged (invalid tar header)"
					    : "this is not a tar archive (invalid tar header)");
			break;
		}
		t->any = true;
		if (strchr("xgLK", h[156]) && h[156]) {
			rc = extension(t, h, &pax, err);
			continue;
		}
		rc = own_header(t, h, &pax, err);
		if (rc >= 0)
			rc = 1;
		break;
	}
	pax_clear(&pax);
	return rc;
}

int tar_data(struct tar_reader *t, const uint8_t **p, size_t *n, struct err *err)
{
	int rc;

	if (t->left == 0)
		return 0;
	rc = source_fill(t->from, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return err_set(err, EINVAL, "the tar archive is cut short (unexpected EOF)");
	*p = t->from->p;
	*n = t->from->n < t->left ? t->from->n : (size_t)t->left;
	/* Taken at once: the window's bytes stay where they are until the next fill. */
	source_take(t->from, *n);
	t->left -= *n;
	return 1;
}
