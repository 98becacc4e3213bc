/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The shared-memory ABI: everything the supervisor, the workers and the attached applications see of each other.
 *
 *   group page    one per gazelle process: what the plan fixes. Supervisor writes once, before the first worker; read-only.
 *   worker page   one per worker: heartbeat, sleep flag, listeners, statistics. The worker writes; read-only to all others.
 *   arena         one memfd per application and worker: the table of sockets and the blocks their FIFOs use. Processes that
 *                 descend from one attached program by fork share it; no other program ever sees it.
 *   channel       one memfd per attached process and worker: bells, request ring, stock of free sockets.
 *   pair          one memfd per two programs that talk on one host: connections, their FIFOs, bells. Seen by those two only.
 *
 * Whoever writes a field is named beside it. Memory an application can write is hostile to the worker: it keeps its own
 * copy of every size, offset and index, reads each shared field once, and masks it. Integers are host-endian unless a name
 * ends in _be; ports are host-endian; addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef GAZELLE_ABI_H
#define GAZELLE_ABI_H

#include <gazelle/address.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/fifo.h>
#include <gazelle/histogram.h>

#define GZ_ABI_VERSION 1u
#define GZ_CACHE_LINE 64

/* ---------------------------------------------------------------- group page */

#define GZ_GROUP_MAGIC 0x70756f7267617a67ull /* "gzagroup" */
#define GZ_WORKERS_MAX 128u                  /* workers of one instance: all processes together */
#define GZ_RETA_SIZE 128u
#define GZ_RSS_KEY_SIZE 40u
#define GZ_ALLOWED_MAX 32u /* users, and groups, who may attach */
#define GZ_NO_ID UINT32_MAX

enum gz_role { GZ_ROLE_BOTH = 0, GZ_ROLE_RECV = 1, GZ_ROLE_SEND = 2 };
enum gz_driver { GZ_DRIVER_TAP = 0, GZ_DRIVER_ETHDEV = 1, GZ_DRIVER_NONE = 2 };
enum gz_idle { GZ_IDLE_ADAPTIVE = 0, GZ_IDLE_POLL = 1 };

/* What the plan says of one worker. Indexed by queue_id; the workers of all processes, so that packets find their way. */
struct gz_worker_plan {
	uint32_t queue_id;
	uint32_t process_index;
	uint32_t index; /* within the process */
	uint32_t role;  /* enum gz_role */
	int32_t cpu;    /* -1: not bound */
	int32_t numa;   /* -1: unknown */
	uint32_t mbufs; /* elements of its mempool */
	uint32_t rx_queue_size;
	uint32_t tx_queue_size;
	char name[32];       /* full name, argv[0] */
	char comm[16];       /* unique form of at most 15 bytes */
	char pool[32];       /* mempool name */
	char port_args[224]; /* ethdev: EAL arguments of the port, separated by spaces ("--vdev=net_af_xdp0,iface=..") */
};
_Static_assert(sizeof(struct gz_worker_plan) == 340, "supervisor packs this");

struct gz_group_page {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t size; /* sizeof(struct gz_group_page) */
	uint32_t process_index;
	uint32_t num_queue;     /* workers of this process */
	uint32_t tot_queue_num; /* workers of the instance */
	uint32_t split;         /* 1: separate send/recv */
	uint32_t driver;        /* enum gz_driver */
	uint32_t idle;          /* enum gz_idle */
	uint32_t spin_us;       /* how long a worker and an application look before they sleep */
	uint32_t mtu;
	uint32_t nic_read_number;     /* rx burst per turn */
	uint32_t rpc_number;          /* requests of one application per turn */
	uint32_t read_connect_number; /* rung sockets of one application per turn, in units of 64 */
	uint32_t trust_rx_checksum;   /* 1: peers are local kernels with partial checksums (veth) */
	uint32_t host_addr_be;        /* the stack's IPv4 address */
	uint32_t netmask_be;
	uint32_t gateway_be;   /* 0: none; then only the subnet is reached through the stack */
	uint32_t host_peer_be; /* tap: address of the host's side; 0 otherwise */
	uint8_t mac[6];        /* the stack's hardware address; zero: take the device's */
	uint8_t pad0[2];
	uint8_t host_addr6[16];    /* the stack's IPv6 address, in a subnet of /64; zero: none */
	uint8_t gateway6[16];      /* zero: none */
	uint8_t host_peer6[16];    /* tap: address of the host's side; zero otherwise */
	uint32_t run_uid, run_gid; /* whom workers become once their port is open; 0: stay */
	/*
	 * Beside the kernel: ids of the BPF maps gz_owners and gz_alive (uplink.h); 0: no uplink. host_addr and host_addr6 are
	 * then the machine's own, and routes and neighbours are the kernel's.
	 */
	uint32_t uplink_owners, uplink_alive;
	char instance[32];
	char device[16];   /* tap or netdev name */
	char run_dir[108]; /* worker.<queue_id>.sock, .page, .wake; rings */
	uint8_t rss_key[GZ_RSS_KEY_SIZE];
	uint16_t reta[GZ_RETA_SIZE]; /* hash & (GZ_RETA_SIZE-1) -> queue_id; with the split: -> 2*pair */
	uint32_t allow_everybody;    /* 1: any local user may attach; else root, and: */
	uint32_t allow_uid_count, allow_gid_count;
	uint32_t allow_uids[GZ_ALLOWED_MAX];
	uint32_t allow_gids[GZ_ALLOWED_MAX]; /* whoever is in one of them, also by a supplementary group */
	uint32_t foreign_listen; /* 1: programs of another network namespace may own ports, not only connect */
	uint32_t file_gid; /* whose the files in run_dir are, and for no others; GZ_NO_ID: for all who get into run_dir */
	struct gz_worker_plan workers[GZ_WORKERS_MAX];
};

/* ---------------------------------------------------------------- worker page */

#define GZ_WORKER_MAGIC 0x656761707265777aull
#define GZ_LISTENERS_MAX 1024u
#define GZ_APPS_MAX 4096u

enum gz_worker_state { GZ_WORKER_STARTING = 0, GZ_WORKER_RUNNING = 1, GZ_WORKER_DRAINING = 2, GZ_WORKER_GONE = 3 };

/* Why a socket of an attached program is served by the kernel. The names are in gz_kernel_reason_name (reason.h). */
enum gz_kernel_reason {
	GZ_KERNEL_FAMILY = 0,   /* not a family or type the stack serves */
	GZ_KERNEL_ADDRESS,      /* bound or connected to an address that is not the stack's */
	GZ_KERNEL_LOOPBACK,     /* loopback, and no attached program listens there */
	GZ_KERNEL_NO_ROUTE,     /* the stack has no route to the peer */
	GZ_KERNEL_NOT_ATTACHED, /* no worker could be attached */
	GZ_KERNEL_NO_RESOURCE,  /* no free socket in the stack */
	GZ_KERNEL_CLIENT,       /* accepted from the kernel side of a listener on 0.0.0.0, :: or loopback */
	GZ_KERNEL_OPTION,       /* an option was set that the stack does not have */
	GZ_KERNEL_REASONS = 16
};

struct gz_listener {
	_Atomic uint32_t port_owner; /* port << 16 | 0x8000 | slot in apps[]; 0 = empty; written last */
	uint32_t v6only;             /* of a listener on ::, 1: not for IPv4 */
	uint8_t addr[16];            /* ::ffff:0.0.0.0 and :: = any */
	_Atomic uint32_t backlog;    /* as listen() was told */
	_Atomic uint32_t family; /* of the process that listens: what descends from one attached program; no two have the same */
	uint64_t netns;          /* cookie of its network namespace (SO_NETNS_COOKIE): loopback is that of each */
};

struct gz_app_stat {
	_Atomic uint32_t pid;                       /* 0 = empty; written last */
	_Atomic uint32_t sockets;                   /* accelerated sockets it holds on this worker */
	_Atomic uint32_t arena_kb;                  /* FIFO memory of its arena in use, KiB (shared with its forks) */
	_Atomic uint32_t paired;                    /* its connections with programs of this host, as it says itself */
	_Atomic uint32_t kernel[GZ_KERNEL_REASONS]; /* its sockets on the kernel path, as it says itself */
};

/* clang-format off */
/* Counters: one writer, monotonic unless said otherwise. Add at the end only. The supervisor reads them by position. */
#define GZ_COUNTERS(X)                                                                                             \
	X(turns) X(sleeps) X(wakeups_written) X(rx_packets) X(rx_bytes) X(tx_packets) X(tx_bytes) X(rx_dropped)     \
	X(tx_dropped) X(rx_bad_checksum) X(alloc_failed) X(steered_out) X(steered_in) X(steer_dropped)              \
	X(connections /* gauge */) X(accepted) X(connected) X(resets_sent) X(resets_received) X(retransmits)        \
	X(listen_overflow) X(requests) X(attachments /* gauge */) X(attached_total) X(detached_hostile)             \
	X(sockets /* gauge */) X(mbufs_free /* gauge */) X(rx_fifo_bytes) X(tx_fifo_bytes) X(no_match)                   \
	X(datagrams_in) X(datagrams_out) X(datagrams_dropped)                                                              \
	X(syncookies_sent) X(syncookies_accepted) X(syncookies_failed)                                   \
	X(pairs_refused /* applications', as they say themselves */)

enum gz_counter {
#define X(name) GZ_COUNT_##name,
	GZ_COUNTERS(X)
#undef X
	GZ_COUNTERS_MAX
};
/* clang-format on */

/*
 * Where the time of a request goes, while somebody traces it (GZ_MESSAGE_TRACE): one request of a connection at a time, from
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

/* ---------------------------------------------------------------- arena: sockets and blocks */

#define GZ_ARENA_MAGIC 0x616e657261617a67ull
#define GZ_SOCKS_MAX GZ_BELL_SOCKS /* socket 0 is never a socket: its bit in a bell means "request ring" */
#define GZ_ARENA_PAGE 4096u
#define GZ_BLOCK_ORDER_MIN 12u /* 4 KiB */
#define GZ_BLOCK_ORDER_MAX 20u /* 1 MiB */

/* A block packed in 32 bits: page number in the arena << 5 | order; 0 = none. An arena is at most 2^27 pages = 512 GiB. */
#define GZ_BLOCK(page, order) (((uint32_t)(page) << 5) | (uint32_t)(order))
#define GZ_BLOCK_OFFSET(b) ((uint64_t)((b) >> 5) * GZ_ARENA_PAGE)
#define GZ_BLOCK_SIZE(b) ((b) ? 1u << ((b)&31u) : 0u)

/*
 * Flags of the worker's end. OPEN is set from the moment the entry means something to the application until the worker has
 * forgotten it; all others are levels that stay.
 */
#define GZ_WORKER_OPEN 0x001u       /* in use */
#define GZ_WORKER_LISTENING 0x002u  /* a listener; aux[] is its accept queue (struct gz_accept_queue in accept_block) */
#define GZ_WORKER_CONNECTED 0x004u  /* handshake complete; stays set after a reset */
#define GZ_WORKER_FIN 0x008u        /* the peer sends no more: EOF once the FIFO is empty */
#define GZ_WORKER_DEAD 0x010u       /* connection over by reset, time-out or failed connect: `error` says why */
#define GZ_WORKER_WANT_SPACE 0x020u /* data waits for room: ring me when you have consumed */
#define GZ_WORKER_FIN_ACKED 0x040u  /* all we sent, our FIN included, was acknowledged */

/* Flags of the application's end; about the connection, so shared by all processes that hold it. No bit
 * of a worker's end but WANT_SPACE, which means the same: in a pair one end is both. */
#define GZ_APP_SHUT_WR 0x100u /* FIN after the FIFO's last byte */
#define GZ_APP_SHUT_RD 0x200u
#define GZ_APP_ABORT 0x400u      /* SO_LINGER with 0: RST instead of FIN when the last process lets go */
#define GZ_APP_WANT_SPACE 0x020u /* ring me when the tx FIFO is at least half empty */
#define GZ_APP_GROW 0x800u       /* give me a bigger tx block: I write nothing until in_block changes or GROW_SEEN */
#define GZ_APP_OPTIONS 0x1000u   /* options[] below have changed */
#define GZ_APP_EXCLUSIVE \
	0x2000u /* a listener: of those who sleep, a connection wakes one (EPOLLEXCLUSIVE); all are rung */
#define GZ_APP_NONBLOCK 0x4000u /* O_NONBLOCK, for the processes that share the socket; nobody else looks */

/* Socket options the stack acts on; the application writes them, then sets GZ_APP_OPTIONS and rings. */
struct gz_options {
	_Atomic uint32_t nodelay;   /* TCP_NODELAY */
	_Atomic uint32_t cork;      /* TCP_CORK */
	_Atomic uint32_t keepalive; /* SO_KEEPALIVE */
	_Atomic uint32_t keepidle_s, keepintvl_s, keepcnt;
	_Atomic uint32_t user_timeout_ms;
	_Atomic uint32_t maxseg;
	_Atomic uint32_t rcvbuf; /* bytes; 0 = default */
	_Atomic uint32_t sndbuf;
	_Atomic uint32_t tos;
	_Atomic uint32_t ttl;
	_Atomic uint32_t defer_accept_s; /* TCP_DEFER_ACCEPT; of a listener */
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_options) == 64, "options are one line");

/* What a socket is. The worker writes it before it sets OPEN or pushes to an accept queue, and never again. */
struct gz_name {
	uint8_t local_addr[16];
	uint8_t peer_addr[16];
	uint16_t local_port, peer_port;
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t type;   /* SOCK_STREAM or SOCK_DGRAM */
	uint16_t mss;
	uint32_t listener; /* accepted sockets: the listener's entry */
	uint32_t serial;   /* differs each time the entry is used again */
	uint32_t since_ms; /* of a pair: CLOCK_MONOTONIC when it was made */
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_name) == 64, "a name is one line");

/*
 * One socket. FIFO towards the application: worker.out_head, app.in_tail, block worker.out_block.
 * FIFO towards the worker: app.out_head, worker.in_tail (acknowledged by the peer), block worker.in_block; the worker alone
 * chooses blocks. It changes in_block only while the application has set GZ_APP_GROW and the FIFO is empty, and answers by
 * setting worker.aux[GZ_AUX_GROW_SEEN] to app.aux[GZ_AUX_GROW_SERIAL], with or without a bigger block.
 */
struct gz_sock {
	struct gz_end worker;      /* worker writes */
	struct gz_end app;         /* application writes */
	struct gz_options options; /* application writes */
	struct gz_name name;       /* worker writes */
};
_Static_assert(sizeof(struct gz_sock) == 256, "a socket entry is four lines");

/* app.aux: serial of the request, bytes wished; pid of the one process of those that share the socket that writes, or 0 */
enum {
	GZ_AUX_GROW_SERIAL = 0,
	GZ_AUX_GROW_SIZE = 1,
	GZ_AUX_TRACED = 2,   /* the GZ_AUX_TRACE that the next two are about; written after them */
	GZ_AUX_READ_NS = 3,  /* CLOCK_MONOTONIC, its low 32 bits: the application has read */
	GZ_AUX_WRITE_NS = 4, /* it writes */
	GZ_AUX_WRITER = 8
};
enum {
	GZ_AUX_GROW_SEEN = 0,
	GZ_AUX_ACCEPT_BLOCK = 1,
	GZ_AUX_RTT_US = 2,
	GZ_AUX_CWND = 3,
	GZ_AUX_RETRANS = 4,
	GZ_AUX_TRACE = 5 /* differs each time the next read is to be timed, and the write after it */
};                       /* worker.aux */

/*
 * aux of a datagram socket. ICMP errors about what it sent: those that end up in SO_ERROR of a connected socket, with
 * worker.error, are counted in worker.aux[GZ_AUX_ERRORS]; the application answers by the same number in app.aux once one
 * has been reported, so that of several only the last is, as with the kernel's own single slot.
 */
enum {
	GZ_AUX_ERRORS = 0,     /* both */
	GZ_AUX_WRITE_LOCK = 8, /* app: 1 = one of the processes that share the FIFO writes */
};

/*
 * Accept queue of a listener, in the block worker.aux[GZ_AUX_ACCEPT_BLOCK]. One producer (the worker), many consumers
 * (threads and forked processes). A pop is: t = tail; if t == head, empty; v = slot[t & mask]; cas(tail, t, t+1).
 */
struct gz_accept_queue {
	_Alignas(64) _Atomic uint32_t head;   /* worker writes */
	_Alignas(64) _Atomic uint32_t tail;   /* applications, by cas */
	uint32_t mask;                        /* worker writes once; slots - 1 */
	_Alignas(64) _Atomic uint32_t slot[]; /* worker writes: socket number */
};
#define GZ_ACCEPT_SLOTS 4096u /* at most */

/*
 * A datagram in a FIFO of a SOCK_DGRAM socket: this header, then `len` bytes, then padding to GZ_DATAGRAM_ALIGN. Written and
 * consumed whole. Towards the application addr:port is the sender, towards the worker the destination.
 */
struct gz_datagram {
	uint16_t len;
	uint16_t port;
	uint8_t flags; /* GZ_DATAGRAM_BROADCAST */
	uint8_t hops;  /* its TTL or hop limit; towards the worker 0 = the usual one */
	uint8_t tos;   /* its TOS or traffic class */
	uint8_t pad;
	uint8_t addr[16];
};
_Static_assert(sizeof(struct gz_datagram) == 24, "no holes");
#define GZ_DATAGRAM_BROADCAST 1u /* it was sent to everybody, not to the stack's address */
#define GZ_DATAGRAM_ALIGN 8u
#define GZ_DATAGRAM_MAX 65507u
#define GZ_DATAGRAM_MAX6 65487u /* over IPv6, of which lwIP makes one packet of 64 KiB with its header at most */
#define GZ_DATAGRAM_SPACE(len) \
	(((uint32_t)sizeof(struct gz_datagram) + (len) + GZ_DATAGRAM_ALIGN - 1) & ~(GZ_DATAGRAM_ALIGN - 1))

struct gz_arena {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t socks; /* GZ_SOCKS_MAX */
	uint64_t size;  /* bytes, sparse */
	uint8_t pad[40];
	_Alignas(GZ_ARENA_PAGE) struct gz_sock sock[GZ_SOCKS_MAX];
	/* blocks follow, page-aligned */
};

/* ---------------------------------------------------------------- channel: bells, requests, stock */

#define GZ_CHANNEL_MAGIC 0x6c6e6e6168637a67ull
#define GZ_EVENT_QUEUES 64u /* per process: one per epoll instance and per thread that blocks; more share by number */
#define GZ_REQUESTS 256u    /* slots of the request ring, a power of two */
#define GZ_STOCK 256u       /* slots of the stock ring */

enum gz_request_op {
	GZ_REQUEST_LISTEN =
		1, /* socket n listens on addr:port with `arg` = backlog; done when n is LISTENING or DEAD. VOUCH first */
	GZ_REQUEST_CONNECT = 2, /* socket n connects from addr:port (port 0: any, else VOUCH first) to peer; done when CONNECTED
				 * or DEAD. Family AF_UNSPEC: to nowhere, so that it ends as one whose connection was broken off */
	GZ_REQUEST_BACKLOG = 3, /* listener n: listen() again with another backlog */
	GZ_REQUEST_CLAIM = 4,   /* socket n, popped from an accept queue, now has an fd in this process */
	GZ_REQUEST_RELEASE = 5, /* this process lets go of socket n; the last one closes it (RST if data is unread) */
	GZ_REQUEST_BIND = 6, /* datagram socket n takes what comes to addr:port (VOUCH first), from peer only if peer_port is not
			      * 0; again to change the peer. Done when n is CONNECTED (or DEAD). */
	GZ_REQUEST_LOOK = 7 /* done when the ports of processes that had ended before it was posted are free; no socket */
};

/*
 * One request: a line, so that the producer never shares it. Requests of one process are carried out in their order; after
 * posting, the application rings bit 0 of to_worker.
 */
struct gz_request {
	uint32_t op;
	uint32_t sock; /* a number taken from the stock */
	uint8_t addr[16];
	uint8_t peer[16];
	uint16_t port, peer_port;
	uint32_t arg;
	uint8_t family;
	uint8_t type;
	uint8_t v6only;
	uint8_t pad0;
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_request) == 64, "a request is one line");

struct gz_request_ring {
	_Alignas(64) _Atomic uint32_t head; /* application writes (under a lock of its own process) */
	_Alignas(64) _Atomic uint32_t tail; /* worker writes */
	_Alignas(64) struct gz_request slot[GZ_REQUESTS];
};

/* Free socket numbers the worker has granted to this process. Popped as an accept queue is. */
struct gz_stock {
	_Alignas(64) _Atomic uint32_t head;           /* worker writes */
	_Alignas(64) _Atomic uint32_t tail;           /* application, by cas */
	_Alignas(64) _Atomic uint32_t slot[GZ_STOCK]; /* worker writes */
};

/*
 * `interest[n]`: the event queues of this process to ring when socket n changes, one bit each; the application sets it
 * before it looks at the socket's level, the worker reads it after it has changed the level, with a fence on both sides.
 */
struct gz_channel {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t queue_id;
	uint32_t attach_id;
	uint32_t pad[11];
	_Alignas(64) _Atomic uint32_t kernel_sockets[GZ_KERNEL_REASONS]; /* application writes: gauge by reason */
	_Atomic uint32_t pair_sockets;                                   /* application writes: gauge */
	_Atomic uint32_t pairs_refused; /* application writes: connections of this host that said they came from elsewhere */
	struct gz_request_ring requests;
	struct gz_stock stock;
	struct gz_bell to_worker;               /* application rings; `asleep` unused: see worker_page.asleep */
	struct gz_bell to_app[GZ_EVENT_QUEUES]; /* worker rings; application declares itself asleep in each */
	_Alignas(64) _Atomic uint64_t interest[GZ_SOCKS_MAX];
};

/* ---------------------------------------------------------------- pair: two programs on one host, without packets */

#define GZ_PAIR_MAGIC 0x7269617061617a67ull
#define GZ_PAIR_SOCKS 4096u /* connections of a pair at a time; number 0 means "accept ring" */
#define GZ_PAIR_BLOCK (256u << 10)
#define GZ_PAIR_MEMBERS 256u /* processes of one side: a program and its forks */
#define GZ_PAIR_QUEUES 256u  /* event queues of one side, of all its processes; each is one process's */
#define GZ_PAIR_QUEUE_WORDS (GZ_PAIR_QUEUES / 64u)

/* A member's word: whose place it is by now, and whether somebody is there. */
enum gz_member_state { GZ_MEMBER_FREE = 0, GZ_MEMBER_ALIVE = 1, GZ_MEMBER_DYING = 2 };
#define GZ_MEMBER(life, state) ((uint32_t)(life) << 2 | (uint32_t)(state))
#define GZ_MEMBER_LIFE(word) ((uint32_t)(word) >> 2)
#define GZ_MEMBER_STATE(word) ((uint32_t)(word)&3u)

/* What stands in an accept ring: a number, and how often the ring has gone round, so that no two in a row are the same. */
#define GZ_PAIR_SLOT(head, n) (((head) / GZ_PAIR_SOCKS * GZ_PAIR_SOCKS) | (n))

/*
 * Each end is the application's end of one program and what the other sees in the place of a worker's, so it carries both
 * kinds of flags: GZ_WORKER_OPEN from the start until its holders have let go, CONNECTED (of the listening end: not while the
 * backlog is full), FIN (it sends no more), DEAD (it broke off; `error` says how the other shall hear of it), WANT_SPACE,
 * which is the same bit of both kinds. Each is hostile to the other: an index that cannot be ends the connection for the one
 * who sees it.
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
	_Atomic uint32_t member[GZ_PAIR_MEMBERS]; /* GZ_MEMBER; a place is freed by the other side, see attach.h */
	_Atomic uint32_t owner[GZ_PAIR_QUEUES];   /* member + 1 whose queue it is; 0: nobody's */
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

/*
 * What `gazelled run --explain` gives to a program and all it starts, as the file $GAZELLED_EXPLAIN: each adds to it once for
 * every socket, when it is known which path that takes.
 */
enum gz_explained {
	GZ_EXPLAINED_ACCEPTED = 0, /* TCP connections by a worker */
	GZ_EXPLAINED_CONNECTED,
	GZ_EXPLAINED_SAME_HOST, /* TCP connections with attached programs of this host, either end */
	GZ_EXPLAINED_LISTENER,
	GZ_EXPLAINED_DATAGRAM,
	GZ_EXPLAINED_KINDS
};

#define GZ_REFUSAL 64u /* bytes of a worker's reason, its end included */

struct gz_explain {
	_Atomic uint32_t accelerated[GZ_EXPLAINED_KINDS];
	_Atomic uint32_t kernel[GZ_KERNEL_REASONS];
	_Atomic uint32_t refused; /* 1: somebody writes `why`, 2: it is there */
	char why[GZ_REFUSAL];     /* a worker refused one of them: its words */
};

#endif
