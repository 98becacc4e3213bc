/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <gazelle/address.h>

#include "udp/dgram_control.h"
#include "udp/dgram_entry.h"
#include "core/route.h"
#include "core/shim.h"

/* One control message, as much of it as there is room for; *used counts what is taken. */
static void put_control(struct msghdr *msg, size_t *used, int level, int type, const void *data, size_t len)
{
	struct cmsghdr header = { .cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type };
	size_t room = msg->msg_control ? msg->msg_controllen - *used : 0;
	char *at = (char *)msg->msg_control + *used;

	if (room < sizeof(header)) {
		msg->msg_flags |= MSG_CTRUNC;
		return;
	}
	if (room < header.cmsg_len) {
		msg->msg_flags |= MSG_CTRUNC;
		header.cmsg_len = room;
		len = room - CMSG_LEN(0);
	}
	memcpy(at, &header, sizeof(header));
	memcpy(at + CMSG_LEN(0), data, len);
	*used += CMSG_SPACE(len) < room ? CMSG_SPACE(len) : room;
}

/* What IPv4's options ask for of a datagram that came over IPv4. */
static void put_controls4(struct sock *s, struct msghdr *msg, size_t *used, const struct gz_datagram *header)
{
	struct endpoint from = { .addr = { [10] = 0xff, [11] = 0xff } }, own;
	uint32_t told = dgram_of(s)->options.told;
	int hops = header->hops;

	if (told & TOLD_PKTINFO) {
		route_own(header->own, &from, &own);
		struct in_pktinfo info = { .ipi_spec_dst.s_addr = endpoint_ip4_be(&own) };
		info.ipi_ifindex = route_ifindex();
		info.ipi_addr.s_addr = header->flags & GZ_DATAGRAM_BROADCAST ? INADDR_BROADCAST : info.ipi_spec_dst.s_addr;
		put_control(msg, used, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
	if (told & TOLD_TTL)
		put_control(msg, used, IPPROTO_IP, IP_TTL, &hops, sizeof(hops));
	if (told & TOLD_TOS)
		put_control(msg, used, IPPROTO_IP, IP_TOS, &header->tos, sizeof(header->tos));
}

/* IPV6_PKTINFO, also of what came over IPv4. */
static void put_pktinfo6(struct msghdr *msg, size_t *used, const struct gz_datagram *header, const struct endpoint *from)
{
	struct in6_pktinfo info = { .ipi6_ifindex = (unsigned int)route_ifindex() };
	struct endpoint own;

	route_own(header->own, from, &own);
	if (header->flags & GZ_DATAGRAM_BROADCAST)
		memset(own.addr + 12, 0xff, 4);
	memcpy(&info.ipi6_addr, own.addr, sizeof(own.addr));
	put_control(msg, used, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
}

void dgram_control_fill(struct sock *s, struct msghdr *msg, const struct gz_datagram *header)
{
	struct endpoint from = { .port = header->port };
	uint32_t told = dgram_of(s)->options.told;
	int hops = header->hops, tos = header->tos;
	size_t used = 0;

	memcpy(from.addr, header->addr, sizeof(from.addr));
	if (msg->msg_name)
		endpoint_to(&from, s->family, msg->msg_name, &msg->msg_namelen);
	if (told & TOLD_PKTINFO6)
		put_pktinfo6(msg, &used, header, &from);
	if (gz_addr_is4(from.addr)) {
		put_controls4(s, msg, &used, header);
	} else {
		if (told & TOLD_HOPLIMIT)
			put_control(msg, &used, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof(hops));
		if (told & TOLD_TCLASS)
			put_control(msg, &used, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
	}
	msg->msg_controllen = used;
}

/* The program names the address a datagram is to leave by: 0, or -EINVAL. An address of no kind leaves it to us. */
static int choose_source(const struct endpoint *to, const struct endpoint *from, struct gz_datagram *header)
{
	uint8_t slot = route_own_slot(from);

	if (gz_addr_is_any(from->addr))
		return 0;
	if (!slot || gz_addr_is4(from->addr) != gz_addr_is4(to->addr))
		return -EINVAL;
	header->own = slot;
	return 0;
}

/* The number of a control message: an int, or one byte where `byte` says that this is known, too. -EINVAL: neither, or too large. */
static int number_of(const struct cmsghdr *cmsg, bool byte)
{
	int number;

	if (byte && cmsg->cmsg_len == CMSG_LEN(1))
		return *CMSG_DATA(cmsg);
	if (cmsg->cmsg_len != CMSG_LEN(sizeof(number)))
		return -EINVAL;
	memcpy(&number, CMSG_DATA(cmsg), sizeof(number));
	return number >= -1 && number <= 255 ? number : -EINVAL;
}

/* One of IPV6's. 0 or -EINVAL. */
static int read6(const struct endpoint *to, const struct cmsghdr *cmsg, struct gz_datagram *header)
{
	bool four = gz_addr_is4(to->addr);
	struct endpoint from = { 0 };
	struct in6_pktinfo info;
	int number;

	switch (cmsg->cmsg_type) {
	case IPV6_PKTINFO:
		if (cmsg->cmsg_len != CMSG_LEN(sizeof(info)))
			return -EINVAL;
		memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
		memcpy(from.addr, &info.ipi6_addr, sizeof(from.addr));
		return choose_source(to, &from, header);
	case IPV6_HOPLIMIT:
	case IPV6_TCLASS:
		number = number_of(cmsg, false);
		if (four)
			return 0;
		if (number >= 0) /* -1 is what it would be anyway */
			*(cmsg->cmsg_type == IPV6_TCLASS ? &header->tos : &header->hops) = (uint8_t)number;
		return number == -EINVAL ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

/* One of IPv4's, which mean nothing to what goes over IPv6. 0 or -EINVAL. */
static int read4(const struct endpoint *to, const struct cmsghdr *cmsg, struct gz_datagram *header)
{
	struct endpoint from = { .addr = { [10] = 0xff, [11] = 0xff } };
	struct in_pktinfo info;
	int number;

	if (!gz_addr_is4(to->addr))
		return 0;
	switch (cmsg->cmsg_type) {
	case IP_PKTINFO:
		if (cmsg->cmsg_len != CMSG_LEN(sizeof(info)))
			return -EINVAL;
		memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
		memcpy(from.addr + 12, &info.ipi_spec_dst, 4);
		return choose_source(to, &from, header);
	case IP_TTL:
		number = number_of(cmsg, false);
		if (number < 1)
			return -EINVAL;
		header->hops = (uint8_t)number;
		return 0;
	case IP_TOS:
		number = number_of(cmsg, true);
		if (number < 0)
			return -EINVAL;
		header->tos = (uint8_t)number;
		return 0;
	default:
		return -EINVAL;
	}
}

int dgram_control_read(struct sock *s, const struct endpoint *to, const struct msghdr *msg, struct gz_datagram *header)
{
	const struct cmsghdr *cmsg = msg->msg_controllen ? CMSG_FIRSTHDR(msg) : NULL;
	struct dgram_options *o = &dgram_of(s)->options;
	bool four = gz_addr_is4(to->addr);
	int err = 0;

	header->hops = four ? o->ttl : o->hops;
	header->tos = four ? o->tos : o->tclass;
	for (; cmsg && !err; cmsg = CMSG_NXTHDR((struct msghdr *)msg, (struct cmsghdr *)cmsg)) {
		if (cmsg->cmsg_level == IPPROTO_IP)
			err = read4(to, cmsg, header);
		else if (cmsg->cmsg_level == IPPROTO_IPV6 && s->family == AF_INET6)
			err = read6(to, cmsg, header);
		else
			err = -EINVAL;
	}
	return err;
}
