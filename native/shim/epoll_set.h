/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What an epoll set is made of; for epoll.c (the waiting) and epoll_set.c (the membership) only. Lock order: shim.items,
 * then a set's lock.
 */
#ifndef SHIM_EPOLL_SET_H
#define SHIM_EPOLL_SET_H

#include "epoll.h"
#include "lock.h"
#include "wait.h"

/* Bits that say how to tell, not what. */
#define EPOLL_HOW ((uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP))

/* A socket in a set. ep->lock, except where said. */
struct item {
	struct epoll *ep;
	struct sock *s;
	int fd;
	uint32_t events; /* as the program asked, ERR and HUP in any case; only EPOLL_HOW after EPOLLONESHOT has fired */
	epoll_data_t data;
	struct item *next_of_sock;   /* s->items; shim.items */
	struct item *twin;           /* the same socket under another descriptor; the first of them is in the index */
	struct item *prev, *next;    /* active list */
	struct item *before, *after; /* ep->items */
	bool active;
	bool real;  /* the real epoll set has the descriptor, too */
	bool stack; /* the stack serves it: it has bells and levels */
	/* edges: what was seen when it was last reported */
	bool edge; /* added or modified since */
	uint32_t seen_arrivals, seen_flags, seen_nospace;
};

struct epoll {
	struct lock lock;
	_Atomic uint32_t refs;     /* descriptors, and threads inside */
	int fd;                    /* the real set, as the program first knew it */
	uint32_t queue;            /* event queue, UINT32_MAX = none yet */
	struct item *items;        /* all of them */
	struct item *first, *last; /* active: to be looked at */
	uint32_t active;           /* how many */
	_Atomic uint32_t stack_items;
	_Atomic uint32_t kernel_items; /* descriptors in the real set, at most: closed ones are not seen to leave */
	uint32_t sleepers;             /* threads asleep in it */
	bool crowded_out;              /* kernel descriptors filled the last answer: the stack's come first next time */
	uint64_t kernel_looked;        /* when the real set was last looked at while the stack kept us busy */
	struct spin spin;
	struct item **index[SHIM_LINKS]; /* by link slot and socket number */
	uint64_t index_of[SHIM_LINKS];   /* serial of the link an index is of; a dead one's is worthless */
	struct epoll *next;              /* all there are, or the free ones */
};

/* The set of a descriptor, locked, or NULL if it is none (any more). */
struct epoll *epoll_enter(int fd);

void epoll_item_activate(struct item *item);
void epoll_item_rest(struct item *item);

#endif
