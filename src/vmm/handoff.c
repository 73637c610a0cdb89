/* SPDX-License-Identifier: Apache-2.0 */
/* One function at a time: `turn` is held by the caller until its function is done. */
#include "vmm/handoff.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_call(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct handoff *h = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
	(void)pthread_mutex_lock(&h->lock);
	if (h->fn)
		h->fn(h->m);
	h->fn = NULL;
	(void)pthread_cond_signal(&h->done);
	(void)pthread_mutex_unlock(&h->lock);
}

int handoff_init(struct handoff *h, struct loop *loop, struct err *err)
{
	*h = (struct handoff){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (h->fd < 0)
		return err_sys(err, errno, "eventfd");
	if (pthread_mutex_init(&h->turn, NULL) || pthread_mutex_init(&h->lock, NULL) ||
	    pthread_cond_init(&h->done, NULL))
		return err_set(err, ENOMEM, "out of memory");
	return loop_add_fd(loop, h->fd, EPOLLIN, on_call, h, err) ? 0 : -err->code;
}

void handoff_run(void *arg, void (*fn)(struct virtio_mmio *m), struct virtio_mmio *m)
{
	struct handoff *h = arg;
	uint64_t one = 1;

	(void)pthread_mutex_lock(&h->turn);
	(void)pthread_mutex_lock(&h->lock);
	h->fn = fn;
	h->m = m;
	if (write(h->fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		while (h->fn)
			(void)pthread_cond_wait(&h->done, &h->lock);
	(void)pthread_mutex_unlock(&h->lock);
	(void)pthread_mutex_unlock(&h->turn);
}
