/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>

#include "udp/dgram_entry.h"
#include "udp/dgram_options.h"
#include "core/options.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"

/* True if the stack does what the option asks for, or it asks for nothing that shows in datagrams. */
static bool served(int level, int name)
{
	if (level == IPPROTO_IP)
		return name == IP_TOS || name == IP_TTL || name == IP_PKTINFO || name == IP_RECVTTL ||
		       name == IP_RECVTOS || name == IP_MTU_DISCOVER || name == IP_FREEBIND ||
		       name == IP_BIND_ADDRESS_NO_PORT || name == IP_MTU;
	if (level == IPPROTO_IPV6)
		return name == IPV6_TCLASS || name == IPV6_UNICAST_HOPS || name == IPV6_RECVPKTINFO ||
		       name == IPV6_RECVHOPLIMIT || name == IPV6_RECVTCLASS || name == IPV6_MTU_DISCOVER ||
		       name == IPV6_V6ONLY || name == IPV6_FREEBIND || name == IPV6_MTU;
	if (level != SOL_SOCKET)
		return false;
	switch (name) {
	case SO_RCVBUF:
	case SO_SNDBUF:
	case SO_RCVBUFFORCE:
	case SO_SNDBUFFORCE:
	case SO_RCVTIMEO:
	case SO_SNDTIMEO:
	case SO_BROADCAST:
	case SO_REUSEADDR:
	case SO_REUSEPORT:
	case SO_ERROR:
	case SO_TYPE:
	case SO_DOMAIN:
	case SO_PROTOCOL:
	case SO_ACCEPTCONN:
	case SO_COOKIE:
	case SO_INCOMING_CPU:
	case SO_KEEPALIVE: /* these mean nothing to datagrams, in the kernel too */
	case SO_LINGER:
	case SO_OOBINLINE:
	case SO_RCVLOWAT:
	case SO_PRIORITY: /* and these nothing to a stack with one queue and one device */
	case SO_DONTROUTE:
	case SO_BUSY_POLL:
	case SO_MARK:
		return true;
	default:
		return false;
	}
}

/* Options that have the same number for IPv4 and IPv6. */
static bool any_family(int name)
{
	return name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP || name == MCAST_JOIN_SOURCE_GROUP ||
	       name == MCAST_LEAVE_SOURCE_GROUP || name == MCAST_BLOCK_SOURCE || name == MCAST_UNBLOCK_SOURCE ||
	       name == MCAST_MSFILTER;
}

/* Multicast is the kernel's in every case: it works as far as a socket has a side there. */
static bool multicast(int level, int name)
{
	if (level == IPPROTO_IPV6)
		return name == IPV6_MULTICAST_IF || name == IPV6_MULTICAST_HOPS || name == IPV6_MULTICAST_LOOP ||
		       name == IPV6_MULTICAST_ALL || name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP ||
		       name == IPV6_JOIN_ANYCAST || name == IPV6_LEAVE_ANYCAST || any_family(name);
	return level == IPPROTO_IP &&
	       (name == IP_MULTICAST_IF || name == IP_MULTICAST_TTL || name == IP_MULTICAST_LOOP ||
	        name == IP_MULTICAST_ALL || name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP ||
	        name == IP_ADD_SOURCE_MEMBERSHIP || name == IP_DROP_SOURCE_MEMBERSHIP || name == IP_BLOCK_SOURCE ||
	        name == IP_UNBLOCK_SOURCE || name == IP_MSFILTER || any_family(name));
}

static uint32_t value_of(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return REAL(getsockopt)(fd, level, name, &value, &len) ? 0 : (uint32_t)value;
}

uint32_t dgram_mtu(const struct endpoint *to)
{
	/* Within the host nothing is ever cut, as far as a program can see; the kernel says so of its loopback. */
	return route_is_stack(to) ? 65535 : shim.group->mtu;
}

/* Which of the pieces of information about a datagram are wanted. */
static uint8_t load_told(const struct sock *s, int fd)
{
	static const struct {
		int level, name;
		uint8_t told;
	} all[] = {
		{ IPPROTO_IP, IP_PKTINFO, TOLD_PKTINFO },
		{ IPPROTO_IP, IP_RECVTTL, TOLD_TTL },
		{ IPPROTO_IP, IP_RECVTOS, TOLD_TOS },
		{ IPPROTO_IPV6, IPV6_RECVPKTINFO, TOLD_PKTINFO6 },
		{ IPPROTO_IPV6, IPV6_RECVHOPLIMIT, TOLD_HOPLIMIT },
		{ IPPROTO_IPV6, IPV6_RECVTCLASS, TOLD_TCLASS },
	};
	uint8_t told = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if ((all[i].level == IPPROTO_IP || s->family == AF_INET6) && value_of(fd, all[i].level, all[i].name))
			told |= all[i].told;
	return told;
}

static bool whole(uint32_t discover)
{
	_Static_assert(IP_PMTUDISC_DO == IPV6_PMTUDISC_DO && IP_PMTUDISC_PROBE == IPV6_PMTUDISC_PROBE &&
	                       IP_PMTUDISC_INTERFACE == IPV6_PMTUDISC_INTERFACE,
	               "the values are the same");
	return discover == IP_PMTUDISC_DO || discover == IP_PMTUDISC_PROBE || discover == IP_PMTUDISC_INTERFACE;
}

void dgram_options_load(struct sock *s, int fd)
{
	bool six = s->family == AF_INET6;

	dgram_of(s)->options = (struct dgram_options){
		.rcvbuf = s->options.known & 1u << OPTION_RCVBUF ? value_of(fd, SOL_SOCKET, SO_RCVBUF) : 0,
		.sndbuf = value_of(fd, SOL_SOCKET, SO_SNDBUF),
		.tos = (uint8_t)value_of(fd, IPPROTO_IP, IP_TOS),
		.ttl = (uint8_t)value_of(fd, IPPROTO_IP, IP_TTL),
		.tclass = six ? (uint8_t)value_of(fd, IPPROTO_IPV6, IPV6_TCLASS) : 0,
		.hops = six ? (uint8_t)value_of(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) : 0,
		.told = load_told(s, fd),
		.broadcast = value_of(fd, SOL_SOCKET, SO_BROADCAST) != 0,
		.whole = whole(value_of(fd, IPPROTO_IP, IP_MTU_DISCOVER)),
		.whole6 = six && whole(value_of(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER)),
	};
}

int dgram_option_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t len)
{
	bool fresh = sock_kind(s) == KIND_FRESH, known = served(level, name);

	if (!fresh && !known && !(multicast(level, name) && s->entries->both))
		return -ENOPROTOOPT;
	if (REAL(setsockopt)(fd, level, name, value, len))
		return -errno;
	if (fresh && !known && !multicast(level, name)) {
		sock_to_kernel(s, fd, GZ_KERNEL_OPTION);
		return 0;
	}
	lock_take(&s->rx);
	lock_take(&s->tx);
	if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) {
		struct timeval tv;

		memcpy(&tv, value, sizeof(tv));
		*(name == SO_RCVTIMEO ? &s->options.rcvtimeo_ns : &s->options.sndtimeo_ns) =
			(int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
	}
	if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_RCVBUFFORCE))
		s->options.known |= 1u << OPTION_RCVBUF;
	if (sock_kind(s) == KIND_DGRAM) {
		dgram_options_load(s, fd);
		dgram_entries_options(s);
	}
	lock_give(&s->tx);
	lock_give(&s->rx);
	return 0;
}

/* Copies as getsockopt does. */
static int give(int number, void *value, socklen_t *len)
{
	if ((int)*len < 0)
		return -EINVAL;
	if (*len > sizeof(number))
		*len = sizeof(number);
	memcpy(value, &number, *len);
	return 0;
}

int dgram_option_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *len)
{
	if (sock_kind(s) == KIND_DGRAM && value && len) {
		if (level == SOL_SOCKET && name == SO_ERROR) {
			int error = dgram_error(s, true);

			if (error)
				return give(error, value, len);
		}
		if ((level == IPPROTO_IP && name == IP_MTU) ||
		    (level == IPPROTO_IPV6 && name == IPV6_MTU && s->family == AF_INET6))
			return dgram_of(s)->peer.port ? give((int)dgram_mtu(&dgram_of(s)->peer), value, len) : -ENOTCONN;
	}
	return REAL(getsockopt)(fd, level, name, value, len) ? -errno : 0;
}
