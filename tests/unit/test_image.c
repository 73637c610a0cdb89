/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "image/image.h"

static void familiar(const char *in, const char *want)
{
	struct image_ref r;
	struct err err = ERR_INIT;
	char out[600];

	assert_int_equal(image_ref_parse(in, true, &r, &err), 0);
	image_ref_familiar(&r, out, sizeof(out));
	assert_string_equal(out, want);
}

static void test_familiar(void **state)
{
	familiar("debian", "debian:latest");
	familiar("docker.io/library/debian:12", "debian:12");
	familiar("me/app", "me/app:latest");
	familiar("localhost:5000/app:1", "localhost:5000/app:1");
}

static void test_refused(void **state)
{
	static const char *const bad[] = { "", "Debian", "a:", "a:b:c", "a//b", "a@sha256:12", "-a" };
	struct image_ref r;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(image_ref_parse(bad[i], true, &r, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_familiar), cmocka_unit_test(test_refused) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
