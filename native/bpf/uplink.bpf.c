/* SPDX-License-Identifier: GPL-2.0 OR MulanPSL-2.0 */
/*
 * Beside the kernel: which packets of an interface are the stack's. uplink_in runs at the interface's tc ingress, uplink_out
 * at the tap's: what the workers write.
 *
 * A packet is the stack's if it is to one of the addresses in `local` and its local port has an owner. Another program may have
 * that port of another address or family: what no socket of the stack is for comes back, and the kernel gets it. While no worker
 * lives the kernel serves: it gets new connections and those it has; the stack's own are dropped, so that nobody resets them.
 * The licence of these programs names the GPL because the kernel lends its socket look-up to no other.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <gazelle/uplink.h>

#define HEADERS 128u         /* bytes of a packet that hold every header looked at */
#define RETURNED 0x676a7270u /* mark of a packet that comes back */
#define FRAGMENTED 4096u     /* datagrams on their way in fragments; of more the oldest is forgotten, and lost */

/* Both families' ICMP header. linux/icmp.h needs the C library's headers, which there are none of for BPF. */
struct icmp_header {
	__u8 type, code;
	__sum16 checksum;
	__be32 rest;
};
struct fragment_header { /* RFC 8200, section 4.5 */
	__u8 next, reserved;
	__be16 offset; /* in 8 bytes, shifted by 3; the last bit: more follow */
	__be32 id;
};
enum { UNREACHABLE4 = 3, TIME_EXCEEDED4 = 11, PARAMETER4 = 12 };
enum { UNREACHABLE6 = 1, PARAMETER6 = 4 };

/* Set before the programs are loaded. */
volatile const __u32 tap_ifindex, uplink_ifindex, workers;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GZ_UPLINK_PORTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} gz_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct gz_uplink_state);
} gz_state SEC(".maps");

/* The kernel takes a worker's socket out of it when the worker ends, however it ends. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, GZ_UPLINK_WORKERS);
	__type(key, __u32);
	__type(value, __u32);
} gz_alive SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GZ_UPLINK_ADDRESSES);
	__type(key, struct gz_uplink_address);
	__type(value, __u8);
} gz_local SEC(".maps");

/* A datagram in fragments, of which only the first has ports: it has come and was the stack's. */
struct fragment {
	struct gz_uplink_address local, remote;
	__be32 id;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTED);
	__type(key, struct fragment);
	__type(value, __u8);
} gz_fragments SEC(".maps");

/* What is read of a packet: of an ICMP error, of the packet it quotes, whose source is us. */
struct flow {
	struct gz_uplink_address local, remote;
	__be16 local_port, remote_port;
	__u8 protocol;
	__u8 v6;
	__u8 syn; /* a new connection's first segment */
	__u8 error;
	__u8 fragment; /* FIRST: with ports; LATER: without */
	__be32 id;     /* of a fragment */
};

enum { WHOLE = 0, FIRST = 1, LATER = 2 };
enum { LEAVE, TAKE, DROP }; /* a packet to the kernel, to the stack, to neither */

static __always_inline void map_ip4(struct gz_uplink_address *a, __be32 ip)
{
	a->word[0] = a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = ip;
}

static __always_inline void copy_ip6(struct gz_uplink_address *a, const struct in6_addr *ip)
{
	for (int i = 0; i < 4; i++)
		a->word[i] = ip->in6_u.u6_addr32[i];
}

/* Ports, and whether it is a SYN. `swapped`: the packet is one of ours that an ICMP error quotes. False: not to be seen. */
static __always_inline int read_ports(void *l4, void *end, struct flow *f, int swapped)
{
	__be16 *port = l4;
	struct tcphdr *tcp = l4;

	if (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP)
		return 0;
	if ((void *)(port + 2) > end)
		return 0;
	f->local_port = swapped ? port[0] : port[1];
	f->remote_port = swapped ? port[1] : port[0];
	if (swapped || f->protocol != IPPROTO_TCP)
		return 1;
	if ((void *)(tcp + 1) > end)
		return 0;
	f->syn = tcp->syn && !tcp->ack;
	return 1;
}

static __always_inline int read_quoted4(struct icmp_header *icmp, void *end, struct flow *f)
{
	struct iphdr *ip = (void *)(icmp + 1);

	if ((void *)(ip + 1) > end)
		return 0;
	if (icmp->type != UNREACHABLE4 && icmp->type != TIME_EXCEEDED4 && icmp->type != PARAMETER4)
		return 0;
	f->error = 1;
	f->protocol = ip->protocol;
	map_ip4(&f->remote, ip->daddr);
	return read_ports((void *)ip + (ip->ihl & 15) * 4, end, f, 1);
}

static __always_inline int read4(void *l3, void *end, struct flow *f)
{
	struct iphdr *ip = l3;
	void *l4;

	if ((void *)(ip + 1) > end)
		return 0;
	l4 = l3 + (ip->ihl & 15) * 4;
	map_ip4(&f->local, ip->daddr);
	map_ip4(&f->remote, ip->saddr);
	f->protocol = ip->protocol;
	if (ip->frag_off & bpf_htons(0x3fff)) {
		f->fragment = ip->frag_off & bpf_htons(0x1fff) ? LATER : FIRST;
		f->id = ip->id;
		if (f->fragment == LATER)
			return 1;
	}
	if (ip->protocol != IPPROTO_ICMP)
		return read_ports(l4, end, f, 0);
	if (l4 + sizeof(struct icmp_header) > end)
		return 0;
	return read_quoted4(l4, end, f);
}

static __always_inline int read_quoted6(struct icmp_header *icmp, void *end, struct flow *f)
{
	struct ipv6hdr *ip = (void *)(icmp + 1);

	if ((void *)(ip + 1) > end || icmp->type < UNREACHABLE6 || icmp->type > PARAMETER6)
		return 0;
	f->error = 1;
	f->protocol = ip->nexthdr;
	copy_ip6(&f->remote, &ip->daddr);
	return read_ports(ip + 1, end, f, 1);
}

static __always_inline int read_fragment6(struct fragment_header *header, void *end, struct flow *f)
{
	if ((void *)(header + 1) > end)
		return 0;
	f->protocol = header->next;
	f->id = header->id;
	f->fragment = header->offset & bpf_htons(0xfff8) ? LATER : FIRST;
	return f->fragment == LATER ? 1 : read_ports(header + 1, end, f, 0);
}

static __always_inline int read6(void *l3, void *end, struct flow *f)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > end)
		return 0;
	f->v6 = 1;
	copy_ip6(&f->local, &ip->daddr);
	copy_ip6(&f->remote, &ip->saddr);
	f->protocol = ip->nexthdr;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return read_fragment6((void *)(ip + 1), end, f);
	if (ip->nexthdr != IPPROTO_ICMPV6)
		return read_ports(ip + 1, end, f, 0);
	if ((void *)(ip + 1) + sizeof(struct icmp_header) > end)
		return 0;
	return read_quoted6((void *)(ip + 1), end, f);
}

static __always_inline int read_flow(struct __sk_buff *skb, struct flow *f)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return read4(ethernet + 1, end, f);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return read6(ethernet + 1, end, f);
	return 0;
}

static __always_inline int is_port_owned(const struct flow *f)
{
	__u32 key = bpf_ntohs(f->local_port) | (f->protocol == IPPROTO_UDP ? 65536 : 0);
	__u64 *owners = bpf_map_lookup_elem(&gz_owners, &key);

	return owners && *owners && bpf_map_lookup_elem(&gz_local, &f->local);
}

static __always_inline void fragment_key(struct fragment *key, const struct flow *f)
{
	key->local = f->local;
	key->remote = f->remote;
	key->id = f->id;
	key->protocol = f->protocol;
}

/* True if the packet is the stack's. The later fragments of a datagram go where the first has gone. */
static __always_inline int is_owned(const struct flow *f)
{
	struct fragment key = {};

	if (f->fragment != LATER)
		return is_port_owned(f);
	fragment_key(&key, f);
	return bpf_map_lookup_elem(&gz_fragments, &key) != NULL;
}

/* Where the first fragment goes; an entry may be left of an earlier datagram. */
static __always_inline void remember(const struct flow *f, int is_ours)
{
	struct fragment key = {};
	__u8 one = 1;

	if (f->fragment != FIRST)
		return;
	fragment_key(&key, f);
	if (is_ours)
		bpf_map_update_elem(&gz_fragments, &key, &one, BPF_ANY);
	else
		bpf_map_delete_elem(&gz_fragments, &key);
}

static __always_inline int some_worker_lives(void)
{
	for (__u32 i = 0; i < GZ_UPLINK_WORKERS; i++) {
		struct bpf_sock *sk;
		__u32 key = i;

		if (i >= workers)
			break;
		sk = bpf_map_lookup_elem(&gz_alive, &key);
		if (sk) {
			bpf_sk_release(sk);
			return 1;
		}
	}
	return 0;
}

/* True if the kernel has this connection itself, established or on its way; a listener is none. */
static __always_inline int kernel_has(struct __sk_buff *skb, const struct flow *f)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;
	int has;

	if (f->protocol != IPPROTO_TCP || f->fragment == LATER)
		return 0;
	if (f->v6) {
		__builtin_memcpy(tuple.ipv6.saddr, &f->remote, 16);
		__builtin_memcpy(tuple.ipv6.daddr, &f->local, 16);
		tuple.ipv6.sport = f->remote_port;
		tuple.ipv6.dport = f->local_port;
		size = sizeof(tuple.ipv6);
	} else {
		tuple.ipv4.saddr = f->remote.word[3];
		tuple.ipv4.daddr = f->local.word[3];
		tuple.ipv4.sport = f->remote_port;
		tuple.ipv4.dport = f->local_port;
		size = sizeof(tuple.ipv4);
	}
	sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	has = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return has;
}

static __always_inline int judge(struct __sk_buff *skb, const struct flow *f)
{
	struct gz_uplink_state *state;
	__u32 zero = 0;

	if (!is_owned(f))
		return LEAVE;
	state = bpf_map_lookup_elem(&gz_state, &zero);
	if (!state)
		return LEAVE;
	if (some_worker_lives()) {
		if (state->kernel_flows && kernel_has(skb, f)) {
			__sync_fetch_and_add(&state->kept, 1);
			return LEAVE;
		}
		__sync_fetch_and_add(&state->taken, 1);
		return TAKE;
	}
	if (f->protocol == IPPROTO_UDP)
		return LEAVE;
	if (f->syn) {
		state->kernel_flows = 1; /* it may have connections on our ports from now on */
		__sync_fetch_and_add(&state->fallen_back, 1);
		return LEAVE;
	}
	if (kernel_has(skb, f)) {
		__sync_fetch_and_add(&state->kept, 1);
		return LEAVE;
	}
	__sync_fetch_and_add(&state->silenced, 1);
	return DROP; /* of the stack's connections: the kernel would reset them */
}

static __always_inline void pull_headers(struct __sk_buff *skb)
{
	if ((void *)(long)skb->data + HEADERS > (void *)(long)skb->data_end)
		(void)bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
}

SEC("tc")
int uplink_in(struct __sk_buff *skb)
{
	struct flow f = {};
	int verdict;

	if (skb->mark == RETURNED) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_UNSPEC;
	pull_headers(skb);
	if (!read_flow(skb, &f))
		return TC_ACT_UNSPEC;
	verdict = judge(skb, &f);
	remember(&f, verdict == TAKE);
	return verdict == TAKE ? (int)bpf_redirect(tap_ifindex, 0) : verdict == LEAVE ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

static __always_inline int is_returned(struct __sk_buff *skb)
{
	static const __u8 nobody[ETH_ALEN] = GZ_UPLINK_NOBODY;
	struct ethhdr *ethernet = (void *)(long)skb->data;

	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return 0;
	for (int i = 0; i < ETH_ALEN; i++)
		if (ethernet->h_dest[i] != nobody[i])
			return 1;
	return 0;
}

/* To the kernel, as if it had just come in. Only what a worker may have been given: nothing it could make up for other ports. */
static __always_inline int return_to_kernel(struct __sk_buff *skb)
{
	struct gz_uplink_state *state;
	struct flow f = {};
	__u32 zero = 0;

	state = bpf_map_lookup_elem(&gz_state, &zero);
	if (!state || !read_flow(skb, &f) || !is_port_owned(&f))
		return TC_ACT_SHOT;
	if (f.syn)
		state->kernel_flows = 1; /* what follows of this connection need not take that way */
	__sync_fetch_and_add(&state->returned, 1);
	skb->mark = RETURNED;
	return (int)bpf_redirect(uplink_ifindex, BPF_F_INGRESS);
}

SEC("tc")
int uplink_out(struct __sk_buff *skb)
{
	pull_headers(skb);
	if (is_returned(skb))
		return return_to_kernel(skb);
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_SHOT;
	return (int)bpf_redirect_neigh(uplink_ifindex, NULL, 0, 0); /* route and neighbour are the kernel's */
}

char _license[] SEC("license") = "Dual BSD/GPL";
