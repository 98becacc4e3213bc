/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "tcp/syncookie.h"

#include <string.h>

#include <lwip/priv/tcp_priv.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/ip6.h>
#include <lwip/sys.h>

#include <hooks.h>

#include <gazelle/worker_page.h>

#include "tcp/isn.h"
#include "core/worker.h"

#define HALF_OPEN_MAX 1023u /* as many as one listener's backlog lets lwIP hold */
#define MINUTE_NS 60000000000ull
#define INDEX_MASK 7u
#define OPTION_BITS 63u /* of a timestamp: SCALE_NONE or the window scale, and SACK_BIT */
#define SCALE_NONE 15u
#define SACK_BIT 16u
#define FRAME_MOST (SIZEOF_ETH_HDR + IP6_HLEN + TCP_HLEN + 20u)

/* The MSS of a peer, rounded down to one of these: what Ethernet, tunnels and jumbo frames make of it. */
static const uint16_t mss_of[INDEX_MASK + 1] = { TCP_MSS_MIN, 536, 1220, 1360, 1440, 1460, 8940, 8960 };

static struct {
	struct protocol_stack *stack;
	uint32_t half_open;
	uint8_t ext_arg;  /* lwIP's number for ours */
	uint64_t last_ns; /* when the last cookie was sent */
} self;

/* What a SYN says of its sender. */
struct offer {
	uint16_t mss;
	uint8_t scale; /* SCALE_NONE: none */
	bool sack, timestamps;
	uint32_t tsval, tsecr;
};

struct tuple {
	const ip_addr_t *local, *remote;
	uint16_t local_port, remote_port;
	uint32_t isn; /* the peer's */
};

/* ------------------------------------------------------------------ half-open connections */

static void on_destroy(u8_t id, void *counted)
{
	(void)id;
	if (counted)
		self.half_open--;
}

static const struct tcp_ext_arg_callbacks half_open_callbacks = { .destroy = on_destroy };

static err_t on_half_open(u8_t id, struct tcp_pcb_listen *listener, struct tcp_pcb *pcb)
{
	(void)listener;
	self.half_open++;
	tcp_ext_arg_set_callbacks(pcb, id, &half_open_callbacks);
	tcp_ext_arg_set(pcb, id, &self);
	return ERR_OK;
}

static const struct tcp_ext_arg_callbacks listener_callbacks = { .passive_open = on_half_open };

void syncookie_open(struct protocol_stack *stack)
{
	memset(&self, 0, sizeof(self));
	self.stack = stack;
	self.ext_arg = tcp_ext_arg_alloc_id();
}

void syncookie_watch(struct tcp_pcb *listener)
{
	tcp_ext_arg_set_callbacks(listener, self.ext_arg, &listener_callbacks);
}

void syncookie_completed(struct tcp_pcb *pcb)
{
	if (!tcp_ext_arg_get(pcb, self.ext_arg))
		return; /* it was made of a cookie, and never half open */
	tcp_ext_arg_set(pcb, self.ext_arg, NULL);
	self.half_open--;
}

/* ------------------------------------------------------------------ cookies */

static uint32_t cookie_of(const struct tuple *t, uint32_t minute, uint32_t index)
{
	struct {
		uint8_t local[16], remote[16];
		uint16_t local_port, remote_port;
		uint32_t isn, minute, index;
	} of = { .local_port = t->local_port, .remote_port = t->remote_port, .isn = t->isn, .minute = minute, .index = index };

	memcpy(of.local, t->local, IP_IS_V6(t->local) ? 16 : 4); /* ip_addr_t begins with the address */
	memcpy(of.remote, t->remote, IP_IS_V6(t->remote) ? 16 : 4);
	return ((uint32_t)isn_siphash(isn_cookie_key(), &of, sizeof(of)) & ~INDEX_MASK) | index;
}

static uint32_t minute_now(void)
{
	return (uint32_t)(self.stack->now_ns / MINUTE_NS);
}

/* True if it is a cookie of this minute or the one before. */
static bool is_cookie(const struct tuple *t, uint32_t cookie)
{
	uint32_t minute = minute_now(), index = cookie & INDEX_MASK;

	return cookie == cookie_of(t, minute, index) || cookie == cookie_of(t, minute - 1, index);
}

/* Without a cookie on its way no ACK is looked at twice. */
static bool awaited(void)
{
	return self.last_ns && self.stack->now_ns - self.last_ns < 2 * MINUTE_NS;
}

bool syncookie_sent(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port,
                    uint32_t seqno, uint32_t ackno)
{
	const struct tuple t = { local, remote, local_port, remote_port, seqno - 1 };

	return awaited() && is_cookie(&t, ackno - 1);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void read_options(const uint8_t *p, uint32_t len, struct offer *offer)
{
	*offer = (struct offer){ .mss = 536, .scale = SCALE_NONE }; /* RFC 9293, 3.7.1 */
	while (len && *p != LWIP_TCP_OPT_EOL) {
		uint32_t size = *p == LWIP_TCP_OPT_NOP ? 1 : len >= 2 ? p[1] : 0;

		if (!size || size > len || (size < 2 && *p != LWIP_TCP_OPT_NOP))
			return;
		if (*p == LWIP_TCP_OPT_MSS && size == LWIP_TCP_OPT_LEN_MSS) {
			offer->mss = (uint16_t)(p[2] << 8 | p[3]);
		} else if (*p == LWIP_TCP_OPT_WS && size == LWIP_TCP_OPT_LEN_WS) {
			offer->scale = p[2] < 14 ? p[2] : 14; /* RFC 7323, 2.3 */
		} else if (*p == LWIP_TCP_OPT_SACK_PERM && size == LWIP_TCP_OPT_LEN_SACK_PERM) {
			offer->sack = true;
		} else if (*p == LWIP_TCP_OPT_TS && size == LWIP_TCP_OPT_LEN_TS) {
			offer->timestamps = true;
			offer->tsval = get32(p + 2);
			offer->tsecr = get32(p + 6);
		}
		p += size;
		len -= size;
	}
}

/* ------------------------------------------------------------------ the answer to a SYN */

static uint8_t *put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	return put16(put16(p, v >> 16), v);
}

/* Our clock's last bits say what the peer can do; never later than now, for a later segment must not look older. */
static uint32_t timestamp(const struct offer *offer)
{
	uint32_t now = sys_now(), t = (now & ~OPTION_BITS) | offer->scale | (offer->sack ? SACK_BIT : 0);

	return t > now ? t - OPTION_BITS - 1 : t;
}

static uint8_t *put_options(uint8_t *p, const struct offer *offer, uint32_t mss)
{
	*p++ = LWIP_TCP_OPT_MSS;
	*p++ = LWIP_TCP_OPT_LEN_MSS;
	p = put16(p, mss);
	if (!offer->timestamps)
		return p;
	*p++ = offer->sack ? LWIP_TCP_OPT_SACK_PERM : LWIP_TCP_OPT_NOP;
	*p++ = offer->sack ? LWIP_TCP_OPT_LEN_SACK_PERM : LWIP_TCP_OPT_NOP;
	*p++ = LWIP_TCP_OPT_TS;
	*p++ = LWIP_TCP_OPT_LEN_TS;
	p = put32(put32(p, timestamp(offer)), offer->tsval);
	if (offer->scale != SCALE_NONE) {
		*p++ = LWIP_TCP_OPT_NOP;
		*p++ = LWIP_TCP_OPT_WS;
		*p++ = LWIP_TCP_OPT_LEN_WS;
		*p++ = TCP_RCV_SCALE;
	}
	return p;
}

/* Ethernet and IP headers back to where the SYN came from. Returns where TCP begins. */
static uint8_t *put_lower(uint8_t *p, uint32_t tcp_len)
{
	bool v6 = ip_current_is_v6();
	const uint8_t *ip = v6 ? (const uint8_t *)ip6_current_header() : (const uint8_t *)ip4_current_header();
	const uint8_t *ethernet = ip - SIZEOF_ETH_HDR; /* netif_feed has stepped over it */

	memcpy(p, ethernet + 6, 6);
	memcpy(p + 6, ethernet, 6);
	memcpy(p + 12, ethernet + 12, 2);
	p += SIZEOF_ETH_HDR;
	if (v6) {
		put32(p, 6u << 28);
		put16(p + 4, tcp_len);
		p[6] = IP_PROTO_TCP;
		p[7] = TCP_TTL;
		memcpy(p + 8, ip + 24, 16);
		memcpy(p + 24, ip + 8, 16);
		return p + IP6_HLEN;
	}
	memset(p, 0, IP_HLEN);
	p[0] = 0x45;
	put16(p + 2, IP_HLEN + tcp_len);
	put16(p + 6, IP_DF); /* never in pieces, so it needs no number either (RFC 6864) */
	p[8] = TCP_TTL;
	p[9] = IP_PROTO_TCP;
	memcpy(p + 12, ip + 16, 4);
	memcpy(p + 16, ip + 12, 4);
	uint16_t sum = (uint16_t)~LWIP_CHKSUM(p, IP_HLEN);
	memcpy(p + 10, &sum, 2);
	return p + IP_HLEN;
}

/*
 * Straight back to the neighbour it came from: to ask for the way to an invented address would fill the neighbour table, and
 * hold the answer. The port makes TCP's checksum.
 */
static void answer(const struct tuple *t, const struct offer *offer)
{
	struct netif *netif = ip_current_input_netif();
	uint32_t index = INDEX_MASK, tcp_len, lower;
	uint8_t frame[FRAME_MOST] = { 0 }, options[20], *tcp;
	struct pbuf *p;

	while (index && mss_of[index] > offer->mss)
		index--;
	tcp_len = TCP_HLEN +
	          (uint32_t)(put_options(options, offer, tcp_eff_send_mss(TCP_MSS, t->local, t->remote)) - options);
	tcp = put_lower(frame, tcp_len);
	lower = (uint32_t)(tcp - frame);
	put16(tcp, t->local_port);
	put16(tcp + 2, t->remote_port);
	put32(tcp + 4, cookie_of(t, minute_now(), index));
	put32(tcp + 8, t->isn + 1);
	tcp[12] = (uint8_t)(tcp_len / 4 << 4);
	tcp[13] = TCP_SYN | TCP_ACK;
	put16(tcp + 14, TCPWND_MIN16(TCP_WND));
	memcpy(tcp + TCP_HLEN, options, tcp_len - TCP_HLEN);
	p = pbuf_alloc(PBUF_RAW, (u16_t)(lower + tcp_len), PBUF_RAM); /* for this turn only */
	if (!p)
		return;
	pbuf_take(p, frame, p->len);
	self.last_ns = self.stack->now_ns;
	worker_count(self.stack, GZ_COUNT_syncookies_sent, 1);
	netif->linkoutput(netif, p);
	pbuf_free(p);
}

/* ------------------------------------------------------------------ the ACK */

/* The connection as it would be if we had remembered its SYN (RFC 9293, 3.10.7.2). NULL: no memory. */
static struct tcp_pcb *revive(struct tcp_pcb_listen *listener, const struct tuple *t, const struct tcp_hdr *header,
                              const struct offer *offer)
{
	struct tcp_pcb *pcb = tcp_alloc(listener->prio);
	uint32_t said = offer->timestamps ? offer->tsecr & OPTION_BITS : SCALE_NONE, iss = header->ackno - 1;

	if (!pcb)
		return NULL;
	ip_addr_copy(pcb->local_ip, *t->local);
	ip_addr_copy(pcb->remote_ip, *t->remote);
	pcb->local_port = t->local_port;
	pcb->remote_port = t->remote_port;
	pcb->state = SYN_RCVD;
	pcb->rcv_nxt = pcb->rcv_ann_right_edge = header->seqno;
	pcb->snd_wl2 = pcb->lastack = pcb->recover = iss;
	pcb->snd_nxt = pcb->snd_lbb = iss + 1;
	pcb->snd_wl1 = t->isn; /* older than this segment, so that its window counts */
	pcb->snd_wnd = pcb->snd_wnd_max = header->wnd;
	pcb->callback_arg = listener->callback_arg;
	pcb->listener = listener;
	pcb->so_options = listener->so_options & SOF_INHERITED;
	if (offer->timestamps) {
		tcp_set_flags(pcb, TF_TIMESTAMP);
		pcb->ts_recent = offer->tsval;
	}
	if (said & SACK_BIT)
		tcp_set_flags(pcb, TF_SACK);
	if ((said & SCALE_NONE) != SCALE_NONE) {
		tcp_set_flags(pcb, TF_WND_SCALE);
		pcb->snd_scale = LWIP_MIN(said & SCALE_NONE, 14u);
		pcb->rcv_scale = TCP_RCV_SCALE;
		pcb->rcv_wnd = pcb->rcv_ann_wnd = TCP_WND_MAX(pcb);
	}
	pcb->mss = tcp_eff_send_mss(mss_of[iss & INDEX_MASK], &pcb->local_ip, &pcb->remote_ip);
	TCP_REG_ACTIVE(pcb);
	MIB2_STATS_INC(mib2.tcppassiveopens);
	return pcb;
}

/* lwIP gets the segment once more, as it was, and finds the connection now. */
static void feed_again(struct tcp_hdr *header, struct pbuf *p)
{
	uint32_t len = TCPH_HDRLEN_BYTES(header);

	header->src = lwip_htons(header->src);
	header->dest = lwip_htons(header->dest);
	header->seqno = lwip_htonl(header->seqno);
	header->ackno = lwip_htonl(header->ackno);
	header->wnd = lwip_htons(header->wnd);
	pbuf_add_header_force(p, len);
	pbuf_ref(p); /* the caller frees its own */
	tcp_input(p, ip_current_input_netif());
}

static err_t acknowledged(struct tcp_pcb_listen *listener, const struct tuple *t, struct tcp_hdr *header,
                          const struct offer *offer, struct pbuf *p)
{
	if (!is_cookie(t, header->ackno - 1)) {
		worker_count(self.stack, GZ_COUNT_syncookies_failed, 1);
		return ERR_OK; /* lwIP answers by RST */
	}
	/* Without room nothing is said, as Linux does: data comes again, and finds room then. */
	if (!listener->backlog || !revive(listener, t, header, offer)) {
		worker_count(self.stack, GZ_COUNT_listen_overflow, 1);
		return ERR_ABRT;
	}
	worker_count(self.stack, GZ_COUNT_syncookies_accepted, 1);
	feed_again(header, p);
	return ERR_ABRT;
}

s8_t lwip_listener_segment(struct tcp_pcb_listen *listener, struct tcp_hdr *header, u16_t options_len,
                           const u8_t *options_rest, struct pbuf *p)
{
	uint8_t kind = TCPH_FLAGS(header) & (TCP_SYN | TCP_ACK | TCP_RST);
	struct tuple t = { ip_current_dest_addr(), ip_current_src_addr(), header->dest, header->src, header->seqno };
	struct offer offer;

	if (options_rest || ip_addr_cmp(t.local, t.remote))
		return ERR_OK; /* headers in pieces, or this host's own: neither is a flood */
	if (kind == TCP_SYN) {
		if (!listener->backlog) {
			worker_count(self.stack, GZ_COUNT_listen_overflow, 1);
			return ERR_ABRT; /* the accept queue is full: it comes again */
		}
		if (self.half_open < HALF_OPEN_MAX)
			return ERR_OK;
		read_options((const uint8_t *)(header + 1), options_len, &offer);
		answer(&t, &offer);
		return ERR_ABRT;
	}
	if (kind != TCP_ACK || !awaited())
		return ERR_OK;
	t.isn--;
	read_options((const uint8_t *)(header + 1), options_len, &offer);
	return acknowledged(listener, &t, header, &offer, p);
}
