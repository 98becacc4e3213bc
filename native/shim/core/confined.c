/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/confined.h"

#include <sys/socket.h>

#include <gazelle/wake.h>

#include "core/real.h"

bool confined;

long confined_wake(int fd)
{
	/* The sockets do not wait by themselves; that the other end may be gone must be borne. */
	return confined ? UNCANCELLED(write, fd, "", 1) : UNCANCELLED(sendto, fd, "", 1, GZ_WAKE_FLAGS, NULL, 0);
}

long confined_drain(int fd)
{
	char byte;

	return confined ? UNCANCELLED(read, fd, &byte, 1) : UNCANCELLED(recvfrom, fd, &byte, 1, MSG_DONTWAIT, NULL, NULL);
}
