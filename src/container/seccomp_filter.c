/* SPDX-License-Identifier: Apache-2.0 */
/* From linux.seccomp to BPF, by libseccomp, with a cache of what was compiled before. */
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "container/seccomp_filter.h"

#define PROGRAM_MAX (BPF_MAXINSNS * sizeof(struct sock_filter))

static void cleanup_filter(scmp_filter_ctx *f)
{
	if (*f)
		seccomp_release(*f);
}

static uint32_t action_of(enum oci_seccomp_action a, unsigned int errno_ret)
{
	switch (a) {
	case OCI_SECCOMP_KILL_THREAD: return SCMP_ACT_KILL_THREAD;
	case OCI_SECCOMP_KILL_PROCESS: return SCMP_ACT_KILL_PROCESS;
	case OCI_SECCOMP_TRAP: return SCMP_ACT_TRAP;
	case OCI_SECCOMP_ERRNO: return SCMP_ACT_ERRNO(errno_ret);
	case OCI_SECCOMP_TRACE: return SCMP_ACT_TRACE(errno_ret);
	case OCI_SECCOMP_ALLOW: return SCMP_ACT_ALLOW;
	case OCI_SECCOMP_LOG: return SCMP_ACT_LOG;
	case OCI_SECCOMP_NOTIFY: return SCMP_ACT_NOTIFY;
	}
	return SCMP_ACT_KILL_PROCESS;
}

static enum scmp_compare operator_of(enum oci_seccomp_operator op)
{
	switch (op) {
	case OCI_SECCOMP_NE: return SCMP_CMP_NE;
	case OCI_SECCOMP_LT: return SCMP_CMP_LT;
	case OCI_SECCOMP_LE: return SCMP_CMP_LE;
	case OCI_SECCOMP_EQ: return SCMP_CMP_EQ;
	case OCI_SECCOMP_GE: return SCMP_CMP_GE;
	case OCI_SECCOMP_GT: return SCMP_CMP_GT;
	case OCI_SECCOMP_MASKED_EQ: return SCMP_CMP_MASKED_EQ;
	}
	return SCMP_CMP_EQ;
}

static struct scmp_arg_cmp compare(const struct oci_seccomp_arg *a)
{
	/* config-linux.md: for a masked comparison value is the mask, valueTwo what is compared with */
	return (struct scmp_arg_cmp){
		.arg = a->index, .op = operator_of(a->op), .datum_a = a->value, .datum_b = a->value_two
	};
}

static int add_rule(scmp_filter_ctx f, const struct oci_seccomp_rule *rule, uint32_t action, int number)
{
	struct scmp_arg_cmp args[6];
	unsigned int seen = 0;
	int r;

	for (size_t i = 0; i < rule->args_count; i++) {
		unsigned int bit = 1U << rule->args[i].index;

		/* several conditions on one argument: libseccomp ANDs different ones only, so each is a rule (as runc) */
		if (seen & bit) {
			for (size_t k = 0; k < rule->args_count; k++) {
				struct scmp_arg_cmp one = compare(&rule->args[k]);

				r = seccomp_rule_add_array(f, action, number, 1, &one);
				if (r < 0 && r != -EEXIST)
					return r;
			}
			return 0;
		}
		seen |= bit;
		args[i] = compare(&rule->args[i]);
	}
	r = seccomp_rule_add_array(f, action, number, (unsigned int)rule->args_count, args);
	return r == -EEXIST ? 0 : r;
}

static int add_architectures(scmp_filter_ctx f, const struct oci_seccomp *s, struct err *err)
{
	for (char **a = s->architectures; *a; a++) {
		char name[32];
		uint32_t token;
		int r;

		/* "SCMP_ARCH_X86_64" is "x86_64" to libseccomp */
		(void)snprintf(name, sizeof(name), "%s", strncmp(*a, "SCMP_ARCH_", 10) == 0 ? *a + 10 : *a);
		for (char *p = name; *p; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
		token = seccomp_arch_resolve_name(name);
		if (!token)
			return err_set(err, EINVAL, "linux.seccomp.architectures: unknown architecture '%s'", *a);
		r = seccomp_arch_add(f, token);
		if (r < 0 && r != -EEXIST)
			return err_sys(err, -r, "linux.seccomp.architectures: cannot add %s", *a);
	}
	return 0;
}

static int export_program(scmp_filter_ctx f, void **bpf, size_t *size, struct err *err)
{
	CLEAN_FD int fd = memfd_create("seccomp", MFD_CLOEXEC);
	CLEAN_FREE void *bytes = NULL;
	struct stat st;
	int r = fd < 0 ? -errno : seccomp_export_bpf(f, fd);

	if (r < 0 || fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, r < 0 ? -r : errno, "linux.seccomp: cannot compile the filter");
	if (st.st_size <= 0 || (size_t)st.st_size > PROGRAM_MAX)
		return err_set(err, E2BIG, "linux.seccomp: the filter has more than %d instructions", BPF_MAXINSNS);
	bytes = malloc((size_t)st.st_size);
	if (!bytes || fd_read_full(fd, bytes, (size_t)st.st_size) != st.st_size)
		return err_set(err, ENOMEM, "linux.seccomp: out of memory");
	*bpf = take_ptr(bytes);
	*size = (size_t)st.st_size;
	return 0;
}

static int compile(const struct oci_seccomp *s, void **bpf, size_t *size, struct err *err)
{
	uint32_t otherwise = action_of(s->default_action, s->default_errno_ret);
	CLEAN(cleanup_filter) scmp_filter_ctx f = seccomp_init(otherwise);
	int r;

	if (!f)
		return err_set(err, EINVAL, "linux.seccomp: this machine's libseccomp refuses the default action");
	if ((r = add_architectures(f, s, err)) < 0)
		return r;
	/* no_new_privs is process.noNewPrivileges' business; a binary tree keeps long lists fast */
	if (seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 0) < 0 || seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
		return err_set(err, EIO, "linux.seccomp: libseccomp is too old");
	for (size_t i = 0; i < s->rules_count; i++) {
		const struct oci_seccomp_rule *rule = &s->rules[i];
		uint32_t action = action_of(rule->action, rule->errno_ret);

		if (action == otherwise)
			continue; /* libseccomp refuses what changes nothing */
		for (char **name = rule->names; *name; name++) {
			int number = seccomp_syscall_resolve_name(*name);

			r = number == __NR_SCMP_ERROR ? 0 : add_rule(f, rule, action, number);
			if (r < 0)
				return err_sys(err, -r, "linux.seccomp.syscalls: cannot add the rule for %s", *name);
		}
	}
	return export_program(f, bpf, size, err);
}

/* Each with its NUL, which no name has inside, and one more: no list reads as another. */
static int describe_names(char *const *names, struct buf *b)
{
	int r = 0;

	for (; r == 0 && *names; names++)
		r = buf_append(b, *names, strlen(*names) + 1);
	return r < 0 ? r : buf_append(b, "", 1);
}

/*
 * What the program depends on: two of the same are the same program. Who may give a filter must not be able to leave a
 * weaker one in the cache for the next, so the description is exact, and its end is known.
 */
static int describe(const struct oci_seccomp *s, struct buf *b)
{
	const struct scmp_version *v = seccomp_version();
	struct utsname u;
	int r = uname(&u) < 0 ? -errno
			      : buf_printf(b, "2 %u.%u.%u %s %s %d %u %zu\n", v->major, v->minor, v->micro, u.machine,
					   u.release, s->default_action, s->default_errno_ret, s->rules_count);

	r = r < 0 ? r : describe_names(s->architectures, b);
	for (size_t i = 0; r == 0 && i < s->rules_count; i++) {
		const struct oci_seccomp_rule *rule = &s->rules[i];

		r = buf_printf(b, "%d %u %zu\n", rule->action, rule->errno_ret, rule->args_count);
		r = r < 0 ? r : describe_names(rule->names, b);
		for (size_t k = 0; r == 0 && k < rule->args_count; k++)
			r = buf_printf(b, "%u %d %lx %lx\n", rule->args[k].index, rule->args[k].op,
				       (unsigned long)rule->args[k].value, (unsigned long)rule->args[k].value_two);
	}
	return r;
}

/* FNV-1a, 64 bits: only names the file; the description in the file decides. */
static uint64_t hash(const char *bytes, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
	return h;
}

/* A file of the cache is the description and then the program. Return: whether it was there. */
static bool look_up(int dir, const char *name, const struct buf *what, void **bpf, size_t *size)
{
	CLEAN_FREE char *bytes = fd_read_file(dir, name, PROGRAM_MAX + what->len, size, NULL);

	if (!bytes || *size <= what->len || memcmp(bytes, buf_bytes(what), what->len) != 0 ||
	    (*size - what->len) % sizeof(struct sock_filter))
		return false;
	*size -= what->len;
	*bpf = malloc(*size);
	if (*bpf)
		memcpy(*bpf, bytes + what->len, *size);
	return *bpf;
}

static void keep(int dir, const char *name, const struct buf *what, const void *bpf, size_t size)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	char beside[48];

	(void)snprintf(beside, sizeof(beside), "%s.%d", name, getpid());
	if (buf_append(&b, buf_bytes(what), what->len) < 0 || buf_append(&b, bpf, size) < 0 ||
	    fd_write_file(dir, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, buf_bytes(&b), b.len, NULL) < 0 ||
	    renameat(dir, beside, dir, name) < 0)
		(void)unlinkat(dir, beside, 0); /* a cache that can not be written is no cache */
}

int seccomp_filter_compile(const struct oci_seccomp *s, const char *cache, void **bpf, size_t *size, struct err *err)
{
	CLEAN_BUF struct buf what = BUF_INIT;
	CLEAN_FD int dir = -1;
	char name[24];
	int r;

	if (describe(s, &what) < 0)
		return err_set(err, ENOMEM, "linux.seccomp: out of memory");
	(void)snprintf(name, sizeof(name), "%016lx", (unsigned long)hash(buf_bytes(&what), what.len));
	if (cache && mkdir(cache, 0700) < 0 && errno != EEXIST)
		cache = NULL;
	dir = cache ? open(cache, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (dir >= 0 && look_up(dir, name, &what, bpf, size))
		return 0;
	r = compile(s, bpf, size, err);
	if (r == 0 && dir >= 0)
		keep(dir, name, &what, *bpf, *size);
	return r;
}
