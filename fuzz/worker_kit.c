/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <sanitizer/asan_interface.h>

#include <lwip/pbuf.h>
#include <lwip/priv/tcp_priv.h>

#include "apps/app.h"
#include "apps/apps.h"
#include "arena/remains.h"
#include "input.h"
#include "net/fragments.h"
#include "net/handover.h"
#include "net/netif.h"
#include "net/steer.h"
#include "port/mempool.h"
#include "port/port.h"
#include "tcp/flows.h"
#include "shared/page.h"
#include "tcp/isn.h"
#include "tcp/syncookie.h"
#include "tcp/tcp_table.h"

#define MBUFS 2048u
#define LOOP_BUDGET 256u
#define MS 1000000ull
#define SECOND (1000 * MS)
#define FLOWS_SEEN 512u
#define BUCKETS 65536u /* of tcp_table.c */

struct worker worker;
const uint8_t worker_addr6[16] = { 0xfd, 0, 0, 0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 };

static struct port port = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500, .wait_fd = -1 };
static struct rte_mempool *pool;

/* Buckets of the flows that this execution has sent a segment of, at least: where connections may be left. */
static struct {
	uint32_t bucket[FLOWS_SEEN];
	uint32_t count;
	bool more;
} seen;

/* ------------------------------------------------------------------ mbufs, poisoned where there is no packet */

static struct {
	uint32_t count;
	void *mbuf[MBUFS];
} shelf;

static int shelf_open(struct rte_mempool *mp)
{
	return 0;
}

static void shelf_close(struct rte_mempool *mp)
{
}

static int shelf_put(struct rte_mempool *mp, void *const *mbufs, unsigned int n)
{
	MUST(shelf.count + n <= MBUFS); /* freed twice */
	for (unsigned int i = 0; i < n; i++) {
		struct rte_mbuf *m = mbufs[i];

		if (m->buf_addr)
			ASAN_POISON_MEMORY_REGION(m->buf_addr, m->buf_len);
		shelf.mbuf[shelf.count++] = m;
	}
	return 0;
}

static int shelf_take(struct rte_mempool *mp, void **mbufs, unsigned int n)
{
	if (shelf.count < n)
		return -ENOBUFS;
	for (unsigned int i = 0; i < n; i++) {
		struct rte_mbuf *m = shelf.mbuf[--shelf.count];

		if (m->buf_addr)
			ASAN_UNPOISON_MEMORY_REGION(m->buf_addr, m->buf_len);
		mbufs[i] = m;
	}
	return 0;
}

static unsigned int shelf_count(const struct rte_mempool *mp)
{
	return shelf.count;
}

static const struct rte_mempool_ops shelf_ops = { .name = "shelf",
	                                          .alloc = shelf_open,
	                                          .free = shelf_close,
	                                          .enqueue = shelf_put,
	                                          .dequeue = shelf_take,
	                                          .get_count = shelf_count };
RTE_MEMPOOL_REGISTER_OPS(shelf_ops)

/* As mempool.c makes it, but without a cache: what is freed lies poisoned at once. */
static struct rte_mempool *open_pool(void)
{
	struct rte_pktmbuf_pool_private private = { .mbuf_data_room_size = RTE_MBUF_DEFAULT_BUF_SIZE,
		                                    .mbuf_priv_size =
		                                            RTE_ALIGN(sizeof(struct mbuf_private), RTE_MBUF_PRIV_ALIGN) };
	unsigned int element = (unsigned int)sizeof(struct rte_mbuf) + private.mbuf_priv_size + private.mbuf_data_room_size;
	struct rte_mempool *mp = rte_mempool_create_empty("fuzz", MBUFS, element, 0, sizeof(private), SOCKET_ID_ANY, 0);

	if (!mp || rte_mempool_set_ops_byname(mp, "shelf", NULL))
		return NULL;
	rte_pktmbuf_pool_init(mp, &private);
	if (rte_mempool_populate_default(mp) < 0)
		return NULL;
	rte_mempool_obj_iter(mp, rte_pktmbuf_init, NULL);
	return mp;
}

/* ------------------------------------------------------------------ the port */

static void note_flow(const uint8_t *f, uint32_t bytes)
{
	ip_addr_t local = IPADDR4_INIT(0), remote = IPADDR4_INIT(0);
	const uint8_t *tcp;

	if (bytes >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6) {
		memcpy(&ip_2_ip4(&local)->addr, f + 26, 4);
		memcpy(&ip_2_ip4(&remote)->addr, f + 30, 4);
		tcp = f + 14 + (f[14] & 15) * 4;
	} else if (bytes >= 74 && f[12] == 0x86 && f[20] == 6) {
		IP_SET_TYPE_VAL(local, IPADDR_TYPE_V6);
		IP_SET_TYPE_VAL(remote, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(&local)->addr, f + 22, 16);
		memcpy(ip_2_ip6(&remote)->addr, f + 38, 16);
		tcp = f + 54;
	} else {
		return;
	}
	if (seen.count == FLOWS_SEEN) {
		seen.more = true;
		return;
	}
	uint32_t bucket =
		tcp_table_bucket(&local, (uint16_t)(tcp[0] << 8 | tcp[1]), &remote, (uint16_t)(tcp[2] << 8 | tcp[3]));
	for (uint32_t i = 0; i < seen.count; i++)
		if (seen.bucket[i] == bucket)
			return;
	seen.bucket[seen.count++] = bucket;
}

static uint16_t receive(struct port *p, struct rte_mbuf **frames, uint16_t n)
{
	return 0;
}

/* All of it is read, as a port would: what it refers to must still be there. */
static void transmit(struct port *p, struct pbuf *frame)
{
	worker.sent_bytes = pbuf_copy_partial(frame, worker.sent, UINT16_MAX, 0);
	MUST(worker.sent_bytes == frame->tot_len);
	note_flow(worker.sent, worker.sent_bytes);
	if (worker.on_sent)
		worker.on_sent(worker.sent, worker.sent_bytes);
}

static void flush(struct port *p)
{
}

void worker_frame(const uint8_t *frame, uint32_t bytes, uint32_t piece)
{
	struct rte_mbuf *head = NULL, *last = NULL;
	uint32_t at = 0;

	do {
		struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
		uint32_t n;

		if (!m) {
			rte_pktmbuf_free(head);
			return;
		}
		n = rte_pktmbuf_tailroom(m);
		if (piece && piece < n)
			n = piece;
		n = n < bytes - at ? n : bytes - at;
		memcpy(rte_pktmbuf_mtod(m, void *), frame + at, n);
		m->data_len = (uint16_t)n;
		at += n;
		ASAN_POISON_MEMORY_REGION(rte_pktmbuf_mtod_offset(m, uint8_t *, n), rte_pktmbuf_tailroom(m));
		if (last)
			last->next = m;
		else
			head = m;
		last = m;
		head->nb_segs = (uint16_t)(head->nb_segs + (m != head));
	} while (at < bytes);
	head->pkt_len = bytes;
	steer_input(&worker.stack, head);
}

/* ------------------------------------------------------------------ turns */

/* loop.c's, with events in front of it and a clock of the input's. */
void worker_turn(uint64_t ns)
{
	struct protocol_stack *stack = &worker.stack;
	struct epoll_event events[32];
	int n = epoll_wait(stack->epoll_fd, events, 32, 0);

	stack->now_ns += ns;
	tcp_table_clock(stack->now_ns);
	netif_timers(stack);
	page_beat(stack);
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr == &stack->handover)
			handover_woken(stack);
		else
			apps_event(stack, events[i].data.ptr, events[i].events);
	}
	for (uint32_t i = 0, waiting = netif_looped(); i < waiting && i < LOOP_BUDGET; i++)
		steer_input(stack, netif_take_looped());
	steer_poll(stack, LOOP_BUDGET);
	apps_poll(stack);
	flows_tell_peers(stack);
	tcp_table_timers(stack->now_ns);
	netif_flush(stack);
	handover_flush(stack);
	apps_flush(stack);
}

/* ------------------------------------------------------------------ the end of an execution */

static void forget_connections(uint32_t bucket)
{
	tcp_table_enter(bucket);
	while (tcp_active_pcbs)
		tcp_abort(tcp_active_pcbs);
	while (tcp_tw_pcbs) {
		struct tcp_pcb *pcb = tcp_tw_pcbs;

		tcp_pcb_remove(&tcp_tw_pcbs, pcb);
		tcp_free(pcb);
	}
	tcp_table_leave();
}

/* But for pipes, which the sanitizers open when they look at an address. */
static uint32_t open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	uint32_t count = 0;
	char what[6];

	while (dir && (entry = readdir(dir)))
		if (readlinkat(dirfd(dir), entry->d_name, what, sizeof(what)) < 5 || memcmp(what, "pipe:", 5))
			count++;
	if (dir)
		closedir(dir);
	return count;
}

static void give_back(void)
{
	for (uint32_t i = 0; i < seen.count; i++)
		forget_connections(seen.bucket[i]);
	seen.count = 0;
	/* What waits for a neighbour, and fragments. */
	for (int i = 0; i < 40; i++)
		worker_turn(SECOND);
	while (remains_work(&worker.stack.apps->arenas))
		;
	worker_turn(0);
}

void worker_settle(void)
{
	static uint32_t runs;
	const struct apps *apps = worker.stack.apps;

	worker_turn(0);
	worker_turn(0);
	give_back();
	/* Those that never sent a segment: now and then, since it takes a look at every bucket. */
	if (seen.more || runs % 64 == 0) {
		for (uint32_t i = 0; i < BUCKETS; i++)
			forget_connections(i);
		MUST(tcp_table_count(true) == 0);
	}
	seen.more = false;
	MUST(!apps->all);
	MUST(!apps->dead && !apps->rung && !apps->sockets.retry && !apps->sockets.finished);
	MUST(!apps->arenas.all);
	MUST(!apps->sockets.listeners);
	for (uint32_t kind = 0; kind < QUOTA_KINDS; kind++)
		MUST(apps->quota.used[kind] == 0);
	MUST(fragments_waiting() == 0);
	MUST(rte_mempool_avail_count(pool) == worker.mbufs);
	if (!worker.files)
		worker.files = open_files(); /* libFuzzer has its own open by now */
	MUST(runs++ % 64 || open_files() == worker.files);
}

/* ------------------------------------------------------------------ the beginning */

static void clean_up(void)
{
	DIR *dir = opendir(worker.dir);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(worker.dir);
	rmdir(rte_eal_get_runtime_dir());
}

static void start_dpdk(const char *program)
{
	char prefix[48];
	char *args[] = { (char *)program,       (char *)"--no-huge",     (char *)"-m",
		         (char *)"64",          (char *)"--no-pci",      (char *)"--no-telemetry",
		         (char *)"--no-shconf", (char *)"--log-level=3", prefix };

	snprintf(prefix, sizeof(prefix), "--file-prefix=gz-fuzz-%d", (int)getpid());
	MUST(rte_eal_init((int)(sizeof(args) / sizeof(args[0])), args) >= 0);
}

static void plan(void)
{
	struct gz_group_page *group = calloc(1, sizeof(*group));

	MUST(group);
	snprintf(worker.dir, sizeof(worker.dir), "/tmp/gz-fuzz-XXXXXX");
	MUST(mkdtemp(worker.dir));
	snprintf(group->run_dir, sizeof(group->run_dir), "%s", worker.dir);
	group->tot_queue_num = group->num_queue = 1;
	group->driver = GZ_DRIVER_TAP;
	group->mtu = 1500;
	group->rpc_number = 16;
	group->read_connect_number = 4;
	group->allow_everybody = 1;
	group->file_gid = GZ_NO_ID;
	group->host_addr_be = PP_HTONL(0x0a000002);
	group->netmask_be = PP_HTONL(0xffffff00);
	memcpy(group->host_addr6, worker_addr6, sizeof(worker_addr6));
	for (uint32_t i = 0; i < GZ_RSS_KEY_SIZE; i++)
		group->rss_key[i] = (uint8_t)(i * 37 + 11);
	group->workers[0] = (struct gz_worker_plan){ .cpu = -1, .numa = -1, .mbufs = MBUFS };
	worker.group = group;
}

void worker_begin(const char *program)
{
	struct protocol_stack *stack = &worker.stack;
	struct rlimit files = { 4096, 4096 };

	if (unshare(CLONE_NEWNET)) /* then the ports are those that the kernel has free */
		fprintf(stderr, "note: not root: in the network namespace of this machine\n");
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &files);
	start_dpdk(program);
	plan();
	atexit(clean_up);
	stack->group = worker.group;
	stack->plan = &worker.group->workers[0];
	stack->now_ns = 1000 * SECOND;
	stack->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	MUST(stack->epoll_fd >= 0);
	MUST(!page_open(stack) && !isn_open());
	pool = open_pool();
	MUST(pool);
	static const struct port_ops ops = { .receive = receive, .send = transmit, .flush = flush };
	port.ops = &ops;
	port.page = stack->page;
	port.pool = pool;
	stack->port = &port;
	MUST(!tcp_table_open() && !flows_open(stack) && !steer_open(stack) && !netif_open(stack));
	tcp_table_clock(stack->now_ns);
	syncookie_open(stack);
	MUST(!apps_open(stack));
	page_set_state(stack, GZ_WORKER_RUNNING);
	worker_turn(11 * SECOND); /* not young any more: what nobody listens for is refused */
	for (int i = 0; i < 3; i++)
		worker_turn(SECOND);
	worker.mbufs = rte_mempool_avail_count(pool);
}
