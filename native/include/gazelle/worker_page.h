/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The worker page: one per worker, with its heartbeat, sleep flag, listeners and statistics. The worker writes; it is
 * read-only to all others.
 */
#ifndef GAZELLE_WORKER_PAGE_H
#define GAZELLE_WORKER_PAGE_H

#include <stdint.h>

#include <gazelle/counters.h>
#include <gazelle/histogram.h>
#include <gazelle/kernel_reason.h>

#define GZ_WORKER_MAGIC 0x656761707265777aull
#define GZ_LISTENERS_MAX 1024u
#define GZ_APPS_MAX 4096u

enum gz_worker_state { GZ_WORKER_STARTING = 0, GZ_WORKER_RUNNING = 1, GZ_WORKER_DRAINING = 2, GZ_WORKER_GONE = 3 };

struct gz_listener {
	_Atomic uint32_t port_owner; /* port << 16 | 0x8000 | slot in apps[]; 0 = empty; written last */
	uint32_t v6only;             /* of a listener on ::, 1: not for IPv4 */
	uint8_t addr[16];            /* ::ffff:0.0.0.0 and :: = any */
	_Atomic uint32_t backlog;    /* as listen() was told */
	_Atomic uint32_t program; /* number of the program that listens: a process and its forks; no two programs have the same */
	uint64_t netns;           /* cookie of its network namespace (SO_NETNS_COOKIE): loopback is that of each */
};

struct gz_app_stat {
	_Atomic uint32_t pid;                       /* 0 = empty; written last */
	_Atomic uint32_t sockets;                   /* accelerated sockets it holds on this worker */
	_Atomic uint32_t arena_kb;                  /* FIFO memory of its arena in use, KiB (shared with its forks) */
	_Atomic uint32_t paired;                    /* its connections with programs of this host, as it says itself */
	_Atomic uint32_t kernel[GZ_KERNEL_REASONS]; /* its sockets on the kernel path, as it says itself */
};

/* By position in the page. */
/* clang-format off */
enum gz_counter {
#define X(name, unit, kind, meaning) GZ_COUNT_##name,
	GZ_COUNTERS(X)
#undef X
	GZ_COUNTERS_MAX
};
/* clang-format on */

/*
 * Where the time of a request goes, while the administrator traces it (GZ_MESSAGE_TRACE): one request of a connection at a time, from
 * the burst it came with to the burst its answer left with.
 */
enum gz_stage {
	GZ_STAGE_STACK, /* NIC rx to the connection: the rest of the burst, steering, TCP */
	GZ_STAGE_FIFO,  /* copied into the FIFO */
	GZ_STAGE_READ,  /* until the application has read it */
	GZ_STAGE_WRITE, /* until it writes the answer */
	GZ_STAGE_TAKEN, /* until the worker takes that up */
	GZ_STAGE_SENT,  /* until it has left: TCP, the rest of the turn, NIC tx */
	GZ_STAGE_TOTAL, /* NIC rx to NIC tx */
	GZ_STAGES
};

struct gz_worker_page {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t size;
	_Atomic uint32_t pid;
	_Atomic uint32_t state;        /* enum gz_worker_state */
	_Atomic uint64_t heartbeat_ns; /* CLOCK_MONOTONIC of the last turn; an idle worker beats at least each 500 ms */
	_Atomic uint64_t generation;   /* CLOCK_MONOTONIC of the start: differs after each restart */
	uint8_t mac[6];
	uint8_t pad0[10];
	/* Not 0: wake me by a message (applications) or datagram (workers). Each sleep has a number of its own: once is enough. */
	_Alignas(64) _Atomic uint32_t asleep;
	_Atomic uint32_t apps_end;                  /* entries of apps[] from here on were never used */
	_Alignas(64) _Atomic uint64_t counters[64]; /* enum gz_counter */
	_Alignas(64) struct gz_listener listeners[GZ_LISTENERS_MAX];
	struct gz_app_stat apps[GZ_APPS_MAX];
	struct gz_histogram latency[GZ_STAGES]; /* since tracing was last switched on */
};
_Static_assert(GZ_COUNTERS_MAX <= 64, "counters fit the page");

#endif
