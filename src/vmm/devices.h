/* SPDX-License-Identifier: Apache-2.0 */
/* The role `devices` of walnut-vmm. */
#ifndef WALNUT_VMM_DEVICES_H
#define WALNUT_VMM_DEVICES_H

/* devices_main - argv: devices --uid=U --gid=G --control=FD --vsock=FD [--layers=FD --layer=FD...] [--scratch=FD --scratch-file=FD] */
int devices_main(int argc, char **argv);

#endif
