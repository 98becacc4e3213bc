/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/kernel_neighbours.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/group_page.h>

#include "core/worker.h"
#include "net/unreachable.h"
#include "net/uplink.h"
#include "tcp/tcp_table.h"

#define ROUTES_MAX \
	256u /* asked for after one event; who is not asked for hears of it when the kernel has tried again */

static struct {
	int events; /* neighbours that do not answer; also our mark in the epoll set */
	int routes; /* asks for a route */
	uint32_t sequence;
} self = { .events = -1, .routes = -1 };

/* One neighbour that does not answer. */
struct lost {
	ip_addr_t addr;
	uint32_t ifindex;
	uint32_t left; /* routes we still ask for */
};

static int open_netlink(uint32_t groups)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), err;

	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&at, sizeof(at)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Of the changes of state, which are many, only this one is worth waking up for. */
static int filter_events(int fd)
{
	const uint32_t at = NLMSG_HDRLEN + offsetof(struct ndmsg, ndm_state);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, at),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, htons(NUD_FAILED), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) ? -errno : 0;
}

int kernel_neighbours_open(struct protocol_stack *stack)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = &self.events };
	struct timeval patience = { .tv_usec = 100000 };

	if (!uplink_is_on(stack->group))
		return 0;
	self.events = open_netlink(RTMGRP_NEIGH);
	if (self.events < 0)
		return self.events;
	self.routes = open_netlink(0);
	if (self.routes < 0)
		return self.routes;
	if (setsockopt(self.routes, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    epoll_ctl(stack->epoll_fd, EPOLL_CTL_ADD, self.events, &event))
		return -errno;
	return filter_events(self.events);
}

static bool read_addr(uint8_t family, const struct rtattr *attr, ip_addr_t *out)
{
	memset(out, 0, sizeof(*out));
	if (family == AF_INET6 && RTA_PAYLOAD(attr) >= 16) {
		IP_SET_TYPE(out, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(out)->addr, RTA_DATA(attr), 16);
		return true;
	}
	if (family != AF_INET || RTA_PAYLOAD(attr) < 4)
		return false;
	memcpy(&ip_2_ip4(out)->addr, RTA_DATA(attr), 4);
	return true;
}

static const struct rtattr *find(const struct nlmsghdr *message, size_t header, uint16_t type)
{
	const struct rtattr *attr = (const struct rtattr *)((const uint8_t *)NLMSG_DATA(message) + NLMSG_ALIGN(header));
	long left = (long)NLMSG_PAYLOAD(message, NLMSG_ALIGN(header));

	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left))
		if ((attr->rta_type & NLA_TYPE_MASK) == type)
			return attr;
	return NULL;
}

static void put(struct nlmsghdr *message, uint16_t type, const void *data, size_t len)
{
	struct rtattr *attr = (struct rtattr *)((uint8_t *)message + NLMSG_ALIGN(message->nlmsg_len));

	attr->rta_type = type;
	attr->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(attr), data, len);
	message->nlmsg_len = (uint32_t)(NLMSG_ALIGN(message->nlmsg_len) + RTA_LENGTH(len));
}

static const void *bytes_of(const ip_addr_t *addr, size_t *len)
{
	*len = IP_IS_V6(addr) ? 16 : 4;
	return IP_IS_V6(addr) ? (const void *)ip_2_ip6(addr)->addr : (const void *)&ip_2_ip4(addr)->addr;
}

/* The gateway that the kernel sends a connection's packets to. False: there is none. */
static bool gateway_of(const struct tcp_pcb *pcb, uint32_t ifindex, ip_addr_t *out)
{
	_Alignas(NLMSG_ALIGNTO) uint8_t buffer[1024] = { 0 };
	struct nlmsghdr *message = (struct nlmsghdr *)buffer;
	struct rtmsg *route = NLMSG_DATA(message);
	const struct rtattr *gateway;
	const void *bytes;
	ssize_t got;
	size_t len;

	message->nlmsg_len = NLMSG_LENGTH(sizeof(*route));
	message->nlmsg_type = RTM_GETROUTE;
	message->nlmsg_flags = NLM_F_REQUEST;
	message->nlmsg_seq = ++self.sequence;
	bytes = bytes_of(&pcb->remote_ip, &len);
	route->rtm_family = IP_IS_V6_VAL(pcb->remote_ip) ? AF_INET6 : AF_INET;
	route->rtm_dst_len = (uint8_t)(len * 8);
	put(message, RTA_DST, bytes, len);
	bytes = bytes_of(&pcb->local_ip, &len);
	put(message, RTA_SRC, bytes, len);
	put(message, RTA_OIF, &ifindex, sizeof(ifindex));
	if (send(self.routes, buffer, message->nlmsg_len, 0) < 0)
		return false;
	do {
		got = recv(self.routes, buffer, sizeof(buffer), 0);
		if (got < (ssize_t)sizeof(*message) || !NLMSG_OK(message, (uint32_t)got))
			return false;
	} while (message->nlmsg_seq != self.sequence); /* one that came too late, of an earlier question */
	if (message->nlmsg_type != RTM_NEWROUTE)
		return false;
	gateway = find(message, sizeof(*route), RTA_GATEWAY);
	return gateway && read_addr(route->rtm_family, gateway, out);
}

static bool same(const ip_addr_t *a, const ip_addr_t *b)
{
	return IP_IS_V6(a) == IP_IS_V6(b) && ip_addr_cmp(a, b);
}

static void look(struct tcp_pcb *pcb, void *arg)
{
	struct lost *lost = arg;
	ip_addr_t gateway;

	if (same(&pcb->remote_ip, &lost->addr)) {
		unreachable_connect(pcb);
	} else if (lost->left && IP_IS_V6_VAL(pcb->remote_ip) == IP_IS_V6_VAL(lost->addr)) {
		lost->left--;
		if (gateway_of(pcb, lost->ifindex, &gateway) && same(&gateway, &lost->addr))
			unreachable_connect(pcb);
	}
}

static void hear(const struct protocol_stack *stack, const struct nlmsghdr *message)
{
	const struct ndmsg *neighbour = NLMSG_DATA(message);
	struct lost lost = { .ifindex = stack->group->uplink_ifindex, .left = ROUTES_MAX };
	const struct rtattr *to;

	if (message->nlmsg_type != RTM_NEWNEIGH || message->nlmsg_len < NLMSG_LENGTH(sizeof(*neighbour)) ||
	    !(neighbour->ndm_state & NUD_FAILED) || neighbour->ndm_ifindex != (int)lost.ifindex)
		return;
	to = find(message, sizeof(*neighbour), NDA_DST);
	if (to && read_addr(neighbour->ndm_family, to, &lost.addr))
		tcp_table_connecting(look, &lost);
}

bool kernel_neighbours_event(struct protocol_stack *stack, const void *mark)
{
	_Alignas(NLMSG_ALIGNTO) uint8_t buffer[8192];
	const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
	ssize_t got;

	if (mark != &self.events)
		return false;
	got = recv(self.events, buffer, sizeof(buffer), MSG_DONTWAIT); /* an overflow says so once: some events are lost */
	for (uint32_t left = got > 0 ? (uint32_t)got : 0; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left))
		hear(stack, message);
	return true;
}
