/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device rules under cgroup version 2: a hand-assembled eBPF program of type
 * CGROUP_DEVICE (linux/bpf.h, struct bpf_cgroup_dev_ctx). The last rule that matches
 * decides, so rules are emitted last first; without a match access is denied.
 */
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "container/cgroup_internal.h"

static struct bpf_insn insn(unsigned int code, unsigned int dst, unsigned int src, int off, int imm)
{
	return (struct bpf_insn){
		.code = (__u8)code, .dst_reg = dst & 15U, .src_reg = src & 15U, .off = (__s16)off, .imm = imm
	};
}

/* Registers: 2 type, 3 access, 4 major, 5 minor, 1 scratch after the loads. Return: instructions written. */
static size_t emit_rule(struct bpf_insn *out, const struct oci_device_rule *d)
{
	unsigned int jne = BPF_JMP | BPF_JNE | BPF_K;
	size_t n = 0, start;
	struct bpf_insn *jumps[8];
	size_t njumps = 0;

	start = n;
	if (d->type != 'a') {
		jumps[njumps++] = &out[n];
		out[n++] = insn(jne, 2, 0, 0, d->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
	}
	if (d->access != (OCI_DEVICE_READ | OCI_DEVICE_WRITE | OCI_DEVICE_MKNOD)) {
		int mask = (d->access & OCI_DEVICE_READ ? BPF_DEVCG_ACC_READ : 0) |
			   (d->access & OCI_DEVICE_WRITE ? BPF_DEVCG_ACC_WRITE : 0) |
			   (d->access & OCI_DEVICE_MKNOD ? BPF_DEVCG_ACC_MKNOD : 0);

		/* an allowing rule must cover all that is asked; a denying one matches any part */
		out[n++] = insn(BPF_ALU | BPF_MOV | BPF_X, 1, 3, 0, 0);
		out[n++] = insn(BPF_ALU | BPF_AND | BPF_K, 1, 0, 0, d->allow ? ~mask & 7 : mask);
		jumps[njumps++] = &out[n];
		out[n++] = insn(d->allow ? jne : BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0, 0);
	}
	if (d->major != OCI_DEVICE_ANY) {
		jumps[njumps++] = &out[n];
		out[n++] = insn(jne, 4, 0, 0, (int)d->major);
	}
	if (d->minor != OCI_DEVICE_ANY) {
		jumps[njumps++] = &out[n];
		out[n++] = insn(jne, 5, 0, 0, (int)d->minor);
	}
	out[n++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, d->allow);
	out[n++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	for (size_t i = 0; i < njumps; i++)
		jumps[i]->off = (__s16)(&out[n] - jumps[i] - 1);
	return n - start;
}

static bool for_all(const struct oci_device_rule *d)
{
	return d->type == 'a' && d->access == 7 && d->major == OCI_DEVICE_ANY && d->minor == OCI_DEVICE_ANY;
}

size_t cgroup_device_program(struct bpf_insn *p, const struct oci_device_rule *rules, size_t count)
{
	size_t n = 0, first = 0;

	p[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0);
	p[n++] = insn(BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0);
	p[n++] = insn(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
	p[n++] = insn(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
	p[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0);
	p[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0);
	for (size_t i = 0; i < count; i++) /* rules before one for all devices can not decide */
		if (for_all(&rules[i]))
			first = i;
	for (size_t i = count; i-- > first;)
		n += emit_rule(&p[n], &rules[i]);
	if (!count || !for_all(&rules[first])) {
		p[n++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
		p[n++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	}
	return n;
}

/* The programs that are attached to @dir, at most @max. Return: how many, or -errno. */
static int attached(int dir, __u32 *ids, __u32 max)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.query.target_fd = (__u32)dir;
	attr.query.attach_type = BPF_CGROUP_DEVICE;
	attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
	attr.query.prog_cnt = max;
	return syscall(SYS_bpf, BPF_PROG_QUERY, &attr, sizeof(attr)) < 0 ? -errno : (int)attr.query.prog_cnt;
}

static void detach(int dir, __u32 id)
{
	union bpf_attr attr;
	CLEAN_FD int prog = -1;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id;
	prog = (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr));
	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (__u32)dir;
	attr.attach_bpf_fd = (__u32)prog;
	attr.attach_type = BPF_CGROUP_DEVICE;
	if (prog >= 0 && syscall(SYS_bpf, BPF_PROG_DETACH, &attr, sizeof(attr)) < 0)
		errno = 0; /* gone meanwhile */
}

int cgroup_attach_devices(int dir, const struct oci_device_rule *rules, size_t n, struct err *err)
{
	CLEAN_FREE struct bpf_insn *p = calloc(CGROUP_DEVICE_INSNS(n), sizeof(*p));
	CLEAN_FD int prog = -1;
	__u32 old[64];
	union bpf_attr attr;
	int had = attached(dir, old, 64);

	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (uint64_t)(uintptr_t)p;
	attr.insn_cnt = (__u32)cgroup_device_program(p, rules, n);
	attr.license = (uint64_t)(uintptr_t) "Apache-2.0";
	prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	if (prog < 0)
		return err_sys(err, errno, "cannot load the device rules' eBPF program");
	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (__u32)dir;
	attr.attach_bpf_fd = (__u32)prog;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0)
		return err_sys(err, errno, "cannot attach the device rules to the cgroup");
	/* all attached programs must allow: the earlier rules go when the new ones hold */
	for (int i = 0; i < had; i++)
		detach(dir, old[i]);
	return 0;
}
