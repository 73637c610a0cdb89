/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of an image's config by lines of a Dockerfile, as "docker import
 * --change" and "docker commit --change" take them (the Dockerfile reference).
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/image.h"

/* next_word - a word of @p with quotes and backslashes taken away. Return: 1, 0 at the end, -EINVAL (open quote). */
static int next_word(const char **p, struct buf *word)
{
	char quote = 0;

	buf_consume(word, word->len);
	while (isspace((unsigned char)**p))
		(*p)++;
	if (!**p)
		return 0;
	for (; **p && (quote || !isspace((unsigned char)**p)); (*p)++) {
		char c = **p;

		if (quote && c == quote) {
			quote = 0;
			continue;
		}
		if (!quote && (c == '"' || c == '\'')) {
			quote = c;
			continue;
		}
		if (c == '\\' && quote != '\'' && (*p)[1])
			c = *++*p;
		if (buf_append(word, &c, 1) < 0)
			return -ENOMEM;
	}
	return quote ? -EINVAL : 1;
}

/* exec_form - the JSON array of strings that @args is, or NULL. */
static json_t *exec_form(const char *args)
{
	json_t *v = *args == '[' ? json_loads(args, 0, NULL) : NULL, *item;
	size_t i;

	json_array_foreach(v, i, item)
		if (!json_is_string(item)) {
			json_decref(v);
			return NULL;
		}
	return v;
}

static json_t *command(const char *args)
{
	json_t *v = exec_form(args);

	return v ? v : json_pack("[s,s,s]", "/bin/sh", "-c", args);
}

static json_t *member(json_t *config, const char *key, json_t *empty)
{
	json_t *v = json_object_get(config, key);

	if (v && json_typeof(v) == json_typeof(empty)) {
		json_decref(empty);
		return v;
	}
	json_object_set_new(config, key, empty);
	return empty;
}

static void set_env(json_t *list, const char *name, size_t n, const char *text)
{
	json_t *v;
	size_t i;

	json_array_foreach(list, i, v) {
		const char *old = json_is_string(v) ? json_string_value(v) : "";

		if (!strncmp(old, name, n) && old[n] == '=') {
			json_array_set_new(list, i, json_string(text));
			return;
		}
	}
	json_array_append_new(list, json_string(text));
}

/* pairs - "A=1 B=2", or for ENV and LABEL the old "A 1 and the rest". */
static int pairs(json_t *to, bool env, const char *word, const char *args, struct err *err)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	const char *p = args;
	int rc, n = 0;

	for (; (rc = next_word(&p, &b)) > 0; n++) {
		char *text = buf_bytes(&b), *eq = strchr(text, '=');

		if (!eq && n == 0 && *p) {
			while (isspace((unsigned char)*p))
				p++;
			CLEAN_FREE char *joined = NULL;

			if (asprintf(&joined, "%s=%s", text, p) < 0)
				return err_set(err, ENOMEM, "no memory for a change");
			if (env)
				set_env(to, joined, strlen(text), joined);
			else
				json_object_set_new(to, text, json_string(p));
			return 0;
		}
		if (!eq || eq == text)
			return err_set(err, EINVAL,
				       "Syntax error - can't find = in \"%.200s\". Must be of the form: name=value",
				       text);
		if (env) {
			set_env(to, text, (size_t)(eq - text), text);
		} else {
			*eq = 0;
			json_object_set_new(to, text, json_string(eq + 1));
		}
	}
	if (rc < 0 || n == 0)
		return err_set(err, EINVAL,
			       rc < 0 ? "%s: a quotation mark is not closed" : "%s requires at least one argument",
			       word);
	return 0;
}

static int add_port(json_t *ports, const char *text, struct err *err)
{
	char proto[8] = "tcp", name[40];
	unsigned first = 0, last;
	char dash = 0;
	int n = sscanf(text, "%5u%c%5u", &first, &dash, &last);
	const char *slash = strchr(text, '/');

	if (slash)
		(void)snprintf(proto, sizeof(proto), "%.7s", slash + 1);
	for (char *c = proto; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	if (n != 3 || dash != '-')
		last = first;
	if (n < 1 || (n > 1 && dash != '-' && dash != '/') || last < first || last > 65535 || first == 0 ||
	    (strcmp(proto, "tcp") && strcmp(proto, "udp") && strcmp(proto, "sctp")))
		return err_set(err, EINVAL, "invalid containerPort: %.100s", text);
	for (; first <= last; first++) {
		(void)snprintf(name, sizeof(name), "%u/%s", first, proto);
		json_object_set_new(ports, name, json_object());
	}
	return 0;
}

/* words - EXPOSE's and VOLUME's arguments become keys of an object. */
static int words(json_t *to, bool ports, const char *word, const char *args, struct err *err)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	CLEAN_JSON json_t *list = ports ? NULL : exec_form(args);
	json_t *v;
	size_t i;
	int rc, n = 0;

	json_array_foreach(list, i, v)
		json_object_set_new(to, json_string_value(v), json_object());
	if (list)
		return 0;
	for (; (rc = next_word(&args, &b)) > 0; n++) {
		if (ports && add_port(to, buf_bytes(&b), err) < 0)
			return -EINVAL;
		if (!ports)
			json_object_set_new(to, buf_bytes(&b), json_object());
	}
	return rc < 0 || n == 0 ? err_set(err, EINVAL, "%s requires at least one argument", word) : 0;
}

/* workdir - relative ones are below the one before. */
static int workdir(json_t *config, const char *args, struct err *err)
{
	const char *old = json_str(config, "WorkingDir", "");
	CLEAN_FREE char *path = NULL;

	if (asprintf(&path, "%s%s%s",
		     *args == '/' ? ""
		     : *old       ? old
				  : "/",
		     *args != '/' && *old && old[strlen(old) - 1] != '/' ? "/" : "", args) < 0)
		return err_set(err, ENOMEM, "no memory for a change");
	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = 0;
	json_object_set_new(config, "WorkingDir", json_string(path));
	return 0;
}

/* duration - Go's "1m30s" in nanoseconds; false when it is none. */
static bool duration(const char *text, int64_t *out)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = { { "ms", 1e6 }, { "us", 1e3 }, { "ns", 1 }, { "h", 3600e9 }, { "m", 60e9 }, { "s", 1e9 } };
	double total = 0;

	while (*text) {
		char *end;
		double v = strtod(text, &end);
		size_t u = 0;

		if (end == text || v < 0)
			return false;
		while (u < ARRAY_LEN(units) && strncmp(end, units[u].unit, strlen(units[u].unit)) != 0)
			u++;
		if (u == ARRAY_LEN(units))
			return false;
		total += v * units[u].ns;
		text = end + strlen(units[u].unit);
	}
	*out = (int64_t)total;
	return total < 9e18;
}

static int healthcheck(json_t *config, const char *args, struct err *err)
{
	static const char *const flags[][2] = { { "--interval=", "Interval" },
						{ "--timeout=", "Timeout" },
						{ "--start-period=", "StartPeriod" },
						{ "--start-interval=", "StartInterval" },
						{ "--retries=", "Retries" } };
	CLEAN_JSON json_t *check = json_object();
	CLEAN_BUF struct buf b = BUF_INIT;

	while (!strncmp(args, "--", 2) && next_word(&args, &b) > 0) {
		const char *flag = buf_bytes(&b);
		int64_t v = 0;
		size_t i = 0;

		while (i < ARRAY_LEN(flags) && strncmp(flag, flags[i][0], strlen(flags[i][0])) != 0)
			i++;
		const char *value = i < ARRAY_LEN(flags) ? flag + strlen(flags[i][0]) : "";

		if (i == ARRAY_LEN(flags) || (i < 4 && !duration(value, &v)))
			return err_set(err, EINVAL, "HEALTHCHECK: bad flag %.100s", flag);
		json_object_set_new(check, flags[i][1], json_integer(i < 4 ? v : atoll(value)));
		while (isspace((unsigned char)*args))
			args++;
	}
	if (!strcasecmp(args, "none")) {
		json_object_set_new(check, "Test", json_pack("[s]", "NONE"));
	} else if (!strncasecmp(args, "cmd", 3) && isspace((unsigned char)args[3])) {
		for (args += 3; isspace((unsigned char)*args);)
			args++;
		json_t *list = exec_form(args);

		if (list)
			json_array_insert_new(list, 0, json_string("CMD"));
		json_object_set_new(check, "Test", list ? list : json_pack("[s,s]", "CMD-SHELL", args));
	} else {
		return err_set(err, EINVAL, "Unknown type \"%.50s\" in HEALTHCHECK (try CMD)", args);
	}
	json_object_set(config, "Healthcheck", check);
	return 0;
}

int image_config_change(json_t *config, const char *line, struct err *err)
{
	char word[32] = "";
	size_t n = 0;

	while (isspace((unsigned char)*line))
		line++;
	for (; line[n] && !isspace((unsigned char)line[n]) && n < sizeof(word) - 1; n++)
		word[n] = (char)toupper((unsigned char)line[n]);
	CLEAN_FREE char *copy = strdup(line + n);
	char *args = copy;

	if (!copy)
		return err_set(err, ENOMEM, "no memory for a change");
	while (isspace((unsigned char)*args))
		args++;
	for (size_t len = strlen(args); len && isspace((unsigned char)args[len - 1]); len--)
		args[len - 1] = 0;
	if (!strcmp(word, "CMD") || !strcmp(word, "ENTRYPOINT"))
		return json_object_set_new(config, word[0] == 'C' ? "Cmd" : "Entrypoint",
					   *args ? command(args) : json_array()) < 0
			       ? err_set(err, ENOMEM, "no memory for a change")
			       : 0;
	if (!strcmp(word, "HEALTHCHECK"))
		return healthcheck(config, args, err);
	if (!*args && *word)
		return err_set(err, EINVAL, "%s requires at least one argument", word);
	if (!strcmp(word, "ENV"))
		return pairs(member(config, "Env", json_array()), true, word, args, err);
	if (!strcmp(word, "LABEL"))
		return pairs(member(config, "Labels", json_object()), false, word, args, err);
	if (!strcmp(word, "EXPOSE"))
		return words(member(config, "ExposedPorts", json_object()), true, word, args, err);
	if (!strcmp(word, "VOLUME"))
		return words(member(config, "Volumes", json_object()), false, word, args, err);
	if (!strcmp(word, "WORKDIR"))
		return workdir(config, args, err);
	if (!strcmp(word, "USER"))
		return json_object_set_new(config, "User", json_string(args));
	if (!strcmp(word, "STOPSIGNAL"))
		return json_object_set_new(config, "StopSignal", json_string(args));
	if (!strcmp(word, "ONBUILD")) {
		json_array_append_new(member(config, "OnBuild", json_array()), json_string(args));
		return 0;
	}
	return err_set(err, EINVAL, "%s is not a valid change command", *word ? word : "an empty line");
}
