/* SPDX-License-Identifier: Apache-2.0 */
/* walnut-vmm: one executable, one role a process. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "vmm/devices.h"
#include "vmm/run.h"

int main(int argc, char **argv)
{
	(void)prctl(PR_SET_NAME, "walnut-vmm"); /* started by descriptor, it has the descriptor's number for a name */
	if (argc >= 2 && strcmp(argv[1], "devices") == 0)
		return devices_main(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "run") == 0)
		return run_main(argc - 1, argv + 1);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("walnut-vmm " WALNUT_VERSION);
		return 0;
	}
	(void)fputs("usage: walnut-vmm devices|run ... (started by walnut-shim)\n", stderr);
	return 125;
}
