/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a monitor tells of itself: one page of shared memory, written by walnut-vmm run, read by its shim.
 * The reader believes nothing: every value is a number to show. Fields are only ever written whole.
 */
#ifndef WALNUT_VMM_STATUS_H
#define WALNUT_VMM_STATUS_H

#include <stdint.h>

#define STATUS_EXITS 64
#define STATUS_BYTES 4096

enum status_state { STATUS_STARTING, STATUS_RUNNING, STATUS_PAUSED, STATUS_ENDED };

struct vmm_status {
	uint32_t state; /* enum status_state */
	uint32_t vcpus;
	uint64_t memory_bytes;
	uint64_t start_cpu_ns;        /* processor time of the monitor before the guest's first instruction */
	uint64_t returned_bytes;      /* of memory that the guest gave back (balloon), so far */
	uint64_t kvm_exits;           /* out of the guest, whoever handled them; 0: this kernel does not say */
	uint64_t hello_kvm_exits;     /* the same until the guest's first connection; 0: not yet */
	uint64_t hello_exits;         /* those of them that this process handled */
	uint64_t exits[STATUS_EXITS]; /* handled by this process, by KVM's exit reason */
	uint32_t end;                 /* enum guest_end */
	char end_text[512];           /* one sentence; the reader ends it itself */
};

_Static_assert(sizeof(struct vmm_status) <= STATUS_BYTES, "one page");

#endif
