/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Timers: a bucket that was entered is marked `touched` and `ticking`. The fast timer (delayed ACKs) visits what was touched
 * since its last run; the slow one visits what is ticking, and a bucket stops ticking when its visit finds nothing
 * outstanding. What only has far-off deadlines (keepalive, TIME-WAIT...) is `lazy` and visited once a second.
 */
#include "tcp/tcp_table.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <lwip/priv/tcp_priv.h>

#include <hooks.h>

#include "core/bitmap.h"
#include "tcp/isn.h"

#define NONE UINT32_MAX
#define NS_PER_MS 1000000ull
#define FAST_NS (TCP_FAST_INTERVAL * NS_PER_MS)
#define SLOW_NS (TCP_SLOW_INTERVAL * NS_PER_MS)
#define LAZY_NS 1000000000ull
#define LAZY_AT_ONCE 512u /* so many lazy buckets are swept in one go; more are spread over LAZY_SLICES slow ticks */
#define LAZY_SLICES (LAZY_NS / SLOW_NS)
#define TIME_WAIT_MAX 32768u /* beyond it the oldest of some bucket goes, as Linux's tcp_max_tw_buckets does */
#define TIME_WAIT_REUSE_TICKS (1000 / TCP_SLOW_INTERVAL)

struct bucket {
	struct tcp_pcb *active, *time_wait;
	uint32_t time_waits;
};

static struct {
	struct bucket *bucket; /* BITMAP_BITS of them, zero pages until used */
	uint64_t key;
	uint32_t entered;      /* NONE outside a section */
	struct tcp_pcb *bound; /* not in buckets: nothing stays here outside a section */
	struct bitmap occupied, touched, ticking, lazy;
	uint64_t now_ns;                    /* of this turn */
	uint64_t clock_ns;                  /* up to which tcp_ticks counts */
	uint64_t fast_ns, slow_ns, lazy_ns; /* next runs */
	uint32_t lazy_slice, time_waits, evict_at;
	uint16_t port; /* whose listeners lwIP sees */
} table = { .entered = NONE };

static struct tcp_pcb_listen *listening[UINT16_MAX + 1]; /* but for table.port */

int tcp_table_open(void)
{
	void *p = mmap(NULL, BITMAP_BITS * sizeof(struct bucket), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	               -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	memset(&table, 0, sizeof(table));
	table.bucket = p;
	table.entered = NONE;
	table.key = isn_table_key() | 1;
	return 0;
}

static inline uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}

/* Keyed, so that nobody can choose tuples that share a bucket without knowing the key. */
uint32_t tcp_table_bucket(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port)
{
	uint64_t h = mix(table.key, (uint64_t)local_port << 16 | remote_port);

	if (IP_IS_V6(remote)) {
		const ip6_addr_t *a = ip_2_ip6(local), *b = ip_2_ip6(remote);

		h = mix(h, (uint64_t)a->addr[0] << 32 | a->addr[1]);
		h = mix(h, (uint64_t)a->addr[2] << 32 | a->addr[3]);
		h = mix(h, (uint64_t)b->addr[0] << 32 | b->addr[1]);
		h = mix(h, (uint64_t)b->addr[2] << 32 | b->addr[3]);
	} else {
		h = mix(h, (uint64_t)ip_2_ip4(local)->addr << 32 | ip_2_ip4(remote)->addr);
	}
	h = mix(h, table.key >> 7);
	return (uint32_t)(h >> 48);
}

/* Points lwIP's lists at a bucket. */
static void load(uint32_t n)
{
	table.entered = n;
	tcp_active_pcbs = table.bucket[n].active;
	tcp_tw_pcbs = table.bucket[n].time_wait;
	tcp_bound_pcbs = table.bound;
}

static void store(void)
{
	struct bucket *b = &table.bucket[table.entered];
	uint32_t time_waits = 0;

	b->active = tcp_active_pcbs;
	b->time_wait = tcp_tw_pcbs;
	table.bound = tcp_bound_pcbs;
	if (b->time_wait || b->time_waits) {
		for (const struct tcp_pcb *pcb = b->time_wait; pcb; pcb = pcb->next)
			time_waits++;
		table.time_waits += time_waits - b->time_waits;
		b->time_waits = time_waits;
	}
	if (b->active || b->time_wait)
		bitmap_set(&table.occupied, table.entered);
	else
		bitmap_clear(&table.occupied, table.entered);
	table.entered = NONE;
	tcp_active_pcbs = NULL; /* whoever forgot to enter finds nothing rather than another's connections */
	tcp_tw_pcbs = NULL;
}

void tcp_table_enter(uint32_t bucket)
{
	LWIP_ASSERT("tcp_table_enter: sections do not nest", table.entered == NONE);
	load(bucket % BITMAP_BITS);
}

void tcp_table_leave(void)
{
	/* After a rest the fast timer is overdue: an acknowledgement put off just now still waits for data to go with. */
	if (!table.touched.count && table.fast_ns < table.now_ns + FAST_NS)
		table.fast_ns = table.now_ns + FAST_NS;
	bitmap_set(&table.touched, table.entered);
	bitmap_set(&table.ticking, table.entered);
	store();
}

static struct tcp_pcb *find(struct tcp_pcb *pcb, const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote,
                            uint16_t remote_port)
{
	for (; pcb; pcb = pcb->next)
		if (pcb->remote_port == remote_port && pcb->local_port == local_port &&
		    ip_addr_cmp(&pcb->remote_ip, remote) && ip_addr_cmp(&pcb->local_ip, local))
			return pcb;
	return NULL;
}

bool tcp_table_has_in(uint32_t bucket, const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote,
                      uint16_t remote_port)
{
	const struct bucket *b = &table.bucket[bucket];

	return find(b->active, local, local_port, remote, remote_port) ||
	       find(b->time_wait, local, local_port, remote, remote_port);
}

bool tcp_table_has(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port)
{
	return tcp_table_has_in(tcp_table_bucket(local, local_port, remote, remote_port), local, local_port, remote,
	                        remote_port);
}

bool tcp_table_reuse(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port)
{
	uint32_t n = tcp_table_bucket(local, local_port, remote, remote_port);
	struct tcp_pcb *pcb = find(table.bucket[n].time_wait, local, local_port, remote, remote_port);

	if (!pcb || !(pcb->flags & TF_TIMESTAMP) || tcp_ticks - pcb->tmr < TIME_WAIT_REUSE_TICKS)
		return false;
	load(n);
	tcp_abort(pcb); /* in TIME-WAIT: silently */
	store();
	return true;
}

void tcp_table_listeners(uint16_t port)
{
	if (port == table.port)
		return;
	listening[table.port] = tcp_listen_pcbs.listen_pcbs;
	table.port = port;
	tcp_listen_pcbs.listen_pcbs = listening[port];
}

bool tcp_table_listens(const ip_addr_t *local, uint16_t local_port)
{
	tcp_table_listeners(local_port);
	for (const struct tcp_pcb_listen *l = tcp_listen_pcbs.listen_pcbs; l; l = l->next) {
		if (l->local_port != local_port)
			continue;
		if (IP_IS_ANY_TYPE_VAL(l->local_ip))
			return true;
		if (IP_GET_TYPE(&l->local_ip) == IP_GET_TYPE(local) &&
		    (ip_addr_isany(&l->local_ip) || ip_addr_cmp(&l->local_ip, local)))
			return true;
	}
	return false;
}

uint32_t tcp_table_count(bool time_wait)
{
	uint32_t count = 0;

	for (uint32_t n = bitmap_next(&table.occupied, 0); n < BITMAP_BITS; n = bitmap_next(&table.occupied, n + 1)) {
		for (const struct tcp_pcb *pcb = table.bucket[n].active; pcb; pcb = pcb->next)
			count++;
		if (time_wait)
			count += table.bucket[n].time_waits;
	}
	return count;
}

uint32_t tcp_table_next(uint32_t from)
{
	uint32_t n = bitmap_next(&table.occupied, from);

	return n < BITMAP_BITS ? n : UINT32_MAX;
}

const struct tcp_pcb *tcp_table_see(uint32_t bucket, bool time_wait)
{
	return time_wait ? table.bucket[bucket].time_wait : table.bucket[bucket].active;
}

const struct tcp_pcb_listen *tcp_table_see_listeners(uint16_t port)
{
	return port == table.port ? tcp_listen_pcbs.listen_pcbs : listening[port];
}

static void forget(struct tcp_pcb *pcb, const struct tcp_pcb_listen *listener)
{
	for (; pcb; pcb = pcb->next)
		if (pcb->listener == listener)
			pcb->listener = NULL;
}

void tcp_table_forget_listener(struct tcp_pcb *listener)
{
	const struct tcp_pcb_listen *l = (const struct tcp_pcb_listen *)listener;

	forget(tcp_active_pcbs, l); /* the entered bucket is in lwIP's lists, not in the table */
	forget(tcp_tw_pcbs, l);
	for (uint32_t n = bitmap_next(&table.occupied, 0); n < BITMAP_BITS; n = bitmap_next(&table.occupied, n + 1)) {
		if (n == table.entered)
			continue;
		forget(table.bucket[n].active, l);
		forget(table.bucket[n].time_wait, l);
	}
}

void tcp_table_clock(uint64_t now_ns)
{
	uint64_t ticks;

	table.now_ns = now_ns;
	if (!table.clock_ns)
		table.clock_ns = now_ns;
	if (now_ns - table.clock_ns < SLOW_NS)
		return;
	ticks = (now_ns - table.clock_ns) / SLOW_NS;
	tcp_tick((u32_t)ticks);
	table.clock_ns += ticks * SLOW_NS;
}

static void run_fast(void)
{
	for (uint32_t n = bitmap_next(&table.touched, 0); n < BITMAP_BITS; n = bitmap_next(&table.touched, n + 1)) {
		load(n);
		if (tcp_fast_walk() == TCP_TIMER_NONE)
			bitmap_clear(&table.touched, n);
		store();
	}
}

static void slow_visit(uint32_t n)
{
	int need;

	load(n);
	need = tcp_slow_walk();
	store();
	if (need != TCP_TIMER_BUSY)
		bitmap_clear(&table.ticking, n);
	else
		bitmap_set(&table.ticking, n);
	if (need == TCP_TIMER_LAZY)
		bitmap_set(&table.lazy, n);
	else
		bitmap_clear(&table.lazy, n);
}

static void run_slow(void)
{
	for (uint32_t n = bitmap_next(&table.ticking, 0); n < BITMAP_BITS; n = bitmap_next(&table.ticking, n + 1))
		slow_visit(n);
}

void tcp_table_connecting(void (*fn)(struct tcp_pcb *pcb, void *arg), void *arg)
{
	/* Its retransmission is outstanding, so its bucket is ticking. */
	for (uint32_t n = bitmap_next(&table.ticking, 0); n < BITMAP_BITS; n = bitmap_next(&table.ticking, n + 1)) {
		load(n);
		for (struct tcp_pcb *pcb = tcp_active_pcbs, *next; pcb; pcb = next) {
			next = pcb->next;
			if (pcb->state == SYN_SENT)
				fn(pcb, arg);
		}
		store();
	}
}

static void run_lazy(uint32_t from, uint32_t to)
{
	for (uint32_t n = bitmap_next(&table.lazy, from); n < to; n = bitmap_next(&table.lazy, n + 1))
		slow_visit(n);
}

/* Too many in TIME-WAIT: the oldest of the next buckets go, without a word. */
static void evict_time_waits(void)
{
	while (table.time_waits > TIME_WAIT_MAX) {
		struct tcp_pcb *last;
		uint32_t n = bitmap_next(&table.occupied, table.evict_at);

		if (n >= BITMAP_BITS) {
			table.evict_at = 0;
			continue;
		}
		table.evict_at = n + 1;
		if (!table.bucket[n].time_wait)
			continue;
		load(n);
		for (last = tcp_tw_pcbs; last->next;)
			last = last->next;
		tcp_abort(last);
		store();
	}
}

void tcp_table_timers(uint64_t now_ns)
{
	if (now_ns >= table.fast_ns) {
		run_fast();
		evict_time_waits();
		table.fast_ns = now_ns + FAST_NS;
	}
	if (now_ns < table.slow_ns)
		return;
	table.slow_ns = now_ns + SLOW_NS;
	run_slow();
	if (table.lazy.count > LAZY_AT_ONCE) {
		uint32_t width = BITMAP_BITS / LAZY_SLICES + 1, from = table.lazy_slice * width;

		run_lazy(from, from + width < BITMAP_BITS ? from + width : BITMAP_BITS);
		table.lazy_slice = (table.lazy_slice + 1) % LAZY_SLICES;
		table.lazy_ns = 0;
	} else if (now_ns >= table.lazy_ns) {
		run_lazy(0, BITMAP_BITS);
		table.lazy_ns = now_ns + LAZY_NS;
	}
}

uint64_t tcp_table_next_timer(uint64_t now_ns)
{
	uint64_t at = UINT64_MAX;

	if (table.touched.count)
		at = table.fast_ns;
	if ((table.ticking.count || table.lazy.count > LAZY_AT_ONCE) && table.slow_ns < at)
		at = table.slow_ns;
	if (table.lazy.count && table.lazy.count <= LAZY_AT_ONCE) {
		uint64_t lazy_ns = table.lazy_ns > table.slow_ns ? table.lazy_ns : table.slow_ns;

		at = lazy_ns < at ? lazy_ns : at;
	}
	if (at == UINT64_MAX)
		return UINT64_MAX;
	return at > now_ns ? at - now_ns : 0;
}

/* lwIP's request for a timer: it has them all from tcp_table_timers. */
void tcp_timer_needed(void)
{
}
