/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Which addresses the host has, as a program asks the C library. The stack's are on no interface of the kernel's unless it shares one: they
 * are shown on one that is called as the instance's device, or gz- and its name. Programs that bind each address there is find it so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <gazelle/address.h>

#include "api/api.h"
#include "core/real.h"
#include "core/route.h"
#include "core/shim.h"
#include "worker/group.h"

#define IPV6_BITS 64 /* of the stack's subnet */

/* One address in the list that getifaddrs() gives. */
struct shown {
	struct ifaddrs entry;
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} address, mask, broadcast;
	char name[IF_NAMESIZE];
};

static void name_of(char *name)
{
	memcpy(name, shim.group->device, IF_NAMESIZE);
	name[IF_NAMESIZE - 1] = '\0';
	if (*name)
		return;
	memcpy(name, "gz-", 3);
	memcpy(name + 3, shim.group->instance, IF_NAMESIZE - 4);
}

static struct ifaddrs *show(struct shown *shown, bool six)
{
	const struct gz_group_page *group = shim.group;
	struct ifaddrs *entry = &shown->entry;

	name_of(shown->name);
	entry->ifa_name = shown->name;
	entry->ifa_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
	entry->ifa_addr = &shown->address.any;
	entry->ifa_netmask = &shown->mask.any;
	if (six) {
		shown->address.six.sin6_family = shown->mask.six.sin6_family = AF_INET6;
		memcpy(&shown->address.six.sin6_addr, group->host_addr6, sizeof(group->host_addr6));
		memset(&shown->mask.six.sin6_addr, 0xff, IPV6_BITS / 8);
		return entry;
	}
	shown->address.four.sin_family = shown->mask.four.sin_family = shown->broadcast.four.sin_family = AF_INET;
	shown->address.four.sin_addr.s_addr = group->host_addr_be;
	shown->mask.four.sin_addr.s_addr = group->netmask_be;
	shown->broadcast.four.sin_addr.s_addr = group->host_addr_be | ~group->netmask_be;
	entry->ifa_broadaddr = &shown->broadcast.any;
	return entry;
}

/* In front of the C library's list; ours are one block, so that freeing knows where theirs begins. */
struct ours {
	uint32_t count;
	struct shown shown[2];
};

static struct ours *ours_of(struct ifaddrs *list)
{
	struct ours *ours = (struct ours *)((char *)list - offsetof(struct ours, shown));

	return list && list->ifa_name == ours->shown[0].name ? ours : NULL;
}

EXPORT int getifaddrs(struct ifaddrs **list)
{
	struct ifaddrs *theirs, **end;
	struct ours *ours;

	if (REAL(getifaddrs)(list))
		return -1;
	if (!group_known() || route_is_shared())
		return 0;
	ours = calloc(1, sizeof(*ours));
	if (!ours)
		return 0;
	theirs = *list;
	end = list;
	if (shim.group->host_addr_be) {
		*end = show(&ours->shown[ours->count++], false);
		end = &(*end)->ifa_next;
	}
	if (!gz_addr_is_any(shim.group->host_addr6)) {
		*end = show(&ours->shown[ours->count++], true);
		end = &(*end)->ifa_next;
	}
	*end = theirs;
	if (!ours->count)
		free(ours);
	return 0;
}

EXPORT void freeifaddrs(struct ifaddrs *list)
{
	struct ours *ours = shim_active() ? ours_of(list) : NULL;

	if (ours)
		list = ours->shown[ours->count - 1].entry.ifa_next;
	free(ours);
	REAL(freeifaddrs)(list);
}
