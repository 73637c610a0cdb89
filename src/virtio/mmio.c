/* SPDX-License-Identifier: Apache-2.0 */
/* The registers of virtio over MMIO. */
#include "virtio/mmio.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define COMPLAINTS_MAX 16U
#define MAGIC          0x74726976U /* "virt" */
#define VENDOR         0x544e4c57U /* "WLNT" */
#define RUNNING        VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET    ((uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET)
#define QUEUE_IRQ      VIRTIO_MMIO_INT_VRING
#define CONFIG_IRQ     VIRTIO_MMIO_INT_CONFIG

static uint32_t status(const struct virtio_mmio *m)
{
	return __atomic_load_n(&m->status, __ATOMIC_ACQUIRE);
}

static void interrupt(struct virtio_mmio *m, uint32_t cause)
{
	uint64_t one = 1;

	__atomic_fetch_or(&m->isr, cause, __ATOMIC_SEQ_CST);
	if (m->irq_fd >= 0 && write(m->irq_fd, &one, sizeof(one)) < 0)
		return; /* pending already */
}

/* A guest must not be able to fill the host's log. */
static void complain(struct virtio_mmio *m, const char *of)
{
	if (__atomic_fetch_add(&m->complaints, 1, __ATOMIC_RELAXED) < COMPLAINTS_MAX)
		log_warn("%s: the driver %s", m->dev->ops.name, of);
}

/* In the device's thread: nothing more is taken from a driver that broke a rule, and it is asked to reset. */
static void on_broken(void *arg)
{
	struct virtio_mmio *m = arg;

	for (unsigned int i = 0; i < m->dev->ops.queues; i++)
		m->dev->queues[i].broken = true;
	complain(m, "broke a rule: the device needs a reset");
	__atomic_fetch_or(&m->status, NEEDS_RESET, __ATOMIC_SEQ_CST);
	interrupt(m, CONFIG_IRQ);
}

/* In the device's thread. Addresses are translated here, once: what registers say later matters not. */
static void activate(struct virtio_mmio *m)
{
	struct virtio_device *d = m->dev;

	d->features = m->driver_features;
	for (unsigned int i = 0; i < d->ops.queues; i++) {
		struct virtio_mmio_queue *s = &m->queues[i];
		struct virtq *q = &d->queues[i];
		struct err err = ERR_INIT;

		if (!s->ready)
			continue;
		q->call_fd = m->irq_fd;
		q->isr = &m->isr;
		q->on_broken = on_broken;
		q->on_broken_arg = m;
		if (virtq_start(q, m->mem, s->num, gmem_at(m->mem, s->desc, virtq_desc_bytes(s->num)),
				gmem_at(m->mem, s->avail, virtq_avail_bytes(s->num)),
				gmem_at(m->mem, s->used, virtq_used_bytes(s->num)), 0, &err) < 0) {
			complain(m, err.msg);
			on_broken(m);
			return;
		}
	}
	/* The driver may have notified before: look at all queues now. */
	for (unsigned int i = 0; i < d->ops.queues; i++)
		if (d->queues[i].size)
			d->ops.kick(d, i);
}

static void deactivate(struct virtio_mmio *m)
{
	struct virtio_device *d = m->dev;

	for (unsigned int i = 0; i < d->ops.queues; i++) {
		if (d->queues[i].size && d->ops.stopped)
			d->ops.stopped(d, i);
		virtq_stop(&d->queues[i]);
		d->queues[i].broken = false;
	}
	d->features = 0;
}

static void in_thread(struct virtio_mmio *m, void (*fn)(struct virtio_mmio *m))
{
	if (m->run)
		m->run(m->run_arg, fn, m);
	else
		fn(m);
}

static void reset(struct virtio_mmio *m)
{
	if (status(m) & RUNNING)
		in_thread(m, deactivate);
	m->device_features_sel = m->driver_features_sel = m->queue_sel = 0;
	m->driver_features = 0;
	memset(m->queues, 0, sizeof(m->queues));
	__atomic_store_n(&m->isr, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&m->status, 0, __ATOMIC_SEQ_CST);
}

static uint64_t offered(const struct virtio_mmio *m)
{
	return m->dev->ops.features | VIRTIO_VERSION_1;
}

/* Section 3.1.1: acknowledge, driver, features ok, driver ok, in this order; nothing is taken back but by a reset. */
static bool follows(uint32_t now, uint32_t next)
{
	static const uint32_t order[] = { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER,
					  VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK };
	uint32_t prefix = 0;

	if ((next & now) != now)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		prefix |= order[i];
		if (next == prefix)
			return true;
	}
	return false;
}

static void write_status(struct virtio_mmio *m, uint32_t value)
{
	uint32_t now = status(m) & ~NEEDS_RESET, next = value & ~NEEDS_RESET;

	if (value == 0) {
		reset(m);
		return;
	}
	if (next & VIRTIO_CONFIG_S_FAILED) {
		__atomic_fetch_or(&m->status, VIRTIO_CONFIG_S_FAILED, __ATOMIC_SEQ_CST);
		return;
	}
	if (next == now)
		return;
	if (!follows(now, next)) {
		complain(m, "wrote a status out of order");
		return;
	}
	if ((next & ~now) & VIRTIO_CONFIG_S_FEATURES_OK &&
	    ((m->driver_features & ~offered(m)) || !(m->driver_features & VIRTIO_VERSION_1))) {
		complain(m, "wants features that were not offered, or not version 1");
		return;
	}
	__atomic_fetch_or(&m->status, next, __ATOMIC_SEQ_CST);
	if ((next & ~now) & RUNNING)
		in_thread(m, activate);
}

/* A queue's registers may be written between "features ok" and "driver ok" only: a running device has its own copy. */
static struct virtio_mmio_queue *writable_queue(struct virtio_mmio *m)
{
	uint32_t s = status(m);

	if (!(s & VIRTIO_CONFIG_S_FEATURES_OK) || (s & (RUNNING | VIRTIO_CONFIG_S_FAILED))) {
		complain(m, "wrote a queue's register at a wrong time");
		return NULL;
	}
	return m->queue_sel < m->dev->ops.queues ? &m->queues[m->queue_sel] : NULL;
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
	*value = high ? (*value & 0xffffffffU) | (uint64_t)half << 32 : (*value & ~0xffffffffULL) | half;
}

static void write_features(struct virtio_mmio *m, uint32_t value)
{
	uint32_t s = status(m);

	if (!(s & VIRTIO_CONFIG_S_DRIVER) || (s & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)))
		complain(m, "wrote features at a wrong time");
	else if (m->driver_features_sel < 2)
		set_half(&m->driver_features, m->driver_features_sel == 1, value);
}

static void write_queue(struct virtio_mmio *m, uint32_t offset, uint32_t value)
{
	struct virtio_mmio_queue *q = writable_queue(m);

	if (!q)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM: q->num = value; break;
	case VIRTIO_MMIO_QUEUE_READY: q->ready = value & 1; break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW: set_half(&q->desc, false, value); break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH: set_half(&q->desc, true, value); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW: set_half(&q->avail, false, value); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH: set_half(&q->avail, true, value); break;
	case VIRTIO_MMIO_QUEUE_USED_LOW: set_half(&q->used, false, value); break;
	default: set_half(&q->used, true, value); break;
	}
}

static void notify(struct virtio_mmio *m, uint32_t queue)
{
	uint64_t one = 1;

	if (queue < m->dev->ops.queues && m->kick_fd[queue] >= 0 && write(m->kick_fd[queue], &one, sizeof(one)) < 0)
		return; /* pending already */
}

static void write_register(struct virtio_mmio *m, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL: m->device_features_sel = value; break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL: m->driver_features_sel = value; break;
	case VIRTIO_MMIO_DRIVER_FEATURES: write_features(m, value); break;
	case VIRTIO_MMIO_QUEUE_SEL: m->queue_sel = value; break;
	case VIRTIO_MMIO_QUEUE_NUM:
	case VIRTIO_MMIO_QUEUE_READY:
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH: write_queue(m, offset, value); break;
	case VIRTIO_MMIO_QUEUE_NOTIFY: notify(m, value); break;
	case VIRTIO_MMIO_STATUS: write_status(m, value); break;
	default: break;
	}
}

static uint32_t read_register(struct virtio_mmio *m, uint32_t offset)
{
	bool queue = m->queue_sel < m->dev->ops.queues;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return m->device_features_sel == 0   ? (uint32_t)offered(m)
		       : m->device_features_sel == 1 ? (uint32_t)(offered(m) >> 32)
						     : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX: return queue ? m->dev->ops.queue_max : 0;
	case VIRTIO_MMIO_QUEUE_READY: return queue ? m->queues[m->queue_sel].ready : 0;
	case VIRTIO_MMIO_STATUS: return status(m);
	case VIRTIO_MMIO_CONFIG_GENERATION: return __atomic_load_n(&m->generation, __ATOMIC_ACQUIRE);
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH: return UINT32_MAX; /* no shared memory region (section 4.2.2) */
	default: return 0;
	}
}

/* read_plain - the registers that need no lock, the frequent one first. */
static bool read_plain(struct virtio_mmio *m, uint32_t offset, uint32_t *value)
{
	switch (offset) {
	case VIRTIO_MMIO_INTERRUPT_STATUS: *value = __atomic_load_n(&m->isr, __ATOMIC_SEQ_CST); return true;
	case VIRTIO_MMIO_MAGIC_VALUE: *value = MAGIC; return true;
	case VIRTIO_MMIO_VERSION: *value = 2; return true;
	case VIRTIO_MMIO_DEVICE_ID: *value = m->dev ? m->dev->ops.id : 0; return true;
	case VIRTIO_MMIO_VENDOR_ID: *value = VENDOR; return true;
	default: return false;
	}
}

void virtio_mmio_read(struct virtio_mmio *m, uint32_t offset, uint32_t len, uint8_t *to)
{
	uint32_t value = 0;

	memset(to, 0, len);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		if (m->dev && len <= 8 && offset <= VIRTIO_MMIO_SIZE - len)
			m->dev->ops.get_config(m->dev, offset - VIRTIO_MMIO_CONFIG, len, to);
		return;
	}
	if (len != 4 || offset % 4 != 0)
		return;
	if (!read_plain(m, offset, &value) && m->dev) {
		(void)pthread_mutex_lock(&m->lock);
		value = read_register(m, offset);
		(void)pthread_mutex_unlock(&m->lock);
	}
	value = htole32(value);
	memcpy(to, &value, sizeof(value));
}

void virtio_mmio_write(struct virtio_mmio *m, uint32_t offset, uint32_t len, const uint8_t *from)
{
	uint32_t value;

	if (!m->dev)
		return;
	if (offset >= VIRTIO_MMIO_CONFIG) {
		if (m->dev->ops.set_config && len <= 8 && offset <= VIRTIO_MMIO_SIZE - len &&
		    (status(m) & VIRTIO_CONFIG_S_DRIVER))
			m->dev->ops.set_config(m->dev, offset - VIRTIO_MMIO_CONFIG, len, from);
		return;
	}
	if (len != 4 || offset % 4 != 0)
		return;
	memcpy(&value, from, sizeof(value));
	value = le32toh(value);
	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		__atomic_fetch_and(&m->isr, ~value, __ATOMIC_SEQ_CST);
		return;
	}
	(void)pthread_mutex_lock(&m->lock);
	write_register(m, offset, value);
	(void)pthread_mutex_unlock(&m->lock);
}

void virtio_mmio_config_changed(struct virtio_mmio *m)
{
	__atomic_fetch_add(&m->generation, 1, __ATOMIC_SEQ_CST);
	if (status(m) & RUNNING)
		interrupt(m, CONFIG_IRQ);
}

static void on_kick(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct virtio_mmio *m = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
	for (unsigned int i = 0; i < m->dev->ops.queues; i++)
		if (m->kick_fd[i] == fd && m->dev->queues[i].size)
			m->dev->ops.kick(m->dev, i);
}

int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *dev, const struct gmem *mem,
		     virtio_mmio_thread_fn run, void *run_arg, struct err *err)
{
	*m = (struct virtio_mmio){ .dev = dev, .mem = mem, .run = run, .run_arg = run_arg };
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		m->kick_fd[i] = -1;
	if (pthread_mutex_init(&m->lock, NULL) != 0)
		return err_set(err, ENOMEM, "out of memory");
	m->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->irq_fd < 0)
		return err_sys(err, errno, "a device's interrupt");
	for (unsigned int i = 0; dev && i < dev->ops.queues; i++) {
		dev->queues[i].call_fd = -1;
		m->kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (m->kick_fd[i] < 0)
			return err_sys(err, errno, "a queue of device %s", dev->ops.name);
		if (dev->loop && !loop_add_fd(dev->loop, m->kick_fd[i], EPOLLIN, on_kick, m, err))
			return -err->code;
	}
	return 0;
}

void virtio_mmio_fini(struct virtio_mmio *m)
{
	if (m->dev && (status(m) & RUNNING))
		deactivate(m);
	close_fd(&m->irq_fd);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		close_fd(&m->kick_fd[i]);
	(void)pthread_mutex_destroy(&m->lock);
}
