/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WALNUT_BASE_UTC_H
#define WALNUT_BASE_UTC_H

#include <stddef.h>
#include <stdint.h>

#define UTC_SIZE 32 /* of any time in 64 bits of seconds, with its end */

/* utc_format - Write seconds since 1970 as "2006-01-02T15:04:05", a UTC time by ISO 8601, without a zone. */
void utc_format(int64_t seconds, char *out, size_t size);

#endif
