/* SPDX-License-Identifier: Apache-2.0 */
/* linux.resources and linux.intelRdt of the OCI runtime specification (config-linux.md). */
#ifndef WALNUT_OCI_RESOURCES_H
#define WALNUT_OCI_RESOURCES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define OCI_DEVICE_ANY (-1)
enum oci_device_access { OCI_DEVICE_READ = 1, OCI_DEVICE_WRITE = 2, OCI_DEVICE_MKNOD = 4 };

/* One rule of linux.resources.devices; later rules win. */
struct oci_device_rule {
	bool allow;
	char type;            /* 'a', 'b', 'c' */
	int64_t major, minor; /* OCI_DEVICE_ANY: all */
	unsigned int access;  /* mask of enum oci_device_access */
};

/* blockIO.weightDevice: 0 is not given. */
struct oci_block_weight {
	unsigned int major, minor;
	uint16_t weight, leaf_weight;
};

enum oci_throttle_kind {
	OCI_THROTTLE_READ_BPS,
	OCI_THROTTLE_WRITE_BPS,
	OCI_THROTTLE_READ_IOPS,
	OCI_THROTTLE_WRITE_IOPS
};
struct oci_throttle {
	enum oci_throttle_kind kind;
	unsigned int major, minor;
	uint64_t rate; /* a second; 0: no limit */
};

struct oci_hugepage_limit {
	char *page_size; /* "2MB" */
	uint64_t limit;  /* bytes */
};

struct oci_net_priority {
	char *name;
	uint32_t priority;
};

struct oci_rdma_limit {
	char *device;
	int64_t hca_handles, hca_objects; /* -1: not given */
};

/* One file of cgroup version 2, by name. */
struct oci_unified {
	char *key, *value;
};

/* Limits: 0 is "not given" unless said otherwise; -1 is "unlimited" where that exists. */
struct oci_resources {
	int64_t memory_limit;       /* bytes; -1: unlimited */
	int64_t memory_swap;        /* bytes of memory + swap, as Docker's MemorySwap; -1: unlimited */
	int64_t memory_reservation; /* bytes; -1: unlimited */
	int64_t memory_kernel, memory_kernel_tcp;
	uint64_t memory_swappiness; /* 0 to 100 */
	bool memory_swappiness_given;
	bool oom_kill_disable, oom_kill_given; /* given: false is asked for too */
	bool use_hierarchy;
	bool memory_check; /* refuse a limit that is below what is used */
	uint64_t cpu_shares;
	int64_t cpu_quota;   /* microseconds in a period; -1: unlimited */
	uint64_t cpu_period; /* microseconds */
	uint64_t cpu_burst;
	bool cpu_burst_given;
	int64_t cpu_rt_runtime;
	bool cpu_rt_runtime_given;
	uint64_t cpu_rt_period;
	int64_t cpu_idle; /* 0 or 1 */
	bool cpu_idle_given;
	char *cpuset_cpus, *cpuset_mems; /* NULL: not given */
	int64_t pids_limit;              /* -1: unlimited */
	uint16_t block_weight, block_leaf_weight;
	struct oci_block_weight *block_weights;
	size_t block_weights_count;
	struct oci_throttle *throttles;
	size_t throttles_count;
	struct oci_hugepage_limit *hugepages;
	size_t hugepages_count;
	uint32_t net_class;
	struct oci_net_priority *net_priorities;
	size_t net_priorities_count;
	struct oci_rdma_limit *rdma;
	size_t rdma_count;
	struct oci_unified *unified;
	size_t unified_count;
	struct oci_device_rule *devices;
	size_t devices_count;
};

/* oci_resources_parse - a "linux.resources" object; *out is the caller's (oci_resources_free). */
int oci_resources_parse(const json_t *json, struct oci_resources **out, struct err *err) MUST_CHECK;
void oci_resources_free(struct oci_resources *resources); /* NULL is allowed */
/* oci_resources_read - into a zeroed struct of the caller, which oci_resources_fini empties, after an error too. */
int oci_resources_read(const json_t *json, struct oci_resources *r, struct err *err) MUST_CHECK;
void oci_resources_fini(struct oci_resources *r);

static inline void cleanup_oci_resources(struct oci_resources **p)
{
	oci_resources_free(*p);
}

/* linux.intelRdt: cache and memory bandwidth of Intel's Resource Director Technology. */
struct oci_rdt {
	bool given;
	char *clos_id; /* NULL: the container's id */
	char *l3_schema, *mem_schema;
	char **schemata; /* NULL-terminated; NULL: not given */
	bool monitoring; /* enableCMT, enableMBM or enableMonitoring */
};

/* oci_rdt_read - linux.intelRdt (NULL: absent) into a zeroed struct; oci_rdt_fini empties it. */
int oci_rdt_read(const json_t *json, struct oci_rdt *rdt, struct err *err) MUST_CHECK;
void oci_rdt_fini(struct oci_rdt *rdt);

#endif
