/* SPDX-License-Identifier: Apache-2.0 */
/* The database: SQLite in WAL mode at DATA/walnut.db. A container is a row: id, name, configuration and state as JSON; so is a network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine.h"

static int db_fail(struct engine *e, struct err *err, const char *what)
{
	return err_set(err, EIO, "%s the database: %s", what, e->db ? sqlite3_errmsg(e->db) : "no memory");
}

static void cleanup_stmt(sqlite3_stmt **s)
{
	(void)sqlite3_finalize(*s);
}
#define CLEAN_STMT __attribute__((cleanup(cleanup_stmt)))

static const char schema[] =
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=5000; PRAGMA cache_size=-256;"
	"CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS container(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,"
	" name TEXT UNIQUE NOT NULL, config TEXT NOT NULL, state TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS object(seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,"
	" id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, config TEXT NOT NULL, state TEXT NOT NULL);";

static int db_load_id(struct engine *e, struct err *err)
{
	CLEAN_STMT sqlite3_stmt *get = NULL, *put = NULL;

	if (sqlite3_prepare_v2(e->db, "SELECT value FROM meta WHERE key='id'", -1, &get, NULL) != SQLITE_OK)
		return db_fail(e, err, "read");
	if (sqlite3_step(get) == SQLITE_ROW) {
		(void)snprintf(e->id, sizeof(e->id), "%s", (const char *)sqlite3_column_text(get, 0));
		return 0;
	}
	char hex[65];

	engine_random_id(hex);
	(void)snprintf(e->id, sizeof(e->id), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	if (sqlite3_prepare_v2(e->db, "INSERT INTO meta VALUES('id',?)", -1, &put, NULL) != SQLITE_OK ||
	    sqlite3_bind_text(put, 1, e->id, -1, SQLITE_STATIC) != SQLITE_OK || sqlite3_step(put) != SQLITE_DONE)
		return db_fail(e, err, "write");
	return 0;
}

int db_open(struct engine *e, struct err *err)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/walnut.db", e->config.data_root);
	if (sqlite3_open_v2(path, &e->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK ||
	    sqlite3_exec(e->db, schema, NULL, NULL, NULL) != SQLITE_OK) {
		(void)db_fail(e, err, "open");
		return err_wrap(err, "%s", path);
	}
	return db_load_id(e, err);
}

void db_close(struct engine *e)
{
	(void)sqlite3_close(e->db);
	e->db = NULL;
}

/* A row of container or, with @kind, of object: ?1 id, ?2 name, ?3 config, ?4 state, ?5 kind. */
static int db_put(struct engine *e, const char *sql, const char *kind, const char *id, const char *name, json_t *config,
		  json_t *state, struct err *err)
{
	CLEAN_STMT sqlite3_stmt *s = NULL;
	CLEAN_FREE char *config_text = json_text(config);
	CLEAN_FREE char *state_text = json_dumps(state, JSON_COMPACT | JSON_ENCODE_ANY);

	if (!config_text || !state_text)
		return err_sys(err, ENOMEM, "write the database");
	if (sqlite3_prepare_v2(e->db, sql, -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC) != SQLITE_OK ||
	    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC) != SQLITE_OK ||
	    sqlite3_bind_text(s, 3, config_text, -1, SQLITE_STATIC) != SQLITE_OK ||
	    sqlite3_bind_text(s, 4, state_text, -1, SQLITE_STATIC) != SQLITE_OK ||
	    (kind && sqlite3_bind_text(s, 5, kind, -1, SQLITE_STATIC) != SQLITE_OK) || sqlite3_step(s) != SQLITE_DONE)
		return db_fail(e, err, "write");
	return 0;
}

int db_put_container(struct engine *e, const char *id, const char *name, json_t *config, json_t *state, struct err *err)
{
	return db_put(e,
		      "INSERT INTO container(id,name,config,state) VALUES(?1,?2,?3,?4) ON CONFLICT(id) "
		      "DO UPDATE SET name=?2,config=?3,state=?4",
		      NULL, id, name, config, state, err);
}

int db_put_object(struct engine *e, const char *kind, const char *id, const char *name, json_t *config, json_t *state,
		  struct err *err)
{
	return db_put(e,
		      "INSERT INTO object(id,name,config,state,kind) VALUES(?1,?2,?3,?4,?5) ON CONFLICT(id) "
		      "DO UPDATE SET name=?2,config=?3,state=?4",
		      kind, id, name, config, state, err);
}

static int db_delete(struct engine *e, const char *sql, const char *id, struct err *err)
{
	CLEAN_STMT sqlite3_stmt *s = NULL;

	if (sqlite3_prepare_v2(e->db, sql, -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC) != SQLITE_OK || sqlite3_step(s) != SQLITE_DONE)
		return db_fail(e, err, "write");
	return 0;
}

int db_delete_container(struct engine *e, const char *id, struct err *err)
{
	return db_delete(e, "DELETE FROM container WHERE id=?", id, err);
}

int db_delete_object(struct engine *e, const char *id, struct err *err)
{
	return db_delete(e, "DELETE FROM object WHERE id=?", id, err);
}

/* Each row of @sql: id, name, config, state. @kind: its parameter, or NULL. */
static int db_each(struct engine *e, const char *sql, const char *kind, db_row_fn fn, struct err *err)
{
	CLEAN_STMT sqlite3_stmt *s = NULL;
	int rc;

	if (sqlite3_prepare_v2(e->db, sql, -1, &s, NULL) != SQLITE_OK ||
	    (kind && sqlite3_bind_text(s, 1, kind, -1, SQLITE_STATIC) != SQLITE_OK))
		return db_fail(e, err, "read");
	while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
		const char *config_text = (const char *)sqlite3_column_text(s, 2);
		const char *state_text = (const char *)sqlite3_column_text(s, 3);
		CLEAN_JSON json_t *config =
			json_parse(config_text, strlen(config_text), "configuration in the database", err);
		CLEAN_JSON json_t *state =
			config ? json_parse(state_text, strlen(state_text), "state in the database", err) : NULL;

		if (!config || !state)
			return -err->code;
		rc = fn(e, (const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 1), config,
			state);
		if (rc < 0)
			return err_sys(err, -rc, "read the database");
	}
	return rc == SQLITE_DONE ? 0 : db_fail(e, err, "read");
}

int db_each_container(struct engine *e, db_row_fn fn, struct err *err)
{
	return db_each(e, "SELECT id,name,config,state FROM container ORDER BY seq", NULL, fn, err);
}

int db_each_object(struct engine *e, const char *kind, db_row_fn fn, struct err *err)
{
	return db_each(e, "SELECT id,name,config,state FROM object WHERE kind=? ORDER BY seq", kind, fn, err);
}
