/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-user, back end's side. */
#include "virtio/vhost_user.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

enum {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
};

#define VU_VERSION             1U
#define VU_REPLY               4U
#define VU_NEED_REPLY          8U
#define VU_F_PROTOCOL_FEATURES (1ULL << 30)
#define VU_F_VERSION_1         (1ULL << 32)
#define VU_P_MQ                (1ULL << 0)
#define VU_P_REPLY_ACK         (1ULL << 3)
#define VU_P_CONFIG            (1ULL << 9)
#define VU_PROTOCOL            (VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIG)

struct vu_header {
	uint32_t request, flags, size;
};

struct vu_region {
	uint64_t guest, size, user, offset;
};

union vu_payload {
	uint64_t u64;
	struct {
		uint32_t index, num;
	} state;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr;
	struct {
		uint32_t count, padding;
		struct vu_region regions[GMEM_REGIONS_MAX];
	} memory;
	struct {
		uint32_t offset, size, flags;
		uint8_t bytes[VU_CONFIG_MAX];
	} config;
};

struct vu_message {
	struct vu_header h;
	union vu_payload p;
	int fds[FD_PASS_MAX];
	size_t nfds;
};

static int reply(struct vu_device *d, struct vu_message *m, uint32_t size)
{
	uint8_t bytes[sizeof(m->h) + sizeof(m->p)];

	m->h.flags = VU_VERSION | VU_REPLY;
	m->h.size = size;
	memcpy(bytes, &m->h, sizeof(m->h));
	memcpy(bytes + sizeof(m->h), &m->p, size);
	return fd_write_full(d->fd, bytes, sizeof(m->h) + size);
}

static void on_kick(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct vu_queue *vq = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
		loop_remove(vq->kick_source);
		vq->kick_source = NULL;
		return;
	}
	if (vq->q->size)
		vq->device->dev.ops.kick(&vq->device->dev, (unsigned int)(vq - vq->device->queues));
}

static void stop_queue(struct vu_queue *vq)
{
	struct vu_device *d = vq->device;

	if (vq->q->size && d->dev.ops.stopped)
		d->dev.ops.stopped(&d->dev, (unsigned int)(vq - d->queues));
	if (vq->q->size)
		vq->base = vq->q->next_avail;
	virtq_stop(vq->q);
	loop_remove(vq->kick_source);
	vq->kick_source = NULL;
}

/* The driver broke a rule: tell the front end. Its ring takes nothing more until it is set up again. */
static void on_broken(void *arg)
{
	struct vu_queue *vq = arg;
	uint64_t one = 1;

	log_warn("%s: the driver broke a rule of queue %u: it is off until the driver resets it",
		 vq->device->dev.ops.name, (unsigned int)(vq - vq->device->queues));
	if (vq->err_fd >= 0 && write(vq->err_fd, &one, sizeof(one)) < 0)
		return; /* told already */
}

/* A queue runs once it has everything: memory, size, addresses, a kick descriptor, and is enabled. */
static int try_start_queue(struct vu_queue *vq, struct err *err)
{
	struct vu_device *d = vq->device;
	int rc;

	if (vq->q->size || !vq->num || !vq->have_addr || vq->kick_fd < 0 || (d->enable_needed && !vq->enabled) ||
	    d->mem.count == 0)
		return 0;
	rc = virtq_start(vq->q, &d->mem, vq->num, gmem_at_user(&d->mem, vq->desc, virtq_desc_bytes(vq->num)),
			 gmem_at_user(&d->mem, vq->avail, virtq_avail_bytes(vq->num)),
			 gmem_at_user(&d->mem, vq->used, virtq_used_bytes(vq->num)), vq->base, err);
	if (rc < 0)
		return rc;
	vq->q->call_fd = vq->call_fd;
	vq->kick_source = loop_add_fd(d->dev.loop, vq->kick_fd, EPOLLIN, on_kick, vq, err);
	if (!vq->kick_source)
		return -err->code;
	d->dev.ops.kick(&d->dev, (unsigned int)(vq - d->queues));
	return 0;
}

static int set_mem_table(struct vu_device *d, struct vu_message *m, struct err *err)
{
	uint32_t n = m->p.memory.count;

	if (n > GMEM_REGIONS_MAX || n != m->nfds ||
	    m->h.size < offsetof(union vu_payload, memory.regions) + n * sizeof(struct vu_region))
		return err_set(err, EPROTO, "bad memory table");
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		stop_queue(&d->queues[i]);
	gmem_unmap_all(&d->mem);
	for (uint32_t i = 0; i < n; i++) {
		struct vu_region *r = &m->p.memory.regions[i];
		int rc = gmem_map(&d->mem, r->guest, r->user, r->size, m->fds[i], r->offset, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int get_config(struct vu_device *d, struct vu_message *m, struct err *err)
{
	uint32_t offset = m->p.config.offset, size = m->p.config.size;

	if (size > VU_CONFIG_MAX || offset > VU_CONFIG_MAX - size)
		return err_set(err, EPROTO, "config access out of range");
	memset(m->p.config.bytes, 0, sizeof(m->p.config.bytes));
	d->dev.ops.get_config(&d->dev, offset, size, m->p.config.bytes);
	return reply(d, m, (uint32_t)offsetof(union vu_payload, config.bytes) + size);
}

static int set_vring_fd(struct vu_device *d, struct vu_message *m, struct err *err)
{
	struct vu_queue *vq;
	unsigned int i = m->p.u64 & 0xff;
	int *slot;

	if (i >= d->dev.ops.queues)
		return err_set(err, EPROTO, "no queue %u", i);
	vq = &d->queues[i];
	slot = m->h.request == VU_SET_VRING_KICK   ? &vq->kick_fd
	       : m->h.request == VU_SET_VRING_CALL ? &vq->call_fd
						   : &vq->err_fd;
	if (slot == &vq->kick_fd)
		stop_queue(vq);
	close_fd(slot);
	if (!(m->p.u64 & 0x100) && m->nfds == 1) {
		if (fd_set_nonblock(m->fds[0], true) < 0)
			return err_set(err, EPROTO, "bad event descriptor");
		*slot = take_fd(&m->fds[0]);
	}
	if (slot == &vq->call_fd) {
		vq->q->call_fd = vq->call_fd;
		if (vq->q->size)
			virtq_notify(vq->q);
	}
	return 0;
}

static int handle_vring(struct vu_device *d, struct vu_message *m, struct err *err)
{
	struct vu_queue *vq;

	if (m->h.size < sizeof(m->p.state) || m->p.state.index >= d->dev.ops.queues)
		return err_set(err, EPROTO, "no queue %u", m->p.state.index);
	vq = &d->queues[m->p.state.index];
	switch (m->h.request) {
	case VU_SET_VRING_NUM:
		stop_queue(vq);
		vq->num = m->p.state.num;
		return 0;
	case VU_SET_VRING_BASE:
		stop_queue(vq);
		vq->base = (uint16_t)m->p.state.num;
		return 0;
	case VU_SET_VRING_ENABLE:
		vq->enabled = m->p.state.num != 0;
		if (!vq->enabled)
			stop_queue(vq);
		return 0;
	case VU_SET_VRING_ADDR:
		if (m->h.size < sizeof(m->p.addr))
			return err_set(err, EPROTO, "short message");
		stop_queue(vq);
		vq->desc = m->p.addr.desc;
		vq->avail = m->p.addr.avail;
		vq->used = m->p.addr.used;
		vq->have_addr = true;
		return 0;
	default: /* VU_GET_VRING_BASE: also stops the ring */
		stop_queue(vq);
		close_fd(&vq->kick_fd);
		vq->have_addr = false;
		m->p.state.num = vq->base;
		return reply(d, m, sizeof(m->p.state));
	}
}

static int reply_u64(struct vu_device *d, struct vu_message *m, uint64_t value)
{
	m->p.u64 = value;
	return reply(d, m, sizeof(m->p.u64));
}

static uint64_t offered(const struct vu_device *d)
{
	return d->dev.ops.features | VU_F_VERSION_1 | VU_F_PROTOCOL_FEATURES;
}

/* handle - obey one message. *answered: it has a reply of its own. */
static int handle(struct vu_device *d, struct vu_message *m, bool *answered, struct err *err)
{
	*answered = false;
	if (m->h.size < sizeof(m->p.u64) &&
	    (m->h.request == VU_SET_FEATURES || m->h.request == VU_SET_PROTOCOL_FEATURES ||
	     (m->h.request >= VU_SET_VRING_KICK && m->h.request <= VU_SET_VRING_ERR)))
		return err_set(err, EPROTO, "short message");
	switch (m->h.request) {
	case VU_SET_FEATURES:
		if (m->p.u64 & ~offered(d))
			return err_set(err, EPROTO, "features that were not offered");
		d->dev.features = m->p.u64;
		d->enable_needed = (m->p.u64 & VU_F_PROTOCOL_FEATURES) != 0;
		return 0;
	case VU_SET_PROTOCOL_FEATURES: d->protocol_features = m->p.u64 & VU_PROTOCOL; return 0;
	case VU_SET_OWNER:
	case VU_RESET_OWNER: return 0;
	case VU_SET_MEM_TABLE: return set_mem_table(d, m, err);
	case VU_SET_VRING_KICK:
	case VU_SET_VRING_CALL:
	case VU_SET_VRING_ERR: return set_vring_fd(d, m, err);
	case VU_SET_VRING_NUM:
	case VU_SET_VRING_ADDR:
	case VU_SET_VRING_BASE:
	case VU_SET_VRING_ENABLE: return handle_vring(d, m, err);
	case VU_SET_CONFIG: return err_set(err, EPERM, "the configuration is read-only");
	default: break;
	}
	*answered = true;
	switch (m->h.request) {
	case VU_GET_FEATURES: return reply_u64(d, m, offered(d));
	case VU_GET_PROTOCOL_FEATURES: return reply_u64(d, m, VU_PROTOCOL);
	case VU_GET_QUEUE_NUM: return reply_u64(d, m, d->dev.ops.queues);
	case VU_GET_CONFIG: return get_config(d, m, err);
	case VU_GET_VRING_BASE: return handle_vring(d, m, err);
	default: return err_set(err, EPROTO, "unknown request %u", m->h.request);
	}
}

static int receive(struct vu_device *d, struct vu_message *m, struct err *err)
{
	ssize_t n = fd_recv(d->fd, &m->h, sizeof(m->h), m->fds, &m->nfds);

	if (n == 0)
		return err_set(err, EPIPE, "closed by the virtual machine");
	if (n != (ssize_t)sizeof(m->h))
		return err_set(err, n < 0 ? (int)-n : EPROTO, "cannot receive");
	if (m->h.size > sizeof(m->p) || (m->h.flags & 3) != VU_VERSION)
		return err_set(err, EPROTO, "bad message header");
	memset(&m->p, 0, sizeof(m->p));
	if (m->h.size && fd_read_full(d->fd, &m->p, m->h.size) != (ssize_t)m->h.size)
		return err_set(err, EPROTO, "cut message");
	return 0;
}

static void on_message(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct vu_device *d = arg;
	struct vu_message m = { .nfds = 0 };
	struct err err = ERR_INIT;
	bool answered = false;
	int rc = receive(d, &m, &err);

	if (rc == 0) {
		bool wants = (m.h.flags & VU_NEED_REPLY) && (d->protocol_features & VU_P_REPLY_ACK);

		log_debug("%s: request %u", d->dev.ops.name, m.h.request);
		rc = handle(d, &m, &answered, &err);
		for (unsigned int i = 0; rc == 0 && i < d->dev.ops.queues; i++)
			rc = try_start_queue(&d->queues[i], &err);
		if (wants && !answered && reply_u64(d, &m, rc < 0) == 0 && m.h.request == VU_SET_CONFIG)
			rc = 0;
		if (m.h.request == VU_SET_CONFIG)
			rc = 0;
	}
	for (size_t i = 0; i < m.nfds; i++)
		close_fd(&m.fds[i]);
	if (rc < 0) {
		if (err.code != EPIPE)
			log_error("%s: vhost-user: %s", d->dev.ops.name, err.msg);
		loop_remove(d->source);
		d->source = NULL;
		d->gone(d);
	}
}

int vu_init(struct vu_device *d, const struct virtio_ops *ops, void *state, struct loop *loop, int fd,
	    void (*gone)(struct vu_device *), struct err *err)
{
	memset(d, 0, sizeof(*d));
	d->dev.ops = *ops;
	d->dev.state = state;
	d->dev.loop = loop;
	d->fd = fd;
	d->gone = gone;
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		d->queues[i].device = d;
		d->queues[i].q = &d->dev.queues[i];
		d->queues[i].kick_fd = d->queues[i].call_fd = d->queues[i].err_fd = -1;
		d->queues[i].q->call_fd = -1;
		d->queues[i].q->on_broken = on_broken;
		d->queues[i].q->on_broken_arg = &d->queues[i];
	}
	d->source = loop_add_fd(loop, fd, EPOLLIN, on_message, d, err);
	return d->source ? 0 : -err->code;
}

void vu_fini(struct vu_device *d)
{
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		stop_queue(&d->queues[i]);
		close_fd(&d->queues[i].kick_fd);
		close_fd(&d->queues[i].call_fd);
		close_fd(&d->queues[i].err_fd);
	}
	loop_remove(d->source);
	d->source = NULL;
	gmem_unmap_all(&d->mem);
	close_fd(&d->fd);
}
