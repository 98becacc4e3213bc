/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/unreachable.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <lwip/pbuf.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/ip6.h>
#include <lwip/prot/tcp.h>

#include "packet/frame.h"
#include "tcp/tcp_table.h"

enum { UNREACHABLE4 = 3, TIME_EXCEEDED4 = 11, PARAMETER4 = 12 };
enum { UNREACHABLE6 = 1, TOO_BIG6 = 2, TIME_EXCEEDED6 = 3, PARAMETER6 = 4 };

struct reason {
	int error;
	bool fatal;
};

/* Destination unreachable, by its code. 4 of IPv4 is about a path's MTU. */
static const struct reason by_code4[] = {
	{ ENETUNREACH, false },
	{ EHOSTUNREACH, false },
	{ ENOPROTOOPT, true },
	{ ECONNREFUSED, true },
	{ 0, false },
	{ EOPNOTSUPP, false },
	{ ENETUNREACH, true },
	{ EHOSTDOWN, true },
	{ ENONET, true },
	{ ENETUNREACH, true },
	{ EHOSTUNREACH, true },
	{ ENETUNREACH, false },
	{ EHOSTUNREACH, false },
	{ EHOSTUNREACH, true },
	{ EHOSTUNREACH, true },
	{ EHOSTUNREACH, true },
};
static const struct reason by_code6[] = {
	{ ENETUNREACH, false }, { EACCES, true }, { EHOSTUNREACH, false }, { EHOSTUNREACH, false },
	{ ECONNREFUSED, true }, { EACCES, true }, { EACCES, true },
};

static unreachable_fn *connect_hears;

int unreachable_errno(bool v6, uint8_t type, uint8_t code, bool *fatal)
{
	const struct reason *reasons = v6 ? by_code6 : by_code4;
	size_t count = v6 ? sizeof(by_code6) / sizeof(*by_code6) : sizeof(by_code4) / sizeof(*by_code4);

	*fatal = true;
	if (type == (v6 ? PARAMETER6 : PARAMETER4))
		return EPROTO;
	if (v6 && type == TOO_BIG6)
		return EMSGSIZE;
	*fatal = false;
	if (type == (v6 ? TIME_EXCEEDED6 : TIME_EXCEEDED4))
		return EHOSTUNREACH;
	if (type != (v6 ? UNREACHABLE6 : UNREACHABLE4) || code >= count)
		return 0;
	*fatal = reasons[code].fatal;
	return reasons[code].error;
}

void unreachable_on_connect(unreachable_fn *hears)
{
	connect_hears = hears;
}

/* The sequence number shows that the host that sent the error has seen the segment. */
static void end_connect(const struct frame *flow, int error)
{
	tcp_table_enter(tcp_table_bucket(&flow->local, flow->local_port, &flow->remote, flow->remote_port));
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
		if (pcb->local_port != flow->local_port || pcb->remote_port != flow->remote_port ||
		    !ip_addr_cmp(&pcb->remote_ip, &flow->remote) || !ip_addr_cmp(&pcb->local_ip, &flow->local))
			continue;
		if (pcb->state == SYN_SENT && flow->seq == pcb->lastack && connect_hears)
			connect_hears(pcb, error);
		break;
	}
	tcp_table_leave();
}

void unreachable_icmp(const struct frame *frame, const uint8_t *icmp)
{
	bool fatal;
	int error = unreachable_errno(IP_IS_V6_VAL(frame->local), icmp[0], icmp[1], &fatal);

	if (error && error != EMSGSIZE)
		end_connect(frame, error);
}

void unreachable_packet(const struct pbuf *p)
{
	const uint8_t *ip = p->payload, *tcp;
	struct frame flow = { 0 };
	bool v6 = p->len && ip[0] >> 4 == 6;
	uint32_t header = v6 ? IP6_HLEN : p->len ? (ip[0] & 15u) * 4 : 0;

	if (p->len < (v6 ? IP6_HLEN : IP_HLEN) || p->len < header + TCP_HLEN || (v6 ? ip[6] : ip[9]) != IPPROTO_TCP)
		return;
	if (v6) {
		IP_SET_TYPE_VAL(flow.local, IPADDR_TYPE_V6);
		IP_SET_TYPE_VAL(flow.remote, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(&flow.local)->addr, ip + 8, 16);
		memcpy(ip_2_ip6(&flow.remote)->addr, ip + 24, 16);
	} else {
		memcpy(&ip_2_ip4(&flow.local)->addr, ip + 12, 4);
		memcpy(&ip_2_ip4(&flow.remote)->addr, ip + 16, 4);
	}
	tcp = ip + header;
	flow.local_port = (uint16_t)(tcp[0] << 8 | tcp[1]);
	flow.remote_port = (uint16_t)(tcp[2] << 8 | tcp[3]);
	flow.seq = (uint32_t)tcp[4] << 24 | (uint32_t)tcp[5] << 16 | (uint32_t)tcp[6] << 8 | tcp[7];
	end_connect(&flow, EHOSTUNREACH);
}

void unreachable_connect(struct tcp_pcb *pcb)
{
	if (connect_hears)
		connect_hears(pcb, EHOSTUNREACH);
}
