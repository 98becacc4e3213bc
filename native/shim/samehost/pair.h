/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A connection between two programs of this host: bells, and the members that hold its ends. */
#ifndef SHIM_SAMEHOST_PAIR_H
#define SHIM_SAMEHOST_PAIR_H

#include "samehost/pair_memory.h"

/* Entry n as stream.c wants it, and the two ends: ours and the other side's. */
struct gz_sock *pair_entry(struct attachment *a, uint32_t n, struct gz_end **me, struct gz_end **peer);

/* Of struct peer_ops. */
struct gz_bell *pair_bell(struct attachment *a, uint32_t queue);
void pair_interest(struct attachment *a, uint32_t n, uint32_t queue, bool on);
uint64_t pair_interested(struct attachment *a, uint32_t n);

/* Number n changed: rings the event queues of the other side that want to hear of it. 0: a connection waits to be accepted. */
void pair_ring(struct attachment *a, uint32_t n);

/* A member of a side holds its end of n from now on, or no longer: the last one closes it, by FIN or by reset. */
void pair_hold(struct attachment *a, uint32_t side, uint32_t n, uint32_t member);
void pair_release(struct attachment *a, uint32_t side, uint32_t n, uint32_t member);

/* Side 0's number n is likely free again, or will be soon: it is tried first. */
void pair_recall(struct attachment *a, uint32_t n);

/* The other end takes no more bytes, and has not taken all there are: it is closed, or shut down both ways. */
bool pair_nobody_reads(const struct sock *s);

#endif
