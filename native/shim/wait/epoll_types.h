/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What an epoll set is made of; for the epoll files only. Lock order: shim.items, then a set's lock. */
#ifndef SHIM_EPOLL_TYPES_H
#define SHIM_EPOLL_TYPES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "core/attachment.h"
#include "core/lock.h"
#include "wait/wait.h"

/* Bits that say how to tell, not what. */
#define EPOLL_HOW ((uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP))

/* A socket in a set, or a set in a set. ep->lock, except where said. */
struct item {
	struct epoll *ep;
	struct sock *s;      /* NULL: */
	struct epoll *inner; /* a set */
	int fd;
	uint32_t events; /* as the program asked, ERR and HUP in any case; only EPOLL_HOW after EPOLLONESHOT has fired */
	epoll_data_t data;
	struct item *next_of_owner;  /* s->items or inner->within; shim.items */
	struct item *same_sock;      /* the same socket under another descriptor; the first of them is in the index */
	struct item *prev, *next;    /* active list */
	struct item *before, *after; /* ep->items */
	struct item *other, **other_from; /* ep->others; the latter NULL = not in it */
	bool active;
	bool real;  /* the real epoll set has the descriptor, too */
	bool stack; /* the stack serves it: it has bells and levels */
	/* edges: what was seen when it was last reported */
	bool edge; /* added or modified since */
	uint32_t seen_received, seen_flags, seen_nospace;
	uint32_t stamp; /* since when it is ready, when a bell made it active */
	uint32_t heard; /* inner->changes when it was last looked at */
};

struct epoll {
	struct lock lock;
	_Atomic uint32_t refs;     /* descriptors, and threads inside */
	int fd;                    /* the real set, as the program first knew it */
	uint32_t queue;            /* event queue, UINT32_MAX = none yet */
	struct item *items;        /* all of them */
	struct item *others;       /* the few of them that are more than a stream */
	struct item *first, *last; /* active: to be looked at */
	uint32_t active;           /* how many */
	uint32_t changes; /* counts items that became active by a change: an edge for the sets this one is in */
	_Atomic uint32_t stack_items;  /* and sets */
	_Atomic uint32_t nested;       /* sets in it */
	struct item *within;           /* its items in other sets; shim.items */
	_Atomic uint32_t kernel_items; /* descriptors in the real set, at most: closed ones are not seen to leave */
	bool crowded_out;              /* kernel descriptors filled the last answer: the stack's come first next time */
	_Atomic bool double_shots;     /* a one-shot is in both sets, or was once */
	uint64_t kernel_looked;        /* when the real set was last looked at while the stack kept us busy */
	struct spin spin;
	struct item **index[ATTACHMENTS_MAX]; /* by attachment slot and socket number */
	uint64_t index_of[ATTACHMENTS_MAX];   /* serial of the attachment an index is of; a dead one's is worthless */
	struct epoll *next;                   /* all there are, or the free ones */
};

#endif
