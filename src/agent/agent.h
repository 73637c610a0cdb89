/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-agent: PID 1 of the micro-VM. One event loop; the requests of the shim
 * come one after the other over the control connection and are answered in order.
 * The container is hostile and reaches the agent only through its stdio and its
 * exit; the host is trusted, but not to send sizes that fit.
 */
#ifndef WALNUT_AGENT_AGENT_H
#define WALNUT_AGENT_AGENT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/json.h"
#include "base/loop.h"
#include "base/msg.h"
#include "container/container.h"
#include "link/link.h"

#define AGENT_EXECS_MAX 256

struct agent;
struct pump;

/* A process whose stdio the agent carries: the container's init or an exec. */
struct agent_process {
	struct agent *agent;
	struct agent_process *next;
	char id[LINK_ID_MAX + 1]; /* exec_id; "" is init */
	pid_t pid;
	int pidfd;   /* owned; -1 for init (the container's) */
	int console; /* owned; terminal's master or -1 */
};

struct agent {
	bool pid1;
	const char *test_dir, *test_rootfs; /* not PID 1: ports are unix sockets in a folder */
	struct loop *loop;
	struct msg_stream control;
	int signals; /* signalfd: SIGCHLD */
	int oom;     /* inotify on memory.events; -1: none */
	uint64_t oom_kills;
	bool set_up, started, exited;
	char rootfs[256];
	char hostname[65];
	struct oci_spec *spec;
	struct container *container;
	struct agent_process *processes;
	size_t processes_count;
	struct pump *pumps;
};

/* boot.c */
/* boot_guest - mounts, a root that can be pivoted, sysctls, the loopback interface. Only as PID 1. */
int boot_guest(struct err *err) MUST_CHECK;
/* boot_power_off - kill everything, write the disks, end the virtual machine. */
_Noreturn void boot_power_off(void);
void boot_stop_disks(void); /* kill, sync, unmount */

/* setup.c */
int setup_guest(struct agent *a, const json_t *params, struct err *err) MUST_CHECK;

/* ps.c */
/* ps_process - a process as link_processes_copy takes it; NULL when it is gone. */
json_t *ps_process(pid_t pid);

/* stream.c */
/* stream_dial - connect to a port of the host; blocking. Return: descriptor or -errno. */
int stream_dial(struct agent *a, int port, struct err *err) MUST_CHECK;
/* Connections of one process and the container's ends of its pipes. -1: not there. */
struct agent_streams {
	int host[3];      /* owned */
	int agent[3];     /* owned; our ends of the pipes */
	int container[3]; /* owned; what the process gets: pipes or /dev/null */
	int console;      /* owned; connection for the terminal */
};
#define AGENT_STREAMS_INIT ((struct agent_streams){ { -1, -1, -1 }, { -1, -1, -1 }, { -1, -1, -1 }, -1 })
int streams_open(struct agent *a, const json_t *streams, bool terminal, struct agent_streams *out,
		 struct err *err) MUST_CHECK;
void streams_close(struct agent_streams *s);
/* streams_run - start pumping; takes the connections and our ends. @console: master, borrowed; or -1. */
int streams_run(struct agent *a, struct agent_process *p, struct agent_streams *s, int console,
		struct err *err) MUST_CHECK;
/* streams_end_input - the process is gone: stop feeding its stdin. */
void streams_end_input(struct agent_process *p);
void streams_free(struct agent *a);

/* rpc.c */
int rpc_handle(struct agent *a, const json_t *message, struct err *err) MUST_CHECK;
void rpc_reap(struct agent *a);
void rpc_check_oom(struct agent *a);
int rpc_event(struct agent *a, const char *name, json_t *params);

#endif
