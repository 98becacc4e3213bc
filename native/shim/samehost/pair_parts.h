/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What the files of a pair share; everybody else sees pair.h. */
#ifndef SHIM_PAIR_PARTS_H
#define SHIM_PAIR_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/attachment.h"
#include "samehost/pair.h"
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
	int memory_fd; /* it, for the image after an exec; 0 or -1 = none */
	uint32_t side;
	uint32_t member;               /* our place on our side; PAIR_NOBODY: none */
	bool inherited;                /* a parent made it: its numbers are for the parent to give out */
	struct attachment *opposite;   /* the other side, if that is us as well */
	struct attachment *introducer; /* the worker's attachment */
	/* Side 1: who connects, by the introducer's word. What he writes himself is measured by it. */
	uint32_t uid;
	uint64_t netns;                          /* 0: he has shown none */
	_Atomic uint32_t queue[GZ_EVENT_QUEUES]; /* our event queue k is this one of our side, + 1; 0: none yet */
	_Atomic bool crowded;                    /* one of ours found none free */
	int queue_fd[GZ_PAIR_QUEUES];            /* what wakes the other side's queues; 0 or -1 = not told yet */
	/* Member sockets, by the place of the member they lead to; shim.lock and the attachment's post to change. 0 or -1 = none. */
	int member_fd[GZ_PAIR_MEMBERS];
	uint32_t member_life[GZ_PAIR_MEMBERS];
	_Atomic uint32_t members;
	bool changed;         /* somebody has died: sockets are to look at their levels */
	uint32_t members_end; /* places beyond have none */
	/* Between before and after a fork: the child's place and its member sockets. */
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

/* When a connection was made, for who defers it. */
static inline uint32_t pair_clock_ms(void)
{
	return (uint32_t)(now_ns() / 1000000u);
}

/* pair.c */

/* A member of a side holds its end of n from now on, or no longer: the last one closes it, by FIN or by reset. */
void pair_hold(struct attachment *a, uint32_t side, uint32_t n, uint32_t member);
void pair_release(struct attachment *a, uint32_t side, uint32_t n, uint32_t member);

/* Side 0's number n is likely free again, or will be soon: to be looked at first. */
void pair_recall(struct attachment *a, uint32_t n);

/* The number of an event queue of ours on this pair, taken if need be; GZ_PAIR_QUEUES: all are in use. */
uint32_t pair_queue(struct attachment *a, uint32_t queue);

/* Wakes nobody: this queue wants to hear of number n, or no longer. */
void pair_interest(struct attachment *a, uint32_t n, uint32_t queue, bool on);

/* member.c */

/* peer_ops (core/attachment.h). */
void pair_check(struct attachment *a);
uint32_t pair_poll(struct attachment *a, struct pollfd *fds, uint32_t room);
bool pair_hears(struct attachment *a, uint32_t queue);
void pair_announce(struct attachment *a, uint32_t queue, int fd);
void pair_lost(struct attachment *a);

/* a socket to a member of the other side; takes fd. a->post held, or the attachment is not public yet. */
void member_add(struct attachment *a, uint32_t member, uint32_t life, int fd);

/* Reads what is said on the member sockets. False: nothing was. a->post held. */
bool member_receive(struct attachment *a);

/* accept.c */

/* Side 0: pushes n to the other side's accept ring. False: it is full. shim.lock held. */
bool accept_push(struct attachment *a, uint32_t n);

/* Side 0: how many wait to be accepted there, established. */
uint32_t accept_count(struct attachment *a, const struct gz_name *like);

/* Takes n out of the ring again, unless somebody was faster. */
bool accept_take_back(struct attachment *a, uint32_t n);

/* True if nobody waits in our ring. */
bool accept_is_empty(const struct attachment *a);

/* A pair is new: our listeners want to hear of what it brings. */
void accept_begin(struct attachment *a);

/* In the child of a fork: these queues remain. */
void accept_after_fork(uint64_t queues);

#endif
