/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock. Queue 0 carries packets to the guest, queue 1 from it.
 *
 * From the guest: payload is written to the connection's socket at once; what
 * the socket does not take waits in a buffer of VSOCK_BUF_BYTES, which is the
 * credit the guest was given, so a guest that sends more breaks the protocol
 * and loses the connection. To the guest: everything that must be said is a
 * flag on the connection (answer, credit, shutdown, reset), or a readable
 * socket, or an entry of the bounded list of resets for connections that do
 * not exist; pump() turns them into packets while the guest gives buffers.
 * When the list of resets is full, no more packets are taken from the guest.
 */
#include "virtio/vsock.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#define HOST_CID   2
#define RXQ        0
#define TXQ        1
#define PACKET_MAX (64U << 10)
#define BOTH       (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

struct conn {
	struct vsock *v;
	uint32_t guest_port, host_port;
	int fd; /* owned; -1: free slot */
	struct loop_source *source;
	struct buf out;        /* from the guest, not yet taken by the socket */
	uint32_t fwd_cnt;      /* bytes from the guest that left our buffer */
	uint32_t told_fwd_cnt; /* the last the guest heard */
	uint32_t received;     /* bytes from the guest */
	uint32_t sent, peer_alloc, peer_fwd;
	uint32_t guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_* that the guest said */
	uint32_t our_shut;   /* what we have to say or said */
	bool want_response, want_credit, want_shutdown, want_reset;
	bool readable, eof, hup, write_shut;
};

struct reset {
	uint32_t guest_port, host_port, type;
};

struct vsock {
	vsock_accept_fn accept;
	void *arg;
	struct virtio_device *device; /* NULL until a queue ran */
	struct conn conns[VSOCK_CONNS_MAX];
	unsigned int turn; /* the connection that is asked first */
	uint32_t ports[VSOCK_PORTS_MAX];
	size_t port_count;
	struct reset resets[VSOCK_RESETS_MAX];
	size_t reset_count;
	bool pumping;
};

static void pump(struct vsock *v);

static void conn_free(struct conn *c)
{
	loop_remove(c->source);
	buf_free(&c->out);
	if (c->fd >= 0)
		(void)close(c->fd);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

struct vsock *vsock_new(vsock_accept_fn accept, void *arg)
{
	struct vsock *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->accept = accept;
	v->arg = arg;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++)
		v->conns[i].fd = -1;
	return v;
}

void vsock_free(struct vsock *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++)
		conn_free(&v->conns[i]);
	free(v);
}

static bool listening(const struct vsock *v, uint32_t port, size_t *at)
{
	for (size_t i = 0; i < v->port_count; i++)
		if (v->ports[i] == port) {
			*at = i;
			return true;
		}
	return false;
}

int vsock_listen(struct vsock *v, uint32_t port)
{
	size_t at;

	if (listening(v, port, &at))
		return -EEXIST;
	if (v->port_count == VSOCK_PORTS_MAX)
		return -ENOSPC;
	v->ports[v->port_count++] = port;
	return 0;
}

int vsock_unlisten(struct vsock *v, uint32_t port)
{
	size_t at;

	if (!listening(v, port, &at))
		return -ENOENT;
	v->ports[at] = v->ports[--v->port_count];
	return 0;
}

static struct conn *find(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++)
		if (v->conns[i].fd >= 0 && v->conns[i].guest_port == guest_port && v->conns[i].host_port == host_port)
			return &v->conns[i];
	return NULL;
}

static void queue_reset(struct vsock *v, uint32_t guest_port, uint32_t host_port, uint32_t type)
{
	bug_on(v->reset_count == VSOCK_RESETS_MAX); /* the caller takes no packet when it is full */
	v->resets[v->reset_count++] = (struct reset){ guest_port, host_port, type };
}

/* The socket's events that matter now. A socket that hung up is read until its end without asking the loop. */
static void watch(struct conn *c)
{
	if (c->source && c->hup) {
		loop_remove(c->source);
		c->source = NULL;
	}
	if (c->source)
		loop_set_events(
			c->source,
			(!c->readable && !c->eof && !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) ? EPOLLIN : 0U) |
				(c->out.len ? EPOLLOUT : 0U));
}

/* After the buffer emptied: pass the guest's half-close on; a connection closed by the guest is answered and over. */
static void drained(struct conn *c)
{
	if (c->out.len)
		return;
	if ((c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) && !c->write_shut) {
		c->write_shut = true;
		(void)shutdown(c->fd, SHUT_WR);
	}
	if (c->guest_shut == BOTH)
		c->want_reset = true;
}

static void flush_out(struct conn *c)
{
	while (c->out.len) {
		ssize_t n = send(c->fd, buf_bytes(&c->out), c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) { /* nobody reads any more */
			buf_consume(&c->out, c->out.len);
			c->want_reset = true;
			return;
		}
		buf_consume(&c->out, (size_t)n);
		c->fwd_cnt += (uint32_t)n;
	}
	/* Tell the guest of room once half of the window is used up that it knows of. */
	if (c->fwd_cnt - c->told_fwd_cnt >= VSOCK_BUF_BYTES / 2)
		c->want_credit = true;
	drained(c);
}

static void on_socket(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct conn *c = arg;

	if (events & EPOLLOUT)
		flush_out(c);
	if (events & EPOLLIN)
		c->readable = true;
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->hup = true;
		if (!c->eof)
			c->readable = true;
		flush_out(c);
		if (c->out.len)
			c->want_reset = true;
		if (c->eof && c->our_shut != BOTH) {
			c->our_shut = BOTH;
			c->want_shutdown = true;
		}
	}
	watch(c);
	pump(c->v);
}

static void on_request(struct vsock *v, const struct virtio_vsock_hdr *h, uint32_t guest_port, uint32_t host_port)
{
	struct conn *c = NULL;
	struct err err = ERR_INIT;
	int pair[2];
	size_t at;

	for (size_t i = 0; i < VSOCK_CONNS_MAX && !c; i++)
		if (v->conns[i].fd < 0)
			c = &v->conns[i];
	if (!c || !listening(v, host_port, &at) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		queue_reset(v, guest_port, host_port, VIRTIO_VSOCK_TYPE_STREAM);
		return;
	}
	c->v = v;
	c->fd = pair[0];
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->out.limit = VSOCK_BUF_BYTES;
	c->peer_alloc = le32toh(h->buf_alloc);
	c->peer_fwd = le32toh(h->fwd_cnt);
	if (fd_set_nonblock(c->fd, true) == 0)
		c->source = loop_add_fd(v->device->loop, c->fd, EPOLLIN, on_socket, c, &err);
	if (!c->source || v->accept(v->arg, host_port, pair[1]) < 0) {
		if (!c->source)
			(void)close(pair[1]);
		conn_free(c);
		queue_reset(v, guest_port, host_port, VIRTIO_VSOCK_TYPE_STREAM);
		return;
	}
	c->want_response = true;
}

/* Payload: straight from guest memory into the socket, the rest into the buffer. */
static void on_data(struct conn *c, const struct virtq_chain *ch, uint32_t len)
{
	struct iovec part[VIRTQ_SIZE_MAX];
	uint32_t done = 0;
	char *room;

	if (len > VSOCK_BUF_BYTES - c->out.len || (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		c->want_reset = true; /* more than its credit, or after its own end */
		return;
	}
	c->received += len;
	if (c->out.len == 0 && len) {
		struct msghdr m = { .msg_iov = part };
		ssize_t n;

		m.msg_iovlen =
			iov_slice(ch->iov, ch->out_count, sizeof(struct virtio_vsock_hdr), len, part, VIRTQ_SIZE_MAX);
		n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			c->want_reset = true;
			return;
		}
		done = n > 0 ? (uint32_t)n : 0;
		c->fwd_cnt += done;
	}
	if (done < len) {
		room = buf_reserve(&c->out, len - done);
		if (!room) {
			c->want_reset = true;
			return;
		}
		buf_commit(&c->out, iov_copy_out(ch->iov, ch->out_count, sizeof(struct virtio_vsock_hdr) + done, room,
						 len - done));
	}
	if (c->fwd_cnt - c->told_fwd_cnt >= VSOCK_BUF_BYTES / 2)
		c->want_credit = true;
	watch(c);
}

static void on_shutdown(struct conn *c, uint32_t flags)
{
	c->guest_shut |= flags & BOTH;
	if ((flags & VIRTIO_VSOCK_SHUTDOWN_RCV) && !c->eof) {
		c->eof = true;
		c->readable = false;
		(void)shutdown(c->fd, SHUT_RD);
	}
	flush_out(c);
	watch(c);
}

static void on_packet(struct vsock *v, const struct virtq_chain *ch)
{
	struct virtio_vsock_hdr h;
	uint32_t guest_port, host_port, len;
	uint16_t op, type;
	struct conn *c;

	if (iov_copy_out(ch->iov, ch->out_count, 0, &h, sizeof(h)) != sizeof(h))
		return;
	guest_port = le32toh(h.src_port);
	host_port = le32toh(h.dst_port);
	len = le32toh(h.len);
	op = le16toh(h.op);
	type = le16toh(h.type);
	if (le64toh(h.src_cid) != VSOCK_GUEST_CID || le64toh(h.dst_cid) != HOST_CID || len > ch->out_bytes - sizeof(h))
		return;
	c = find(v, guest_port, host_port);
	if (type != VIRTIO_VSOCK_TYPE_STREAM || (!c && op != VIRTIO_VSOCK_OP_REQUEST)) {
		if (op != VIRTIO_VSOCK_OP_RST)
			queue_reset(v, guest_port, host_port, type);
		return;
	}
	if (!c) {
		on_request(v, &h, guest_port, host_port);
		return;
	}
	c->peer_alloc = le32toh(h.buf_alloc);
	c->peer_fwd = le32toh(h.fwd_cnt);
	switch (op) {
	case VIRTIO_VSOCK_OP_RW: on_data(c, ch, len); break;
	case VIRTIO_VSOCK_OP_SHUTDOWN: on_shutdown(c, le32toh(h.flags)); break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE: break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST: c->want_credit = true; break;
	case VIRTIO_VSOCK_OP_RST:
		flush_out(c);
		conn_free(c);
		break;
	default: /* REQUEST or RESPONSE on an open connection, unknown */ c->want_reset = true; break;
	}
}

static uint32_t credit(const struct conn *c)
{
	uint32_t in_flight = c->sent - c->peer_fwd;

	return in_flight >= c->peer_alloc ? 0 : c->peer_alloc - in_flight;
}

static void fill_header(struct virtio_vsock_hdr *h, uint16_t op, uint32_t guest_port, uint32_t host_port, uint32_t type)
{
	*h = (struct virtio_vsock_hdr){ .src_cid = htole64(HOST_CID),
					.dst_cid = htole64(VSOCK_GUEST_CID),
					.src_port = htole32(host_port),
					.dst_port = htole32(guest_port),
					.type = htole16((uint16_t)type),
					.op = htole16(op) };
}

static bool has_work(const struct conn *c)
{
	return c->fd >= 0 && (c->want_reset || c->want_response || c->want_shutdown || c->want_credit ||
			      (c->readable && !c->eof && credit(c) > 0));
}

/* read_payload - as much as fits into the guest's buffer, past the header. Return: bytes, 0: nothing to send (state changed). */
static uint32_t read_payload(struct conn *c, const struct virtq_chain *ch)
{
	struct iovec part[VIRTQ_SIZE_MAX];
	uint32_t room = ch->in_bytes - (uint32_t)sizeof(struct virtio_vsock_hdr);
	unsigned int n;
	ssize_t got;

	if (room > credit(c))
		room = credit(c);
	if (room > PACKET_MAX)
		room = PACKET_MAX;
	n = iov_slice(ch->iov + ch->out_count, ch->in_count, sizeof(struct virtio_vsock_hdr), room, part,
		      VIRTQ_SIZE_MAX);
	if (n == 0)
		return 0;
	do {
		got = readv(c->fd, part, (int)n);
	} while (got < 0 && errno == EINTR);
	if (got > 0) {
		c->sent += (uint32_t)got;
		return (uint32_t)got;
	}
	c->readable = false;
	if (got < 0 && errno == EAGAIN && !c->hup) {
		watch(c);
		return 0;
	}
	c->eof = true;
	c->our_shut = c->hup ? BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND;
	c->want_shutdown = true;
	watch(c);
	return 0;
}

/* next_packet - what connection @c has to say, into @h. Return: bytes of payload placed, or -1: nothing after all. */
static int64_t next_packet(struct conn *c, const struct virtq_chain *ch, struct virtio_vsock_hdr *h)
{
	int64_t payload = 0;

	if (c->want_reset) {
		fill_header(h, VIRTIO_VSOCK_OP_RST, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
		conn_free(c);
		return 0;
	}
	if (c->want_response) {
		c->want_response = false;
		fill_header(h, VIRTIO_VSOCK_OP_RESPONSE, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
	} else if (c->want_shutdown) {
		c->want_shutdown = false;
		fill_header(h, VIRTIO_VSOCK_OP_SHUTDOWN, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
		h->flags = htole32(c->our_shut);
	} else if (c->want_credit) {
		fill_header(h, VIRTIO_VSOCK_OP_CREDIT_UPDATE, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
	} else {
		payload = read_payload(c, ch);
		if (payload == 0)
			return -1;
		fill_header(h, VIRTIO_VSOCK_OP_RW, c->guest_port, c->host_port, VIRTIO_VSOCK_TYPE_STREAM);
		h->len = htole32((uint32_t)payload);
	}
	c->want_credit = false;
	c->told_fwd_cnt = c->fwd_cnt;
	h->buf_alloc = htole32(VSOCK_BUF_BYTES);
	h->fwd_cnt = htole32(c->fwd_cnt);
	return payload;
}

static struct conn *next_conn(struct vsock *v)
{
	for (unsigned int i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct conn *c = &v->conns[(v->turn + i) % VSOCK_CONNS_MAX];

		if (has_work(c)) {
			v->turn = (v->turn + i + 1) % VSOCK_CONNS_MAX;
			return c;
		}
	}
	return NULL;
}

/* send_packets - fill the guest's buffers while there is something to say. Return: whether any was used. */
static bool send_packets(struct vsock *v, struct virtq *q)
{
	bool any = false;

	for (;;) {
		struct virtio_vsock_hdr h;
		struct virtq_chain ch;
		struct conn *c = v->reset_count ? NULL : next_conn(v);
		int64_t payload = 0;

		if ((!c && !v->reset_count) || virtq_pop(q, &ch) != 1)
			return any;
		if (ch.in_bytes < sizeof(h)) { /* useless; give it back */
			virtq_push(q, ch.head, 0);
			any = true;
			continue;
		}
		if (c) {
			payload = next_packet(c, &ch, &h);
			if (payload < 0) {
				virtq_unpop(q);
				continue;
			}
		} else {
			struct reset *r = &v->resets[--v->reset_count];

			fill_header(&h, VIRTIO_VSOCK_OP_RST, r->guest_port, r->host_port, r->type);
		}
		(void)iov_copy_in(ch.iov + ch.out_count, ch.in_count, 0, &h, sizeof(h));
		virtq_push(q, ch.head, (uint32_t)(sizeof(h) + (uint64_t)payload));
		any = true;
	}
}

static bool take_packets(struct vsock *v, struct virtq *q)
{
	struct virtq_chain ch;
	bool any = false;

	while (v->reset_count < VSOCK_RESETS_MAX && virtq_pop(q, &ch) == 1) {
		on_packet(v, &ch);
		virtq_push(q, ch.head, 0);
		any = true;
	}
	return any;
}

static void pump(struct vsock *v)
{
	struct virtq *rx = &v->device->queues[RXQ], *tx = &v->device->queues[TXQ];
	bool sent = false, took = false, more;

	if (v->pumping)
		return;
	v->pumping = true;
	do {
		more = take_packets(v, tx);
		took |= more;
		if (send_packets(v, rx))
			sent = true;
		else
			more = more && v->reset_count < VSOCK_RESETS_MAX;
	} while (more);
	v->pumping = false;
	if (took)
		virtq_notify(tx);
	if (sent)
		virtq_notify(rx);
}

static void kick(struct virtio_device *d, unsigned int i)
{
	struct vsock *v = d->state;

	v->device = d;
	pump(v);
}

static void stopped(struct virtio_device *d, unsigned int i)
{
	struct vsock *v = d->state;

	for (size_t k = 0; i == TXQ && k < VSOCK_CONNS_MAX; k++)
		conn_free(&v->conns[k]);
	v->reset_count = 0;
}

static void get_config(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to)
{
	uint64_t cid = htole64(VSOCK_GUEST_CID);

	if (offset < sizeof(cid))
		memcpy(to, (uint8_t *)&cid + offset, len < sizeof(cid) - offset ? len : sizeof(cid) - offset);
}

struct virtio_ops vsock_ops(void)
{
	return (struct virtio_ops){ .name = "vsock",
				    .id = VIRTIO_ID_VSOCK,
				    .queues = 3,
				    .queue_max = 128,
				    .get_config = get_config,
				    .kick = kick,
				    .stopped = stopped };
}
