/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What each user has of the worker, and how much more the user may take. Whatever an attached process makes the worker keep is
 * charged to the user of that process, until the worker keeps it no longer.
 *
 * One rule for all kinds: no user may have more than what is left for the others. So the first user gets half at most, the next
 * half of the rest, and something is always left for the next. Some of everything is kept for root, which may take all of it.
 */
#ifndef LSTACK_QUOTA_H
#define LSTACK_QUOTA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum quota_kind {
	QUOTA_PROCESSES, /* slots in the worker page */
	QUOTA_ARENAS,    /* address space */
	QUOTA_FILES,     /* descriptors of the worker */
	QUOTA_FLIGHT,    /* descriptors sent and not taken yet */
	QUOTA_SOCKETS,
	QUOTA_DATAGRAMS, /* sockets of that type: lwIP keeps them in one list */
	QUOTA_LISTENERS,
	QUOTA_LINES,   /* lines of listeners in the worker page */
	QUOTA_ORPHANS, /* connections nobody holds */
	QUOTA_MEMORY,  /* bytes of pages that exist: a gauge, see audit.h */
	QUOTA_KINDS
};

struct quota;

struct user {
	struct user *next;
	struct quota *quota;
	uid_t uid;
	uint32_t refs;
	bool memory_short; /* he has as much as he may: no block more */
	uint64_t used[QUOTA_KINDS];
};

struct quota {
	struct user *users;
	uint64_t limit[QUOTA_KINDS], used[QUOTA_KINDS];
};

/* Fixes the limits for one of `workers` workers on this machine. */
void quota_open(struct quota *quota, uint32_t workers);

/* The account of a user, with a reference for the caller. NULL: no memory. */
struct user *quota_user(struct quota *quota, uid_t uid);
void quota_hold(struct user *user);
void quota_let_go(struct user *user);

/* Charges one more. False: he has as many as he may. */
bool quota_take(struct user *user, enum quota_kind kind);
void quota_give(struct user *user, enum quota_kind kind);

/* The same, noted as a bit of *charges; what is noted already is not charged again. quota_settle gives all of it back. */
bool quota_charge(struct user *user, uint32_t *charges, enum quota_kind kind);
void quota_settle(struct user *user, uint32_t *charges);

/* A gauge of his has changed. True: he has more than he may. */
bool quota_move(struct user *user, enum quota_kind kind, uint64_t before, uint64_t now);

#endif
