/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, mirrors, insecure registries, certificates (Docker's certs.d), and the folder walnut-fetch lives in. */
#include "image/registry.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define CA_MAX (4U << 20)

/* in_network - HOST (an IPv4 address) is in "A.B.C.D/N". */
static bool in_network(const char *host, const char *network)
{
	char text[64];
	struct in_addr a, b;
	char *slash;

	(void)snprintf(text, sizeof(text), "%.63s", network);
	slash = strchr(text, '/');
	if (!slash)
		return false;
	*slash = 0;
	unsigned bits = (unsigned)strtoul(slash + 1, NULL, 10);

	if (bits > 32 || inet_pton(AF_INET, text, &a) != 1 || inet_pton(AF_INET, host, &b) != 1)
		return false;
	uint32_t mask = bits ? ~0U << (32 - bits) : 0;

	return (ntohl(a.s_addr) & mask) == (ntohl(b.s_addr) & mask);
}

static bool is_insecure(const struct image_store *s, const char *domain)
{
	char host[256];

	(void)snprintf(host, sizeof(host), "%.255s", domain);
	*strchrnul(host, ':') = 0;
	/* As in Docker: this machine itself needs no TLS. */
	if (!strcmp(host, "localhost") || in_network(host, "127.0.0.0/8"))
		return true;
	for (size_t i = 0; s->insecure && s->insecure[i]; i++)
		if (!strcmp(s->insecure[i], domain) || !strcmp(s->insecure[i], host) ||
		    in_network(host, s->insecure[i]))
			return true;
	return false;
}

static void add_base(json_t *bases, const char *scheme, const char *host)
{
	size_t n = strlen(host);

	while (n && host[n - 1] == '/')
		n--;
	json_array_append_new(bases, json_sprintf("%s%.*s", scheme, (int)n, host));
}

static json_t *plan_new(const struct image_store *s, const char *domain, const char *repo, const char *actions,
			const json_t *auth)
{
	bool hub = !strcmp(domain, "docker.io"), insecure = !hub && is_insecure(s, domain);
	json_t *bases = json_array();
	size_t mirrors = 0;

	for (; hub && !strcmp(actions, "pull") && s->mirrors && s->mirrors[mirrors]; mirrors++)
		add_base(bases, "", s->mirrors[mirrors]);
	add_base(bases, "https://", hub ? "registry-1.docker.io" : domain);
	if (insecure && !hub)
		add_base(bases, "http://", domain);
	return json_pack("{s:o,s:i,s:b,s:s,s:s,s:s,s:s,s:s,s:s}", "bases", bases, "mirrors", (int)mirrors, "insecure",
			 insecure && !hub, "repo", repo, "actions", actions, "username", json_str(auth, "username", ""),
			 "password", json_str(auth, "password", ""), "identity", json_str(auth, "identitytoken", ""),
			 "registry_token", json_str(auth, "registrytoken", ""));
}

/* --- the folder --- */

static void add_file(struct buf *to, const char *path)
{
	size_t n = 0;
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, CA_MAX, &n, NULL);

	if (text)
		(void)!buf_append(to, text, n);
}

static int put(const struct registry *r, const char *name, const struct buf *text, struct err *err)
{
	int rc = fd_write_file(r->root_fd, name, O_WRONLY | O_CREAT | O_EXCL, buf_bytes(text), text->len, err);

	return rc;
}

static int put_copy(const struct registry *r, const char *name, const char *from, struct err *err)
{
	CLEAN_BUF struct buf b = BUF_INIT;

	add_file(&b, from);
	return put(r, name, &b, err);
}

/* put_certs - the system's and the registry's authorities; a client's certificate and key. */
static int put_certs(struct registry *r, const struct image_store *s, const char *domain, struct err *err)
{
	CLEAN_BUF struct buf ca = BUF_INIT;
	CLEAN_FREE char *dir = NULL;
	struct dirent *e;
	int rc = 0;

	add_file(&ca, "/etc/ssl/certs/ca-certificates.crt");
	if (asprintf(&dir, "%s/%s", s->certs, domain) < 0)
		return err_set(err, ENOMEM, "no memory for certificates");
	CLEAN_DIR DIR *d = opendir(dir);

	while (d && rc == 0 && (e = readdir(d))) {
		CLEAN_FREE char *path = NULL, *key = NULL;
		const char *dot = strrchr(e->d_name, '.');

		if (!dot || asprintf(&path, "%s/%s", dir, e->d_name) < 0)
			continue;
		if (!strcmp(dot, ".crt")) {
			add_file(&ca, path);
		} else if (!strcmp(dot, ".cert") && !json_object_get(r->plan, "client_cert")) {
			if (asprintf(&key, "%.*s.key", (int)(strlen(path) - 5), path) < 0)
				continue;
			rc = put_copy(r, "client.cert", path, err);
			if (rc == 0)
				rc = put_copy(r, "client.key", key, err);
			if (rc == 0 && (fchownat(r->root_fd, "client.key", s->uid, s->gid, 0) < 0 ||
					fchmodat(r->root_fd, "client.key", 0400, 0) < 0))
				rc = err_sys(err, errno, "cannot set the mode of a key");
			json_object_set_new(r->plan, "client_cert", json_true());
		}
	}
	return rc == 0 ? put(r, "ca.crt", &ca, err) : rc;
}

static int make_root(struct registry *r, const struct image_store *s, const char *domain, struct err *err)
{
	static const char nss[] = "hosts: files dns\n";
	int rc;

	if (asprintf(&r->root, "%s/tmp/net-XXXXXX", s->data) < 0)
		r->root = NULL;
	if (!r->root || !mkdtemp(r->root)) {
		free(take_ptr(r->root));
		return err_sys(err, errno, "cannot make a folder in %s/tmp", s->data);
	}
	r->root_fd = open(r->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->root_fd < 0 || fchmod(r->root_fd, 0711) < 0 || mkdirat(r->root_fd, "etc", 0755) < 0)
		return err_sys(err, errno, "cannot make the folder %s", r->root);
	rc = put_copy(r, "etc/resolv.conf", "/etc/resolv.conf", err);
	if (rc == 0)
		rc = put_copy(r, "etc/hosts", "/etc/hosts", err);
	if (rc == 0)
		rc = fd_write_file(r->root_fd, "etc/nsswitch.conf", O_WRONLY | O_CREAT | O_EXCL, nss, strlen(nss), err);
	return rc == 0 ? put_certs(r, s, domain, err) : rc;
}

int registry_open(struct registry *r, struct image_store *s, const char *domain, const char *repo, const char *actions,
		  const json_t *auth, struct err *err)
{
	*r = (struct registry){ .plan = plan_new(s, domain, repo, actions, auth), .root_fd = -1 };
	return r->plan ? make_root(r, s, domain, err) : err_set(err, EINVAL, "bad credentials: they are not text");
}

void registry_close(struct registry *r)
{
	if (r->root)
		(void)!fd_remove_tree(AT_FDCWD, r->root, NULL);
	close_fd(&r->root_fd);
	free(r->root);
	r->root = NULL;
	json_decref(r->plan);
	r->plan = NULL;
}

struct worker_proc *registry_ask(struct registry *r, struct image_job *j, const char *verb, json_t *more, int in,
				 int out, worker_line_fn line, worker_end_fn end, void *arg, struct err *err)
{
	CLEAN_JSON json_t *owned = more;
	CLEAN_JSON json_t *whole = json_copy(r->plan);

	if (!whole || !more || json_object_update(whole, more) < 0) {
		(void)err_set(err, ENOMEM, "no memory to ask a registry");
		return NULL;
	}
	CLEAN_FD int plan = worker_plan(whole, err);
	struct worker_spec spec = {
		.network = true, .verb = verb, .in = in, .out = out, .dir = r->root_fd, .plan = plan
	};

	return plan < 0 ? NULL : worker_spawn(j->s, j->l, &spec, line, end, arg, err);
}

void registry_learn(struct registry *r, const json_t *result)
{
	const json_t *bases = json_object_get(r->plan, "bases");
	const json_t *base = json_array_get(bases, (size_t)json_int(result, "base", 0));
	bool mirror = json_int(result, "base", 0) < json_int(r->plan, "mirrors", 0);

	/* What a mirror gave first is asked of all again, since it may lack the rest. */
	if (mirror || !base)
		return;
	json_object_set_new(r->plan, "bases", json_pack("[O]", base));
	json_object_set_new(r->plan, "mirrors", json_integer(0));
	json_object_set_new(r->plan, "authorization", json_string(json_str(result, "authorization", "")));
}
