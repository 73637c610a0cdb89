/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueue, device side. */
#include "virtio/virtq.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define DESC_NEXT          1
#define DESC_WRITE         2
#define DESC_INDIRECT      4
#define AVAIL_NO_INTERRUPT 1

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

int virtq_start(struct virtq *q, const struct gmem *mem, uint32_t size, void *desc, void *avail, void *used,
		uint16_t next_avail, struct err *err)
{
	if (size == 0 || size > VIRTQ_SIZE_MAX || (size & (size - 1)) != 0)
		return err_set(err, EINVAL, "queue size %u is not a power of two up to %d", size, VIRTQ_SIZE_MAX);
	if (!desc || !avail || !used)
		return err_set(err, EFAULT, "a queue lies outside of guest memory");
	if (((uintptr_t)desc & 15) || ((uintptr_t)avail & 1) || ((uintptr_t)used & 3))
		return err_set(err, EINVAL, "a queue is not aligned");
	q->mem = mem;
	q->size = (uint16_t)size;
	q->desc = desc;
	q->avail = avail;
	q->used = used;
	q->next_avail = next_avail;
	q->next_used = le16toh(__atomic_load_n((uint16_t *)(void *)(q->used + 2), __ATOMIC_RELAXED));
	q->broken = false;
	return 0;
}

void virtq_stop(struct virtq *q)
{
	q->desc = q->avail = q->used = NULL;
	q->size = 0;
}

void virtq_break(struct virtq *q)
{
	if (q->broken)
		return;
	q->broken = true;
	if (q->on_broken)
		q->on_broken(q->on_broken_arg);
}

static int broke(struct virtq *q)
{
	virtq_break(q);
	return -EPROTO;
}

/* Each field is read once: the guest may change the descriptor while it is looked at. */
static struct desc read_desc(const struct virtq *q, uint16_t i)
{
	uint8_t *d = q->desc + 16U * i;

	return (struct desc){
		.addr = le64toh(__atomic_load_n((uint64_t *)(void *)d, __ATOMIC_RELAXED)),
		.len = le32toh(__atomic_load_n((uint32_t *)(void *)(d + 8), __ATOMIC_RELAXED)),
		.flags = le16toh(__atomic_load_n((uint16_t *)(void *)(d + 12), __ATOMIC_RELAXED)),
		.next = le16toh(__atomic_load_n((uint16_t *)(void *)(d + 14), __ATOMIC_RELAXED)),
	};
}

static int read_chain(struct virtq *q, struct virtq_chain *c)
{
	uint16_t at = c->head;

	for (unsigned int n = 0; n < q->size; n++) {
		struct desc d;
		uint32_t *bytes;
		void *p;

		if (at >= q->size)
			return broke(q);
		d = read_desc(q, at);
		if (d.flags & (uint16_t) ~(DESC_NEXT | DESC_WRITE))
			return broke(q);
		if (!(d.flags & DESC_WRITE) && c->in_count > 0)
			return broke(q);
		bytes = d.flags & DESC_WRITE ? &c->in_bytes : &c->out_bytes;
		p = gmem_at(q->mem, d.addr, d.len);
		if (!p || __builtin_add_overflow(*bytes, d.len, bytes))
			return broke(q);
		c->iov[n] = (struct iovec){ .iov_base = p, .iov_len = d.len };
		if (d.flags & DESC_WRITE)
			c->in_count++;
		else
			c->out_count++;
		if (!(d.flags & DESC_NEXT))
			return 1;
		at = d.next;
	}
	return broke(q); /* longer than the queue: a loop */
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	uint16_t idx, waiting;

	if (!q->avail || q->broken)
		return 0;
	idx = le16toh(__atomic_load_n((uint16_t *)(void *)(q->avail + 2), __ATOMIC_ACQUIRE));
	waiting = (uint16_t)(idx - q->next_avail);
	if (waiting == 0)
		return 0;
	if (waiting > q->size)
		return broke(q);
	c->head = le16toh(__atomic_load_n((uint16_t *)(void *)(q->avail + 4 + 2U * (q->next_avail & (q->size - 1U))),
					  __ATOMIC_RELAXED));
	c->out_count = c->in_count = 0;
	c->out_bytes = c->in_bytes = 0;
	if (read_chain(q, c) < 0)
		return -EPROTO;
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

void virtq_push(struct virtq *q, uint16_t head, uint32_t written)
{
	uint8_t *slot;

	if (!q->used)
		return;
	bug_on(head >= q->size);
	slot = q->used + 4 + 8U * (q->next_used & (q->size - 1U));
	__atomic_store_n((uint32_t *)(void *)slot, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n((uint32_t *)(void *)(slot + 4), htole32(written), __ATOMIC_RELAXED);
	q->next_used++;
	__atomic_store_n((uint16_t *)(void *)(q->used + 2), htole16(q->next_used), __ATOMIC_RELEASE);
}

void virtq_notify(struct virtq *q)
{
	uint64_t one = 1;

	if (!q->avail || q->call_fd < 0)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (le16toh(__atomic_load_n((uint16_t *)(void *)q->avail, __ATOMIC_RELAXED)) & AVAIL_NO_INTERRUPT)
		return;
	if (q->isr)
		__atomic_fetch_or(q->isr, 1U, __ATOMIC_SEQ_CST);
	if (write(q->call_fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: an interrupt is pending already */
}

unsigned int iov_slice(const struct iovec *iov, unsigned int count, size_t offset, size_t len, struct iovec *out,
		       unsigned int room)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < count && len > 0 && n < room; i++) {
		size_t here;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		here = iov[i].iov_len - offset;
		if (here > len)
			here = len;
		out[n++] = (struct iovec){ .iov_base = (uint8_t *)iov[i].iov_base + offset, .iov_len = here };
		len -= here;
		offset = 0;
	}
	return n;
}

/* Copies @n bytes from @offset on between the segments and @bytes, one way or the other. Return: the bytes copied. */
static size_t iov_copy(const struct iovec *iov, unsigned int count, size_t offset, void *bytes, size_t n, bool into_iov)
{
	size_t done = 0;

	for (unsigned int i = 0; i < count && done < n; i++) {
		uint8_t *segment = iov[i].iov_base, *plain = (uint8_t *)bytes + done;
		size_t here;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		here = iov[i].iov_len - offset;
		if (here > n - done)
			here = n - done;
		memcpy(into_iov ? segment + offset : plain, into_iov ? plain : segment + offset, here);
		done += here;
		offset = 0;
	}
	return done;
}

size_t iov_copy_out(const struct iovec *iov, unsigned int count, size_t offset, void *to, size_t n)
{
	return iov_copy(iov, count, offset, to, n, false);
}

size_t iov_copy_in(const struct iovec *iov, unsigned int count, size_t offset, const void *from, size_t n)
{
	return iov_copy(iov, count, offset, (void *)(uintptr_t)from, n, true);
}
