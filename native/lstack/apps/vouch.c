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
#include <gazelle/channel.h>
#include <gazelle/group_page.h>

#include "apps/app.h"
#include "apps/attach.h"
#include "apps/vouch.h"
#include "core/worker.h"

/* What a process has sent and not asked for yet, at most: one for each of its threads that is just about to ask. */
#define WAITING_MAX 64u
/* Messages that may lie before the one we look for; the socket's buffer holds fewer. */
#define MESSAGES_MAX 1024u

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

int vouch_open(struct apps *apps)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	apps->netns = cookie_of(fd, SO_NETNS_COOKIE);
	close(fd);
	return apps->netns ? 0 : -ENOPROTOOPT;
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

static bool has_ports(int fd)
{
	int domain = number_of(fd, SOL_SOCKET, SO_DOMAIN);

	return domain == AF_INET || domain == AF_INET6;
}

/* Asks the kernel what the socket is. False: not one that has a port. */
static bool look(struct vouch *vouch)
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
	vouch->device = number_of(fd, SOL_SOCKET, SO_BINDTOIFINDEX) != 0;
	vouch->v6only = vouch->domain == AF_INET6 && number_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1;
	vouch->cookie = cookie_of(fd, SO_COOKIE);
	vouch->netns = cookie_of(fd, SO_NETNS_COOKIE);
	vouch->uid = st.st_uid; /* the kernel's own word of whose it is, by which it decides about SO_REUSEPORT */
	return true;
}

void vouch_came(struct app *app, uint32_t number, int fd)
{
	struct vouch *vouch, **last = &app->vouches;
	uint32_t waiting = 0;

	for (; *last; last = &(*last)->next)
		waiting++;
	vouch = waiting < WAITING_MAX ? calloc(1, sizeof(*vouch)) : NULL;
	if (!vouch) {
		attach_discard(fd);
		app_doom(app, waiting < WAITING_MAX ? NULL : "vouches, but asks for nothing");
		return;
	}
	/*
	 * Nothing is kept that cannot have a port: the process's end of its control socket, say, which would keep it attached after its
	 * end.
	 */
	if (fd >= 0 && !has_ports(fd)) {
		attach_discard(fd);
		fd = -1;
		vouch->worthless = true;
	} else if (fd >= 0 && !quota_take(app->user, QUOTA_FILES)) {
		close(fd);
		fd = -1;
	} else if (fd >= 0) {
		vouch->payer = app->user;
		quota_hold(app->user);
	}
	vouch->number = number;
	vouch->fd = fd;
	*last = vouch;
}

static struct vouch *unqueue(struct app *app, uint32_t number)
{
	for (struct vouch **p = &app->vouches; *p; p = &(*p)->next) {
		struct vouch *vouch = *p;

		if (vouch->number != number)
			continue;
		*p = vouch->next;
		vouch->next = NULL;
		return vouch;
	}
	return NULL;
}

/* It was sent before the request was posted, so it is here, or lies in the control socket. NULL: it was not sent. */
static struct vouch *fetch(struct app *app, uint32_t number)
{
	struct vouch *vouch = unqueue(app, number);

	for (uint32_t i = 0; !vouch && i < MESSAGES_MAX && !app->doomed && attach_hear(app); i++)
		vouch = unqueue(app, number);
	return vouch;
}

static bool is_stacks(const struct gz_group_page *group, const uint8_t addr[16])
{
	if (gz_addr_is4(addr))
		return !memcmp(addr + 12, &group->host_addr_be, 4);
	return !memcmp(addr, group->host_addr6, 16);
}

static int check(const struct apps *apps, const struct vouch *vouch, const struct gz_request *request)
{
	const struct gz_group_page *group = apps->stack->group;
	bool datagram = request->op == GZ_REQUEST_BIND, listens = request->op == GZ_REQUEST_LISTEN;

	if (vouch->type != (datagram ? SOCK_DGRAM : SOCK_STREAM) ||
	    vouch->protocol != (datagram ? IPPROTO_UDP : IPPROTO_TCP) || vouch->domain != request->family ||
	    vouch->port != request->port || !vouch->port || memcmp(vouch->addr, request->addr, 16) ||
	    vouch->v6only != (request->v6only != 0) || vouch->listens != listens || vouch->device)
		return EACCES;
	if (!gz_addr_is_any(vouch->addr) && !is_stacks(group, vouch->addr) &&
	    !(listens && gz_addr_is_loopback(vouch->addr)))
		return EADDRNOTAVAIL;
	if (vouch->netns == apps->netns || group->foreign_listen)
		return 0;
	/* Another namespace's kernel has no say about ports here. To connect from one is no harm, where no privilege is in it. */
	return listens || (datagram && !request->peer_port) || vouch->port < 1024 ? EADDRNOTAVAIL : 0;
}

int vouch_take(struct app *app, const struct gz_request *request, struct vouch **out)
{
	struct vouch *vouch = fetch(app, request->sock);
	int error = EACCES;

	if (!vouch)
		return EACCES;
	if (vouch->fd < 0)
		error = vouch->worthless ? EACCES : ENOBUFS;
	else if (look(vouch))
		error = check(app->apps, vouch, request);
	if (error)
		vouch_drop(app->apps, vouch);
	else
		*out = vouch;
	return error;
}

void vouch_drop(struct apps *apps, struct vouch *vouch)
{
	if (!vouch)
		return;
	if (vouch->fd >= 0) {
		/* The process has the file open still, which would keep our watch on it. */
		if (vouch->watched)
			(void)epoll_ctl(apps->stack->epoll_fd, EPOLL_CTL_DEL, vouch->fd, NULL);
		attach_discard(vouch->fd);
	}
	if (vouch->payer) {
		quota_give(vouch->payer, QUOTA_FILES);
		quota_let_go(vouch->payer);
	}
	free(vouch);
}

void vouch_forget(struct app *app)
{
	while (app->vouches) {
		struct vouch *vouch = app->vouches;

		app->vouches = vouch->next;
		vouch_drop(app->apps, vouch);
	}
}

/* Owners of events are pointers; an odd one is a descriptor. The vouch itself may be gone before its event is looked at. */
void vouch_watch(struct apps *apps, struct vouch *vouch)
{
	struct epoll_event hang_up = { .data.ptr = (void *)((uintptr_t)vouch->fd << 1 | 1) };

	vouch->watched = !epoll_ctl(apps->stack->epoll_fd, EPOLL_CTL_ADD, vouch->fd, &hang_up);
}

bool vouch_of_event(const void *owner, int *fd)
{
	*fd = (int)((uintptr_t)owner >> 1);
	return (uintptr_t)owner & 1;
}

bool vouch_stands(const struct vouch *vouch)
{
	struct vouch now = { .fd = vouch->fd };

	return look(&now) && now.port == vouch->port && !memcmp(now.addr, vouch->addr, sizeof(now.addr)) &&
	       now.listens == vouch->listens;
}

static bool overlap(const struct vouch *a, const struct vouch *b)
{
	if (gz_addr_is_any(a->addr) && gz_addr_is_any(b->addr)) /* one family's, or one of IPv6 that is for both */
		return gz_addr_is4(a->addr) == gz_addr_is4(b->addr) || !(a->v6only || b->v6only);
	return gz_addr_serves(a->addr, a->v6only, b->addr) || gz_addr_serves(b->addr, b->v6only, a->addr);
}

bool vouch_meets(const struct vouch *a, const struct vouch *b)
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

bool vouch_outranks(const struct apps *apps, const struct vouch *now, const struct vouch *old)
{
	return now->netns == apps->netns && old->netns != apps->netns;
}
