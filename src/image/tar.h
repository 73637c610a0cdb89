/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A streaming tar reader (POSIX ustar and pax, GNU long names and old sparse
 * files), for hostile input: every length is bounded before it is used.
 */
#ifndef WALNUT_IMAGE_TAR_H
#define WALNUT_IMAGE_TAR_H

#include "image/source.h"

#define TAR_BLOCK      512
#define TAR_PATH_MAX   4096
#define TAR_EXT_MAX    (1U << 20) /* bytes of a pax header or long name */
#define TAR_XATTRS_MAX 64
#define TAR_SPARSE_MAX (1U << 16) /* segments */

struct tar_xattr {
	char *name;
	uint8_t *value;
	size_t len;
};

struct tar_segment {
	uint64_t offset, len;
};

struct tar_entry {
	char type; /* '0' file, '1' hard link, '2' symlink, '3' char, '4' block, '5' folder, '6' FIFO, others */
	char *path;
	char *link;
	uint32_t mode, uid, gid, dev_major, dev_minor;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint64_t size;                /* bytes in the archive */
	uint64_t real_size;           /* of the file; differs for sparse ones */
	struct tar_segment *segments; /* of a sparse file */
	size_t nsegments;
	bool sparse;
	struct tar_xattr xattrs[TAR_XATTRS_MAX];
	size_t nxattrs;
};

struct tar_pax;

struct tar_reader {
	struct source *from;
	/* Told every byte of the archive that is not an entry's data (headers, padding, what follows the end). May be NULL. */
	int (*literal)(void *arg, const void *bytes, size_t n, struct err *err);
	void *arg;
	struct tar_entry entry;
	uint64_t left; /* data of the entry not yet read */
	unsigned pad;
	struct tar_pax *global;
	bool any; /* a valid header was seen */
};

void tar_init(struct tar_reader *t, struct source *from);
void tar_fini(struct tar_reader *t);

/* tar_next - the next entry in t->entry; its unread data is skipped (as literals). Return: 1, 0 at the end (all was read), -errno. */
int tar_next(struct tar_reader *t, struct err *err) MUST_CHECK;
/* tar_data - the next piece of the entry's data, until the next call. Return: 1, 0 at its end, -errno. */
int tar_data(struct tar_reader *t, const uint8_t **p, size_t *n, struct err *err) MUST_CHECK;

/* tar_header_valid - does this block look like a tar header (its checksum fits), or is it all zero? */
bool tar_header_valid(const uint8_t block[TAR_BLOCK]);

/* tar_header_make - a ustar header (pax-free: @size below 8 GiB or base-256) of a file or folder. */
void tar_header_make(uint8_t block[TAR_BLOCK], const char *name, char type, uint32_t mode, uint64_t size,
		     int64_t mtime);

#endif
