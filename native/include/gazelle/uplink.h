/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Beside the kernel: what the tc programs (native/bpf), the workers and the supervisor share. It is compiled for BPF as well,
 * so it includes nothing but the kernel's types.
 */
#ifndef GAZELLE_UPLINK_H
#define GAZELLE_UPLINK_H

#include <linux/types.h>

#define GZ_UPLINK_WORKERS 64u         /* workers of an instance with an uplink at most: a bit each in an owner's word */
#define GZ_UPLINK_PORTS (2u * 65536u) /* TCP's, then UDP's */
#define GZ_UPLINK_ADDRESSES 64u       /* of the interface that the stack takes */

/*
 * The hardware address of whom a worker sends to: the kernel knows where that is. A frame with another one is what the worker
 * was given and has no socket for: it goes back to the kernel.
 */
#define GZ_UPLINK_NOBODY         \
	{                        \
		2, 0, 0, 0, 0, 0 \
	}

/* IPv4 as ::ffff:a.b.c.d, in network order. */
struct gz_uplink_address {
	__be32 word[4];
};

/*
 * Map gz_state, one entry. Map gz_owners has a word for each port: bit q is set while worker q has a socket there; worker q
 * alone changes it, by an atomic or and an atomic and; its successor clears what it has left set.
 */
struct gz_uplink_state {
	__u64 kernel_flows; /* 1: the kernel may have connections on ports of the stack: each packet is looked up */
	__u64 taken;        /* packets that went to the stack */
	__u64 kept;         /* packets of the kernel's own connections on ports of the stack */
	__u64 fallen_back;  /* SYNs that the kernel got because no worker lived */
	__u64 returned;     /* packets for ports of the stack that no socket of it was for, and the kernel got */
	__u64 silenced;     /* packets of the stack's connections that were dropped because no worker lived */
};

#endif
