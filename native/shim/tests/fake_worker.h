/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What the parts of the fake worker share: fake_worker.c has the applications, fake_sock.c and fake_dgram.c their sockets. */
#ifndef FAKE_WORKER_H
#define FAKE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#define APPS 32 /* bits of sock.holders */
#define ARENA_BYTES (1ull << 30)
#define SOCKS 16384u /* of an arena; the real one has more */
#define START_ORDER 14u
#define STOCK_LEVEL 32u
#define ACCEPT_SLOTS 512u

enum kind { FREE, LISTENER, STREAM, DGRAM };

struct arena;

struct sock {
	enum kind kind;
	struct arena *arena;
	uint32_t n;
	struct gz_sock *shared;
	struct sock *peer;  /* the other end; NULL = gone, or none yet */
	bool echo;          /* its own peer */
	uint32_t holders;   /* bit a: apps[a] holds it */
	bool orphan;        /* nobody holds it, but it has bytes to deliver */
	uint16_t port;      /* LISTENER, DGRAM */
	uint16_t peer_port; /* DGRAM: it hears this port of the peer alone; 0 = not connected */
	uint32_t backlog, accept_head;
	struct gz_accept_queue *queue;
	uint32_t rx_base;
	uint32_t grow_seen;
};

struct arena {
	int fd;
	struct gz_arena *shared;
	uint32_t next_sock, next_page;
	struct sock sock[SOCKS];
};

struct app {
	int control; /* 0 = free */
	bool gone;   /* it has hung up */
	struct arena *arena;
	struct gz_channel *channel;
	int queue_fd[GZ_EVENT_QUEUES];
	uint32_t request_tail, stock_head;
	uint64_t rung;
	uint64_t cookie; /* a socket on its way: SO_COOKIE of the end that stands for it; 0: a process */
	uint32_t carries;
	char note[64];
};

extern struct fake {
	const struct gz_group_page *group;
	struct gz_worker_page *page;
	struct app apps[APPS];
	struct sock *refuse_later;
} fake;

/* Says what failed and ends the worker: a test that needs more than there is, is wrong. */
void fake_fail(const char *what);

/* An arena's blocks and numbers, never given back. */
uint32_t fake_take_block(struct arena *arena, uint32_t order);
uint8_t *fake_block_at(struct arena *arena, uint32_t block);
uint32_t fake_take_sock(struct arena *arena);
struct sock *fake_open_sock(struct arena *arena, uint32_t n, enum kind kind);

/* Flags of the worker's end; what changed is told to those who wait. */
void fake_set_flags(struct sock *s, uint32_t flags);
void fake_notify(struct sock *s);
void fake_die(struct sock *s, int error);

/* Requests, and a ring. `a`: whose, an index of fake.apps. */
void fake_connect(struct sock *s, const struct gz_request *request);
void fake_listen(struct sock *s, const struct gz_request *request);
void fake_bind(struct sock *s, const struct gz_request *request);
void fake_rung(struct sock *s);
void fake_datagrams(struct sock *s);
void fake_release(struct sock *s, int a);

#endif
