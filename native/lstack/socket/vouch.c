/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/address.h>

#include "arena/quota.h"
#include "core/passed_fd.h"
#include "core/worker.h"
#include "socket/sockets.h"
#include "socket/vouch.h"

static int number_of(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

static uint64_t cookie_of(int fd, int name)
{
	uint64_t value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? 0 : value;
}

uint64_t vouch_netns(int fd)
{
	return cookie_of(fd, SO_NETNS_COOKIE);
}

int vouch_open(struct sockets *sockets)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	sockets->netns = cookie_of(fd, SO_NETNS_COOKIE);
	close(fd);
	return sockets->netns ? 0 : -ENOPROTOOPT;
}

static bool read_address(int fd, struct vouch *vouch)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &len))
		return false;
	if (sa.ss_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, &sa, sizeof(in));
		memcpy(vouch->addr, mapped, sizeof(mapped));
		memcpy(vouch->addr + sizeof(mapped), &in.sin_addr, sizeof(in.sin_addr));
		vouch->port = ntohs(in.sin_port);
	} else {
		struct sockaddr_in6 in6;

		memcpy(&in6, &sa, sizeof(in6));
		memcpy(vouch->addr, &in6.sin6_addr, sizeof(vouch->addr));
		vouch->port = ntohs(in6.sin6_port);
	}
	return true;
}

bool vouch_has_ports(int fd)
{
	int domain = number_of(fd, SOL_SOCKET, SO_DOMAIN);

	return domain == AF_INET || domain == AF_INET6;
}

bool vouch_look(struct vouch *vouch)
{
	int fd = vouch->fd;
	struct stat st;

	/* The first question is one that no file system answers, for as long as it likes. */
	vouch->domain = number_of(fd, SOL_SOCKET, SO_DOMAIN);
	if ((vouch->domain != AF_INET && vouch->domain != AF_INET6) || !read_address(fd, vouch) || fstat(fd, &st))
		return false;
	vouch->type = number_of(fd, SOL_SOCKET, SO_TYPE);
	vouch->protocol = number_of(fd, SOL_SOCKET, SO_PROTOCOL);
	vouch->listens = number_of(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
	vouch->reuseaddr = number_of(fd, SOL_SOCKET, SO_REUSEADDR) == 1;
	vouch->reuseport = number_of(fd, SOL_SOCKET, SO_REUSEPORT) == 1;
	vouch->device = (uint32_t)number_of(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
	vouch->v6only = vouch->domain == AF_INET6 && number_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1;
	vouch->cookie = cookie_of(fd, SO_COOKIE);
	vouch->netns = cookie_of(fd, SO_NETNS_COOKIE);
	vouch->uid = st.st_uid; /* the kernel's own word of whose it is, by which it decides about SO_REUSEPORT */
	return true;
}

void vouch_drop(struct sockets *sockets, struct vouch *vouch)
{
	if (!vouch)
		return;
	if (vouch->fd >= 0) {
		/* The process has the file open still, which would keep our watch on it. */
		if (vouch->watched)
			(void)epoll_ctl(sockets->stack->epoll_fd, EPOLL_CTL_DEL, vouch->fd, NULL);
		passed_fd_close(vouch->fd, vouch->payer ? vouch->payer->uid : 0);
	}
	if (vouch->payer) {
		quota_give(vouch->payer, QUOTA_FILES);
		quota_let_go(vouch->payer);
	}
	free(vouch);
}

/* Owners of events are pointers; an odd one is a descriptor. The vouch itself may be gone before its event is looked at. */
void vouch_watch(struct sockets *sockets, struct vouch *vouch)
{
	struct epoll_event hang_up = { .data.ptr = (void *)((uintptr_t)vouch->fd << 1 | 1) };

	vouch->watched = !epoll_ctl(sockets->stack->epoll_fd, EPOLL_CTL_ADD, vouch->fd, &hang_up);
}

bool vouch_of_event(const void *owner, int *fd)
{
	*fd = (int)((uintptr_t)owner >> 1);
	return (uintptr_t)owner & 1;
}

bool vouch_stands(const struct vouch *vouch)
{
	struct vouch now = { .fd = vouch->fd };

	return vouch_look(&now) && now.port == vouch->port && !memcmp(now.addr, vouch->addr, sizeof(now.addr)) &&
	       now.listens == vouch->listens;
}

static bool overlap(const struct vouch *a, const struct vouch *b)
{
	if (gz_addr_is_any(a->addr) && gz_addr_is_any(b->addr)) /* one family's, or one of IPv6 that is for both */
		return gz_addr_is4(a->addr) == gz_addr_is4(b->addr) || !(a->v6only || b->v6only);
	return gz_addr_serves(a->addr, a->v6only, b->addr) || gz_addr_serves(b->addr, b->v6only, a->addr);
}

bool vouch_conflicts(const struct vouch *a, const struct vouch *b)
{
	if (a->port != b->port || !overlap(a, b))
		return false;
	/* Each namespace has its own loopback; the wire is everybody's. */
	return a->netns == b->netns || !(gz_addr_is_loopback(a->addr) || gz_addr_is_loopback(b->addr));
}

bool vouch_shares(const struct vouch *a, const struct vouch *b)
{
	if (a->netns != b->netns)
		return false;
	return a->cookie == b->cookie || a->uid == b->uid || (a->type == SOCK_DGRAM && a->reuseaddr && b->reuseaddr);
}

bool vouch_outranks(const struct sockets *sockets, const struct vouch *now, const struct vouch *old)
{
	return now->netns == sockets->netns && old->netns != sockets->netns;
}
