/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors are values: a function that can fail returns 0 (or a count, or a
 * descriptor) or -errno, and fills a struct err that the caller owns. No
 * allocation, so errors work without memory, after fork and inside the guest.
 *
 * The source of an error writes one sentence for the user (what failed, on
 * what, why); each layer above may put one "what I was doing: " before it.
 */
#ifndef WALNUT_BASE_ERR_H
#define WALNUT_BASE_ERR_H

#include <stdarg.h>

#define ERR_MSG_SIZE 512

struct err {
	int code; /* a positive errno; 0: no error */
	char msg[ERR_MSG_SIZE];
};

#define ERR_INIT   ((struct err){ 0 })
#define MUST_CHECK __attribute__((warn_unused_result))

/**
 * err_set - record an error and its sentence
 * @err: the error to fill; may be NULL
 * @code: positive errno value
 *
 * Return: -@code, so that "return err_set(...)" reads well.
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_sys - as err_set, followed by ": " and strerror(code). @code is a positive errno. */
int err_sys(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_wrap - put "prefix: " before the sentence of an error that is set. Return: -err->code. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* bug_on - a programming error: report it and abort, in release builds too. */
#define bug_on(cond)                                        \
	do {                                                \
		if (__builtin_expect(!!(cond), 0))          \
			err_bug(__FILE__, __LINE__, #cond); \
	} while (0)

_Noreturn void err_bug(const char *file, int line, const char *what);

#ifdef __clang_analyzer__
/* The analyser does not look into err.c: tell it that these never give 0. */
#define err_set(...)  ((void)err_set(__VA_ARGS__), -1)
#define err_sys(...)  ((void)err_sys(__VA_ARGS__), -1)
#define err_wrap(...) ((void)err_wrap(__VA_ARGS__), -1)
#endif

#endif
