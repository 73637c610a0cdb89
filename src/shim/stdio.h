/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: the stdio of one process (the container's own, or an exec's), and the
 * clients attached to it.
 */
#ifndef WALNUT_SHIM_STDIO_H
#define WALNUT_SHIM_STDIO_H

#include "shim/shim.h"

#define DETACH_KEYS_MAX 16

struct stream {
	struct session *session;
	int type; /* 1 stdout (and a terminal), 2 stderr */
	int fd;   /* owned; -1: at its end */
	struct loop_source *source;
};

struct session {
	struct shim *shim;
	struct session *next; /* of shim->execs */
	char *exec_id;        /* NULL: the container's own */
	bool tty, started, exited, finished;
	bool returned;    /* the clients' sockets are the engine's again, which says why */
	bool close_stdin; /* when a client's stdin ends, the process's stdin does */
	bool stdin_open;
	bool stalled; /* output is not read: a client's queue is full */
	pid_t pid;
	void *backend_data; /* of an exec: the backend's own */
	int exit_code;
	struct stream out[2];
	int in_fd;   /* the process's stdin; owned */
	int console; /* for resize; owned; -1: none */
	struct loop_source *in_source;
	struct buf in;
	bool in_ended; /* close when @in is written */
	struct client *clients;
	struct logfile *log; /* owned; NULL: none */
	struct loop_timer *drain, *stall;
};

struct client_options {
	bool in, out, err, mux;
	const char *detach_keys; /* NULL: ctrl-p,ctrl-q */
	const void *early;       /* input that came before the client was attached; borrowed */
	size_t early_len;
	bool replay; /* first what the log has from log_offset of the file log_inode on */
	uint64_t log_inode;
	int64_t log_offset;
};

struct session *session_new(struct shim *sh, const char *exec_id, struct err *err) MUST_CHECK;
void session_free(struct session *s);

/* session_pipes - make stdin, stdout, stderr; @child gets the process's ends (owned by the caller). */
int session_pipes(struct session *s, bool stdin_open, int child[3], struct err *err) MUST_CHECK;
/* session_streams - as session_pipes, with descriptors made elsewhere (-1: none); takes them all, also on failure. */
int session_streams(struct session *s, int in, int out, int err_fd, struct err *err) MUST_CHECK;
/* session_console - the process has a terminal; takes @fd, also on failure. */
int session_console(struct session *s, int fd, struct err *err) MUST_CHECK;
/* session_begin - the process runs: begin to move bytes. */
int session_begin(struct session *s, struct err *err) MUST_CHECK;
/* session_exited - the process has ended; its output is drained, then shim_session_finished is called. */
void session_exited(struct session *s, int exit_code);
/* session_attach - takes @fd, also on failure. */
int session_attach(struct session *s, int fd, const struct client_options *o, struct err *err) MUST_CHECK;
/* session_close_clients - each is closed when it has its bytes. */
void session_close_clients(struct session *s);
/* session_return_clients - the start failed: let go without shutting the sockets, the engine tells the client. */
void session_return_clients(struct session *s);
bool session_has_clients(const struct session *s);

/* detach_parse - docker's syntax: comma-separated characters and ctrl-X. Return: their number or -EINVAL. */
int detach_parse(const char *text, unsigned char keys[DETACH_KEYS_MAX], struct err *err) MUST_CHECK;

#endif
