/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile program in a guest: for some seconds it connects to the host's ports of the agent and of stdio streams as
 * fast as it can, keeps what it gets, fills it with garbage and never reads. Prints how many connections there were.
 *
 * usage: vsock_flood SECONDS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KEPT 4096

int main(int argc, char **argv)
{
	static int kept[KEPT];
	static char garbage[65536];
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	unsigned long tried = 0, made = 0, held = 0, other = 0;
	struct rlimit files = { 65536, 65536 };

	setvbuf(stdout, NULL, _IONBF, 0);
	(void)setrlimit(RLIMIT_NOFILE, &files);
	memset(garbage, 0xff, sizeof(garbage));
	for (unsigned int n = 0; time(NULL) < end; n++) {
		struct sockaddr_vm to = { .svm_family = AF_VSOCK, .svm_cid = 2, .svm_port = 1024 + n % 512 };
		int s = socket(AF_VSOCK, SOCK_STREAM, 0);

		if (s < 0)
			break;
		if (n % 64 == 63)
			to.svm_port = n * 2654435761U; /* any port at all */
		if (n % 16 == 15)
			(void)fcntl(s, F_SETFL, O_NONBLOCK); /* a connection that is given up at once */
		tried++;
		if (connect(s, (struct sockaddr *)&to, sizeof(to)) < 0) {
			other += errno != ECONNRESET && errno != EINPROGRESS;
			close(s);
			continue;
		}
		made++;
		(void)fcntl(s, F_SETFL, O_NONBLOCK);
		while (send(s, garbage, sizeof(garbage), MSG_NOSIGNAL) > 0)
			;
		if (held < KEPT)
			kept[held++] = s;
		else
			close(s);
	}
	printf("tried %lu connected %lu other %lu\n", tried, made, other);
	for (unsigned long i = 0; i < held; i++)
		close(kept[i]);
	return 0;
}
