/* SPDX-License-Identifier: Apache-2.0 */
/* What the fields of a configuration mean together; each error names the field and what it needs. */
#include <sched.h>
#include <string.h>

#include "base/cleanup.h"
#include "oci/spec.h"

bool oci_spec_namespace(const struct oci_spec *spec, int flag, const char **path)
{
	if (path)
		*path = NULL;
	for (size_t i = 0; i < spec->namespace_paths_count; i++)
		if (spec->namespace_paths[i].flag == flag) {
			if (path)
				*path = spec->namespace_paths[i].path;
			return true;
		}
	return spec->namespaces & flag;
}

/* Whether @key (with '.' for '/') belongs to one namespace; *flag: to which. Kernel: Documentation/admin-guide/sysctl. */
static bool sysctl_namespace(const char *key, int *flag)
{
	static const char *const ipc[] = { "kernel.msgmax",      "kernel.msgmnb",          "kernel.msgmni",
					   "kernel.sem",         "kernel.shmall",          "kernel.shmmax",
					   "kernel.shmmni",      "kernel.shm_rmid_forced", "kernel.msg_next_id",
					   "kernel.sem_next_id", "kernel.shm_next_id" };

	*flag = CLONE_NEWIPC;
	for (size_t i = 0; i < ARRAY_LEN(ipc); i++)
		if (strcmp(key, ipc[i]) == 0)
			return true;
	if (strncmp(key, "fs.mqueue.", 10) == 0)
		return true;
	*flag = CLONE_NEWNET;
	if (strncmp(key, "net.", 4) == 0)
		return true;
	*flag = CLONE_NEWUSER;
	if (strncmp(key, "user.", 5) == 0)
		return true;
	*flag = CLONE_NEWUTS;
	return strcmp(key, "kernel.domainname") == 0 || strcmp(key, "kernel.hostname") == 0;
}

static int check_sysctl(const struct oci_spec *s, const struct oci_sysctl *c, struct err *err)
{
	CLEAN_FREE char *key = strdup(c->key);
	int flag;

	if (!key)
		return err_set(err, ENOMEM, "out of memory");
	/* sysctl(8): with '/' as the first separator, '/' separates and '.' is part of a name */
	if (strchr(key, '/') && strcspn(key, "/") < strcspn(key, "."))
		for (char *p = key; *p; p++)
			*p = *p == '/' ? '.' : *p;
	if (strcmp(key, "kernel.hostname") == 0)
		return err_set(
			err, EINVAL,
			"linux.sysctl: sysctl \"kernel.hostname\" is not allowed: the field hostname is for that");
	if (!sysctl_namespace(key, &flag))
		return err_set(
			err, EINVAL,
			"linux.sysctl: sysctl \"%s\" is not in a separate kernel namespace: it would change the host",
			c->key);
	if (!oci_spec_namespace(s, flag, NULL))
		return err_set(
			err, EINVAL,
			"linux.sysctl: sysctl \"%s\" is not allowed in the hosts namespace: the container needs its own "
			"%s namespace",
			c->key,
			flag == CLONE_NEWIPC    ? "ipc"
			: flag == CLONE_NEWNET  ? "network"
			: flag == CLONE_NEWUSER ? "user"
						: "uts");
	return 0;
}

static int check_user_namespace(const struct oci_spec *s, struct err *err)
{
	const char *path = NULL;
	bool user = oci_spec_namespace(s, CLONE_NEWUSER, &path);

	if (!user && (s->uid_map_count || s->gid_map_count))
		return err_set(err, EINVAL, "linux.uidMappings and linux.gidMappings need a user namespace");
	if (user && !path && (!s->uid_map_count || !s->gid_map_count))
		return err_set(err, EINVAL, "linux.uidMappings and linux.gidMappings: a new user namespace needs both");
	return 0;
}

int oci_spec_validate(const struct oci_spec *s, struct err *err)
{
	int r = check_user_namespace(s, err);

	for (size_t i = 0; r == 0 && i < s->sysctl_count; i++)
		r = check_sysctl(s, &s->sysctl[i], err);
	if (r < 0)
		return r;
	if ((s->hostname || s->domainname) && !oci_spec_namespace(s, CLONE_NEWUTS, NULL))
		return err_set(err, EINVAL, "unable to set %s without a private UTS namespace",
			       s->hostname ? "hostname" : "domainname");
	if ((s->monotonic.given || s->boottime.given) && !(s->namespaces & CLONE_NEWTIME))
		return err_set(err, EINVAL, "linux.timeOffsets need a new time namespace");
	if ((s->masked_paths && s->masked_paths[0]) || (s->readonly_paths && s->readonly_paths[0]))
		if (!oci_spec_namespace(s, CLONE_NEWNS, NULL))
			return err_set(
				err, EINVAL,
				"linux.maskedPaths and linux.readonlyPaths: unable to restrict sys entries without a "
				"private MNT namespace");
	return 0;
}
