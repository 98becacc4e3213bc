/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Same host: an attachment to another attached program instead of a worker. A worker introduces the two; from then on connections
 * are made, used and closed in the memory the two share, with no worker, no packet and, under load, no syscall. What
 * stream.c needs of a socket is laid out as a worker lays it out, so bytes move by the same code on both paths.
 *
 * Side 0 connects, side 1 listens; two programs that do both to each other have two pairs, and so has one that connects to
 * itself: then both sides are here, two attachments of one memory. Each process of a side (forks) is a member of it, with event
 * queues of its own and a socket to each process of the other side. The members hold a connection together; the last one to go
 * closes it. The pieces: pair.c (connections and bells), member.c (members: what they say, forks, deaths), connect.c (finding the
 * other program, connecting), accept.c (accepting).
 */
#ifndef SHIM_PAIR_H
#define SHIM_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/control.h>
#include <gazelle/fifo.h>
#include <gazelle/same_host.h>

struct endpoint;
struct attachment;
struct pollfd;
struct sock;

/* Who wants to connect: a kernel socket of ours, and which network namespace's loopback it means. */
struct pair_caller {
	int fd;
	uint64_t netns;
};

/* ---- connect.c */

/*
 * connect() to an address of this host. 0: s is on number *n of *attachment, connected or about to be. 1: no attached program
 * listens there, or it cannot be reached this way. -errno: it listens, but this is not to be. Both locks of s held.
 * `local`: where s is bound now. s->name is set.
 */
int pair_connect(const struct pair_caller *from, const struct endpoint *local, const struct endpoint *to,
                 struct sock *s, struct attachment **a, uint32_t *n);

/*
 * True if pair_connect() to there will find a program and a free number. Asked before the socket takes an address of the
 * stack's: bound to one, the kernel could not connect it any more. No locks of shim held.
 */
bool pair_reaches(const struct pair_caller *from, const struct endpoint *to);

/* True if an attached program listens there, as far as the workers' pages tell. `netns`: the caller's. */
bool pair_listens(uint64_t netns, const struct endpoint *to);

/* A worker introduces a program, or a member of one, over its control socket. Takes the descriptors. shim.lock held. */
void pair_introduced(struct attachment *worker, const struct gz_message *message, int *fds, int count);

/* ---- pair.c */

extern const struct peer_ops pair_peer;

/* Number n changed: rings the event queues of the other side that want to hear of it. */
void pair_ring(struct attachment *a, uint32_t n);

/* The other end takes no more bytes, and has not taken all there are: it is closed, or shut down both ways. */
bool pair_nobody_reads(const struct sock *s);

/* ---- member.c */

/* What of a pair a new image is told (exec.c). Its side is a child's to the others, see pair_before_fork. */
struct pair_snapshot {
	int32_t memory_fd;
	uint32_t side, member;
	uint32_t members; /* of member socket[] */
	uint32_t uid;     /* these two as in struct pair */
	uint64_t netns;
	struct {
		int32_t fd;
		uint32_t member, life;
	} member_fd[GZ_PAIR_MEMBERS];
	uint64_t keep[GZ_PAIR_SOCKS / 64]; /* bit n: an inherited descriptor stands for it; the caller's to set */
};

/* True for the side of a pair that listens. */
bool pair_accepts(const struct attachment *a);

/* What a sender says of it (program.h): also which memory it is, of which no two that exist are the same. */
struct program_note;
void pair_note(const struct attachment *a, uint32_t n, struct program_note *note);

/* In the old image, after pair_before_fork: false if the other side could not be told of a child. shim.lock held. */
bool pair_leave(struct attachment *a, struct pair_snapshot *snapshot);

/* In the new one, before main: the attachment, NULL if it cannot be had. Takes the descriptors. */
struct attachment *pair_inherit(const struct pair_snapshot *snapshot);

/*
 * passed_sock.c: introduces whoever gets the image, who holds number n alone, as a child. True: a->post is held until pair_given(),
 * by which the image must be on its way. False: there is no place, or nobody on the other side. shim.lock held.
 */
bool pair_give(struct attachment *a, uint32_t n, struct pair_snapshot *snapshot);
void pair_given(struct attachment *a);

/*
 * In the process that got it: number n is ours, too. The attachment it is on: the one we have to those programs, or this one. NULL: it
 * cannot be had. Takes the descriptors, but only if it takes the image for its attachment: *taken. shim.lock held.
 */
struct attachment *pair_take(const struct pair_snapshot *snapshot, uint32_t n, bool *taken);

/* fork.c: the child is made a member of every pair; called in the parent before, in both after. */
void pair_before_fork(void);
void pair_after_fork_in_parent(void);
void pair_after_fork_in_child(uint64_t queues);

/* ---- accept.c */

/* Listeners: one waiting connection (false: none) and its name; whether there is one; how many ever came, for edges. */
bool pair_accept(struct sock *s, struct attachment **a, uint32_t *n, struct gz_name *name);
bool pair_waiting(const struct sock *s);
uint32_t pair_accept_count(void);

/* The backlog of s has changed, or room in it: connects that wait for that go on. */
void pair_backlog(const struct sock *s);

/* s listens no more in this process: unless another one does, what waits for it is refused. shim.lock held. */
void pair_refuse_waiting(struct sock *s);

/* A queue wants to hear of arrivals from now on. */
void pair_listen_interest(uint32_t queue);

#endif
