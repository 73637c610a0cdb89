/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store, as the engine and the API's routes see it. Single-threaded;
 * lives in the engine's process. It parses no archive: load, import and save
 * are done by walnut-worker, in a sandbox, while the event loop goes on.
 *
 * On disk (DIR = DATA/images) an OCI image layout: oci-layout, index.json (one
 * descriptor a name, or one without a name), blobs/sha256/. A layer's blob is
 * its EROFS file; the manifest's annotations name the layer's diff_id and recipe.
 */
#ifndef WALNUT_IMAGE_IMAGE_H
#define WALNUT_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/loop.h"

struct image_store;

struct image_layer {
	char *diff_id;    /* "sha256:…" of the layer's tar */
	char *erofs_path; /* absolute */
	char *erofs_digest;
	char *recipe_digest;
	uint64_t size;     /* bytes of file contents: what "docker images" sums up */
	uint64_t tar_size; /* bytes of the layer's tar */
	uint64_t erofs_size;
	uint64_t recipe_size;
	json_t *blob; /* {digest, size, mediaType}: what a registry calls it, by a process that parses nothing; or NULL */
};

/* Owned by the store; valid until the next call that changes the store (tag, remove, a finished load). */
struct image {
	char *id;       /* "sha256:…": digest of the config */
	json_t *config; /* the OCI image config, as it was in the archive */
	char *manifest_digest;
	uint64_t manifest_size;
	uint64_t config_size;
	char **repo_tags; /* familiar: "debian:12"; NULL-terminated */
	size_t nrepo_tags;
	char **repo_digests; /* "debian@sha256:…"; NULL-terminated */
	size_t nrepo_digests;
	struct image_layer *layers; /* lowest first */
	size_t nlayers;
	const char *created; /* RFC 3339, from the config; "" when it says nothing */
	int64_t created_unix;
	uint64_t size;
};

struct image_options {
	const char *data;   /* DATA: the store is DATA/images, staging is below DATA/tmp */
	const char *worker; /* path of walnut-worker; NULL: beside the running executable */
	unsigned uid, gid;  /* of the worker; 0: 65534 */
	uint64_t max_layer; /* bytes of one decompressed layer; 0: 64 GiB */
	/* Registries (borrowed, NULL-ended arrays or NULL). */
	const char *const *insecure; /* HOST[:PORT] or CIDR: plain HTTP and unknown certificates are allowed */
	const char *const *mirrors;  /* URLs asked before Docker Hub */
	const char *certs; /* folder of HOST[:PORT]/{ca.crt,client.cert,client.key}; NULL: /etc/docker/certs.d */
};

/* image_store_open - open or create; DATA/tmp is created, and emptied by the caller before. NULL on error. */
struct image_store *image_store_open(const struct image_options *o, struct err *err) MUST_CHECK;
void image_store_free(struct image_store *s);

size_t image_count(const struct image_store *s);
const struct image *image_at(const struct image_store *s, size_t i); /* newest first */

/**
 * image_find - "debian", "debian:12", "docker.io/library/debian:12", name@sha256:…, an id or a unique prefix of one
 *
 * Return: the image, or NULL with @err: ENOENT "No such image: X" (X with its tag), EINVAL (invalid reference format),
 * EEXIST (ambiguous prefix).
 */
const struct image *image_find(const struct image_store *s, const char *ref, struct err *err) MUST_CHECK;

/* image_tag - point @target ("name[:tag]") at the image @source. ENOENT, EINVAL. */
int image_tag(struct image_store *s, const char *source, const char *target, struct err *err) MUST_CHECK;

/* Why an image may not be deleted: fill @why (a container id, short) and say how. */
enum image_use { IMAGE_UNUSED, IMAGE_USED_STOPPED, IMAGE_USED_RUNNING };
typedef enum image_use (*image_use_fn)(void *arg, const char *image_id, char *why, size_t why_size);

/**
 * image_remove - what "docker rmi" does
 * @use: who uses an image; may be NULL
 * @out: set to a new array of {"Untagged": name} and {"Deleted": id} objects
 *
 * Return: 0, -ENOENT, or -EBUSY with Docker's words ("conflict: unable to …").
 */
int image_remove(struct image_store *s, const char *ref, bool force, image_use_fn use, void *arg, json_t **out,
		 struct err *err) MUST_CHECK;

/* image_prune - remove the unused images that @pick (NULL: those without a name) chooses. *freed: bytes of layers. */
typedef bool (*image_pick_fn)(void *arg, const struct image *im);
int image_prune(struct image_store *s, image_pick_fn pick, image_use_fn use, void *arg, json_t **out, uint64_t *freed,
		struct err *err) MUST_CHECK;

/* image_history - the array of GET /images/X/history: Id Created CreatedBy Tags Size Comment. New reference. */
json_t *image_history(const struct image *im) MUST_CHECK;

/* --- references --- */

struct image_ref {
	char domain[256]; /* "docker.io" */
	char path[256];   /* "library/debian" */
	char tag[129];    /* "" when only a digest was given */
	char digest[72];  /* "sha256:…" or "" */
};

/* image_ref_parse - with @default_tag, a missing tag becomes "latest" (unless a digest is given). EINVAL. */
int image_ref_parse(const char *text, bool default_tag, struct image_ref *out, struct err *err) MUST_CHECK;
/* image_ref_familiar - "debian:12", "me/app:1", "registry:5000/app:1", as Docker shows it. @out of 600 bytes. */
void image_ref_familiar(const struct image_ref *r, char *out, size_t size);
void image_ref_full(const struct image_ref *r, char *out, size_t size); /* docker.io/library/debian:12 */

/* digest_valid - "sha256:" and 64 lower-case hexadecimal digits */
bool digest_valid(const char *text);

/* image_config_change - apply a line of a Dockerfile ("ENV A=1") to an image's "config", as import and commit do. */
int image_config_change(json_t *config, const char *line, struct err *err) MUST_CHECK;

/* --- asynchronous operations --- */

struct image_job;

/* @progress: one object of Docker's stream, e.g. {"stream": "Loaded image: debian:12\n"}; borrowed. */
typedef void (*image_progress_fn)(void *arg, const json_t *progress);
/*
 * Called once, at the end, from the loop; the job is gone after it. @err: NULL on success. @result (borrowed), on
 * success: load {"images": [{"id", "tags": []}]}, import {"id"}, save {}.
 */
typedef void (*image_done_fn)(void *arg, const struct err *err, const json_t *result);

/**
 * image_load_start - read a docker-archive or OCI-layout tar (plain, gzip, zstd)
 * @in: read by the worker until its end; borrowed (duplicated), any kind of descriptor
 * @quiet: no progress but the "Loaded image" lines
 *
 * The callbacks come later, from the loop. Return: the job or NULL with @err (no callback comes then).
 */
struct image_job *image_load_start(struct image_store *s, struct loop *l, int in, bool quiet,
				   image_progress_fn progress, image_done_fn done, void *arg,
				   struct err *err) MUST_CHECK;

/**
 * image_import_start - make an image of one layer from a rootfs tar (plain, gzip, zstd)
 * @ref: its name, or NULL/""
 * @message: the history's comment, or NULL
 * @changes: array of Dockerfile lines ("CMD …", "ENV …", …), or NULL
 */
struct image_job *image_import_start(struct image_store *s, struct loop *l, int in, const char *ref,
				     const char *message, const json_t *changes, image_progress_fn progress,
				     image_done_fn done, void *arg, struct err *err) MUST_CHECK;

/**
 * image_commit_start - the image @parent (an id) and one more layer, a tar, become a new image
 * @ref: its name, or NULL/""
 * @config: its "config", as image_commit_config makes it
 * @facts: {author, comment, created_by, container}, all of them optional texts
 *
 * @in must come to its end only when the archive is known to be whole. @result is {"id"}.
 */
struct image_job *image_commit_start(struct image_store *s, struct loop *l, int in, const char *parent, const char *ref,
				     json_t *config, const json_t *facts, image_done_fn done, void *arg,
				     struct err *err) MUST_CHECK;
/**
 * image_commit_config - what becomes of a container's config in an image of it
 * @asked: the request's config, or NULL: the container's
 * @changes: array of Dockerfile lines, or NULL
 *
 * Return: a new reference, or NULL with @err (EINVAL: a bad line).
 */
json_t *image_commit_config(const json_t *container, const json_t *asked, const json_t *changes,
			    struct err *err) MUST_CHECK;

/* image_save_start - write images as a docker-archive that is an OCI layout too; @out borrowed (duplicated). */
struct image_job *image_save_start(struct image_store *s, struct loop *l, const char *const *names, size_t n, int out,
				   image_done_fn done, void *arg, struct err *err) MUST_CHECK;

/**
 * image_pull_start - get an image from a registry
 * @ref: "debian:12", "host:5000/a/b@sha256:…"; a missing tag is "latest"
 * @platform: "linux/amd64", or NULL/"": this machine's
 * @auth: {username, password, identitytoken, registrytoken} or NULL
 *
 * @progress gets Docker's lines ("Downloading", …); @result is {"id", "name"}. EACCES, ENOENT: the registry says so.
 */
struct image_job *image_pull_start(struct image_store *s, struct loop *l, const char *ref, const char *platform,
				   const json_t *auth, image_progress_fn progress, image_done_fn done, void *arg,
				   struct err *err) MUST_CHECK;

/* image_push_start - send the image that is named @ref ("host/a/b:tag") to its registry. */
struct image_job *image_push_start(struct image_store *s, struct loop *l, const char *ref, const json_t *auth,
				   image_progress_fn progress, image_done_fn done, void *arg,
				   struct err *err) MUST_CHECK;

/* image_login_start - try credentials: @auth with "serveraddress". */
struct image_job *image_login_start(struct image_store *s, struct loop *l, const json_t *auth, image_done_fn done,
				    void *arg, struct err *err) MUST_CHECK;

/* image_search_start - Docker Hub's (or "host/term": another registry's) search; @result {"results": []}. */
struct image_job *image_search_start(struct image_store *s, struct loop *l, const char *term, unsigned limit,
				     const json_t *auth, image_done_fn done, void *arg, struct err *err) MUST_CHECK;

/* image_job_cancel - kill the worker, remove the staging; done is not called. */
void image_job_cancel(struct image_job *j);

#endif
