/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-init: the program behind "docker run --init". PID 1 of a container: starts
 * the real command, passes signals on to it, reaps every orphan, and ends with the
 * command's exit code (128 + N when signal N killed it). Links statically against
 * musl, because it runs in front of images of every kind, and needs nothing else.
 *
 * usage: walnut-init [-s] [-g] [--] COMMAND [ARG...]	(-s and -g are accepted for tini's sake)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *command, const char *what)
{
	(void)!write(2, "walnut-init: ", 13);
	(void)!write(2, command, strlen(command));
	(void)!write(2, ": ", 2);
	(void)!write(2, what, strlen(what));
	(void)!write(2, "\n", 1);
}

/* In the child: a process group of its own in the terminal's foreground, then the command. */
static _Noreturn void run(char **argv, const sigset_t *inherited)
{
	int saved;

	(void)setpgid(0, 0);
	(void)tcsetpgrp(0, getpgrp()); /* no terminal: fails, as it should; SIGTTOU is blocked */
	(void)sigprocmask(SIG_SETMASK, inherited, NULL);
	(void)execvp(argv[0], argv);
	saved = errno;
	say(argv[0], strerror(saved));
	_exit(saved == ENOENT ? 127 : 126);
}

/* Reaps what there is. Return: the command's exit code, or -1 while it runs. */
static int reap(pid_t command)
{
	int status, code = -1;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == command)
			code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return code;
}

int main(int argc __attribute__((unused)), char **argv)
{
	sigset_t all, inherited;
	siginfo_t info;
	pid_t command;
	int code;

	argv++;
	while (*argv && ((*argv)[0] == '-')) {
		int last = !strcmp(*argv, "--");

		argv++;
		if (last)
			break;
	}
	if (!*argv) {
		say("usage", "walnut-init [--] COMMAND [ARG...]");
		return 125;
	}
	if (getpid() != 1)
		(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGSEGV);
	(void)sigdelset(&all, SIGBUS);
	(void)sigdelset(&all, SIGILL);
	(void)sigdelset(&all, SIGFPE);
	(void)sigdelset(&all, SIGTRAP);
	(void)sigdelset(&all, SIGABRT);
	(void)sigprocmask(SIG_SETMASK, &all, &inherited);
	command = fork();
	if (command < 0) {
		say("fork", strerror(errno));
		return 125;
	}
	if (!command)
		run(argv, &inherited);
	for (;;) {
		int sig = sigwaitinfo(&all, &info);

		if (sig < 0)
			continue;
		if (sig == SIGCHLD) {
			code = reap(command);
			if (code >= 0)
				return code;
		} else if (sig != SIGTTIN && sig != SIGTTOU && sig != SIGTSTP) {
			(void)kill(command, sig);
		}
	}
}
