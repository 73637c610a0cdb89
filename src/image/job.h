/* SPDX-License-Identifier: Apache-2.0 */
/* A load, import, save, pull or push under way: what their sources share. */
#ifndef WALNUT_IMAGE_JOB_H
#define WALNUT_IMAGE_JOB_H

#include "image/proc.h"

struct image_job {
	struct image_store *s;
	struct loop *l;
	struct worker_proc *proc;
	char *staging; /* or NULL; removed with the job */
	int staging_fd;
	bool import;
	char *ref, *message;
	json_t *config; /* import: the image's "config" after the changes */
	json_t *result; /* what the parsing worker said */
	void *more;     /* of a pull or push */
	void (*more_free)(void *more);
	image_progress_fn progress;
	image_done_fn done;
	void *arg;
};

struct image_job *job_new(struct image_store *s, struct loop *l, image_progress_fn progress, image_done_fn done,
			  void *arg, struct err *err) MUST_CHECK;
void job_free(struct image_job *j);
/* job_show - tell the client {"status", "id" (12 characters), "progressDetail"}. @id, @detail: may be NULL; takes @detail over. */
void job_show(const struct image_job *j, const char *status, const char *id, json_t *detail);
/* job_done - call the job's end callback (@err NULL: success) and free it. */
void job_done(struct image_job *j, const struct err *err, const json_t *result);
/* job_stage - make the job's staging folder. */
int job_stage(struct image_job *j, struct err *err) MUST_CHECK;
/* job_digest - start the process that hashes the files of staged layers (an array of {number}); then @end. */
struct worker_proc *job_digest(struct image_job *j, const json_t *layers, worker_end_fn end, void *arg,
			       struct err *err) MUST_CHECK;
/* job_adopt - the two files of each staged layer become blobs; "erofs", "recipe" and their sizes are set from @files. */
int job_adopt(struct image_job *j, json_t *layers, const json_t *files, struct err *err) MUST_CHECK;

#endif
