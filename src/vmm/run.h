/* SPDX-License-Identifier: Apache-2.0 */
/* The role `run` of walnut-vmm: the monitor of one machine on KVM. */
#ifndef WALNUT_VMM_RUN_H
#define WALNUT_VMM_RUN_H

/*
 * run_main - argv: run --uid=U --gid=G --vcpus=N --memory=BYTES --cmdline=TEXT and, by descriptor, --kvm --kernel --initrd
 * --control --console --status [--layer...] [--scratch-file]
 */
int run_main(int argc, char **argv);

#endif
