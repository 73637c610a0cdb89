/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images: the grammar of the distribution project's "reference", and Docker's short forms. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "image/image.h"

bool digest_valid(const char *d)
{
	return strlen(d) == 71 && !strncmp(d, "sha256:", 7) && strspn(d + 7, "0123456789abcdef") == 64;
}

static bool path_valid(const char *p)
{
	if (!*p || !(islower((unsigned char)*p) || isdigit((unsigned char)*p)))
		return false;
	for (; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (!islower(c) && !isdigit(c) && !strchr("._-/", c))
			return false;
		if (!islower(c) && !isdigit(c) && (!p[1] || p[1] == '/' || (c == '/' && !isalnum((unsigned char)p[1]))))
			return false;
	}
	return true;
}

static bool tag_valid(const char *t)
{
	if (!*t || strlen(t) > 128 || *t == '.' || *t == '-')
		return false;
	for (; *t; t++) {
		if (!isalnum((unsigned char)*t) && !strchr("._-", *t))
			return false;
	}
	return true;
}

int image_ref_parse(const char *text, bool default_tag, struct image_ref *out, struct err *err)
{
	char work[600];
	char *name = work, *at, *colon, *slash;
	struct image_ref r = { 0 };
	bool ok = strlen(text) < 400;

	(void)snprintf(work, sizeof(work), "%s", ok ? text : "");
	at = strchr(work, '@');
	if (at) {
		*at++ = 0;
		ok = ok && digest_valid(at);
		(void)snprintf(r.digest, sizeof(r.digest), "%.71s", at);
	}
	slash = strrchr(work, '/');
	colon = strchr(slash ? slash : work, ':');
	if (colon) {
		*colon++ = 0;
		ok = ok && tag_valid(colon);
		(void)snprintf(r.tag, sizeof(r.tag), "%.128s", colon);
	} else if (default_tag && !at) {
		(void)snprintf(r.tag, sizeof(r.tag), "latest");
	}
	(void)snprintf(r.domain, sizeof(r.domain), "docker.io");
	slash = strchr(work, '/');
	if (slash && (memchr(work, '.', (size_t)(slash - work)) || memchr(work, ':', (size_t)(slash - work)) ||
		      !strncmp(work, "localhost/", 10))) {
		*slash = 0;
		(void)snprintf(r.domain, sizeof(r.domain), "%.255s", work);
		name = slash + 1;
	}
	if (!strcmp(r.domain, "index.docker.io"))
		(void)snprintf(r.domain, sizeof(r.domain), "docker.io");
	ok = ok && path_valid(name) && strlen(name) < 240;
	(void)snprintf(r.path, sizeof(r.path), "%s%.240s",
		       !strcmp(r.domain, "docker.io") && !strchr(name, '/') ? "library/" : "", name);
	if (!ok)
		return err_set(err, EINVAL, "invalid reference format: \"%.200s\"", text);
	*out = r;
	return 0;
}

static void put(const struct image_ref *r, const char *name, char *out, size_t size)
{
	(void)snprintf(out, size, "%s%s%s%s%s", name, r->tag[0] ? ":" : "", r->tag, r->digest[0] ? "@" : "", r->digest);
}

void image_ref_full(const struct image_ref *r, char *out, size_t size)
{
	char name[520];

	(void)snprintf(name, sizeof(name), "%s/%s", r->domain, r->path);
	put(r, name, out, size);
}

void image_ref_familiar(const struct image_ref *r, char *out, size_t size)
{
	char name[520];

	if (strcmp(r->domain, "docker.io") != 0)
		(void)snprintf(name, sizeof(name), "%s/%s", r->domain, r->path);
	else
		(void)snprintf(name, sizeof(name), "%s", !strncmp(r->path, "library/", 8) ? r->path + 8 : r->path);
	put(r, name, out, size);
}
