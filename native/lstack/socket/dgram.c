/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/ip4.h>
#include <lwip/ip6.h>
#include <lwip/udp.h>

#include <gazelle/address.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/fifo.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "core/worker.h"
#include "net/address.h"
#include "net/netif.h"
#include "net/udp_table.h"
#include "net/unreachable.h"
#include "net/uplink.h"
#include "packet/frame.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "socket/sockets.h"
#include "socket/vouch.h"

/* Room for some of the largest datagrams, and for what comes while the reader has no CPU. Virtual until used. */
#define TX_ORDER 18u
#define RX_ORDER 20u
#define LEAST_ORDER 17u /* near the quota of a program with thousands of sockets; one largest datagram fits */

static uint32_t take_block(struct arena *arena, uint32_t order)
{
	uint32_t block = 0;

	for (; !block && order >= LEAST_ORDER; order--)
		block = arena_take_block(arena, order);
	return block;
}

/* True if this unconnected socket takes what comes to `port` of the address that the packet at hand is for. */
static bool takes(const struct udp_pcb *pcb, uint16_t port)
{
	const ip_addr_t *to = ip_current_dest_addr();

	if (pcb->local_port != port || pcb->flags & UDP_FLAGS_CONNECTED)
		return false;
	if (IP_IS_ANY_TYPE_VAL(pcb->local_ip))
		return true;
	return IP_GET_TYPE(&pcb->local_ip) == IP_GET_TYPE(to) &&
	       (ip_addr_isany(&pcb->local_ip) || ip_addr_cmp(&pcb->local_ip, to));
}

/* As the kernel weighs them: the nearer address, then the family alone, then the socket that was bound last. */
static bool better(const struct conn *a, const struct conn *b)
{
	bool any_a = gz_addr_is_any(a->vouch->addr), any_b = gz_addr_is_any(b->vouch->addr);

	if (any_a != any_b)
		return any_b;
	if (a->vouch->domain != b->vouch->domain)
		return a->vouch->domain == AF_INET;
	return a->binding > b->binding;
}

/* Sockets that have agreed to share what comes: by SO_REUSEPORT, or since they are one kernel socket in several programs. */
static bool together(const struct conn *a, const struct conn *b)
{
	return a->vouch->cookie == b->vouch->cookie ||
	       (a->vouch->reuseport && b->vouch->reuseport && a->vouch->uid == b->vouch->uid &&
	        !memcmp(a->vouch->addr, b->vouch->addr, 16));
}

/* Which of several sockets with one port gets a datagram: the kernel's rules decide; among those that share the port its sender does. */
static struct conn *pick(struct conn *first, const ip_addr_t *addr, uint16_t port)
{
	uint32_t count = 0, which = ip4_addr_get_u32(ip_2_ip4(addr)) ^ port;
	uint16_t here = first->udp->local_port;

	for (int i = 1; IP_IS_V6(addr) && i < 4; i++)
		which ^= ip_2_ip6(addr)->addr[i];
	for (struct udp_pcb *pcb = udp_pcbs; pcb; pcb = pcb->next)
		if (takes(pcb, here) && better(pcb->recv_arg, first))
			first = pcb->recv_arg;
	for (int pass = 0; pass < 2; pass++) {
		for (struct udp_pcb *pcb = udp_pcbs; pcb; pcb = pcb->next) {
			if (!takes(pcb, here) || !together(pcb->recv_arg, first))
				continue;
			if (!pass)
				count++;
			else if (!which--)
				return pcb->recv_arg;
		}
		if (!pass && count)
			which = (which * 2654435761u >> 16) % count;
	}
	return first;
}

/* How much may wait for the reader: SO_RCVBUF if the program has set it, as far as the block allows. */
static uint32_t receive_limit(const struct conn *conn, uint32_t size)
{
	uint32_t rcvbuf = gz_load(&conn->shared->options.rcvbuf);

	return rcvbuf && rcvbuf < size ? rcvbuf : size;
}

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *addr, u16_t port)
{
	struct conn *conn = arg;

	if (conn->crowded && !(pcb->flags & UDP_FLAGS_CONNECTED) &&
	    !ip_addr_isbroadcast(ip_current_dest_addr(), ip_current_netif()))
		conn = pick(conn, addr, port);
	struct protocol_stack *stack = conn->sockets->stack;
	uint32_t size = GZ_BLOCK_SIZE(conn->rx_block), at, space = GZ_DATAGRAM_SPACE(p->tot_len);
	uint8_t *block = arena_block(conn->arena, conn->rx_block);
	/* pairs with gz_fifo_consume: those bytes are free */
	uint32_t used = conn->rx_head - gz_load_acquire(&conn->shared->app.in_tail);

	if (used > size) {
		conn_hostile(conn, "impossible consumer index");
		goto drop;
	}
	/* As the kernel does it: the last one to be taken may exceed the buffer. */
	if (size - used < space || used >= receive_limit(conn, size))
		goto drop;
	if (!used) {
		conn->rx_base = conn->rx_head;
		gz_store(&conn->shared->worker.out_base, conn->rx_base);
	}
	struct gz_datagram header = { .len = p->tot_len, .port = port };
	if (ip_current_is_v6()) {
		header.hops = IP6H_HOPLIM(ip6_current_header());
		header.tos = (uint8_t)IP6H_TC(ip6_current_header());
	} else {
		header.hops = IPH_TTL(ip4_current_header());
		header.tos = IPH_TOS(ip4_current_header());
	}
	if (ip_addr_isbroadcast(ip_current_dest_addr(), ip_current_netif()))
		header.flags = GZ_DATAGRAM_BROADCAST;
	else
		header.own = address_own_slot(stack->group, ip_current_dest_addr());
	address_write(addr, header.addr);
	gz_fifo_copy_in(block, size, conn->rx_base, conn->rx_head, &header, sizeof(header));
	at = conn->rx_head + (uint32_t)sizeof(header);
	for (struct pbuf *q = p; q; q = q->next) {
		gz_fifo_copy_in(block, size, conn->rx_base, at, q->payload, q->len);
		at += q->len;
	}
	conn->rx_head += space;
	gz_store_release(&conn->shared->worker.out_head, conn->rx_head); /* pairs with gz_fifo_readable */
	pbuf_free(p);
	worker_count(stack, GZ_COUNT_datagrams_in, 1);
	conn_notify(conn);
	return;

drop:
	worker_count(stack, GZ_COUNT_datagrams_dropped, 1);
	stack->readers_behind = true;
	pbuf_free(p);
}

/* Where it is bound: on :: to IPv4 as well, unless the program wants IPv6 alone. */
static void read_local(const struct vouch *vouch, ip_addr_t *out)
{
	address_read(vouch->addr, out);
	if (!gz_addr_is4(vouch->addr) && gz_addr_is_any(vouch->addr) && !vouch->v6only)
		IP_SET_TYPE(out, IPADDR_TYPE_ANY);
}

/* It has the port no longer; the program hears of it by the error. */
static void expel(struct conn *conn)
{
	dgram_close(conn);
	conn_fail(conn, EADDRINUSE);
}

/* Makes room for the socket that the kernel vouches for, unless it vouches for the one that has the port, too. 0 or EADDRINUSE. */
static int settle(struct conn *conn)
{
	struct udp_pcb *next;

	for (struct udp_pcb *pcb = udp_pcbs; pcb; pcb = next) {
		struct conn *other = pcb->recv_arg;

		next = pcb->next;
		if (!vouch_conflicts(other->vouch, conn->vouch))
			continue;
		if (vouch_shares(other->vouch, conn->vouch)) {
			conn->crowded = other->crowded = true;
			continue;
		}
		if (vouch_stands(other->vouch) && !vouch_outranks(conn->sockets, conn->vouch, other->vouch))
			return EADDRINUSE;
		expel(other);
	}
	return 0;
}

int dgram_bind(struct conn *conn, const struct gz_request *request)
{
	ip_addr_t local;
	int error;

	udp_table_turn_to(request->port);
	error = settle(conn);
	if (error)
		return error;
	if (!quota_charge(conn->arena->user, &conn->charges, QUOTA_DATAGRAMS))
		return ENOBUFS;
	conn->rx_block = take_block(conn->arena, RX_ORDER);
	conn->tx_block = take_block(conn->arena, TX_ORDER);
	if (!conn->rx_block || !conn->tx_block)
		return ENOBUFS;
	conn->udp = udp_new_ip_type(IPADDR_TYPE_V4);
	if (!conn->udp)
		return ENOBUFS;
	gz_store(&conn->shared->worker.out_block, conn->rx_block);
	gz_store(&conn->shared->worker.in_block, conn->tx_block);
	conn->binding = ++conn->sockets->bindings;
	udp_recv(conn->udp, on_datagram, conn);
	/* The kernel has arbitrated the port, so lwIP's own search is skipped. */
	ip_set_option(conn->udp, SOF_REUSEADDR);
	read_local(conn->vouch, &local);
	conn->udp->local_ip = local;
	if (udp_bind(conn->udp, &local, request->port) == ERR_OK) {
		uplink_hold(IPPROTO_UDP, request->port);
		return 0;
	}
	udp_remove(conn->udp);
	conn->udp = NULL;
	return ENOBUFS;
}

static void connect_to(struct conn *conn, const struct gz_request *request)
{
	if (!request->peer_port) {
		udp_disconnect(conn->udp);
		read_local(conn->vouch, &conn->udp->local_ip);
		return;
	}
	address_read(request->peer, &conn->udp->remote_ip);
	conn->udp->remote_port = request->peer_port;
	conn->udp->flags |= UDP_FLAGS_CONNECTED;
}

void dgram_set_peer(struct conn *conn, const struct gz_request *request)
{
	struct gz_name *name = &conn->shared->name;

	connect_to(conn, request);
	memcpy(name->local_addr, conn->vouch->addr, 16);
	memcpy(name->peer_addr, request->peer, 16);
	name->local_port = conn->vouch->port;
	name->peer_port = request->peer_port;
	name->family = request->family;
	name->type = SOCK_DGRAM;
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	conn_notify(conn);
}

/* The address it leaves by: the socket's own, or what the application has asked the kernel for. */
static void choose_source(const struct conn *conn, const struct gz_datagram *header, const ip_addr_t *to, ip_addr_t *out)
{
	const ip_addr_t *bound = &conn->udp->local_ip;

	if (!ip_addr_isany(bound) && !IP_IS_ANY_TYPE_VAL(*bound) && IP_GET_TYPE(bound) == IP_GET_TYPE(to))
		*out = *bound;
	else
		address_own(conn->sockets->stack->group, header->own, to, out);
}

/* One datagram out of the FIFO. Returns the bytes it took there, 0 = none, GZ_FIFO_BROKEN = nonsense. */
static uint32_t send_one(struct conn *conn, uint32_t waiting)
{
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block), space;
	const uint8_t *block = arena_block(conn->arena, conn->tx_block);
	struct gz_datagram header;
	ip_addr_t to, own;

	if (!waiting)
		return 0;
	if (waiting < sizeof(header))
		return GZ_FIFO_BROKEN;
	gz_fifo_copy_out(block, size, conn->tx_base, conn->tx_acked, &header, sizeof(header));
	if (header.len > GZ_DATAGRAM_MAX)
		return GZ_FIFO_BROKEN;
	space = GZ_DATAGRAM_SPACE(header.len);
	if (space > waiting)
		return GZ_FIFO_BROKEN;
	struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)header.len, PBUF_RAM);
	if (!p) {
		worker_count(conn->sockets->stack, GZ_COUNT_alloc_failed, 1);
		return space; /* datagrams may be lost; nothing waits for them */
	}
	gz_fifo_copy_out(block, size, conn->tx_base, conn->tx_acked + (uint32_t)sizeof(header), p->payload, header.len);
	address_read(header.addr, &to);
	choose_source(conn, &header, &to, &own);
	bool self = address_own_slot(conn->sockets->stack->group, &to);

	conn->udp->tos = header.tos;
	conn->udp->ttl = header.hops ? header.hops : UDP_TTL;
	if (self)
		netif_uncut(true);
	err_t err = netif_send_datagram(conn->udp, p, &to, header.port, &own);
	if (self)
		netif_uncut(false);
	if (err == ERR_OK)
		worker_count(conn->sockets->stack, GZ_COUNT_datagrams_out, 1);
	else
		worker_count(conn->sockets->stack, GZ_COUNT_datagrams_dropped, 1);
	pbuf_free(p);
	return space;
}

void dgram_rung(struct conn *conn)
{
	struct gz_end *app = &conn->shared->app;
	uint32_t head = gz_load_acquire(&app->out_head); /* pairs with gz_fifo_publish */
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block), done;
	bool moved = false;

	if (head - conn->tx_acked > size) {
		conn_hostile(conn, "impossible producer index");
		return;
	}
	if (head != conn->tx_acked)
		conn->tx_base = gz_load(&app->out_base);
	while ((done = send_one(conn, head - conn->tx_acked))) {
		if (done == GZ_FIFO_BROKEN) {
			conn_hostile(conn, "broken datagram");
			return;
		}
		conn->tx_acked += done;
		moved = true;
	}
	gz_store_release(&conn->shared->worker.in_tail, conn->tx_acked); /* pairs with gz_fifo_writable */
	if (moved && gz_load(&app->flags) & GZ_APP_WANT_SPACE)
		conn_notify(conn);
}

static void on_error(const struct frame *frame, const uint8_t *icmp)
{
	bool fatal;
	int error = unreachable_errno(IP_IS_V6_VAL(frame->local), icmp[0], icmp[1], &fatal);

	if (!error || !fatal)
		return; /* nothing that a program should hear of: the path may mend (RFC 1122, 4.1.3.3) */
	udp_table_turn_to(frame->local_port);
	for (struct udp_pcb *pcb = udp_pcbs; pcb; pcb = pcb->next) {
		struct conn *conn = pcb->recv_arg;
		struct gz_end *end = &conn->shared->worker;

		if (!(pcb->flags & UDP_FLAGS_CONNECTED) || pcb->local_port != frame->local_port ||
		    pcb->remote_port != frame->remote_port || !ip_addr_cmp(&pcb->remote_ip, &frame->remote) ||
		    (!ip_addr_isany(&pcb->local_ip) && !ip_addr_cmp(&pcb->local_ip, &frame->local)))
			continue;
		gz_store(&end->error, (uint32_t)error);
		/* Pairs with the application's acquire: the error is written. */
		gz_store_release(&end->aux[GZ_AUX_ERRORS], gz_load(&end->aux[GZ_AUX_ERRORS]) + 1);
		conn_notify(conn);
		return;
	}
}

void dgram_open(void)
{
	udp_table_on_error(on_error);
}

void dgram_close(struct conn *conn)
{
	dgram_rung(conn);
	udp_table_turn_to(conn->udp->local_port);
	uplink_release(IPPROTO_UDP, conn->udp->local_port);
	udp_remove(conn->udp);
	conn->udp = NULL;
	vouch_drop(conn->sockets, conn->vouch);
	conn->vouch = NULL;
}
