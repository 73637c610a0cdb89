/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of isolation "hyperv" and what they share. hyperv.c: the life of the container; hyperv_machine.c: disks,
 * cgroup and processes of the virtual machine; hyperv_agent.c: the conversation with its agent; hyperv_stream.c: the
 * connections that carry stdio; hyperv_request.c: what is asked of the running container.
 */
#ifndef WALNUT_SHIM_HYPERV_H
#define WALNUT_SHIM_HYPERV_H

#include "base/msg.h"
#include "container/cgroup.h"
#include "link/link.h"
#include "shim/backend.h"
#include "shim/stdio.h"
#include "vmm/vm.h"

#define HYPERV_CONSOLE_KEPT 16384

/* A stream that the agent is to open. */
struct hyperv_port {
	struct hyperv_port *next;
	uint32_t number;
	int fd; /* -1 until it is open */
};

struct hyperv_streams {
	struct hyperv_port *in, *out, *err, *console;
};

/* A request that waits for the agent's answer. @failure NULL: it succeeded. @fn answers @reply and sets it NULL. */
struct hyperv_pending;
typedef void (*hyperv_answer_fn)(struct shim *sh, struct hyperv_pending *p, const json_t *result,
				 const struct err *failure);

struct hyperv_pending {
	struct hyperv_pending *next;
	int64_t id;
	hyperv_answer_fn fn;
	struct shim_reply *reply; /* may be NULL */
	char *exec_id;
};

struct hyperv {
	struct vm *vm;
	struct cgroup *cgroup; /* of the machine's processes on the host; NULL: none was asked for */
	struct loop_source *control, *console, *qemu, *device, *agent_source;
	struct loop_timer *boot, *kill, *end;
	pid_t format; /* the process that formats the scratch disk; 0: none */
	int agent;    /* -1: not connected */
	struct msg_stream in;
	int64_t next_id;
	uint32_t next_port;
	struct hyperv_port *ports;
	struct hyperv_pending *pending;
	unsigned int pending_count;
	struct shim_reply *start; /* not yet answered */
	json_t *params;
	char *seccomp; /* base64 */
	struct hyperv_streams streams;
	int64_t cpu_quota; /* of the container, microseconds in cpu_period; 0: none */
	bool cpu_limited;
	uint64_t cpu_period, memory_bytes;
	unsigned int vcpus;
	int64_t began_ns;
	char tail[HYPERV_CONSOLE_KEPT + 1]; /* what the guest's kernel said last */
	size_t tail_len;
	bool paused; /* the container is frozen, and so are the processors while nothing is asked of the agent (KVM) */
	bool oom;
	bool failed; /* the machine was given up */
	bool over;   /* the agent has said that the container ended */
	bool ending; /* the guest was asked to write its disks and end */
};

/* hyperv.c */
/* hyperv_failed - the machine is over or can not be trusted any more: end the start or the container. May free the data. */
void hyperv_failed(struct shim *sh, const struct err *reason);
/* hyperv_booted - the agent is there. */
void hyperv_booted(struct shim *sh);
/* hyperv_lost - the agent or the machine has ended: the order of the end, or a failure. */
void hyperv_lost(struct shim *sh, const struct err *reason);
/* hyperv_note - with WALNUT_VMM_DEBUG in the environment: log what was reached, and when. */
void hyperv_note(const struct hyperv *h, const char *what);

/* hyperv_machine.c */
int hyperv_boot(struct shim *sh, struct hyperv *h, const json_t *params, int seccomp, struct err *err) MUST_CHECK;
/* hyperv_scratch_ready - wait until the disk is formatted; hyperv_scratch_abandon - or do not. */
int hyperv_scratch_ready(struct hyperv *h, struct err *err) MUST_CHECK;
void hyperv_scratch_abandon(struct hyperv *h);
void hyperv_read_console(struct hyperv *h);
/* hyperv_name_end - a connection that broke: if that is because a process of the machine ended, say how it did. */
void hyperv_name_end(struct hyperv *h, struct err *why);
/* hyperv_name_panic - if the guest's kernel panicked, that is the cause of whatever was seen of the machine. */
void hyperv_name_panic(struct hyperv *h, struct err *why);
/* hyperv_limit_cpu - put the container's share of the processors on the machine, or take it off (for boot and end). */
void hyperv_limit_cpu(struct hyperv *h, bool limited);
/* hyperv_update_machine - new limits of the running container, as far as the machine has a part in them. */
int hyperv_update_machine(struct hyperv *h, const json_t *resources, struct err *err) MUST_CHECK;
/* hyperv_rest - let the machine's processors rest, or go on; does nothing where they can not (software). */
void hyperv_rest(struct hyperv *h, bool rest);
/* hyperv_host_oom - did the host's kernel kill the machine for its memory? */
bool hyperv_host_oom(struct hyperv *h);

/* hyperv_agent.c */
/* hyperv_call - send a request; @params stolen, @reply answered by @fn, or with the bare result when @fn is NULL. */
void hyperv_call(struct shim *sh, const char *method, json_t *params, struct shim_reply *reply, const char *exec_id,
		 hyperv_answer_fn fn);
/* hyperv_accept - take the connections that the guest has opened. */
void hyperv_accept(struct shim *sh);
void hyperv_pending_free(struct hyperv_pending *p);

/* hyperv_stream.c */
/* hyperv_streams_make - listen for the streams of a process. Return: their ports by name, for the agent, or NULL. */
json_t *hyperv_streams_make(struct hyperv *h, struct hyperv_streams *out, bool terminal, bool in, struct err *err);
/* hyperv_streams_connect - hand the connections that came to the session. */
int hyperv_streams_connect(struct hyperv *h, struct session *s, struct hyperv_streams *st, struct err *err) MUST_CHECK;

/* hyperv_request.c */
void hyperv_exec(struct shim *sh, struct session *s, const json_t *params, struct shim_reply *r);
void hyperv_resize(struct shim *sh, struct session *s, unsigned height, unsigned width, struct shim_reply *r);
void hyperv_send_size(struct shim *sh, const char *exec_id, const json_t *console);
void hyperv_pause(struct shim *sh, bool paused, struct shim_reply *r);
void hyperv_stats(struct shim *sh, struct shim_reply *r);
void hyperv_pids(struct shim *sh, struct shim_reply *r);
/* hyperv_guest_resources - what of the spec's resources is the guest's to limit. New reference. */
json_t *hyperv_guest_resources(const json_t *resources);
void hyperv_update(struct shim *sh, const json_t *params, struct shim_reply *r);

#endif
