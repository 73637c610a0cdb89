/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk. A request is header, data, status byte, in any layout of segments; data goes straight between file and guest. */
#include "virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <unistd.h>

#define SECTOR               512U
#define DISCARD_SECTORS_MAX  (1U << 22)
#define DISCARD_SEGMENTS_MAX 16U

int blk_add(struct blk *b, int fd, uint64_t size, struct err *err)
{
	uint64_t length;

	if (b->count == BLK_EXTENTS_MAX)
		return err_set(err, EINVAL, "more than %d files on a disk", BLK_EXTENTS_MAX);
	if (__builtin_add_overflow(size, BLK_EXTENT_ALIGN - 1, &length))
		return err_set(err, EFBIG, "file too large for a disk");
	length -= length % BLK_EXTENT_ALIGN;
	if (b->capacity + length < length || b->capacity + length > (uint64_t)INT64_MAX)
		return err_set(err, EFBIG, "disk too large");
	b->extents[b->count++] = (struct blk_extent){ .fd = fd, .start = b->capacity, .length = length };
	b->capacity += length;
	return 0;
}

/* Zeros for what the last file block lacks, from byte @offset of the segments on. */
static void zero_iov(const struct iovec *iov, unsigned int count, size_t offset)
{
	for (unsigned int i = 0; i < count; i++) {
		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		memset((uint8_t *)iov[i].iov_base + offset, 0, iov[i].iov_len - offset);
		offset = 0;
	}
}

/* Read or write the part of a request that lies in one file. */
static int transfer_extent(const struct blk *b, const struct blk_extent *e, uint64_t at, const struct iovec *iov,
			   unsigned int count, size_t len, bool write)
{
	size_t done = 0;

	while (done < len) {
		struct iovec part[VIRTQ_SIZE_MAX];
		unsigned int n = iov_slice(iov, count, done, len - done, part, VIRTQ_SIZE_MAX);
		ssize_t got = write ? pwritev(e->fd, part, (int)n, (off_t)(at + done))
				    : preadv(e->fd, part, (int)n, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0 && write)
			return -EIO;
		if (got == 0) {
			zero_iov(iov, count, done);
			return 0;
		}
		done += (size_t)got;
	}
	return 0;
}

static int transfer(const struct blk *b, uint64_t at, const struct iovec *iov, unsigned int count, size_t len,
		    bool write)
{
	size_t done = 0;

	for (size_t i = 0; i < b->count && done < len; i++) {
		const struct blk_extent *e = &b->extents[i];
		struct iovec part[VIRTQ_SIZE_MAX];
		uint64_t here;
		unsigned int n;
		int rc;

		if (at + done >= e->start + e->length)
			continue;
		here = e->start + e->length - (at + done);
		if (here > len - done)
			here = len - done;
		n = iov_slice(iov, count, done, (size_t)here, part, VIRTQ_SIZE_MAX);
		rc = transfer_extent(b, e, at + done - e->start, part, n, (size_t)here, write);
		if (rc < 0)
			return rc;
		done += (size_t)here;
	}
	return done == len ? 0 : -EIO;
}

/* in_range - [sector, sector + bytes) lies on the disk and is whole sectors. */
static bool in_range(const struct blk *b, uint64_t sector, uint64_t bytes)
{
	uint64_t sectors = b->capacity / SECTOR;

	return bytes % SECTOR == 0 && sector <= sectors && bytes / SECTOR <= sectors - sector;
}

static int write_zeros(int fd, uint64_t at, uint64_t bytes)
{
	static const uint8_t zeros[1U << 16];

	while (bytes) {
		ssize_t n = pwrite(fd, zeros, bytes < sizeof(zeros) ? (size_t)bytes : sizeof(zeros), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

/*
 * zero_range - make a range zeros, or only give its blocks back (@discard: a hint, which a filesystem
 * without holes may not be able to follow). What reads as zeros must be zeros: the last resort is to write them.
 */
static int zero_range(int fd, uint64_t at, uint64_t bytes, bool unmap, bool discard)
{
	int rc;

	if (!unmap && fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) == 0)
		return 0;
	do {
		rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes);
	} while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return discard ? 0 : write_zeros(fd, at, bytes);
}

static uint8_t discard(const struct blk *b, uint32_t type, const struct iovec *iov, unsigned int count, size_t len)
{
	struct virtio_blk_discard_write_zeroes ranges[DISCARD_SEGMENTS_MAX];
	size_t n = len / sizeof(ranges[0]);

	if (b->read_only || len == 0 || len % sizeof(ranges[0]) != 0 || n > DISCARD_SEGMENTS_MAX)
		return VIRTIO_BLK_S_IOERR;
	if (iov_copy_out(iov, count, sizeof(struct virtio_blk_outhdr), ranges, len) != len)
		return VIRTIO_BLK_S_IOERR;
	for (size_t i = 0; i < n; i++) {
		uint64_t sector = le64toh(ranges[i].sector), bytes = (uint64_t)le32toh(ranges[i].num_sectors) * SECTOR;
		uint32_t flags = le32toh(ranges[i].flags);
		bool unmap = type == VIRTIO_BLK_T_DISCARD || (flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

		if ((flags & ~1U) || (type == VIRTIO_BLK_T_DISCARD && flags))
			return VIRTIO_BLK_S_UNSUPP;
		if (!in_range(b, sector, bytes) || bytes / SECTOR > DISCARD_SECTORS_MAX)
			return VIRTIO_BLK_S_IOERR;
		if (bytes &&
		    zero_range(b->extents[0].fd, sector * SECTOR, bytes, unmap, type == VIRTIO_BLK_T_DISCARD) < 0)
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

uint32_t blk_request(struct blk *b, const struct virtq_chain *c)
{
	const struct iovec *in = c->iov + c->out_count;
	struct iovec data[VIRTQ_SIZE_MAX];
	struct virtio_blk_outhdr h;
	uint8_t status = VIRTIO_BLK_S_IOERR;
	size_t out, room;
	uint64_t sector;
	uint32_t type;
	unsigned int n;

	if (c->in_bytes < 1 || iov_copy_out(c->iov, c->out_count, 0, &h, sizeof(h)) != sizeof(h))
		return 0; /* nowhere to say so */
	type = le32toh(h.type);
	sector = le64toh(h.sector);
	out = c->out_bytes - sizeof(h);
	room = c->in_bytes - 1;
	switch (type) {
	case VIRTIO_BLK_T_IN:
		n = iov_slice(in, c->in_count, 0, room, data, VIRTQ_SIZE_MAX);
		if (out == 0 && in_range(b, sector, room) && transfer(b, sector * SECTOR, data, n, room, false) == 0)
			status = VIRTIO_BLK_S_OK;
		break;
	case VIRTIO_BLK_T_OUT:
		n = iov_slice(c->iov, c->out_count, sizeof(h), out, data, VIRTQ_SIZE_MAX);
		if (!b->read_only && in_range(b, sector, out) && transfer(b, sector * SECTOR, data, n, out, true) == 0)
			status = VIRTIO_BLK_S_OK;
		room = 0;
		break;
	case VIRTIO_BLK_T_FLUSH:
		status = b->read_only || fdatasync(b->extents[0].fd) == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
		room = 0;
		break;
	case VIRTIO_BLK_T_GET_ID:
		if (room > sizeof(b->serial))
			room = sizeof(b->serial);
		(void)iov_copy_in(in, c->in_count, 0, b->serial, room);
		status = VIRTIO_BLK_S_OK;
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		status = discard(b, type, c->iov, c->out_count, out);
		room = 0;
		break;
	default:
		status = VIRTIO_BLK_S_UNSUPP;
		room = 0;
		break;
	}
	(void)iov_copy_in(in, c->in_count, c->in_bytes - 1, &status, 1);
	return (uint32_t)(status == VIRTIO_BLK_S_OK ? room : 0) + 1;
}

static void get_config(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to)
{
	const struct blk *b = d->state;
	struct virtio_blk_config config = {
		.capacity = htole64(b->capacity / SECTOR),
		.seg_max = htole32(126), /* of the 128 descriptors of QEMU's queue, less header and status */
		.blk_size = htole32(SECTOR),
		.num_queues = htole16(1),
		.max_discard_sectors = htole32(DISCARD_SECTORS_MAX),
		.max_discard_seg = htole32(DISCARD_SEGMENTS_MAX),
		.discard_sector_alignment = htole32(8),
		.max_write_zeroes_sectors = htole32(DISCARD_SECTORS_MAX),
		.max_write_zeroes_seg = htole32(DISCARD_SEGMENTS_MAX),
		.write_zeroes_may_unmap = 1,
	};

	if (offset < sizeof(config))
		memcpy(to, (uint8_t *)&config + offset, len < sizeof(config) - offset ? len : sizeof(config) - offset);
}

static void kick(struct virtio_device *d, unsigned int i)
{
	struct virtq *q = &d->queues[i];
	struct virtq_chain c;
	bool any = false;

	while (virtq_pop(q, &c) == 1) {
		uint32_t written = blk_request(d->state, &c);

		if (written == 0) {
			virtq_break(q);
			break;
		}
		virtq_push(q, c.head, written);
		any = true;
	}
	if (any)
		virtq_notify(q);
}

struct virtio_ops blk_ops(const struct blk *b)
{
	uint64_t features = 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_BLK_SIZE;

	if (b->read_only)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	else
		features |=
			1ULL << VIRTIO_BLK_F_FLUSH | 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	return (struct virtio_ops){ .name = "blk",
				    .id = VIRTIO_ID_BLOCK,
				    .queue_max = 128,
				    .features = features,
				    .queues = 1,
				    .get_config = get_config,
				    .kick = kick };
}
