/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-worker: reads and writes archives for the engine, in a sandbox.
 *
 *	walnut-worker load|import|save|digest|layer|hash|pack UID GID MAX_LAYER
 *
 * Descriptors: 0 the archive (load, import), 1 the archive (save), 3 JSON lines
 * to the engine, 4 the only folder that exists for this process (staging, or
 * blobs/sha256 for save), 5 the plan (save, digest). Before the first byte is read it
 * has no privilege, no capability, no network, and "/" is descriptor 4.
 *
 * "digest" only hashes files that an earlier worker left: that one parsed hostile
 * bytes and may lie, this one looks at none, so the names of blobs are right. "hash"
 * does the same to a registry's blob on its way from walnut-fetch to "layer", which
 * converts it. "pack" writes a layer of the store as tar.gz for a push.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "image/layer.h"
#include "image/sandbox.h"
#include "image/tar.h"

#define FD_ENGINE  3
#define FD_DIR     4
#define FD_PLAN    5
#define JSON_MAX   (4U << 20)
#define ITEMS_MAX  4096
#define MEMORY_MAX (64U << 20)

enum item_kind { ITEM_JSON, ITEM_LAYER, ITEM_LINK, ITEM_OTHER };

struct item {
	char *name;
	enum item_kind kind;
	char *text; /* JSON, or a link's target */
	size_t len;
	char digest[DIGEST_TEXT]; /* of the blob as it is in the archive */
	uint64_t size;
	struct layer_info layer;
	unsigned number; /* of the layer's files */
};

static struct item items[ITEMS_MAX];
static size_t nitems, memory;
static unsigned nlayers;
static uint64_t max_layer;

static void say(json_t *line)
{
	CLEAN_JSON json_t *owned = line;
	CLEAN_FREE char *text = line ? json_text(line) : NULL;

	if (!text || fd_write_full(FD_ENGINE, text, strlen(text)) < 0 || fd_write_full(FD_ENGINE, "\n", 1) < 0)
		_exit(1);
}

/* --- load and import --- */

static int new_file(const char *kind, unsigned number)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "layer-%u.%s", number, kind);
	return open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

/* read_layer - convert one layer's blob, which may be compressed; reads it to its end. */
static int read_layer(struct source *blob, enum compression kind, unsigned number, struct layer_info *out,
		      struct err *err)
{
	CLEAN_FD int erofs = new_file("erofs", number), recipe = new_file("recipe", number);
	struct source_unzip z;
	int rc;

	if (erofs < 0 || recipe < 0)
		return err_sys(err, errno, "cannot make a layer's file");
	if (kind == COMPRESSION_NONE)
		return layer_convert(blob, erofs, recipe, max_layer, out, err);
	rc = source_unzip_init(&z, blob, kind, err);
	if (rc < 0)
		return rc;
	rc = layer_convert(&z.s, erofs, recipe, max_layer, out, err);
	source_unzip_fini(&z);
	return rc;
}

static int read_json(struct item *it, struct source *s, uint64_t size, struct err *err)
{
	long n;

	if (size > JSON_MAX || (memory += (size_t)size) > MEMORY_MAX)
		return err_set(err, E2BIG, "the archive's file %.200s is too large", it->name);
	it->text = malloc((size_t)size + 1);
	if (!it->text)
		return err_set(err, ENOMEM, "no memory to read the archive");
	n = source_read(s, it->text, (size_t)size, err);
	if (n < 0)
		return (int)n;
	it->len = (size_t)n;
	it->text[n] = 0;
	it->kind = ITEM_JSON;
	return 0;
}

static int read_item(struct tar_reader *t, struct err *err)
{
	struct tar_entry *e = &t->entry;
	struct item *it = &items[nitems];
	struct source_part part;
	struct source_hash hash;
	const char *name = e->path;
	int rc;

	while (name[0] == '.' && name[1] == '/')
		name += 2;
	if (e->type != '0' && e->type != '2')
		return 0;
	if (e->sparse)
		return err_set(err, ENOTSUP, "the archive's file %.200s is sparse", name);
	if (nitems == ITEMS_MAX)
		return err_set(err, E2BIG, "the archive has more than %d files", ITEMS_MAX);
	*it = (struct item){ .name = strdup(name), .kind = ITEM_OTHER };
	if (!it->name)
		return err_set(err, ENOMEM, "no memory to read the archive");
	nitems++;
	if (e->type == '2') {
		it->kind = ITEM_LINK;
		it->text = strdup(e->link ? e->link : "");
		return it->text ? 0 : err_set(err, ENOMEM, "no memory to read the archive");
	}
	/* The entry's data is read past the reader, which is told so. */
	rc = source_part_init(&part, t->from, e->size, err);
	t->left = 0;
	if (rc < 0)
		return rc;
	source_hash_init(&hash, &part.s, 0);
	enum compression kind = compression_guess(part.prefix, part.prefix_len);
	bool is_tar = part.prefix_len == TAR_BLOCK && tar_header_valid(part.prefix);

	if (kind != COMPRESSION_NONE || is_tar) {
		it->kind = ITEM_LAYER;
		it->number = nlayers++;
		rc = read_layer(&hash.s, kind, it->number, &it->layer, err);
		if (rc < 0)
			return err_wrap(err, "layer %.150s", name);
	} else if (part.prefix_len && (part.prefix[0] == '{' || part.prefix[0] == '[')) {
		rc = read_json(it, &hash.s, e->size, err);
	}
	/* What a decompressor did not want still belongs to the blob. */
	for (;;) {
		source_take(&hash.s, hash.s.n);
		int more = rc < 0 ? rc : source_fill(&hash.s, err);

		if (more < 0)
			return more;
		if (more == 0)
			break;
	}
	source_hash_text(&hash, it->digest);
	it->size = e->size;
	return 0;
}

/* lookup - an archive's file by name, links followed ("../ID/layer.tar"). */
static struct item *lookup(const char *name)
{
	char path[TAR_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s", name);
	for (int depth = 0; depth < 8; depth++) {
		struct item *it = NULL;
		const char *clean = path;

		while (clean[0] == '.' && clean[1] == '/')
			clean += 2;
		for (size_t i = nitems; i-- > 0 && !it;) {
			if (!strcmp(items[i].name, clean))
				it = &items[i];
		}
		if (!it || it->kind != ITEM_LINK)
			return it;
		const char *to = it->text;
		char next[TAR_PATH_MAX];
		size_t keep = strlen(clean);

		while (keep && clean[keep - 1] != '/')
			keep--;
		while (!strncmp(to, "../", 3)) {
			to += 3;
			while (keep && clean[--keep] == '/')
				;
			while (keep && clean[keep - 1] != '/')
				keep--;
		}
		if (keep + strlen(to) >= sizeof(next))
			return NULL;
		memcpy(next, clean, keep);
		memcpy(next + keep, to, strlen(to) + 1);
		memcpy(path, next, keep + strlen(to) + 1);
	}
	return NULL;
}

static json_t *layer_json(const struct layer_info *l, unsigned number)
{
	return json_pack("{s:i,s:s,s:I,s:I,s:I,s:I}", "number", (int)number, "diff_id", l->diff_id, "tar_size",
			 (json_int_t)l->tar_size, "erofs_size", (json_int_t)l->erofs_size, "recipe_size",
			 (json_int_t)l->recipe_size, "size", (json_int_t)l->content);
}

/* add_image - check one image against its config and add it to the result. */
static int add_image(json_t *images, const struct item *config, struct item **layers, size_t n, json_t *tags,
		     struct err *err)
{
	CLEAN_JSON json_t *doc = json_parse(config->text, config->len, "the image's config", err);
	json_t *ids = json_object_get(json_object_get(doc, "rootfs"), "diff_ids");
	json_t *list = json_array();

	if (!doc)
		return -EINVAL;
	if (json_array_size(ids) != n)
		return err_set(err, EINVAL, "the image's config names %zu layers, but its manifest %zu",
			       json_array_size(ids), n);
	for (size_t i = 0; i < n; i++) {
		const char *want = json_string_value(json_array_get(ids, i));

		if (!want || strcmp(want, layers[i]->layer.diff_id) != 0)
			return err_set(err, EINVAL, "layer %zu does not match its digest: %s is expected, %s was found",
				       i + 1, want ? want : "nothing", layers[i]->layer.diff_id);
		json_array_append_new(list, layer_json(&layers[i]->layer, layers[i]->number));
	}
	json_array_append_new(images, json_pack("{s:s,s:s%,s:o,s:O}", "id", config->digest, "config", config->text,
						config->len, "layers", list, "tags", tags));
	return 0;
}

#define LAYERS_MAX 512

static int from_docker(const json_t *manifest, json_t *images, struct err *err)
{
	size_t i;
	json_t *m, *name;

	json_array_foreach(manifest, i, m) {
		const char *config = json_str(m, "Config", "");
		json_t *names = json_object_get(m, "Layers"), *tags = json_object_get(m, "RepoTags");
		struct item *it = lookup(config), *layers[LAYERS_MAX];
		size_t k;
		int rc;

		if (!it || it->kind != ITEM_JSON)
			return err_set(err, EINVAL, "the archive has no config \"%.200s\"", config);
		if (json_array_size(names) > LAYERS_MAX)
			return err_set(err, E2BIG, "an image of the archive has more than %d layers", LAYERS_MAX);
		json_array_foreach(names, k, name) {
			layers[k] = json_is_string(name) ? lookup(json_string_value(name)) : NULL;
			if (!layers[k] || layers[k]->kind != ITEM_LAYER)
				return err_set(err, EINVAL, "the archive has no layer \"%.200s\"",
					       json_is_string(name) ? json_string_value(name) : "");
		}
		CLEAN_JSON json_t *list = json_is_array(tags) ? json_incref(tags) : json_array();

		rc = add_image(images, it, layers, k, list, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static struct item *blob(const json_t *descriptor, struct err *err)
{
	const char *digest = json_str(descriptor, "digest", "");
	char name[128];
	struct item *it;

	if (strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != 71 || strchr(digest, '/')) {
		(void)err_set(err, EINVAL, "the archive has a bad digest \"%.100s\"", digest);
		return NULL;
	}
	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest + 7);
	it = lookup(name);
	if (!it) {
		(void)err_set(err, EINVAL, "the archive has no blob %s", digest);
		return NULL;
	}
	if (strcmp(it->digest, digest) != 0) {
		(void)err_set(err, EINVAL, "a blob does not match its digest: %s is expected, %s was found", digest,
			      it->digest);
		return NULL;
	}
	int64_t size = json_int(descriptor, "size", -1);

	if (size < 0 || (uint64_t)size != it->size) {
		(void)err_set(err, EINVAL, "the blob %s has a size of %llu bytes, but its descriptor says %lld", digest,
			      (unsigned long long)it->size, (long long)size);
		return NULL;
	}
	return it;
}

static int from_oci(const json_t *descriptor, const char *tag, json_t *images, int depth, struct err *err)
{
	struct item *it = blob(descriptor, err), *config, *layers[LAYERS_MAX];
	json_t *d, *list;
	size_t i;

	if (!it)
		return -EINVAL;
	CLEAN_JSON json_t *doc = it->kind == ITEM_JSON ? json_parse(it->text, it->len, "a manifest", err) : NULL;

	if (!doc || depth > 4)
		return err_set(err, EINVAL, "the archive's manifest %.80s cannot be read", it->digest);
	list = json_object_get(doc, "manifests");
	json_array_foreach(list, i, d) {
		const json_t *p = json_object_get(d, "platform");

		if (!p ||
		    (!strcmp(json_str(p, "os", ""), "linux") && !strcmp(json_str(p, "architecture", ""), "amd64")))
			return from_oci(d, tag, images, depth + 1, err);
	}
	if (json_is_array(list))
		return err_set(err, EINVAL, "the archive has no image for linux/amd64");
	config = blob(json_object_get(doc, "config"), err);
	if (!config)
		return -EINVAL;
	list = json_object_get(doc, "layers");
	if (config->kind != ITEM_JSON || json_array_size(list) > LAYERS_MAX)
		return err_set(err, EINVAL, "the archive's manifest %.80s is no image's", it->digest);
	json_array_foreach(list, i, d) {
		layers[i] = blob(d, err);
		if (!layers[i])
			return -EINVAL;
		if (layers[i]->kind != ITEM_LAYER)
			return err_set(err, EINVAL, "the blob %s is no layer", layers[i]->digest);
	}
	CLEAN_JSON json_t *tags = json_array();

	if (tag && *tag)
		json_array_append_new(tags, json_string(tag));
	return add_image(images, config, layers, i, tags, err);
}

static int resolve(json_t *images, struct err *err)
{
	struct item *it = lookup("manifest.json");
	bool docker = it && it->kind == ITEM_JSON;
	json_t *d;
	size_t i;

	if (!docker)
		it = lookup("index.json");
	if (!it || it->kind != ITEM_JSON)
		return err_set(err, EINVAL,
			       "the archive holds no image: neither manifest.json nor index.json is in it");
	CLEAN_JSON json_t *doc = json_parse(it->text, it->len, it->name, err);

	if (!doc)
		return -EINVAL;
	if (docker && !json_is_array(doc))
		return err_set(err, EINVAL, "the archive's manifest.json is no list of images");
	if (docker && json_array_size(doc) == 0)
		return err_set(err, EINVAL, "the archive's manifest.json names no image");
	if (docker)
		return from_docker(doc, images, err);
	json_array_foreach(json_object_get(doc, "manifests"), i, d) {
		json_t *notes = json_object_get(d, "annotations");
		const char *tag = json_str(notes, "io.containerd.image.name", NULL);
		int rc = from_oci(d, tag ? tag : json_str(notes, "org.opencontainers.image.ref.name", NULL), images, 0,
				  err);

		if (rc < 0)
			return rc;
	}
	return json_array_size(images) ? 0 : err_set(err, EINVAL, "the archive's index.json names no image");
}

static int load(struct source *in, json_t *images, struct err *err)
{
	struct tar_reader t;
	int rc;

	tar_init(&t, in);
	while ((rc = tar_next(&t, err)) > 0) {
		rc = read_item(&t, err);
		if (rc < 0)
			break;
	}
	tar_fini(&t);
	return rc < 0 ? rc : resolve(images, err);
}

static int open_input(bool import, json_t **result, struct err *err)
{
	struct source_fd in;
	struct source_unzip z;
	CLEAN_JSON json_t *images = json_array();
	struct layer_info layer;
	int rc = source_fd_init(&in, 0, err);

	if (rc == 0)
		rc = source_fill(&in.s, err);
	if (rc == 0)
		rc = err_set(err, EINVAL, "the archive is empty");
	if (rc < 0)
		return rc;
	/* A pipe's first read may be short; a magic number is in the first bytes all the same, but wait for 4. */
	enum compression kind = compression_guess(in.s.p, in.s.n);

	if (import) {
		rc = read_layer(&in.s, kind, 0, &layer, err);
		if (rc == 0)
			*result = json_pack("{s:o}", "layer", layer_json(&layer, 0));
		return rc;
	}
	if (kind == COMPRESSION_NONE) {
		rc = load(&in.s, images, err);
	} else {
		rc = source_unzip_init(&z, &in.s, kind, err);
		if (rc == 0)
			rc = load(&z.s, images, err);
	}
	if (rc == 0)
		*result = json_pack("{s:O}", "images", images);
	return rc;
}

/* --- save --- */

static int put_entry(const char *name, char type, const void *bytes, uint64_t size, struct err *err)
{
	uint8_t h[TAR_BLOCK];
	static const uint8_t zero[TAR_BLOCK];
	int rc;

	tar_header_make(h, name, type, type == '5' ? 0755 : 0644, size, 0);
	rc = fd_write_full(1, h, sizeof(h));
	if (rc == 0 && bytes)
		rc = fd_write_full(1, bytes, (size_t)size);
	if (rc == 0 && bytes)
		rc = fd_write_full(1, zero, (size_t)(-size & (TAR_BLOCK - 1)));
	return rc < 0 ? err_sys(err, -rc, "cannot write the archive") : 0;
}

static int save_sink(void *arg, const void *bytes, size_t n, struct err *err)
{
	int rc = fd_write_full(1, bytes, n);

	return rc < 0 ? err_sys(err, -rc, "cannot write the archive") : 0;
}

static int save_layer(const json_t *entry, const char *name, struct err *err)
{
	static const uint8_t zero[TAR_BLOCK];
	uint64_t size = (uint64_t)json_int(entry, "size", 0);
	CLEAN_FD int erofs = open(json_str(entry, "erofs", ""), O_RDONLY | O_CLOEXEC);
	CLEAN_FD int recipe = open(json_str(entry, "recipe", ""), O_RDONLY | O_CLOEXEC);
	char digest[DIGEST_TEXT];
	int rc;

	if (erofs < 0 || recipe < 0)
		return err_sys(err, errno, "cannot open a layer of the store");
	rc = put_entry(name, '0', NULL, size, err);
	if (rc == 0)
		rc = layer_rebuild(erofs, recipe, save_sink, NULL, digest, err);
	if (rc == 0 && strcmp(digest, json_str(entry, "diff_id", "")) != 0)
		rc = err_set(err, EIO, "a layer of the store is damaged: it became %s, not %s", digest,
			     json_str(entry, "diff_id", ""));
	if (rc == 0)
		rc = fd_write_full(1, zero, (size_t)(-size & (TAR_BLOCK - 1)));
	return rc;
}

static json_t *read_plan(struct err *err)
{
	CLEAN_BUF struct buf plan = BUF_INIT;
	ssize_t n;

	while ((n = buf_read(&plan, FD_PLAN, 65536)) > 0)
		;
	json_t *doc = n < 0 ? NULL : json_parse(buf_bytes(&plan), plan.len, "the plan", err);

	if (!doc)
		(void)err_set(err, EINVAL, "walnut-worker: cannot read its plan");
	return doc;
}

/* save - the plan is an array of entries: {"name", "text"}, {"name"} (a folder) or {"name", "diff_id", "erofs", "recipe", "size"}. */
static int save(struct err *err)
{
	static const uint8_t zero[2 * TAR_BLOCK];
	CLEAN_JSON json_t *doc = read_plan(err);
	json_t *e;
	size_t i;
	int rc = 0;

	if (!doc)
		return -EINVAL;
	json_array_foreach(doc, i, e) {
		const char *name = json_str(e, "name", ""), *text = json_str(e, "text", NULL);

		if (text)
			rc = put_entry(name, '0', text, strlen(text), err);
		else if (json_object_get(e, "diff_id"))
			rc = save_layer(e, name, err);
		else
			rc = put_entry(name, '5', NULL, 0, err);
		if (rc < 0)
			return rc;
	}
	rc = fd_write_full(1, zero, sizeof(zero));
	return rc < 0 ? err_sys(err, -rc, "cannot write the archive") : 0;
}

/* --- digest --- */

static int hash_file(const char *name, json_t *out, struct err *err)
{
	CLEAN_FD int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	CLEAN_FREE uint8_t *block = malloc(1U << 20);
	uint8_t sum[SHA256_DIGEST_SIZE];
	char digest[DIGEST_TEXT];
	struct sha256_ctx sha;
	ssize_t n = -1;
	off_t at = 0;

	if (!block)
		return err_set(err, ENOMEM, "no memory to hash a layer");
	sha256_init(&sha);
	for (; fd >= 0 && (n = pread(fd, block, 1U << 20, at)) > 0; at += n)
		sha256_update(&sha, (size_t)n, block);
	/* On disk before it becomes visible: the engine's loop does not wait for it. */
	if (n < 0 || fsync(fd) < 0)
		return err_sys(err, errno, "cannot store a layer's file");
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, digest);
	json_object_set_new(out, name, json_pack("{s:s,s:I}", "digest", digest, "size", (json_int_t)at));
	return 0;
}

/* digest - the plan is an array of file names. */
static int digest(json_t **result, struct err *err)
{
	CLEAN_JSON json_t *names = read_plan(err);
	CLEAN_JSON json_t *out = json_object();
	json_t *v;
	size_t i;

	json_array_foreach(names, i, v) {
		int rc = hash_file(json_is_string(v) ? json_string_value(v) : "", out, err);

		if (rc < 0)
			return rc;
	}
	*result = json_incref(out);
	return names ? 0 : -EINVAL;
}

/* --- registries --- */

/* layer - one blob from a registry becomes a staged layer. The plan is {number}. */
static int layer(json_t **result, struct err *err)
{
	CLEAN_JSON json_t *doc = read_plan(err);
	unsigned number = (unsigned)json_int(doc, "number", 0);
	struct layer_info info;
	struct source_fd in;
	int rc = doc ? source_fd_init(&in, 0, err) : -EINVAL;

	if (rc == 0)
		rc = source_fill(&in.s, err);
	if (rc < 0)
		return rc;
	rc = read_layer(&in.s, compression_guess(in.s.p, in.s.n), number, &info, err);
	/*
	 * Bytes after the compressed data belong to the blob. Those after damage are read too: "hash" comes to the end
	 * then and can say that these are not the bytes that were asked for, which is the cause.
	 */
	while (rc == 0 || rc == -EINVAL) {
		struct err ignored = ERR_INIT;

		source_take(&in.s, in.s.n);
		int more = source_fill(&in.s, rc ? &ignored : err);

		if (more <= 0) {
			rc = rc ? rc : more;
			break;
		}
	}
	if (rc == 0)
		*result = layer_json(&info, number);
	source_fd_fini(&in);
	return rc;
}

/* hash - pass a pipe on (tee(2): without copying) and say what went through. */
static int hash(json_t **result, struct err *err)
{
	CLEAN_FREE uint8_t *block = malloc(1U << 20);
	uint8_t sum[SHA256_DIGEST_SIZE];
	char text[DIGEST_TEXT];
	struct sha256_ctx sha;
	uint64_t total = 0;

	if (!block)
		return err_set(err, ENOMEM, "no memory to hash a layer");
	sha256_init(&sha);
	for (;;) {
		ssize_t n = tee(0, 1, 1U << 20, 0), got;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "cannot pass on a layer");
		if (n == 0)
			break;
		got = fd_read_full(0, block, (size_t)n);
		if (got != n)
			return err_set(err, EIO, "cannot read a layer");
		sha256_update(&sha, (size_t)n, block);
		total += (uint64_t)n;
	}
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, text);
	*result = json_pack("{s:s,s:I}", "digest", text, "size", (json_int_t)total);
	return 0;
}

struct packer {
	z_stream z;
	uint8_t *out;
	struct sha256_ctx sha;
	uint64_t size;
};

static int pack_some(struct packer *p, const void *bytes, size_t n, int flush, struct err *err)
{
	int rc;

	p->z.next_in = (Bytef *)(uintptr_t)bytes;
	p->z.avail_in = (uInt)n;
	do {
		p->z.next_out = p->out;
		p->z.avail_out = 1U << 18;
		rc = deflate(&p->z, flush);
		size_t made = (1U << 18) - p->z.avail_out;

		if (rc == Z_STREAM_ERROR)
			return err_set(err, EIO, "cannot compress a layer");
		if (fd_write_full(1, p->out, made) < 0)
			return err_set(err, EPIPE, "cannot send a layer: the other end has closed");
		sha256_update(&p->sha, made, p->out);
		p->size += made;
	} while (p->z.avail_out == 0 || (flush == Z_FINISH && rc != Z_STREAM_END));
	return 0;
}

static int pack_sink(void *arg, const void *bytes, size_t n, struct err *err)
{
	return pack_some(arg, bytes, n, Z_NO_FLUSH, err);
}

/* pack - the plan is {erofs, recipe, diff_id}; the folder is the store's blobs/sha256. */
static int pack(json_t **result, struct err *err)
{
	CLEAN_JSON json_t *doc = read_plan(err);
	CLEAN_FD int erofs = open(json_str(doc, "erofs", ""), O_RDONLY | O_CLOEXEC);
	CLEAN_FD int recipe = open(json_str(doc, "recipe", ""), O_RDONLY | O_CLOEXEC);
	struct packer p = { .out = malloc(1U << 18) };
	uint8_t sum[SHA256_DIGEST_SIZE];
	char text[DIGEST_TEXT];

	if (erofs < 0 || recipe < 0)
		return err_sys(err, errno, "cannot open a layer of the store");
	if (!p.out || deflateInit2(&p.z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return err_set(err, ENOMEM, "no memory to compress a layer");
	sha256_init(&p.sha);
	int rc = layer_rebuild(erofs, recipe, pack_sink, &p, text, err);

	if (rc == 0 && strcmp(text, json_str(doc, "diff_id", "")) != 0)
		rc = err_set(err, EIO, "a layer of the store is damaged: it became %s", text);
	if (rc == 0)
		rc = pack_some(&p, "", 0, Z_FINISH, err);
	(void)deflateEnd(&p.z);
	free(p.out);
	sha256_digest(&p.sha, sizeof(sum), sum);
	digest_text(sum, text);
	*result = rc == 0 ? json_pack("{s:s,s:I}", "digest", text, "size", (json_int_t)p.size) : NULL;
	return rc;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	json_t *result = NULL;
	int rc;

	if (argc != 5) {
		fprintf(stderr, "walnut-worker is started by walnutd\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	max_layer = strtoull(argv[4], NULL, 10);
	rc = sandbox_enter(SANDBOX_FILES, FD_DIR, (uid_t)strtoul(argv[2], NULL, 10), (gid_t)strtoul(argv[3], NULL, 10),
			   &err);
	if (rc == 0 && !strcmp(argv[1], "save"))
		rc = save(&err);
	else if (rc == 0 && !strcmp(argv[1], "digest"))
		rc = digest(&result, &err);
	else if (rc == 0 && !strcmp(argv[1], "layer"))
		rc = layer(&result, &err);
	else if (rc == 0 && !strcmp(argv[1], "hash"))
		rc = hash(&result, &err);
	else if (rc == 0 && !strcmp(argv[1], "pack"))
		rc = pack(&result, &err);
	else if (rc == 0)
		rc = open_input(!strcmp(argv[1], "import"), &result, &err);
	if (rc < 0)
		say(json_pack("{s:{s:i,s:s}}", "error", "code", -rc, "message", err.msg));
	else
		say(json_pack("{s:o}", "result", result ? result : json_object()));
	return rc < 0;
}
