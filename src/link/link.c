/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds on what an agent says, and base64 (RFC 4648, section 4) for bytes inside JSON. */
#include "link/link.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* Counters past this are nonsense; it also keeps sums of a few of them inside 64 bits. */
#define COUNTER_MAX (INT64_C(1) << 62)
#define PID_MAX     (1 << 22)

void link_text_clean(char *out, size_t size, const char *text)
{
	size_t i;

	for (i = 0; i + 1 < size && text[i]; i++)
		out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	if (size)
		out[i] = '\0';
}

bool link_is_event(const json_t *message)
{
	return json_object_get(message, "event") != NULL;
}

static int get_number(const json_t *object, const char *key, int64_t max, int64_t *out, struct err *err)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > max)
		return err_set(err, EBADMSG, "the guest's agent sent a bad \"%s\"", key);
	*out = json_integer_value(v);
	return 0;
}

static int get_text(const json_t *object, const char *key, size_t max, char *out, struct err *err)
{
	const char *text = json_str(object, key, NULL);

	if (!text || strnlen(text, max + 1) > max)
		return err_set(err, EBADMSG, "the guest's agent sent a bad \"%s\"", key);
	link_text_clean(out, max + 1, text);
	return 0;
}

static int parse_hello(const json_t *params, struct link_event *out, struct err *err)
{
	int64_t version, memory;
	int rc;

	rc = get_number(params, "version", INT32_MAX, &version, err);
	if (!rc)
		rc = get_number(params, "memory_bytes", COUNTER_MAX, &memory, err);
	if (!rc)
		rc = get_text(params, "kernel", LINK_KERNEL_MAX, out->kernel, err);
	if (rc < 0)
		return rc;
	if (version != LINK_VERSION)
		return err_set(err, EBADMSG, "the guest's agent speaks version %d of the protocol, not %d",
			       (int)version, LINK_VERSION);
	out->kind = LINK_EVENT_HELLO;
	out->version = (int)version;
	out->memory_bytes = (uint64_t)memory;
	return 0;
}

int link_event_parse(const json_t *message, struct link_event *out, struct err *err)
{
	const char *name = json_str(message, "event", "");
	const json_t *params = json_object_get(message, "params");
	int64_t code;
	int rc;

	*out = (struct link_event){ 0 };
	if (!strcmp(name, "hello"))
		return parse_hello(params, out, err);
	if (!strcmp(name, "oom")) {
		out->kind = LINK_EVENT_OOM;
		return 0;
	}
	if (strcmp(name, "exited") != 0 && strcmp(name, "exec_exited") != 0)
		return err_set(err, EBADMSG, "the guest's agent sent an unknown event");
	rc = get_number(params, "exit_code", 255, &code, err);
	if (rc < 0)
		return rc;
	out->exit_code = (int)code;
	out->kind = LINK_EVENT_EXITED;
	out->oom_killed = json_bool(params, "oom_killed", false);
	if (!strcmp(name, "exec_exited")) {
		out->kind = LINK_EVENT_EXEC_EXITED;
		return get_text(params, "exec_id", LINK_ID_MAX, out->exec_id, err);
	}
	return 0;
}

int link_answer_parse(const json_t *message, int64_t *id, const json_t **result, struct err *failure, struct err *err)
{
	const json_t *error = json_object_get(message, "error");
	int rc;

	*failure = ERR_INIT;
	*result = NULL;
	rc = get_number(message, "id", INT64_MAX, id, err);
	if (rc < 0)
		return rc;
	if (error) {
		int64_t code = json_int(error, "code", EIO);

		failure->code = code > 0 && code <= 4095 ? (int)code : EIO;
		link_text_clean(failure->msg, sizeof(failure->msg),
				json_str(error, "message", "the guest's agent reports an error"));
		return 0;
	}
	*result = json_object_get(message, "result");
	if (!json_is_object(*result))
		return err_set(err, EBADMSG, "the guest's agent sent an answer without a result");
	return 0;
}

int link_stats_parse(const json_t *result, struct link_stats *out, struct err *err)
{
	const struct {
		const char *key;
		uint64_t *to;
	} fields[] = {
		{ "memory_usage", &out->memory_usage },
		{ "memory_limit", &out->memory_limit },
		{ "memory_max_usage", &out->memory_max_usage },
		{ "memory_cache", &out->memory_cache },
		{ "cpu_total_ns", &out->cpu_total_ns },
		{ "cpu_user_ns", &out->cpu_user_ns },
		{ "cpu_system_ns", &out->cpu_system_ns },
		{ "pids_current", &out->pids_current },
		{ "pids_limit", &out->pids_limit },
		{ "oom_kills", &out->oom_kills },
	};
	int64_t value;
	int rc;

	*out = (struct link_stats){ 0 };
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		rc = get_number(result, fields[i].key, COUNTER_MAX, &value, err);
		if (rc < 0)
			return rc;
		*fields[i].to = (uint64_t)value;
	}
	return 0;
}

int link_pid_parse(const json_t *result, pid_t *out, struct err *err)
{
	int64_t pid;
	int rc = get_number(result, "pid", PID_MAX, &pid, err);

	if (rc < 0)
		return rc;
	*out = (pid_t)pid;
	return 0;
}

int link_pids_parse(const json_t *result, pid_t **pids, size_t *n, struct err *err)
{
	const json_t *list = json_object_get(result, "pids");
	size_t count = json_array_size(list);
	CLEAN_FREE pid_t *out = NULL;

	if (!json_is_array(list) || count > LINK_PIDS_MAX)
		return err_set(err, EBADMSG, "the guest's agent sent a bad \"pids\"");
	out = calloc(count + 1, sizeof(*out));
	if (!out)
		return err_sys(err, ENOMEM, "list processes");
	for (size_t i = 0; i < count; i++) {
		const json_t *v = json_array_get(list, i);

		if (!json_is_integer(v) || json_integer_value(v) <= 0 || json_integer_value(v) > PID_MAX)
			return err_set(err, EBADMSG, "the guest's agent sent a bad \"pids\"");
		out[i] = (pid_t)json_integer_value(v);
	}
	*pids = take_ptr(out);
	*n = count;
	return 0;
}

static json_t *copy_process(const json_t *from, struct err *err)
{
	static const char *const numbers[] = { "pid", "ppid", "uid", "start", "time", "threads", "vsz_kb", "rss_kb" };
	static const struct {
		const char *key;
		size_t max;
	} texts[] = { { "comm", 64 }, { "args", LINK_ARGS_MAX }, { "state", 8 }, { "tty", 32 } };
	CLEAN_JSON json_t *out = json_object();
	char text[LINK_ARGS_MAX + 1];
	int64_t n;

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		if (get_number(from, numbers[i], COUNTER_MAX, &n, err) < 0 ||
		    json_object_set_new(out, numbers[i], json_integer(n)) < 0)
			return NULL;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (get_text(from, texts[i].key, texts[i].max, text, err) < 0 ||
		    json_object_set_new(out, texts[i].key, json_string(text)) < 0)
			return NULL;
	return take_ptr(out);
}

json_t *link_processes_copy(const json_t *result, struct err *err)
{
	const json_t *list = json_object_get(result, "processes");
	CLEAN_JSON json_t *out = json_array();

	if (!json_is_array(list) || json_array_size(list) > LINK_PROCESSES_MAX) {
		(void)err_set(err, EBADMSG, "the guest's agent sent a bad \"processes\"");
		return NULL;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *process = copy_process(json_array_get(list, i), err);

		if (!process || json_array_append_new(out, process) < 0) {
			if (!err->code)
				(void)err_sys(err, ENOMEM, "list processes");
			return NULL;
		}
	}
	return take_ptr(out);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *link_base64_encode(const void *bytes, size_t n)
{
	const unsigned char *in = bytes;
	char *text, *p;

	if (n > SIZE_MAX / 2)
		return NULL;
	p = text = malloc((n + 2) / 3 * 4 + 1);
	if (!text)
		return NULL;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)in[i + 1] << 8;
		if (i + 2 < n)
			v |= in[i + 2];
		*p++ = alphabet[v >> 18];
		*p++ = alphabet[v >> 12 & 63];
		*p++ = i + 1 < n ? alphabet[v >> 6 & 63] : '=';
		*p++ = i + 2 < n ? alphabet[v & 63] : '=';
	}
	*p = '\0';
	return text;
}

static int sextet(char c)
{
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

int link_base64_decode(const char *text, size_t max, unsigned char **out, size_t *n)
{
	size_t len = strlen(text), pad = 0, done = 0;
	CLEAN_FREE unsigned char *bytes = NULL;

	if (len % 4)
		return -EINVAL;
	if (len && text[len - 1] == '=')
		pad = text[len - 2] == '=' ? 2 : 1;
	if (len / 4 * 3 - pad > max)
		return -E2BIG;
	bytes = malloc(len / 4 * 3 + 1);
	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < len; i += 4) {
		uint32_t v = 0;

		for (size_t k = 0; k < 4; k++) {
			bool padding = i + 4 == len && k >= 4 - pad;
			int s = padding ? 0 : sextet(text[i + k]);

			if (s < 0)
				return -EINVAL;
			v = v << 6 | (uint32_t)s;
		}
		bytes[done++] = (unsigned char)(v >> 16);
		bytes[done++] = (unsigned char)(v >> 8 & 255);
		bytes[done++] = (unsigned char)(v & 255);
	}
	*n = done - pad;
	*out = take_ptr(bytes);
	return 0;
}
