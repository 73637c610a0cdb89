/* SPDX-License-Identifier: Apache-2.0 */
/* GET /system/df: what images and containers take of the disk. A build cache does not exist yet: an empty list. */
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "engine/container.h"
#include "engine/mounts.h"
#include "image/image.h"

static json_t *texts(char *const *list, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(a, json_string(list[i]));
	return a;
}

/* How many images have this layer. */
static int layer_users(const struct image_store *s, const char *diff_id)
{
	int users = 0;

	for (size_t i = 0; i < image_count(s); i++) {
		const struct image *im = image_at(s, i);

		for (size_t k = 0; k < im->nlayers; k++)
			if (!strcmp(im->layers[k].diff_id, diff_id)) {
				users++;
				break;
			}
	}
	return users;
}

static json_t *df_image(struct engine *e, const struct image *im)
{
	const json_t *labels = json_object_get(json_object_get(im->config, "config"), "Labels");
	int containers = 0;
	uint64_t shared = 0;

	for (const struct engine_container *c = e->containers; c; c = c->next)
		containers += !strcmp(c->image_id, im->id);
	for (size_t i = 0; i < im->nlayers; i++)
		if (layer_users(e->images, im->layers[i].diff_id) > 1)
			shared += im->layers[i].size;
	return json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:i, s:o}", "Id", im->id, "ParentId", "", "RepoTags",
			 texts(im->repo_tags, im->nrepo_tags), "RepoDigests",
			 texts(im->repo_digests, im->nrepo_digests), "Created", (json_int_t)im->created_unix, "Size",
			 (json_int_t)im->size, "VirtualSize", (json_int_t)im->size, "SharedSize", (json_int_t)shared,
			 "Containers", containers, "Labels", labels ? json_incref((json_t *)labels) : json_null());
}

static void df_images(struct engine *e, json_t *out)
{
	CLEAN_JSON json_t *seen = json_object();
	json_t *list = json_array();
	json_int_t layers = 0;

	for (size_t i = 0; i < image_count(e->images); i++) {
		const struct image *im = image_at(e->images, i);

		(void)json_array_append_new(list, df_image(e, im));
		for (size_t k = 0; k < im->nlayers; k++) {
			if (!json_object_get(seen, im->layers[k].diff_id))
				layers += (json_int_t)im->layers[k].size;
			(void)json_object_set_new(seen, im->layers[k].diff_id, json_true());
		}
	}
	(void)json_object_set_new(out, "LayersSize", json_integer(layers));
	(void)json_object_set_new(out, "Images", list);
}

static bool wants(const struct http_request *r, const char *type)
{
	const char *value;

	for (size_t i = 0; (value = http_query_all(r, "type", i)); i++)
		if (!strcmp(value, type))
			return true;
	return !http_query(r, "type");
}

static void df(struct http_conn *c, const struct http_request *r, void *arg)
{
	static const char *const types[] = { "container", "image", "volume", "build-cache" };
	struct err err = ERR_INIT;
	json_t *out = json_object();
	const char *value;

	for (size_t i = 0; (value = http_query_all(r, "type", i)); i++) {
		bool known = false;

		for (size_t k = 0; k < ARRAY_LEN(types); k++)
			known = known || !strcmp(types[k], value);
		if (!known) {
			json_decref(out);
			http_reply_error_status(c, 400, "unknown object type: %.100s", value);
			return;
		}
	}
	if (wants(r, "image"))
		df_images(arg, out);
	if (wants(r, "container"))
		(void)json_object_set_new(out, "Containers", engine_container_list(arg, true, 0, true, NULL, &err));
	if (wants(r, "volume"))
		(void)json_object_set_new(out, "Volumes", engine_volume_list(arg, NULL, true, &err));
	if (wants(r, "build-cache"))
		(void)json_object_set_new(out, "BuildCache", json_array());
	if (r->api_minor < 42)
		(void)json_object_set_new(out, "BuilderSize", json_integer(0));
	http_reply_json(c, 200, out);
}

const struct http_route routes_df[] = {
	{ "GET", "/system/df", df, false },
	{ 0 },
};
