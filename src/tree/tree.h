/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-tree: a short-lived process that reads or writes a container's files for the engine ("docker cp", export, diff).
 * It makes the container's root its own, gives up what it does not need, and only then looks at paths and archives:
 * whatever a container does to its files, or a client to its archive, stays inside that root.
 */
#ifndef WALNUT_TREE_TREE_H
#define WALNUT_TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

/* tree_write_tar - a path as a pax archive on @out; its first entry is called @name, what is below it NAME/... Mounts are not entered. */
int tree_write_tar(const char *path, const char *name, int out, struct err *err) MUST_CHECK;

/**
 * tree_write_layer - a writable layer as an image's layer (OCI image-spec, layer.md): deletions are whiteouts, ".wh.NAME"
 * @upper: the overlay's upper folder; -1: there is none, nothing was changed
 * @lower: the image's merged root
 *
 * What the engine itself put there is left out, as in tree_changes.
 */
int tree_write_layer(int upper, int lower, int out, struct err *err) MUST_CHECK;

/* tree_engine_made - "/etc/hosts" and the like: the engine, not the container, makes them in the writable layer. */
bool tree_engine_made(const char *path);
/* tree_whiteout, tree_opaque - overlayfs's marks: the file is deleted; the folder hides the image's. */
bool tree_whiteout(const struct stat *st);
bool tree_opaque(int fd);

struct tree_extract_options {
	bool keep_kind; /* a folder never becomes another kind of file, nor the other way round */
	bool own;       /* all files belong to uid, gid instead of whom the archive names */
	uint32_t uid, gid;
};
/* tree_extract - unpack the archive @in (plain, gzip, zstd) below the folder @path. */
int tree_extract(int in, const char *path, const struct tree_extract_options *o, struct err *err) MUST_CHECK;

/**
 * tree_changes - what a writable layer changed, as Docker's /containers/ID/changes: [{"Path", "Kind"}], sorted
 * @upper: the overlay's upper folder
 * @lower: the image's merged root
 */
json_t *tree_changes(int upper, int lower, struct err *err) MUST_CHECK;

/* tree_stat - {"name", "size", "mode" (Go's bits), "mtime", "linkTarget"} of @path. */
json_t *tree_stat(const char *path, struct err *err) MUST_CHECK;

#endif
