/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A pair: one memfd per two programs that talk on one host, without packets: connections, their FIFOs, bells. Only those
 * two programs see it.
 */
#ifndef GAZELLE_SAME_HOST_H
#define GAZELLE_SAME_HOST_H

#include <stddef.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/bell.h>
#include <gazelle/fifo.h>

#define GZ_PAIR_MAGIC 0x7269617061617a67ull
#define GZ_PAIR_SOCKS 4096u /* connections of a pair at a time; number 0 means "accept ring" */
#define GZ_PAIR_BLOCK (256u << 10)
#define GZ_PAIR_MEMBERS 256u /* processes of one side: a program and its forks */
#define GZ_PAIR_QUEUES 256u  /* event queues of one side, of all its processes; each is one process's */
#define GZ_PAIR_QUEUE_WORDS (GZ_PAIR_QUEUES / 64u)

/* A member's word: how many processes have had this number, and whether one has it now. */
enum gz_member_state { GZ_MEMBER_FREE = 0, GZ_MEMBER_ALIVE = 1, GZ_MEMBER_DYING = 2 };
#define GZ_MEMBER(life, state) ((uint32_t)(life) << 2 | (uint32_t)(state))
#define GZ_MEMBER_LIFE(word) ((uint32_t)(word) >> 2)
#define GZ_MEMBER_STATE(word) ((uint32_t)(word)&3u)

/* What stands in an accept ring: a number, and how often the ring has gone round, so that no two in a row are the same. */
#define GZ_PAIR_SLOT(head, n) (((head) / GZ_PAIR_SOCKS * GZ_PAIR_SOCKS) | (n))

/*
 * Each end is the application's end of one program, and stands where the other program expects a worker's end, so it carries both
 * kinds of flags: GZ_WORKER_OPEN from the start until its holders have let go, CONNECTED (of the listening end: not while the
 * backlog is full), FIN (it sends no more), DEAD (it broke off; `error` is what the other program is told), WANT_SPACE, which is
 * the same bit of both kinds. Each program is hostile to the other: a program that reads an impossible index ends the connection
 * on its side.
 * options and name of side e are laid out behind each other as in struct gz_sock.
 */
struct gz_pair_sock {
	struct gz_end end[2]; /* side 0 writes end[0], side 1 end[1]; side 0 sets both up before it pushes the number */
	struct {
		struct gz_options options; /* side e's scratch: nobody acts on it */
		struct gz_name name;       /* the connection as side e sees it; side 0 writes both */
	} view[2];
};
_Static_assert(sizeof(struct gz_pair_sock) == 384, "a pair's entry is six lines");
_Static_assert(offsetof(struct gz_pair_sock, view[0].name) == offsetof(struct gz_sock, name), "laid out as a gz_sock");

/* aux of an end in a pair, its own side's: how many processes hold this end (forks); 0 and OPEN: not accepted yet */
enum { GZ_AUX_HOLDERS = 0 };

/* What concerns one side. */
struct gz_pair_side {
	_Alignas(64) _Atomic uint32_t accept_head;           /* the other side writes: numbers pushed */
	_Alignas(64) _Atomic uint32_t accept_tail;           /* this side, by cas: before it all are taken */
	_Alignas(64) _Atomic uint32_t accept[GZ_PAIR_SOCKS]; /* GZ_PAIR_SLOT; this side takes one by cas to 0 */
	_Alignas(64) _Atomic uint32_t processes;             /* members that live */
	_Atomic uint32_t member[GZ_PAIR_MEMBERS];            /* GZ_MEMBER; the other side frees it, see control.h */
	_Atomic uint32_t pid[GZ_PAIR_MEMBERS];               /* each member writes its own, for who looks on */
	_Atomic uint32_t owner[GZ_PAIR_QUEUES];              /* member + 1 whose queue it is; 0: nobody's */
	_Atomic uint64_t holds[GZ_PAIR_MEMBERS][GZ_PAIR_SOCKS / 64]; /* bit n: the member holds this side's end of n */
	struct gz_bell to[GZ_PAIR_QUEUES]; /* the other side rings, the queue's owner takes and sleeps */
	/* This side writes, a bit for each of its queues; [0]: of its listeners. */
	_Alignas(64) _Atomic uint64_t interest[GZ_PAIR_SOCKS][GZ_PAIR_QUEUE_WORDS];
};

/* Blocks follow: connection n sends from end e in block (2 * n + e) of GZ_PAIR_BLOCK bytes after the header. */
struct gz_pair {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t socks; /* GZ_PAIR_SOCKS */
	struct gz_pair_side side[2];
	_Alignas(GZ_ARENA_PAGE) struct gz_pair_sock sock[GZ_PAIR_SOCKS];
};
#define GZ_PAIR_HEADER (((uint64_t)sizeof(struct gz_pair) + GZ_ARENA_PAGE - 1) / GZ_ARENA_PAGE * GZ_ARENA_PAGE)
#define GZ_PAIR_SIZE (GZ_PAIR_HEADER + 2ull * GZ_PAIR_SOCKS * GZ_PAIR_BLOCK)

#endif
