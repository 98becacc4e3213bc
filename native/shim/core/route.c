/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/address.h>

#include "core/real.h"
#include "core/route.h"
#include "core/shim.h"

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

bool endpoint_from(const struct sockaddr *sa, socklen_t len, struct endpoint *out)
{
	if (!sa || len < sizeof(sa->sa_family))
		return false;
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		memcpy(out->addr, mapped, 12);
		memcpy(out->addr + 12, &in.sin_addr, 4);
		out->scope = 0;
		out->port = ntohs(in.sin_port);
		return true;
	}
	if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6) - sizeof(uint32_t)) {
		struct sockaddr_in6 in = { 0 };

		memcpy(&in, sa, len < sizeof(in) ? len : sizeof(in));
		memcpy(out->addr, &in.sin6_addr, 16);
		out->scope = gz_addr_is_link_local(out->addr) ? in.sin6_scope_id : 0;
		out->port = ntohs(in.sin6_port);
		return true;
	}
	return false;
}

void endpoint_to(const struct endpoint *ep, int family, struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(ep->port) };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(ep->port) };
	socklen_t full = family == AF_INET6 ? sizeof(in6) : sizeof(in);

	if (!sa || !len)
		return;
	memcpy(&in6.sin6_addr, ep->addr, 16);
	if (gz_addr_is_link_local(ep->addr)) /* the ABI names none: what the stack has is of its interface */
		in6.sin6_scope_id = ep->scope ? ep->scope : (uint32_t)route_ifindex();
	memcpy(&in.sin_addr, ep->addr + 12, 4);
	memcpy(sa, family == AF_INET6 ? (const void *)&in6 : (const void *)&in, *len < full ? *len : full);
	*len = full;
}

uint8_t route_own_slot(const struct endpoint *local)
{
	if (!shim.group || (local->scope && local->scope != shim.group->uplink_ifindex))
		return 0; /* interfaces may have the same link-local address */
	return gz_own_find(shim.group, local->addr);
}

bool route_is_stack(const struct endpoint *local)
{
	return route_own_slot(local);
}

bool route_is_shared(void)
{
	return shim.group && shim.group->uplink_owners;
}

void route_own(uint8_t slot, const struct endpoint *towards, struct endpoint *out)
{
	if (gz_own_read(shim.group, slot, out->addr))
		return;
	if (!gz_addr_is4(towards->addr)) {
		memcpy(out->addr, shim.group->host_addr6, sizeof(out->addr));
		return;
	}
	memcpy(out->addr, mapped, sizeof(mapped));
	memcpy(out->addr + sizeof(mapped), &shim.group->host_addr_be, 4);
}

int route_ifindex(void)
{
	static _Atomic uint32_t known; /* 1 + index: the device lives as long as the instance */
	uint32_t index = gz_load(&known);

	if (route_is_shared())
		return (int)shim.group->uplink_ifindex;
	if (!index) {
		index = 1 + (shim.group->device[0] ? if_nametoindex(shim.group->device) : 0);
		gz_store(&known, index);
	}
	return (int)index - 1;
}

bool route_is_broadcast(const struct endpoint *to)
{
	uint32_t be = endpoint_ip4_be(to), mask = shim.group ? shim.group->netmask_be : 0;

	if (!gz_addr_is4(to->addr))
		return false;
	return be == INADDR_BROADCAST ||
	       (mask && ~mask && (be & mask) == (shim.group->host_addr_be & mask) && (be | mask) == INADDR_BROADCAST);
}

enum route route_listen(const struct endpoint *local, enum gz_kernel_reason *why)
{
	*why = GZ_KERNEL_ADDRESS;
	if (route_is_stack(local))
		return route_is_shared() ? ROUTE_BOTH : ROUTE_STACK;
	return gz_addr_is_any(local->addr) || gz_addr_is_loopback(local->addr) ? ROUTE_BOTH : ROUTE_KERNEL;
}

/* An address of the host itself is reached by its kernel only. Asked by binding to it; connections out are rare enough. */
static bool is_hosts_own(const struct endpoint *ep)
{
	int family = gz_addr_is4(ep->addr) ? AF_INET : AF_INET6, fd;
	struct endpoint at = *ep;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool own;

	fd = REAL(socket)(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	at.port = 0;
	endpoint_to(&at, family, (struct sockaddr *)&sa, &len);
	own = !REAL(bind)(fd, (struct sockaddr *)&sa, len);
	UNCANCELLED(close, fd);
	return own;
}

/*
 * The stack's addresses are the machine's, too: the kernel's routes say whether what leaves for `to` leaves with one of them,
 * and by the uplink. Asked by a datagram socket, which sends nothing when it is connected. To an address of the machine's own
 * the source is that address.
 */
static enum route connect_shared(const struct endpoint *local, const struct endpoint *to, uint8_t *own,
                                 enum gz_kernel_reason *why)
{
	int family = gz_addr_is4(to->addr) ? AF_INET : AF_INET6, fd;
	struct endpoint at = *to, from;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	bool ours;

	*why = GZ_KERNEL_NO_ROUTE;
	fd = REAL(socket)(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return ROUTE_KERNEL;
	if (local && gz_addr_is4(local->addr) == gz_addr_is4(to->addr) && !gz_addr_is_any(local->addr)) {
		from = *local;
		from.port = 0;
		endpoint_to(&from, family, (struct sockaddr *)&sa, &len);
		(void)REAL(bind)(fd, (struct sockaddr *)&sa, len);
		len = sizeof(sa);
	}
	at.port = at.port ? at.port : 9;
	endpoint_to(&at, family, (struct sockaddr *)&sa, &len);
	ours = !UNCANCELLED(connect, fd, (struct sockaddr *)&sa, len);
	len = sizeof(sa);
	ours = ours && !REAL(getsockname)(fd, (struct sockaddr *)&sa, &len) &&
	       endpoint_from((struct sockaddr *)&sa, len, &from) && (*own = route_own_slot(&from)) &&
	       memcmp(from.addr, to->addr, sizeof(from.addr));
	UNCANCELLED(close, fd);
	return ours ? ROUTE_STACK : ROUTE_KERNEL;
}

static enum route connect6(const struct endpoint *to, enum gz_kernel_reason *why)
{
	const struct gz_group_page *group = shim.group;

	*why = GZ_KERNEL_NO_ROUTE;
	/* Link-local addresses and groups are of a device, and ours is none of the program's. */
	if (gz_addr_is_any(group->host_addr6) || to->addr[0] == 0xff || gz_addr_is_link_local(to->addr))
		return ROUTE_KERNEL;
	if (!memcmp(to->addr, group->host_addr6, 8))
		return ROUTE_STACK;
	return gz_addr_is_any(group->gateway6) || is_hosts_own(to) ? ROUTE_KERNEL : ROUTE_STACK;
}

enum route route_connect(const struct endpoint *local, const struct endpoint *to, uint8_t *own, enum gz_kernel_reason *why)
{
	const struct gz_group_page *group = shim.group;
	uint32_t be = endpoint_ip4_be(to);

	*own = 0;
	*why = GZ_KERNEL_ADDRESS;
	if (local && !gz_addr_is_any(local->addr) && !route_is_stack(local))
		return ROUTE_KERNEL;
	if (gz_addr_is_loopback(to->addr) || gz_addr_is_any(to->addr)) {
		*why = GZ_KERNEL_LOOPBACK;
		return ROUTE_KERNEL;
	}
	if (route_is_stack(to))
		return ROUTE_KERNEL; /* the stack's own address: the kernel reaches it as any neighbour does */
	if (route_is_shared())
		return connect_shared(local, to, own, why);
	if (!gz_addr_is4(to->addr))
		return connect6(to, why);
	if ((be & group->netmask_be) == (group->host_addr_be & group->netmask_be))
		return ROUTE_STACK;
	*why = GZ_KERNEL_NO_ROUTE;
	if (!group->gateway_be || (ntohl(be) >> 28) >= 14 || is_hosts_own(to))
		return ROUTE_KERNEL;
	return ROUTE_STACK;
}
