/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation with the agent (ARCHITECTURE.md, "Shim to agent"): requests, their answers, and events. The guest is
 * hostile: what it says goes through link/link.h, and what does not fit ends the machine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "shim/hyperv.h"

#define PENDING_MAX 512
#define FLOOD       8192 /* messages without a pause: no agent has so much to say */

void hyperv_pending_free(struct hyperv_pending *p)
{
	free(p->exec_id);
	free(p);
}

static void call_refused(struct hyperv_pending *p, json_t *params, struct shim_reply *reply)
{
	struct err err = ERR_INIT;

	json_decref(params);
	free(p);
	(void)err_set(&err, EAGAIN, "the virtual machine's agent does not answer, or there is no memory to ask it");
	if (reply)
		control_fail(reply, &err);
}

void hyperv_call(struct shim *sh, const char *method, json_t *params, struct shim_reply *reply, const char *exec_id,
		 hyperv_answer_fn fn)
{
	struct hyperv *h = sh->backend_data;
	struct hyperv_pending *p = h->pending_count < PENDING_MAX ? calloc(1, sizeof(*p)) : NULL;
	CLEAN_JSON json_t *message = NULL;
	struct err err = ERR_INIT;

	if (!p || (exec_id && !(p->exec_id = strdup(exec_id)))) {
		call_refused(p, params, reply);
		return;
	}
	if (h->paused && h->pending_count == 0)
		hyperv_rest(h, false); /* it answers, then rests again; the container stays frozen */
	p->id = ++h->next_id;
	p->fn = fn;
	p->reply = reply;
	p->next = h->pending;
	h->pending = p;
	h->pending_count++;
	message = msg_request(p->id, method, params);
	if (h->agent < 0)
		(void)err_set(&err, ENOTCONN, "the agent is not connected");
	else
		(void)!msg_send(h->agent, message, NULL, 0, &err);
	if (err.code)
		hyperv_failed(sh, &err);
}

static void on_agent_event(struct shim *sh, const struct link_event *e)
{
	struct hyperv *h = sh->backend_data;

	switch (e->kind) {
	case LINK_EVENT_HELLO: hyperv_booted(sh); break;
	case LINK_EVENT_EXITED:
		h->oom |= e->oom_killed;
		h->over = true;
		hyperv_note(h, "the container ended");
		loop_cancel(h->kill);
		h->kill = NULL;
		hyperv_limit_cpu(h, false);
		if (!h->start)
			session_exited(sh->main, e->exit_code);
		break;
	case LINK_EVENT_EXEC_EXITED:
		for (struct session *s = sh->execs; s; s = s->next) {
			if (!strcmp(s->exec_id, e->exec_id)) {
				session_exited(s, e->exit_code);
				break;
			}
		}
		break;
	case LINK_EVENT_OOM: h->oom = true; break;
	}
}

static int on_agent_answer(struct shim *sh, const json_t *message, struct err *err)
{
	struct hyperv *h = sh->backend_data;
	struct hyperv_pending **at = &h->pending, *p;
	const json_t *result = NULL;
	struct err failure = ERR_INIT;
	int64_t id;
	int rc = link_answer_parse(message, &id, &result, &failure, err);

	if (rc < 0)
		return rc;
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	p = *at;
	if (!p)
		return err_set(err, EBADMSG, "the agent answered what was not asked");
	*at = p->next;
	h->pending_count--;
	if (p->fn)
		p->fn(sh, p, result, failure.code ? &failure : NULL);
	else if (p->reply && failure.code)
		control_fail(p->reply, &failure);
	else if (p->reply)
		control_reply(p->reply, NULL);
	hyperv_pending_free(p);
	h = sh->backend_data;
	if (h && h->paused && h->pending_count == 0)
		hyperv_rest(h, true);
	return 0;
}

static void agent_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;

	for (int n = 0; h && sh->backend_data == h && !h->failed; n++) {
		CLEAN_JSON json_t *message = NULL;
		struct link_event event;
		struct err err = ERR_INIT;
		int rc = n < FLOOD ? msg_recv(&h->in, &message, NULL, NULL, &err)
				   : err_set(&err, EBADMSG, "the guest's agent floods the shim");

		if (rc == -EAGAIN)
			return;
		if (rc == 0)
			rc = err_set(&err, EPIPE, "the virtual machine's agent ended");
		if (rc > 0 && link_is_event(message)) {
			rc = link_event_parse(message, &event, &err);
			if (!rc)
				on_agent_event(sh, &event);
		} else if (rc > 0) {
			rc = on_agent_answer(sh, message, &err);
		}
		if (rc < 0 && sh->backend_data == h) {
			loop_remove(h->agent_source);
			h->agent_source = NULL;
			hyperv_lost(sh, &err);
			return;
		}
	}
}

static void on_agent_connected(struct shim *sh, int fd)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	h->agent = fd;
	msg_stream_init(&h->in, fd, false);
	(void)!vm_unlisten(h->vm, LINK_CONTROL_PORT, &err);
	if (!fd_set_nonblock(fd, true))
		h->agent_source = loop_add_fd(sh->loop, fd, EPOLLIN, agent_event, sh, &err);
	if (!h->agent_source) {
		(void)err_set(&err, EIO, "the agent's connection can not be watched");
		hyperv_failed(sh, &err);
	}
}

void hyperv_accept(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;
	struct hyperv_port *port;
	uint32_t number;
	int fd, rc;

	while ((rc = vm_next_accept(h->vm, &number, &fd, &err)) > 0) {
		if (number == LINK_CONTROL_PORT && h->agent < 0) {
			on_agent_connected(sh, fd);
			if (sh->backend_data != h)
				return;
			continue;
		}
		for (port = h->ports; port && (port->number != number || port->fd >= 0); port = port->next)
			;
		if (port) {
			port->fd = fd;
			(void)!vm_unlisten(h->vm, number, &err);
		} else {
			(void)close(fd);
		}
	}
	if (rc < 0) {
		loop_remove(h->control);
		h->control = NULL;
		hyperv_lost(sh, &err);
	}
}
