/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's state: configuration, database, image store, containers, execs,
 * events. One thread; every long operation is asynchronous and ends in a callback.
 */
#ifndef WALNUT_ENGINE_ENGINE_H
#define WALNUT_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sqlite3.h>
#include <sys/types.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/loop.h"
#include "image/image.h"

struct engine;
struct engine_container;
struct engine_volume;
struct engine_exec;
struct engine_network;
struct shim_client;
struct events;

enum engine_isolation { ENGINE_ISOLATION_PROCESS, ENGINE_ISOLATION_HYPERV };

struct engine_config {
	char *host;                      /* "unix:///run/walnut/walnut.sock" */
	char *data_root;                 /* "/var/lib/walnut" */
	char *exec_root;                 /* "/run/walnut" */
	char *accelerator;               /* "auto", "kvm", "software" */
	char *log_level;                 /* "info" */
	enum engine_isolation isolation; /* the default */
	struct image_options images;     /* limits and registries; the folders are set by engine_open */
};

struct engine {
	struct loop *loop;
	struct engine_config config;
	sqlite3 *db;
	struct image_store *images;          /* see image/image.h; NULL only in unit tests */
	struct engine_container *containers; /* newest first */
	struct engine_exec *execs;
	struct engine_volume *volumes;   /* newest first; volume.c */
	struct engine_network *networks; /* oldest first */
	struct events *events;
	char id[40]; /* of this installation, kept in the database */
	int64_t started_ns;
	char *self_dir; /* folder of walnutd's executable */
	void *seccomp;  /* cache: compiled default profile */
	size_t seccomp_size;
	char *seccomp_key; /* the capabilities it was compiled for, as JSON text */
};

/* engine_open - open database and images, adopt running containers. Return: 0 with *out. */
int engine_open(struct engine **out, struct loop *l, struct engine_config *config, struct err *err) MUST_CHECK;
/* engine_close - let go of everything; containers go on running. */
void engine_close(struct engine *e);
const char *engine_isolation_name(enum engine_isolation i);
/* engine_counts - containers by state, for /info. */
void engine_counts(const struct engine *e, int *running, int *paused, int *stopped);
/* engine_image_in_use - a container (its id) made from image @image_id, or NULL. *running (may be NULL) tells if it runs. */
const char *engine_image_in_use(const struct engine *e, const char *image_id, bool *running);
/* engine_image_use - an image_use_fn; @arg is the engine. */
enum image_use engine_image_use(void *arg, const char *image_id, char *why, size_t why_size);
/* engine_find_program - path of one of our executables (owned by the caller): beside walnutd, libexec, PATH. NULL: absent. */
char *engine_find_program(const struct engine *e, const char *name);
/* engine_random_id - 64 hexadecimal digits. */
void engine_random_id(char out[65]);

int64_t engine_now_ns(void);
/* engine_time_text - RFC 3339 with nanoseconds, "0001-01-01T00:00:00Z" for 0. @out has room for 40. */
char *engine_time_text(int64_t ns, char *out);
/* engine_parse_time - RFC 3339, or seconds[.nanoseconds]. Return: 0 or -EINVAL. */
int engine_parse_time(const char *text, int64_t *ns);

/* engine_parse_until - as engine_parse_time, or how long ago: "10m", "1h30m". */
int engine_parse_until(const char *text, int64_t *ns);

/*
 * Filters of lists and events, as Docker's clients send them: {"k":{"v":true}} or {"k":["v"]}.
 * filters_parse - Return: normalised {"k":["v"...]} (new reference); NULL with err EINVAL. @text NULL: {}.
 */
json_t *filters_parse(const char *text, struct err *err) MUST_CHECK;
/* filters_known - refuse keys not in @keys (NULL-ended) as Docker: "invalid filter 'x'". */
int filters_known(const json_t *filters, const char *const *keys, struct err *err) MUST_CHECK;
/* filters_match - true when key is absent or one of its values is equal to @value. */
bool filters_match(const json_t *filters, const char *key, const char *value);
/* filters_match_labels - every "KEY" or "KEY=VALUE" of "label" is in the object @labels. */
bool filters_match_labels(const json_t *filters, const json_t *labels);

/* Events (events.c). @attributes stolen, strings; type "container", "image", ... */
void events_emit(struct engine *e, const char *type, const char *action, const char *actor_id, json_t *attributes);
typedef void (*events_fn)(const json_t *event, void *arg);
struct events_subscriber;
/* events_replay - call @fn for remembered events in [since_ns, until_ns] (until 0: no end) that match @filters. */
void events_replay(struct engine *e, int64_t since_ns, int64_t until_ns, const json_t *filters, events_fn fn,
		   void *arg);
/* events_subscribe - call @fn for each coming event that matches (filters: new reference kept). NULL without memory. */
struct events_subscriber *events_subscribe(struct engine *e, json_t *filters, events_fn fn, void *arg);
void events_unsubscribe(struct events_subscriber *s);
struct events *events_new(void);
void events_free(struct events *ev);

/* db.c: containers' rows. */
int db_open(struct engine *e, struct err *err) MUST_CHECK;
void db_close(struct engine *e);
int db_put_container(struct engine *e, const char *id, const char *name, json_t *config, json_t *state,
		     struct err *err) MUST_CHECK;
int db_delete_container(struct engine *e, const char *id, struct err *err) MUST_CHECK;
typedef int (*db_row_fn)(struct engine *e, const char *id, const char *name, json_t *config, json_t *state);
/* db_each_container - @fn for each row, oldest first. */
int db_each_container(struct engine *e, db_row_fn fn, struct err *err) MUST_CHECK;
/* The same for what is not a container; @kind: "network", "volume". */
int db_put_object(struct engine *e, const char *kind, const char *id, const char *name, json_t *config, json_t *state,
		  struct err *err) MUST_CHECK;
int db_delete_object(struct engine *e, const char *id, struct err *err) MUST_CHECK;
int db_each_object(struct engine *e, const char *kind, db_row_fn fn, struct err *err) MUST_CHECK;

#endif
