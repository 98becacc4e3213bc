/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "udp/dgram_aside.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>

#include <gazelle/address.h>

#include "core/real.h"
#include "udp/dgram_sock.h"

static bool may_have_siblings(int fd)
{
	int addr = 0, port = 0;
	socklen_t len = sizeof(int);

	return !REAL(getsockopt)(fd, SOL_SOCKET, SO_REUSEADDR, &addr, &len) &&
	       !REAL(getsockopt)(fd, SOL_SOCKET, SO_REUSEPORT, &port, &len) && (addr || port);
}

int dgram_move_aside(struct sock *s, int fd, bool aside)
{
	struct endpoint self = { .addr = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 }, .port = s->local.port };
	struct sockaddr_storage sa = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(sa);

	if (!gz_addr_is4(s->local.addr) && s->entries->v6only)
		memcpy(self.addr, &in6addr_loopback, sizeof(self.addr));
	if (aside)
		endpoint_to(&self, s->family, (struct sockaddr *)&sa, &len);
	return REAL(connect)(fd, (struct sockaddr *)&sa, len) ? -errno : 0;
}

bool dgram_is_aside(const struct sock *s, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct endpoint at;

	return !REAL(getsockname)(fd, (struct sockaddr *)&sa, &len) && endpoint_from((struct sockaddr *)&sa, len, &at) &&
	       gz_addr_is_any(s->local.addr) && !gz_addr_is_any(at.addr);
}

/*
 * On both sides, and connected to a peer on the stack: the kernel is to hear nobody. A filter sees to that, and the kernel's side keeps
 * its address and the port. Where others may share the port it must not take from them what it does not want: then it is connected
 * to itself, and gives its address up for that. Disconnected: it hears all again.
 */
int dgram_quieten_kernel(struct sock *s, int fd, bool quiet)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &nothing };
	bool aside = dgram_is_aside(s, fd);

	if (aside != (quiet && (aside || may_have_siblings(fd))))
		return dgram_move_aside(s, fd, quiet);
	if (aside)
		return 0;
	if (!REAL(setsockopt)(fd, SOL_SOCKET, quiet ? SO_ATTACH_FILTER : SO_DETACH_FILTER, &program, sizeof(program)))
		return 0;
	return errno == ENOENT ? 0 : -errno; /* it was not quiet */
}
