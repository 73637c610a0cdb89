/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link between a shim and the agent in its micro-VM: names and numbers that
 * both sides use, and the shim's reading of what an agent says. The guest is
 * hostile: every string is bounded and made printable, every number has a range,
 * and what does not fit is an error that ends the virtual machine.
 */
#ifndef WALNUT_LINK_LINK_H
#define WALNUT_LINK_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/json.h"

#define LINK_VERSION       1
#define LINK_HOST_CID      2
#define LINK_CONTROL_PORT  1024 /* the agent's control connection */
#define LINK_STREAM_PORT   1025 /* the shim numbers stdio streams from here */
#define LINK_STREAM_LAST   65535
#define LINK_ID_MAX        128 /* bytes of an exec_id, without the NUL */
#define LINK_KERNEL_MAX    128
#define LINK_LAYERS_MAX    255 /* partitions of one disk */
#define LINK_FILES_MAX     64
#define LINK_PIDS_MAX      65536
#define LINK_PROCESSES_MAX 1024 /* described by "pids"; more are numbers only */
#define LINK_ARGS_MAX      1024 /* bytes of a process's arguments */
#define LINK_ENTROPY_MAX   512  /* bytes */
#define LINK_SECCOMP_MAX   (4096 * 8)
#define LINK_GUEST_ROOTFS  "/run/rootfs"
#define LINK_GUEST_INIT    "/walnut-init"

enum link_event_kind { LINK_EVENT_HELLO, LINK_EVENT_EXITED, LINK_EVENT_EXEC_EXITED, LINK_EVENT_OOM };

struct link_event {
	enum link_event_kind kind;
	int version;                      /* hello */
	uint64_t memory_bytes;            /* hello */
	char kernel[LINK_KERNEL_MAX + 1]; /* hello; printable ASCII */
	char exec_id[LINK_ID_MAX + 1];    /* exec_exited */
	int exit_code;                    /* exited, exec_exited: 0 to 255 */
	bool oom_killed;                  /* exited */
};

/* link_is_event - is @message an event (not an answer)? */
bool link_is_event(const json_t *message);
/* link_event_parse - check an event of the agent. Return: 0, or -EBADMSG with @err. */
int link_event_parse(const json_t *message, struct link_event *out, struct err *err) MUST_CHECK;

/**
 * link_answer_parse - check an answer of the agent
 * @id: set to the request's id
 * @result: borrowed from @message; NULL when the agent answered with an error
 * @failure: the agent's error, its text made printable; code 0 when there is none
 *
 * Return: 0, or -EBADMSG with @err when this is no answer at all.
 */
int link_answer_parse(const json_t *message, int64_t *id, const json_t **result, struct err *failure,
		      struct err *err) MUST_CHECK;

struct link_stats {
	uint64_t memory_usage, memory_limit, memory_max_usage, memory_cache;
	uint64_t cpu_total_ns, cpu_user_ns, cpu_system_ns;
	uint64_t pids_current, pids_limit;
	uint64_t oom_kills;
};
/* Results of the requests of the same names. Return: 0 or -EBADMSG. */
int link_stats_parse(const json_t *result, struct link_stats *out, struct err *err) MUST_CHECK;
int link_pid_parse(const json_t *result, pid_t *out, struct err *err) MUST_CHECK;
/* @pids: owned by the caller (free). */
int link_pids_parse(const json_t *result, pid_t **pids, size_t *n, struct err *err) MUST_CHECK;

/* link_processes_copy - "processes" of the answer to "pids", checked and made printable. New reference, or NULL with @err. */
json_t *link_processes_copy(const json_t *result, struct err *err) MUST_CHECK;

/* link_text_clean - copy at most @size - 1 bytes of @text; what is not printable ASCII becomes '?'. */
void link_text_clean(char *out, size_t size, const char *text);

/* link_base64_encode - text owned by the caller; NULL without memory. */
char *link_base64_encode(const void *bytes, size_t n) MUST_CHECK;
/* link_base64_decode - @out owned by the caller; strict (padded, no spaces). Return: 0, -EINVAL, -E2BIG, -ENOMEM. */
int link_base64_decode(const char *text, size_t max, unsigned char **out, size_t *n) MUST_CHECK;

#endif
