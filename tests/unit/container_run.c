/* SPDX-License-Identifier: Apache-2.0 */
/* container-run ROOTFS SPEC.json [COMMAND...]: run a container by the library alone; COMMAND is exec'd inside after 0.3 s. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/container.h"

static int report(const char *what, const struct err *err, enum container_exec_failure why)
{
	(void)fprintf(stderr, "%s: %s\n", what, err->msg);
	return why == CONTAINER_EXEC_NOT_FOUND ? 127 : why == CONTAINER_EXEC_NOT_EXECUTABLE ? 126 : 125;
}

static int exec_inside(struct container *c, const struct oci_spec *s, char **args)
{
	struct oci_process p = s->process;
	struct container_process out;
	enum container_exec_failure why;
	struct err err = ERR_INIT;
	int status = 0;

	p.args = args;
	p.terminal = false;
	(void)usleep(300000);
	if (container_exec(c, &p, (int[]){ 0, 1, 2 }, &out, &why, &err) < 0)
		return report("exec", &err, why);
	(void)waitpid(out.pid, &status, 0);
	(void)printf("exec: status %d\n", WEXITSTATUS(status));
	return 0;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	CLEAN_FREE char *text = argc < 3 ? NULL : fd_read_file(-100, argv[2], 1 << 20, NULL, &err);
	CLEAN_JSON json_t *json = text ? json_parse(text, strlen(text), argv[2], &err) : NULL;
	CLEAN(cleanup_oci_spec) struct oci_spec *s = NULL;
	struct container_config config = { .id = "try", .cgroup_path = "/walnut-try/one", .stdio = { 0, 1, 2 } };
	struct container_stats stats = { 0 };
	enum container_exec_failure why = CONTAINER_EXEC_OTHER;
	struct container *c;
	int console, status = 0;
	char bytes[4096];

	if (!json || oci_spec_parse(json, &s, &err) < 0)
		return report("spec", &err, why);
	config.spec = s;
	config.rootfs = argv[1];
	if (container_create(&c, &config, &console, &err) < 0)
		return report("create", &err, why);
	if (container_start(c, &why, &err) < 0) {
		container_free(c);
		return report("start", &err, why);
	}
	if (argc > 3)
		status = exec_inside(c, s, argv + 3);
	for (ssize_t n; console >= 0 && (n = read(console, bytes, sizeof(bytes))) > 0;)
		if (fd_write_full(1, bytes, (size_t)n) < 0)
			break;
	(void)waitpid(container_pid(c), &status, 0);
	if (container_stats(c, &stats, &err) == 0)
		(void)fprintf(stderr, "[oom kills %lu, status %x]\n", (unsigned long)stats.oom_kills,
			      (unsigned int)status);
	container_free(c);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
