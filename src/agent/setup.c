/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request "setup": everything between a booted kernel and a mounted root
 * filesystem. The layers lie end to end on the first disk, without a partition
 * table (the kernel has no parser): their places come in the request.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/log.h"

#define LAYERS_DIR  "/run/layers"
#define SCRATCH_DIR "/run/scratch"
#define FILE_MAX    (256U << 10)

static int set_clock(const json_t *params, struct err *err)
{
	int64_t ns = json_int(params, "time_ns", 0);
	struct timespec now = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	if (ns <= 0)
		return err_set(err, EINVAL, "setup needs time_ns");
	return clock_settime(CLOCK_REALTIME, &now) < 0 ? err_sys(err, errno, "set the clock") : 0;
}

static int add_entropy(const json_t *params, struct err *err)
{
	const char *text = json_str(params, "entropy", NULL);
	CLEAN_FREE unsigned char *bytes = NULL;
	CLEAN_FREE struct rand_pool_info *pool = NULL;
	CLEAN_FD int fd = -1;
	size_t n;
	int rc;

	if (!text)
		return err_set(err, EINVAL, "setup needs entropy");
	rc = link_base64_decode(text, LINK_ENTROPY_MAX, &bytes, &n);
	if (rc < 0)
		return err_sys(err, -rc, "read the entropy");
	pool = calloc(1, sizeof(*pool) + LINK_ENTROPY_MAX);
	fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (!pool || fd < 0)
		return err_sys(err, pool ? errno : ENOMEM, "open the random generator");
	pool->entropy_count = (int)n * 8;
	pool->buf_size = (int)n;
	memcpy(pool->buf, bytes, n);
	if (ioctl(fd, RNDADDENTROPY, pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		return err_sys(err, errno, "seed the random generator");
	explicit_bzero(pool, sizeof(*pool) + n);
	explicit_bzero(bytes, n);
	return 0;
}

/* devtmpfs makes the node in the kernel's own thread; it is there when the call that added it returns. */
static int mount_layer(int disk, size_t i, const json_t *layer, struct err *err)
{
	struct blkpg_partition part = { .start = json_int(layer, "offset", -1),
					.length = json_int(layer, "length", -1),
					.pno = (int)i + 1 };
	struct blkpg_ioctl_arg arg = { .op = BLKPG_ADD_PARTITION, .datalen = sizeof(part), .data = &part };
	char device[32], target[64];

	if (part.start < 0 || part.length <= 0 || part.start % 512 || part.length % 512)
		return err_set(err, EINVAL, "layer %zu has a bad place on the disk", i);
	if (ioctl(disk, BLKPG, &arg) < 0)
		return err_sys(err, errno, "add layer %zu as a partition", i);
	(void)snprintf(device, sizeof(device), "/dev/vda%zu", i + 1);
	(void)snprintf(target, sizeof(target), LAYERS_DIR "/%zu", i);
	if (mkdir(target, 0755) < 0)
		return err_sys(err, errno, "make %s", target);
	if (mount(device, target, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "mount layer %zu", i);
	return 0;
}

static int mount_layers(const json_t *layers, struct err *err)
{
	CLEAN_FD int disk = -1;
	size_t n = json_array_size(layers);
	int rc;

	if (n < 1 || n > LINK_LAYERS_MAX)
		return err_set(err, EINVAL, "%zu layers: 1 to %d are possible", n, LINK_LAYERS_MAX);
	if (mkdir(LAYERS_DIR, 0755) < 0)
		return err_sys(err, errno, "make " LAYERS_DIR);
	disk = open("/dev/vda", O_RDONLY | O_CLOEXEC);
	if (disk < 0)
		return err_sys(err, errno, "open the layers' disk");
	for (size_t i = 0; i < n; i++) {
		rc = mount_layer(disk, i, json_array_get(layers, i), err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int mount_scratch(bool disk, struct err *err)
{
	if (mkdir(SCRATCH_DIR, 0755) < 0)
		return err_sys(err, errno, "make " SCRATCH_DIR);
	/* The disk's inode tables are unwritten (holes of a sparse file): a thread that zeroes them is only a cost. */
	if (disk && mount("/dev/vdb", SCRATCH_DIR, "ext4", MS_NODEV | MS_NOATIME, "noinit_itable") < 0)
		return err_sys(err, errno, "mount the scratch disk");
	if (!disk && mount("scratch", SCRATCH_DIR, "tmpfs", MS_NODEV, "mode=0755") < 0)
		return err_sys(err, errno, "mount the scratch space");
	if (mkdir(SCRATCH_DIR "/upper", 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "make the upper folder");
	if (mkdir(SCRATCH_DIR "/work", 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "make the work folder");
	return 0;
}

static int mount_overlay(size_t layers, bool lasting, struct err *err)
{
	CLEAN_BUF struct buf options = BUF_INIT;
	int rc;

	/* The mark of a volatile overlay keeps its disk from being used after a crash; a disk that comes here again ended well. */
	rc = fd_remove_tree(AT_FDCWD, SCRATCH_DIR "/work/work/incompat", err);
	if (rc < 0)
		return rc;
	/* Short relative names: mount options end at 4095 bytes. The first name is the top layer. */
	rc = buf_puts(&options, "lowerdir=");
	for (size_t i = layers; i > 0 && !rc; i--)
		rc = buf_printf(&options, "%zu%s", i - 1, i > 1 ? ":" : "");
	if (!rc)
		rc = buf_printf(&options, ",upperdir=" SCRATCH_DIR "/upper,workdir=" SCRATCH_DIR "/work,index=off%s",
				lasting ? ",xino=auto" : ",xino=auto,volatile");
	if (rc < 0)
		return err_sys(err, -rc, "mount the root filesystem");
	if (mkdir(LINK_GUEST_ROOTFS, 0755) < 0)
		return err_sys(err, errno, "make " LINK_GUEST_ROOTFS);
	if (chdir(LAYERS_DIR) < 0)
		return err_sys(err, errno, "enter " LAYERS_DIR);
	rc = mount("rootfs", LINK_GUEST_ROOTFS, "overlay", 0, buf_bytes(&options)) < 0
		     ? err_sys(err, errno, "mount the root filesystem (%s)", buf_bytes(&options))
		     : 0;
	if (chdir("/") < 0 && !rc)
		rc = err_sys(err, errno, "leave " LAYERS_DIR);
	return rc;
}

/* Files of the engine (hosts, hostname, resolv.conf) at the paths that the spec's bind mounts name. */
static int write_files(json_t *files, struct err *err)
{
	const char *path;
	json_t *text;
	int rc;

	if (json_object_size(files) > LINK_FILES_MAX)
		return err_set(err, E2BIG, "more than %d files in setup", LINK_FILES_MAX);
	json_object_foreach(files, path, text) {
		CLEAN_FREE char *folder = strdup(path);
		char *slash = folder ? strrchr(folder, '/') : NULL;

		if (!slash || path[0] != '/' || strstr(path, "/../") || !json_is_string(text) ||
		    json_string_length(text) > FILE_MAX)
			return err_set(err, EINVAL, "setup: the file %s is not valid", path);
		*slash = '\0';
		rc = *folder ? fd_mkdir_p(folder, 0755, err) : 0;
		if (!rc)
			rc = fd_write_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, json_string_value(text),
					   json_string_length(text), err);
		if (rc < 0)
			return rc;
		(void)chmod(path, 0644);
	}
	return 0;
}

static int setup_disks(const json_t *params, struct err *err)
{
	const json_t *layers = json_object_get(params, "layers");
	bool scratch = json_bool(params, "scratch", false);
	int rc = mount_layers(layers, err);

	if (!rc)
		rc = mount_scratch(scratch, err);
	if (!rc)
		rc = mount_overlay(json_array_size(layers), scratch && !json_bool(params, "throwaway", false), err);
	return rc;
}

int setup_guest(struct agent *a, const json_t *params, struct err *err)
{
	const char *hostname = json_str(params, "hostname", "walnut");
	int rc;

	if (a->set_up)
		return err_set(err, EALREADY, "the guest is set up already");
	if (!a->pid1) {
		(void)snprintf(a->rootfs, sizeof(a->rootfs), "%s", a->test_rootfs);
		a->set_up = true;
		return 0;
	}
	if (strlen(hostname) > 64)
		return err_set(err, EINVAL, "the host name is longer than 64 bytes");
	rc = set_clock(params, err);
	if (!rc)
		rc = add_entropy(params, err);
	if (!rc && sethostname(hostname, strlen(hostname)) < 0)
		rc = err_sys(err, errno, "set the host name");
	if (!rc)
		rc = setup_disks(params, err);
	if (!rc)
		rc = write_files(json_object_get(params, "files"), err);
	if (rc < 0)
		return rc;
	(void)snprintf(a->rootfs, sizeof(a->rootfs), "%s", LINK_GUEST_ROOTFS);
	a->set_up = true;
	return 0;
}
