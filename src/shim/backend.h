/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a way of running a container offers to the shim. Every operation that takes a
 * reply answers it once, at once or later (a guest needs a round trip): control_reply,
 * control_fail, or for start: shim_started, shim_start_failed.
 *
 * A backend tells the end of a process by session_exited().
 */
#ifndef WALNUT_SHIM_BACKEND_H
#define WALNUT_SHIM_BACKEND_H

#include "shim/shim.h"

struct shim_backend {
	const char *name;
	/* start - create and start; @params as in ARCHITECTURE.md; @seccomp: memfd of BPF or -1 (borrowed) */
	void (*start)(struct shim *sh, const json_t *params, int seccomp, struct shim_reply *r);
	void (*exec)(struct shim *sh, struct session *s, const json_t *params, struct shim_reply *r);
	void (*signal)(struct shim *sh, struct session *s, int sig, struct shim_reply *r);
	/* resize - NULL: the shim sets the size of the session's console itself */
	void (*resize)(struct shim *sh, struct session *s, unsigned height, unsigned width, struct shim_reply *r);
	void (*pause)(struct shim *sh, bool paused, struct shim_reply *r);
	void (*stats)(struct shim *sh, struct shim_reply *r);
	void (*pids)(struct shim *sh, struct shim_reply *r);
	void (*update)(struct shim *sh, const json_t *params, struct shim_reply *r);
	/* reaped - a child of the shim has ended. Return: true if it was this backend's */
	bool (*reaped)(struct shim *sh, pid_t pid, int exit_code);
	/*
	 * end - all output was passed on: end what the container ran on in good order. Return: true if that takes a while
	 * and shim_finished will be called then. NULL: there is nothing to do.
	 */
	bool (*end)(struct shim *sh);
	/* ended - the container's main process has ended: note the cause (oom) in sh->exit */
	void (*ended)(struct shim *sh);
	void (*destroy)(struct shim *sh); /* kill, free, unmount */
};

extern const struct shim_backend backend_process, backend_hyperv;

#endif
