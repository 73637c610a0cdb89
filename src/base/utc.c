/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dates without the C library's time zones: gmtime(3) and strftime(3) are a tenth of the static agent in the guest.
 * The Gregorian calendar repeats every 400 years of 146097 days; years are counted from March, so that the leap day is a
 * year's last, and months from March have (153 * month + 2) / 5 days before them.
 */
#include "base/utc.h"

#include <stdio.h>

#define DAY          86400
#define ERA_DAYS     146097 /* 400 years */
#define DAYS_TO_1970 719468 /* from March 1st of the year 0 */

void utc_format(int64_t seconds, char *out, size_t size)
{
	int64_t days = seconds / DAY - (seconds % DAY < 0), rest = seconds - days * DAY;
	int64_t since = days + DAYS_TO_1970, era = since / ERA_DAYS - (since % ERA_DAYS < 0),
		day = since - era * ERA_DAYS;
	int64_t year = (day - day / 1460 + day / 36524 - day / (ERA_DAYS - 1)) / 365, month;

	day -= 365 * year + year / 4 - year / 100;
	month = (5 * day + 2) / 153;
	day -= (153 * month + 2) / 5;
	month += month < 10 ? 3 : -9;
	(void)snprintf(out, size, "%04lld-%02d-%02dT%02d:%02d:%02d", (long long)(era * 400 + year + (month <= 2)),
		       (int)month, (int)day + 1, (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
}
