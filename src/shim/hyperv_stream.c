/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stdio of a process in the guest: the shim listens on a port of its own for each stream, the agent connects to all
 * of them before it answers create or exec, and a port is listened to for one connection only.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "shim/hyperv.h"

static struct hyperv_port *add_port(struct hyperv *h, struct err *err)
{
	struct hyperv_port *port = calloc(1, sizeof(*port));

	if (!port) {
		(void)err_sys(err, ENOMEM, "make a stream");
		return NULL;
	}
	if (h->next_port >= LINK_STREAM_LAST)
		h->next_port = LINK_STREAM_PORT;
	port->number = h->next_port++;
	port->fd = -1;
	port->next = h->ports;
	h->ports = port;
	return vm_listen(h->vm, port->number, err) < 0 ? NULL : port;
}

json_t *hyperv_streams_make(struct hyperv *h, struct hyperv_streams *out, bool terminal, bool in, struct err *err)
{
	struct {
		const char *name;
		struct hyperv_port **port;
		bool wanted;
	} all[] = {
		{ "stdin", &out->in, in && !terminal },
		{ "stdout", &out->out, !terminal },
		{ "stderr", &out->err, !terminal },
		{ "console", &out->console, terminal },
	};
	json_t *streams = json_object();

	for (size_t i = 0; streams && i < ARRAY_LEN(all); i++) {
		if (!all[i].wanted)
			continue;
		*all[i].port = add_port(h, err);
		if (!*all[i].port) {
			json_decref(streams);
			return NULL;
		}
		(void)json_object_set_new(streams, all[i].name, json_integer((*all[i].port)->number));
	}
	return streams;
}

static int take_port(struct hyperv *h, struct hyperv_port *port)
{
	struct hyperv_port **at = &h->ports;
	int fd;

	if (!port)
		return -1;
	while (*at != port)
		at = &(*at)->next;
	*at = port->next;
	fd = port->fd;
	free(port);
	return fd;
}

int hyperv_streams_connect(struct hyperv *h, struct session *s, struct hyperv_streams *st, struct err *err)
{
	bool terminal = st->console, in = st->in;
	int console = take_port(h, st->console), fd_in = take_port(h, st->in);
	int out = take_port(h, st->out), errs = take_port(h, st->err);

	*st = (struct hyperv_streams){ 0 };
	if (terminal && console >= 0)
		return session_console(s, console, err);
	if (!terminal && out >= 0 && errs >= 0 && (!in || fd_in >= 0))
		return session_streams(s, fd_in, out, errs, err);
	close_fd(&console);
	close_fd(&fd_in);
	close_fd(&out);
	close_fd(&errs);
	return err_set(err, EPROTO, "the guest did not open the streams");
}
