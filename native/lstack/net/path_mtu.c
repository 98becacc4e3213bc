/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A router that drops a packet of ours as too big quotes it. Only a quotation of what is under way is believed: a host that has
 * not seen the flow cannot make one, so it cannot make paths smaller. What is learned from datagrams, whose quotation proves
 * less, never concerns connections. The table is bounded; an entry ages, since paths change back (RFC 8201, 4).
 */
#include "net/path_mtu.h"

#include <string.h>

#include <lwip/priv/tcp_priv.h>
#include <lwip/sys.h>

#include "packet/frame.h"
#include "tcp/tcp_table.h"

#define SETS 128u
#define WAYS 4u
#define AGE_MS (10u * 60 * 1000)
#define LEAST4 552u /* as Linux: a smaller one would be more headers than data */
#define HEADERS4 40u
#define HEADERS6 60u

struct path {
	ip_addr_t to;
	uint16_t mtu; /* 0: free */
	bool tcp;
	uint32_t since_ms;
};

static struct path paths[SETS][WAYS];

static struct path *set_of(const ip_addr_t *to)
{
	const uint32_t *words = IP_IS_V6(to) ? ip_2_ip6(to)->addr : &ip_2_ip4(to)->addr;
	uint32_t hash = words[0];

	for (uint32_t i = 1; IP_IS_V6(to) && i < 4; i++)
		hash = (hash ^ words[i]) * 0x9e3779b1u;
	hash *= 0x9e3779b1u;
	return paths[hash >> 25];
}

static bool valid(const struct path *path)
{
	return path->mtu && sys_now() - path->since_ms < AGE_MS;
}

static bool is_to(const struct path *path, const ip_addr_t *to)
{
	return IP_IS_V6(&path->to) == IP_IS_V6(to) && ip_addr_cmp(&path->to, to);
}

uint16_t path_mtu_get(const ip_addr_t *to, bool tcp, uint16_t mtu)
{
	const struct path *set = set_of(to);

	for (uint32_t i = 0; i < WAYS; i++)
		if (valid(&set[i]) && (set[i].tcp || !tcp) && is_to(&set[i], to) && set[i].mtu < mtu)
			mtu = set[i].mtu;
	return mtu;
}

static void learn(const ip_addr_t *to, uint16_t mtu, bool tcp)
{
	struct path *set = set_of(to), *path = set;

	for (uint32_t i = 0; i < WAYS; i++) {
		if (set[i].mtu && set[i].tcp == tcp && is_to(&set[i], to)) {
			path = &set[i];
			break;
		}
		if (!valid(&set[i]) || (valid(path) && sys_now() - set[i].since_ms > sys_now() - path->since_ms))
			path = &set[i];
	}
	*path = (struct path){ .to = *to, .mtu = mtu, .tcp = tcp, .since_ms = sys_now() };
}

static uint16_t told(const struct frame *frame)
{
	return (uint16_t)(IP_IS_V4_VAL(frame->local) && frame->mtu < LEAST4 ? LEAST4 : frame->mtu);
}

bool path_mtu_of_connection(const struct frame *frame, uint32_t bucket)
{
	bool v4 = IP_IS_V4_VAL(frame->local), known = false;
	uint16_t mtu = told(frame);

	tcp_table_enter(bucket);
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
		if (pcb->local_port != frame->local_port || pcb->remote_port != frame->remote_port ||
		    !ip_addr_cmp(&pcb->remote_ip, &frame->remote) || !ip_addr_cmp(&pcb->local_ip, &frame->local))
			continue;
		known = TCP_SEQ_BETWEEN(frame->seq, pcb->lastack, pcb->snd_nxt) && pcb->lastack != pcb->snd_nxt;
		if (known) {
			learn(&frame->remote, mtu, true);
			tcp_path_mss(pcb, (uint16_t)(mtu - (v4 ? HEADERS4 : HEADERS6)));
		}
		break;
	}
	tcp_table_leave();
	return known;
}

void path_mtu_of_datagram(const struct frame *frame)
{
	learn(&frame->remote, told(frame), false);
}
