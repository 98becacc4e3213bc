/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What of a pair another process is told: the program after an exec, or one that a socket is passed to. */
#ifndef SHIM_SAMEHOST_SNAPSHOT_H
#define SHIM_SAMEHOST_SNAPSHOT_H

#include "samehost/pair_memory.h"

/* The process that gets it is a child to the other members, see pair_before_fork. */
struct pair_snapshot {
	int32_t memory_fd;
	uint32_t side, member;
	uint32_t members; /* of socket[] */
	uint32_t uid;     /* these two as in struct pair */
	uint64_t netns;
	struct {
		int32_t fd;
		uint32_t member, life;
	} socket[GZ_PAIR_MEMBERS];
	uint64_t keep[GZ_PAIR_SOCKS / 64]; /* bit n: an inherited descriptor stands for it; the caller's to set */
};

#endif
