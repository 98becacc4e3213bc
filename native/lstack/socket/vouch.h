/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whose a port is. A process that wants one sends the kernel socket that has it (GZ_MESSAGE_VOUCH), and the worker asks the
 * kernel about that socket: what it let the process bind, the process may own here. The worker keeps the descriptor for as
 * long as the port is in use here, so that no process can keep a port of the stack after it has given the same port of the
 * kernel back, where another process could get it.
 */
#ifndef LSTACK_VOUCH_H
#define LSTACK_VOUCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct sockets;
struct user;

/* A kernel socket of which we hold a descriptor, as the kernel described it when we looked last. */
struct vouch {
	struct vouch *next; /* app->vouches: sent, and not asked for yet */
	uint32_t number;    /* under which it will be */
	int fd;             /* -1: worthless, or we had no descriptor left for it */
	bool worthless;     /* what came is nothing that can have a port */
	struct user *payer; /* charged for that descriptor; NULL: none is */
	bool watched;       /* the worker's epoll tells when it listens no more */
	uid_t uid;
	uint64_t cookie; /* of the socket: the same for all descriptors of it */
	uint64_t netns;  /* of its network namespace */
	uint8_t addr[16];
	uint16_t port;
	int domain, type, protocol;
	bool v6only, listens, reuseaddr, reuseport;
	uint32_t device; /* index of the only interface it is for; 0: it is for all */
};

/* Learns which network namespace is ours. 0 or -errno. */
int vouch_open(struct sockets *sockets);

/* True if this descriptor is a socket of a family that has ports. */
bool vouch_has_ports(int fd);

/* Asks the kernel what the socket of vouch->fd is. False: not one that has a port. */
bool vouch_look(struct vouch *vouch);

/* Closes and frees it; NULL is allowed. */
void vouch_drop(struct sockets *sockets, struct vouch *vouch);

/* Lets the worker hear of it when the process makes the socket no listener any more: vouch_of_event() then knows the owner. */
void vouch_watch(struct sockets *sockets, struct vouch *vouch);

/* True if this owner of an event is a watched vouch; *fd is its descriptor. */
bool vouch_of_event(const void *owner, int *fd);

/* The cookie of a socket's network namespace; 0: it is no socket. */
uint64_t vouch_netns(int fd);

/* True if the kernel still says the same: the socket has that port, and listens if it did. */
bool vouch_stands(const struct vouch *vouch);

/* True if both are for one port and an address that belongs to both: what comes for the one could be given to the other. */
bool vouch_conflicts(const struct vouch *a, const struct vouch *b);

/*
 * Both have the port in the kernel, so it let them; but only those who agreed to share may share here: sockets of one user, or the
 * same socket, or datagram sockets that both say SO_REUSEADDR.
 */
bool vouch_shares(const struct vouch *a, const struct vouch *b);

/* True if `now`, which came later, takes the port from `old` all the same: what the kernel of our own namespace says goes first. */
bool vouch_outranks(const struct sockets *sockets, const struct vouch *now, const struct vouch *old);

#endif
