/* SPDX-License-Identifier: Apache-2.0 */
/* The systemd cgroup driver is not built yet: it refuses by name. */
#include <errno.h>

#include "container/cgroup_internal.h"
#include "container/cgroup_systemd.h"

int cgroup_systemd_create(struct cgroup *g, const struct cgroup_config *config, struct err *err)
{
	return err_set(err, ENOTSUP,
		       "the systemd cgroup driver is not built in this version: use --cgroup-manager cgroupfs (no "
		       "--systemd-cgroup)");
}

int cgroup_systemd_update(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	return 0;
}

void cgroup_systemd_release(struct cgroup *g)
{
}

int cgroup_systemd_stop(struct cgroup *g, struct err *err)
{
	return 0;
}
