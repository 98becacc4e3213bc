/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What this process knows of a pair: the memory that two programs share, its own place in it, and its sockets to the members of the
 * other side. The head of samehost/ (README.md) says what sides and members are.
 */
#ifndef SHIM_SAMEHOST_PAIR_MEMORY_H
#define SHIM_SAMEHOST_PAIR_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include <gazelle/same_host.h>

#include "core/attachment.h"
#include "core/shim.h"

#define PAIR_NOBODY GZ_PAIR_MEMBERS
#define PAIR_SERVED 8u

/* Where the other program listens, and the line of a worker's page that says so: while it stands, no worker is asked. */
struct served {
	uint8_t addr[16];
	uint16_t port;
	uint32_t worker, line, port_owner, program;
	uint64_t netns;
	uint64_t at; /* serial of the attachment to that worker: programs are its own count */
};

/* What only pairs have; struct attachment is common to both. */
struct pair {
	struct gz_pair *shared;
	dev_t dev; /* of that memory */
	ino_t inode;
	uint32_t side;
	uint32_t member;               /* our number on our side; PAIR_NOBODY: none */
	bool inherited;                /* a parent made it: its numbers are for the parent to give out */
	struct attachment *opposite;   /* the other side, if this process is on both; NULL: it is not */
	struct attachment *introducer; /* the worker that introduced the two programs */
	/* Side 1: the user and the network namespace of the program that connects, as the introducer says. */
	uint32_t uid;
	uint64_t netns;                          /* 0: it has shown none */
	_Atomic uint32_t queue[GZ_EVENT_QUEUES]; /* our event queue k is this one of our side, + 1; 0: none yet */
	_Atomic bool crowded;                    /* one of ours has found none free */
	int queue_fd[GZ_PAIR_QUEUES];            /* what wakes the other side's queues; 0 or -1 = not told yet */
	/* The control socket to each member of the other side, by its number; shim.lock and the attachment's post to change. 0 or -1 = none. */
	int member_fd[GZ_PAIR_MEMBERS];
	uint32_t member_life[GZ_PAIR_MEMBERS];
	_Atomic uint32_t members;
	bool changed;         /* a member has died: sockets are to look at their levels */
	uint32_t members_end; /* members beyond have none */
	/* Between before and after a fork: the child's number and its member sockets. */
	uint32_t child;
	int child_fd[GZ_PAIR_MEMBERS];
	/* Side 0's. */
	uint32_t program; /* the one it leads to, as the introducer counts them at `at` */
	uint64_t at;
	struct served served[PAIR_SERVED];
	uint32_t served_next;
	uint32_t recent[64], recents; /* numbers closed lately: warm, and likely free again; the attachment's post */
	uint32_t next_number;
};

#define PAIR_EACH(a, i)                                                  \
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.attachments_end; i++) \
		for (struct attachment *a = gz_load_acquire(&shim.attachments[i]); a; a = NULL)

static inline struct gz_pair_sock *pair_sock(const struct attachment *a, uint32_t n)
{
	return &a->pair->shared->sock[n % GZ_PAIR_SOCKS];
}

static inline struct gz_pair_side *pair_our_side(const struct attachment *a)
{
	return &a->pair->shared->side[a->pair->side];
}

static inline struct gz_pair_side *pair_other_side(const struct attachment *a)
{
	return &a->pair->shared->side[!a->pair->side];
}

static inline void pair_show_pid(const struct attachment *a)
{
	gz_store(&pair_our_side(a)->pid[a->pair->member], (uint32_t)getpid());
}

/* The clock of TCP_DEFER_ACCEPT. */
static inline uint32_t pair_clock_ms(void)
{
	return (uint32_t)(now_ns() / 1000000u);
}

#endif
