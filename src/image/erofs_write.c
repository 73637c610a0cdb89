/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format: Linux, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
 * Uncompressed, blocks of 4096 bytes, extended inodes.
 *
 *	block 0		superblock at 1024
 *	block 1…	file contents, each file from a block's start, in the tar's order
 *	then		folders too large to be inline, then all inodes with their
 *			extended attributes and inline data (links, small folders)
 *
 * The tree is kept in memory (names, inodes), the contents are not. Nothing in
 * the file depends on the time or place of writing: one tar gives one file.
 */
#include "image/erofs_write.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define BLOCK       4096U
#define WRITE_CHUNK (1U << 20)
#define NODES_MAX   (8U << 20)
#define MEMORY_MAX  (1ULL << 30) /* names, links and attributes of one layer */

struct inode {
	uint32_t mode, uid, gid, nlink, rdev, mtime_nsec;
	int64_t mtime;
	uint64_t size;
	uint64_t at; /* contents, when plain */
	char *link;
	uint8_t *xattrs; /* the inline area, header included; or NULL */
	uint32_t xattrs_len;
	bool inline_data;
	bool placed, written, plain_written;
	uint64_t nid;
	uint32_t number;
};

struct node {
	struct node *parent, *sibling, *children;
	struct node *hash_next;
	struct inode *inode;
	uint32_t hash;
	uint16_t len;
	uint32_t nchildren;
	bool implied;         /* made as a missing parent, or a whiteout: an entry replaces it */
	struct node **sorted; /* of a folder, when writing */
	char name[];
};

struct erofs_writer {
	int fd;
	struct node *root;
	struct node **table;
	size_t table_size, nnodes;
	uint64_t memory;
	uint64_t next;  /* where the next file's contents go */
	uint8_t *chunk; /* bytes not yet written */
	uint64_t chunk_at;
	size_t chunk_len;
	uint64_t content;
	uint32_t ninodes;
	struct inode **all; /* every inode made, to free */
	size_t nall, all_room;
};

struct super {
	uint32_t magic, checksum, feature_compat;
	uint8_t blkszbits, sb_extslots;
	uint16_t root_nid;
	uint64_t inos, build_time;
	uint32_t build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr;
	uint8_t uuid[16], volume_name[16];
	uint32_t feature_incompat;
	uint8_t rest[44];
} __attribute__((packed));

struct disk_inode {
	uint16_t format, xattr_icount, mode, reserved;
	uint64_t size;
	uint32_t u, ino, uid, gid;
	uint64_t mtime;
	uint32_t mtime_nsec, nlink;
	uint8_t reserved2[16];
} __attribute__((packed));

struct disk_dirent {
	uint64_t nid;
	uint16_t nameoff;
	uint8_t file_type, reserved;
} __attribute__((packed));

_Static_assert(sizeof(struct super) == 128 && sizeof(struct disk_inode) == 64 && sizeof(struct disk_dirent) == 12,
	       "on-disk sizes");

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "no memory to convert the layer");
}

static struct inode *inode_new(struct erofs_writer *w, uint32_t mode)
{
	struct inode *i = calloc(1, sizeof(*i));

	if (i && w->nall == w->all_room) {
		size_t room = w->all_room ? 2 * w->all_room : 1024;
		struct inode **more = realloc(w->all, room * sizeof(struct inode *));

		if (!more) {
			free(i);
			return NULL;
		}
		w->all = more;
		w->all_room = room;
	}
	if (i) {
		i->mode = mode;
		w->all[w->nall++] = i;
	}
	return i;
}

static uint32_t hash_name(const struct node *parent, const char *name, size_t n)
{
	uint64_t h = 0xcbf29ce484222325ULL ^ (uint64_t)(uintptr_t)parent;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)name[i]) * 0x100000001b3ULL;
	return (uint32_t)(h ^ h >> 32);
}

static struct node *find(const struct erofs_writer *w, const struct node *dir, const char *name, size_t n)
{
	uint32_t h = hash_name(dir, name, n);

	for (struct node *c = w->table[h & (w->table_size - 1)]; c; c = c->hash_next) {
		if (c->hash == h && c->parent == dir && c->len == n && memcmp(c->name, name, n) == 0)
			return c;
	}
	return NULL;
}

static int grow_table(struct erofs_writer *w)
{
	size_t size = w->table_size * 2;
	struct node **more = calloc(size, sizeof(struct node *));

	if (!more)
		return -ENOMEM;
	for (size_t i = 0; i < w->table_size; i++) {
		struct node *next;

		for (struct node *c = w->table[i]; c; c = next) {
			next = c->hash_next;
			c->hash_next = more[c->hash & (size - 1)];
			more[c->hash & (size - 1)] = c;
		}
	}
	free(w->table);
	w->table = more;
	w->table_size = size;
	return 0;
}

static struct node *make(struct erofs_writer *w, struct node *dir, const char *name, size_t n, struct err *err)
{
	struct node *c;

	w->memory += sizeof(*c) + n + 1 + sizeof(struct inode);
	if (w->nnodes >= NODES_MAX || w->memory > MEMORY_MAX) {
		(void)err_set(err, E2BIG, "a layer has too many files to convert");
		return NULL;
	}
	c = calloc(1, sizeof(*c) + n + 1);
	if (!c || (w->nnodes >= w->table_size && grow_table(w) < 0)) {
		free(c);
		(void)no_memory(err);
		return NULL;
	}
	c->parent = dir;
	c->len = (uint16_t)n;
	memcpy(c->name, name, n);
	c->hash = hash_name(dir, name, n);
	c->hash_next = w->table[c->hash & (w->table_size - 1)];
	w->table[c->hash & (w->table_size - 1)] = c;
	c->sibling = dir->children;
	dir->children = c;
	dir->nchildren++;
	w->nnodes++;
	return c;
}

struct erofs_writer *erofs_new(int fd)
{
	struct erofs_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fd = fd;
	w->table_size = 4096;
	w->table = calloc(w->table_size, sizeof(struct node *));
	w->chunk = malloc(WRITE_CHUNK);
	w->root = calloc(1, sizeof(*w->root) + 1);
	w->next = BLOCK;
	if (w->root)
		w->root->inode = inode_new(w, S_IFDIR | 0755);
	if (!w->table || !w->chunk || !w->root || !w->root->inode) {
		erofs_free(w);
		return NULL;
	}
	w->root->parent = w->root;
	w->root->implied = true;
	return w;
}

void erofs_free(struct erofs_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; w->table && i < w->table_size; i++) {
		struct node *next;

		for (struct node *c = w->table[i]; c; c = next) {
			next = c->hash_next;
			free(c->sorted);
			free(c);
		}
	}
	for (size_t i = 0; i < w->nall; i++) {
		free(w->all[i]->link);
		free(w->all[i]->xattrs);
		free(w->all[i]);
	}
	if (w->root)
		free(w->root->sorted);
	free(w->root);
	free(w->all);
	free(w->table);
	free(w->chunk);
	free(w);
}

/* --- output --- */

static int flush(struct erofs_writer *w, struct err *err)
{
	int rc = w->chunk_len ? fd_pwrite_full(w->fd, w->chunk, w->chunk_len, (off_t)w->chunk_at) : 0;

	w->chunk_at += w->chunk_len;
	w->chunk_len = 0;
	return rc < 0 ? err_sys(err, -rc, "cannot write the layer's file") : 0;
}

/* put_large - runs of zeros stay holes: a layer of nothing must not fill the disk. */
static int put_large(int fd, const uint8_t *p, size_t n, uint64_t at)
{
	const size_t step = 65536;
	size_t start = 0, end = 0;
	int rc = 0;

	while (rc == 0 && end < n) {
		size_t len = n - end < step ? n - end : step;
		bool zero = p[end] == 0 && !memcmp(p + end, p + end + 1, len - 1);

		end += len;
		if (zero && end - len > start)
			rc = fd_pwrite_full(fd, p + start, end - len - start, (off_t)(at + start));
		if (zero)
			start = end;
	}
	return rc == 0 && end > start ? fd_pwrite_full(fd, p + start, end - start, (off_t)(at + start)) : rc;
}

static int put(struct erofs_writer *w, uint64_t at, const void *bytes, size_t n, struct err *err)
{
	uint64_t end = w->chunk_at + w->chunk_len;
	int rc = 0;

	if (at < end)
		return err_set(err, EINVAL, "a layer's contents are out of order");
	if (at - end < BLOCK && at - w->chunk_at + n <= WRITE_CHUNK) {
		memset(w->chunk + w->chunk_len, 0, (size_t)(at - end));
		w->chunk_len += (size_t)(at - end);
	} else {
		rc = flush(w, err);
		w->chunk_at = at;
	}
	if (rc == 0 && n >= WRITE_CHUNK / 4) {
		rc = flush(w, err);
		if (rc == 0)
			rc = put_large(w->fd, bytes, n, at);
		w->chunk_at = at + n;
		return rc < 0 ? err_sys(err, -rc, "cannot write the layer's file") : 0;
	}
	if (rc == 0) {
		memcpy(w->chunk + w->chunk_len, bytes, n);
		w->chunk_len += n;
	}
	return rc;
}

int erofs_data(struct erofs_writer *w, uint64_t at, const void *bytes, size_t n, struct err *err)
{
	return put(w, at, bytes, n, err);
}

/* --- extended attributes --- */

static const struct {
	const char *prefix;
	uint8_t index;
	bool whole;
} prefixes[] = {
	{ "user.", 1, false },
	{ "system.posix_acl_access", 2, true },
	{ "system.posix_acl_default", 3, true },
	{ "trusted.", 4, false },
	{ "security.", 6, false },
};

static int set_xattrs(struct erofs_writer *w, struct inode *i, const struct tar_xattr *x, size_t n, struct err *err)
{
	size_t room = 12, at = 12;

	for (size_t k = 0; k < n; k++)
		room += 4 + strlen(x[k].name) + x[k].len + 4;
	free(i->xattrs);
	i->xattrs = NULL;
	i->xattrs_len = 0;
	if (n == 0)
		return 0;
	w->memory += room;
	i->xattrs = w->memory > MEMORY_MAX ? NULL : calloc(1, room);
	if (!i->xattrs)
		return no_memory(err);
	for (size_t k = 0; k < n; k++) {
		size_t p = 0;

		for (; p < ARRAY_LEN(prefixes); p++) {
			if (prefixes[p].whole ? !strcmp(x[k].name, prefixes[p].prefix)
					      : !strncmp(x[k].name, prefixes[p].prefix, strlen(prefixes[p].prefix)))
				break;
		}
		if (p == ARRAY_LEN(prefixes))
			continue; /* a namespace that Linux does not have */
		const char *name = x[k].name + strlen(prefixes[p].prefix);

		i->xattrs[at] = (uint8_t)strlen(name);
		i->xattrs[at + 1] = prefixes[p].index;
		i->xattrs[at + 2] = (uint8_t)(x[k].len & 0xff);
		i->xattrs[at + 3] = (uint8_t)(x[k].len >> 8);
		memcpy(i->xattrs + at + 4, name, strlen(name));
		memcpy(i->xattrs + at + 4 + strlen(name), x[k].value, x[k].len);
		at = (at + 4 + strlen(name) + x[k].len + 3) & ~(size_t)3;
	}
	/* The inode counts them in words of 16 bits' range. */
	if (at > 200000)
		return err_set(err, E2BIG, "a file's extended attributes are too large");
	i->xattrs_len = at > 12 ? (uint32_t)at : 0;
	return 0;
}

static int set_opaque(struct erofs_writer *w, struct inode *i, struct err *err)
{
	static const uint8_t entry[] = { 14,  4,   1,   0,   'o', 'v', 'e', 'r', 'l', 'a',
					 'y', '.', 'o', 'p', 'a', 'q', 'u', 'e', 'y', 0 };
	uint32_t len = i->xattrs_len ? i->xattrs_len : 12;
	uint8_t *more = realloc(i->xattrs, len + sizeof(entry) + 1);

	if (!more)
		return no_memory(err);
	if (!i->xattrs_len)
		memset(more, 0, 12);
	for (uint32_t at = 12; at + sizeof(entry) - 1 <= len; at++) {
		if (!memcmp(more + at, entry, sizeof(entry) - 2)) {
			i->xattrs = more;
			return 0;
		}
	}
	memcpy(more + len, entry, sizeof(entry));
	i->xattrs = more;
	i->xattrs_len = (len + (uint32_t)sizeof(entry) - 1 + 3) & ~3U;
	return 0;
}

/* --- the tree --- */

/* walk - the folder that @path's first @n bytes name; made where missing; symlinks of this layer are followed. */
static struct node *walk(struct erofs_writer *w, struct node *dir, const char *path, size_t n, bool create, int depth,
			 struct err *err)
{
	size_t at = 0;

	while (at < n) {
		size_t len = 0;

		while (at < n && path[at] == '/')
			at++;
		while (at + len < n && path[at + len] != '/')
			len++;
		if (len == 0)
			break;
		const char *name = path + at;

		at += len;
		if (len == 1 && name[0] == '.')
			continue;
		if (len == 2 && !memcmp(name, "..", 2)) {
			dir = dir->parent;
			continue;
		}
		if (len > 255) {
			(void)err_set(err, ENAMETOOLONG, "a layer has a file name longer than 255 bytes");
			return NULL;
		}
		struct node *c = find(w, dir, name, len);

		if (c && S_ISLNK(c->inode->mode)) {
			const char *to = c->inode->link;

			if (depth >= 16) {
				(void)err_set(err, ELOOP, "a layer has a loop of symbolic links at %.200s", path);
				return NULL;
			}
			dir = walk(w, to[0] == '/' ? w->root : dir, to, strlen(to), create, depth + 1, err);
			if (!dir)
				return NULL;
			continue;
		}
		if (!c || !S_ISDIR(c->inode->mode)) {
			if (!create)
				return c && at >= n ? c : NULL;
			if (!c)
				c = make(w, dir, name, len, err);
			if (!c)
				return NULL;
			c->inode = inode_new(w, S_IFDIR | 0755);
			c->implied = true;
			if (!c->inode) {
				(void)no_memory(err);
				/* A node without an inode must not stay reachable. */
				c->inode = w->root->inode;
				return NULL;
			}
		}
		dir = c;
	}
	return dir;
}

static int check_path(const char *path, struct err *err)
{
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");

		if (n == 2 && p[0] == '.' && p[1] == '.')
			return err_set(err, EINVAL, "a layer has an entry outside of its root (\"%.200s\")", path);
		p += n;
		p += *p == '/';
	}
	return 0;
}

static uint32_t type_mode(char type)
{
	switch (type) {
	case '0': return S_IFREG;
	case '2': return S_IFLNK;
	case '3': return S_IFCHR;
	case '4': return S_IFBLK;
	case '5': return S_IFDIR;
	case '6': return S_IFIFO;
	default: return 0;
	}
}

static int add_whiteout(struct erofs_writer *w, struct node *dir, const char *name, size_t n, struct err *err)
{
	struct node *c;

	if (n == 12 && !memcmp(name, ".wh..wh..opq", 12))
		return set_opaque(w, dir->inode, err);
	if (n > 8 && !memcmp(name, ".wh..wh.", 8))
		return 0; /* aufs's own files: .wh..wh.plnk, .wh..wh.aufs */
	name += 4;
	n -= 4;
	if (n == 0 || (n == 1 && name[0] == '.') || (n == 2 && !memcmp(name, "..", 2)))
		return err_set(err, EINVAL, "a layer has a bad whiteout");
	c = find(w, dir, name, n);
	if (c) /* hides what is below this layer only */
		return S_ISDIR(c->inode->mode) ? set_opaque(w, c->inode, err) : 0;
	c = make(w, dir, name, n, err);
	if (!c)
		return err ? -err->code : -ENOMEM;
	c->inode = inode_new(w, S_IFCHR);
	c->implied = true;
	if (!c->inode) {
		c->inode = w->root->inode;
		return no_memory(err);
	}
	return 0;
}

static int fill_inode(struct erofs_writer *w, struct inode *i, const struct tar_entry *e, uint64_t *at, struct err *err)
{
	i->mode = type_mode(e->type) | (e->mode & 07777);
	i->uid = e->uid;
	i->gid = e->gid;
	i->mtime = e->mtime;
	i->mtime_nsec = e->mtime_nsec;
	if (e->type == '3' || e->type == '4') {
		if (e->dev_major > 0xfff || e->dev_minor > 0xfffff)
			return err_set(err, EINVAL, "a layer has a device with a bad number (\"%.200s\")", e->path);
		i->rdev = (e->dev_minor & 0xff) | e->dev_major << 8 | (e->dev_minor & ~0xffU) << 12;
	}
	if (e->type == '2') {
		if (!e->link || !*e->link)
			return err_set(err, EINVAL, "a layer has a symbolic link without a target (\"%.200s\")",
				       e->path);
		i->link = strdup(e->link);
		if (!i->link)
			return no_memory(err);
		i->size = strlen(i->link);
		w->memory += i->size;
	}
	if (e->type == '0') {
		i->size = e->real_size;
		i->at = *at = w->next;
		if (w->next + i->size > 15ULL << 40)
			return err_set(err, EFBIG, "a layer is too large for an EROFS file");
		w->next = (w->next + i->size + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
		w->content += i->size;
	}
	return set_xattrs(w, i, e->xattrs, e->nxattrs, err);
}

/* drop_children - what is replaced by something that is no folder loses its files. */
static void drop_children(struct node *n)
{
	/* They stay in the hash table for freeing, but below a parent that no lookup reaches: the key is changed. */
	for (struct node *c = n->children; c; c = c->sibling) {
		drop_children(c);
		c->parent = NULL;
	}
	n->children = NULL;
	n->nchildren = 0;
}

int erofs_add(struct erofs_writer *w, const struct tar_entry *e, uint64_t *at, struct err *err)
{
	const char *path = e->path;
	size_t n = strlen(path), start;
	struct node *dir, *c;
	struct inode *inode = NULL;
	int rc = check_path(path, err);

	*at = 0;
	if (rc < 0)
		return rc;
	if (e->type != '1' && !type_mode(e->type))
		return err_set(err, ENOTSUP, "a layer has an entry of an unknown type '%c' (\"%.200s\")", e->type,
			       path);
	while (n && (path[n - 1] == '/' || (path[n - 1] == '.' && (n == 1 || path[n - 2] == '/'))))
		n--;
	if (n == 0) {
		if (e->type != '5')
			return err_set(err, EINVAL, "a layer's root is not a folder");
		return fill_inode(w, w->root->inode, e, at, err);
	}
	for (start = n; start > 0 && path[start - 1] != '/'; start--)
		;
	if (n - start > 255)
		return err_set(err, ENAMETOOLONG, "a layer has a file name longer than 255 bytes");
	dir = walk(w, w->root, path, start, true, 0, err);
	if (!dir)
		return err ? -err->code : -EINVAL;
	if (n - start >= 4 && !memcmp(path + start, ".wh.", 4))
		return add_whiteout(w, dir, path + start, n - start, err);
	if (e->type == '1') {
		rc = e->link ? check_path(e->link, err) : -EINVAL;
		size_t last = e->link ? strlen(e->link) : 0;

		if (rc < 0)
			return rc;
		while (last > 0 && e->link[last - 1] != '/')
			last--;
		struct node *to = walk(w, w->root, e->link, last, false, 0, err);

		to = to ? find(w, to, e->link + last, strlen(e->link + last)) : NULL;
		if (!to || S_ISDIR(to->inode->mode) || to->implied)
			return err_set(
				err, EINVAL,
				"a layer has a hard link to a file that it does not have (\"%.150s\" to \"%.150s\")",
				path, e->link);
		inode = to->inode;
	}
	c = find(w, dir, path + start, n - start);
	if (c && e->type == '5' && S_ISDIR(c->inode->mode)) {
		bool opaque = c->implied && c->inode->xattrs_len;

		rc = fill_inode(w, c->inode, e, at, err);
		c->implied = false;
		return rc == 0 && opaque ? set_opaque(w, c->inode, err) : rc;
	}
	if (!inode) {
		inode = inode_new(w, 0);
		if (!inode)
			return no_memory(err);
		rc = fill_inode(w, inode, e, at, err);
		/* A folder over a whiteout hides the lower folder's files. */
		if (rc == 0 && c && c->implied && S_ISCHR(c->inode->mode) && e->type == '5')
			rc = set_opaque(w, inode, err);
		if (rc < 0)
			return rc;
	}
	if (!c)
		c = make(w, dir, path + start, n - start, err);
	else
		drop_children(c);
	if (!c)
		return err ? -err->code : -ENOMEM;
	c->inode = inode;
	c->implied = false;
	return 0;
}

/* --- metadata --- */

struct name {
	const char *text;
	size_t len;
	const struct inode *inode;
};

static int by_name(const void *a, const void *b)
{
	const struct name *x = a, *y = b;
	int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);

	return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* names_of - a folder's entries with . and .., sorted. Owned by the caller. */
static struct name *names_of(const struct node *d, size_t *n)
{
	struct name *v = malloc(((size_t)d->nchildren + 2) * sizeof(*v));
	size_t k = 0;

	if (!v)
		return NULL;
	v[k++] = (struct name){ ".", 1, d->inode };
	v[k++] = (struct name){ "..", 2, d->parent->inode };
	for (const struct node *c = d->children; c; c = c->sibling)
		v[k++] = (struct name){ c->name, c->len, c->inode };
	qsort(v, k, sizeof(*v), by_name);
	*n = k;
	return v;
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return 1;
	case S_IFDIR: return 2;
	case S_IFCHR: return 3;
	case S_IFBLK: return 4;
	case S_IFIFO: return 5;
	default: return 7;
	}
}

/* dir_block - how many of @v fit in a block. *used: bytes. */
static size_t dir_block(const struct name *v, size_t n, size_t *used)
{
	size_t bytes = 0, k = 0;

	while (k < n && bytes + sizeof(struct disk_dirent) + v[k].len <= BLOCK) {
		bytes += sizeof(struct disk_dirent) + v[k].len;
		k++;
	}
	*used = bytes;
	return k;
}

static uint64_t dir_size(const struct name *v, size_t n)
{
	uint64_t size = 0;

	while (n) {
		size_t used, k = dir_block(v, n, &used);

		v += k;
		n -= k;
		size += n ? BLOCK : used;
	}
	return size;
}

static void dir_fill(uint8_t *out, const struct name *v, size_t n)
{
	size_t nameoff = n * sizeof(struct disk_dirent);

	for (size_t k = 0; k < n; k++) {
		struct disk_dirent d = { .nid = htole64(v[k].inode->nid),
					 .nameoff = htole16((uint16_t)nameoff),
					 .file_type = file_type(v[k].inode->mode) };

		memcpy(out + k * sizeof(d), &d, sizeof(d));
		memcpy(out + nameoff, v[k].text, v[k].len);
		nameoff += v[k].len;
	}
}

/* each - call @fn for every node, parents first; iterative, since depth is the archive's choice. */
static int each(struct erofs_writer *w, int (*fn)(struct erofs_writer *w, struct node *n, struct err *err),
		struct err *err)
{
	struct node *n = w->root;

	for (;;) {
		int rc = fn(w, n, err);

		if (rc < 0)
			return rc;
		if (n->children) {
			n = n->children;
			continue;
		}
		while (n != w->root && !n->sibling)
			n = n->parent;
		if (n == w->root)
			return 0;
		n = n->sibling;
	}
}

static int count_links(struct erofs_writer *w, struct node *n, struct err *err)
{
	if (S_ISDIR(n->inode->mode)) {
		n->inode->nlink += 2;
		if (n != w->root)
			n->parent->inode->nlink++;
	} else {
		n->inode->nlink++;
	}
	return 0;
}

/* place - decide an inode's layout and number. w->next runs over the metadata. */
static int place(struct erofs_writer *w, struct node *n, struct err *err)
{
	struct inode *i = n->inode;
	uint64_t need = sizeof(struct disk_inode) + i->xattrs_len;

	if (i->placed)
		return 0;
	if (S_ISLNK(i->mode) || S_ISDIR(i->mode))
		i->inline_data = need + i->size <= BLOCK && i->size <= 2048;
	if (i->inline_data)
		need += i->size;
	w->next = (w->next + 31) & ~31ULL;
	if ((w->next & (BLOCK - 1)) + need > BLOCK)
		w->next = (w->next + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	i->nid = w->next / 32;
	i->number = ++w->ninodes;
	i->placed = true;
	w->next += need;
	return 0;
}

static int size_dir(struct erofs_writer *w, struct node *n, struct err *err)
{
	size_t count;

	if (!S_ISDIR(n->inode->mode))
		return 0;
	CLEAN_FREE struct name *v = names_of(n, &count);

	if (!v)
		return no_memory(err);
	n->inode->size = dir_size(v, count);
	return 0;
}

/* place_plain - room for folders and links that are not inline, before the inodes. */
static int place_plain(struct erofs_writer *w, struct node *n, struct err *err)
{
	struct inode *i = n->inode;
	uint64_t need = sizeof(struct disk_inode) + i->xattrs_len;

	if ((!S_ISLNK(i->mode) && !S_ISDIR(i->mode)) || i->at || (need + i->size <= BLOCK && i->size <= 2048))
		return 0;
	i->at = w->next;
	w->next = (w->next + i->size + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	return 0;
}

static int write_dir(struct erofs_writer *w, struct node *n, uint64_t at, struct err *err)
{
	size_t count;
	uint8_t block[BLOCK];
	CLEAN_FREE struct name *v = names_of(n, &count);

	if (!v)
		return no_memory(err);
	for (struct name *p = v; count;) {
		size_t used, k = dir_block(p, count, &used);
		int rc;

		memset(block, 0, sizeof(block));
		dir_fill(block, p, k);
		p += k;
		count -= k;
		rc = put(w, at, block, count ? BLOCK : used, err);
		if (rc < 0)
			return rc;
		at += BLOCK;
	}
	return 0;
}

static int write_plain(struct erofs_writer *w, struct node *n, struct err *err)
{
	struct inode *i = n->inode;

	if ((!S_ISLNK(i->mode) && !S_ISDIR(i->mode)) || i->inline_data || i->plain_written)
		return 0;
	i->plain_written = true;
	if (S_ISDIR(i->mode))
		return write_dir(w, n, i->at, err);
	return put(w, i->at, i->link, i->size, err);
}

static int write_inode(struct erofs_writer *w, struct node *n, struct err *err)
{
	struct inode *i = n->inode;
	uint64_t at = i->nid * 32;
	struct disk_inode d = { 0 };
	int rc;

	if (i->written)
		return 0;
	d.format = htole16(i->inline_data ? 5 : 1);
	d.xattr_icount = htole16(i->xattrs_len ? (uint16_t)((i->xattrs_len - 12) / 4 + 1) : 0);
	d.mode = htole16((uint16_t)i->mode);
	d.size = htole64(i->size);
	if (S_ISCHR(i->mode) || S_ISBLK(i->mode))
		d.u = htole32(i->rdev);
	else if (!i->inline_data && i->size)
		d.u = htole32((uint32_t)(i->at / BLOCK));
	d.ino = htole32(i->number);
	d.uid = htole32(i->uid);
	d.gid = htole32(i->gid);
	d.mtime = htole64((uint64_t)i->mtime);
	d.mtime_nsec = htole32(i->mtime_nsec);
	d.nlink = htole32(i->nlink);
	rc = put(w, at, &d, sizeof(d), err);
	if (rc == 0 && i->xattrs_len)
		rc = put(w, at + sizeof(d), i->xattrs, i->xattrs_len, err);
	if (rc == 0 && i->inline_data)
		rc = S_ISDIR(i->mode) ? write_dir(w, n, at + sizeof(d) + i->xattrs_len, err)
				      : put(w, at + sizeof(d) + i->xattrs_len, i->link, i->size, err);
	i->written = true;
	return rc;
}

static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t n)
{
	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return crc;
}

static int write_super(struct erofs_writer *w, const uint8_t uuid[16], uint64_t root_at, struct err *err)
{
	uint8_t block[BLOCK] = { 0 };
	struct super sb = { .magic = htole32(0xe0f5e1e2U), .feature_compat = htole32(3), .blkszbits = 12 };
	int rc;

	sb.root_nid = htole16((uint16_t)((root_at % BLOCK) / 32));
	sb.meta_blkaddr = 0;
	sb.inos = htole64(w->ninodes);
	sb.blocks = htole32((uint32_t)(w->next / BLOCK));
	memcpy(sb.uuid, uuid, 16);
	memcpy(block + 1024, &sb, sizeof(sb));
	/* The root's inode follows the superblock, so that its 16-bit number reaches it (meta_blkaddr is 0). */
	if (pread(w->fd, block + 1024 + sizeof(sb), BLOCK - 1024 - sizeof(sb), 1024 + sizeof(sb)) < 0)
		return err_sys(err, errno, "cannot read the layer's file");
	sb.checksum = htole32(crc32c(UINT32_MAX, block + 1024, BLOCK - 1024));
	memcpy(block + 1024, &sb, sizeof(sb));
	rc = fd_pwrite_full(w->fd, block, BLOCK, 0);
	return rc < 0 ? err_sys(err, -rc, "cannot write the layer's file") : 0;
}

int erofs_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *size, uint64_t *content, struct err *err)
{
	struct inode *root = w->root->inode;
	const uint64_t root_at = 1024 + sizeof(struct super);
	int rc = each(w, count_links, err);

	if (rc == 0)
		rc = each(w, size_dir, err);
	if (rc == 0 && root->xattrs_len > 1024)
		rc = err_set(err, E2BIG, "the root folder's extended attributes are too large");
	if (rc == 0 && root->size <= 1024)
		root->inline_data = true;
	else if (rc == 0 && root->size <= 2048)
		root->at = w->next, w->next += BLOCK;
	if (rc == 0)
		rc = each(w, place_plain, err);
	root->nid = root_at / 32;
	root->number = ++w->ninodes;
	root->placed = true;
	if (rc == 0)
		rc = each(w, place, err);
	if (rc == 0)
		rc = each(w, write_plain, err);
	/* The root's inode lies before everything: written by itself at the end. */
	root->written = true;
	if (rc == 0)
		rc = each(w, write_inode, err);
	if (rc == 0)
		rc = flush(w, err);
	w->next = (w->next + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	if (rc == 0 && ftruncate(w->fd, (off_t)w->next) < 0)
		rc = err_sys(err, errno, "cannot write the layer's file");
	root->written = false;
	w->chunk_at = 0;
	w->chunk_len = 0;
	if (rc == 0)
		rc = write_inode(w, w->root, err);
	if (rc == 0)
		rc = flush(w, err);
	if (rc == 0)
		rc = write_super(w, uuid, root_at, err);
	*size = w->next;
	*content = w->content;
	return rc;
}
