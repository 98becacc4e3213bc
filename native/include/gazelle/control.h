/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The control socket between an attached process and a worker: SOCK_SEQPACKET at <run_dir>/worker.<queue_id>.sock.
 * Every message is one struct gz_message, descriptors by SCM_RIGHTS. EOF is death: of the process for the worker, of the
 * worker for the process.
 *
 *   application                               worker
 *   HELLO {magic, abi}                   ->
 *                                        <-   WELCOME {queue_id, attach_id, sizes} + fds: arena, channel, page
 *   EVENT_QUEUE {number} + fd: wake.h    ->        (no answer; sent before the queue first sleeps)
 *   WAKE {}                              ->        the worker sleeps, and there is something for it
 *   FORK {}                              ->        a child will be: it holds all that this process holds
 *                                        <-   FORKED {attach_id, status} + fd: the child's control socket
 *   CLAIM {magic, abi}  (child, on that control socket)  ->
 *                                        <-   WELCOME ...   (same arena, a channel of its own)
 *   DROP {number, drop}                  ->        this process does not want those of what it holds; also before its CLAIM
 *   CARRY {number, text}                 ->        a socket goes on its way to another process: that one of ours (0: none), and a
 *                                                  note for the process that gets it
 *                                        <-   FORKED {attach_id, status} + fd: an end, which holds the socket and can say nothing
 *   ADOPT {} + fd: that end              ->        it has come to this process
 *                                        <-   ADOPTED {status, number, attach_id, text}: this process holds that one from now on,
 *                                             too (attach_id 1: as it did before), and the note, both as the sender's CARRY had
 *                                             them; EPERM: it is of another program, or no such end
 *   VOUCH {number} + fd: a kernel socket ->        the kernel let this process have the port that it is about to ask for under
 *                                                  that number, as the socket tells; sent before the request
 *   PAIR {addr, port} + fd: any socket   ->        who listens there among the attached processes? (same host, no packets) On
 *                                                  loopback: those of the socket's network namespace
 *                                        <-   PAIRED {status, side 0, member, other, more_members} + fds: the pair's memory, a
 *                                             member socket to a process of the program there
 *                                        <-   MEMBER {member, life} + fd: a member socket to another process of it; so many of
 *                                             these
 *   to each process of that program:     <-   PAIRED {0, side 1, member, other, uid, netns} + fds: the pair's memory, a member
 *                                             socket to the process that connects
 * From then on the two programs need the worker no more: further connections are made in the pair's memory. A member socket
 * is a control socket between one process of each side:
 *   EVENT_QUEUE {number} + fd: wake.h    ->        as with a worker
 *   MEMBER {member, life} + fd           ->        a member socket to another process of our side: just forked, or of the
 *                                                  listening program
 * Its EOF is the death of the process there; the process that sees it lets go of what the dead one held.
 *   TRACE {}   (from the administrator)  ->        times requests (enum gz_stage) until this connection ends
 *   DRAIN {number}  (from the administrator)  ->   1: no new connections here until DRAIN {0}; what there is goes on
 *                                        <-   DRAIN {number}
 *   CONNECTIONS {cursor}                 ->        which sockets are there? (connections.h)
 *                                        <-   CONNECTIONS {number, cursor}, and so many struct gz_connection in the same message
 * A number proves nothing to a worker, nor to a process that receives a socket, unless the sender shows that it held the socket:
 * the end is that proof.
 * A worker that cannot serve answers REFUSED {status = errno, text} and closes.
 */
#ifndef GAZELLE_CONTROL_H
#define GAZELLE_CONTROL_H

#include <stdint.h>

#define GZ_ATTACH_MAGIC 0x68636174617a67ull

enum gz_message_kind {
	GZ_MESSAGE_HELLO = 1,
	GZ_MESSAGE_WELCOME = 2,
	GZ_MESSAGE_REFUSED = 3,
	GZ_MESSAGE_EVENT_QUEUE = 4,
	GZ_MESSAGE_FORK = 5,
	GZ_MESSAGE_FORKED = 6,
	GZ_MESSAGE_CLAIM = 7,
	GZ_MESSAGE_PAIR = 8,
	GZ_MESSAGE_PAIRED = 9,
	GZ_MESSAGE_MEMBER = 10, /* a process at the other side of a pair */
	GZ_MESSAGE_WAKE = 11,
	GZ_MESSAGE_DROP = 12,
	GZ_MESSAGE_TRACE = 13,
	GZ_MESSAGE_ADOPT = 14,
	GZ_MESSAGE_ADOPTED = 15,
	GZ_MESSAGE_VOUCH = 16,
	GZ_MESSAGE_CARRY = 17,
	GZ_MESSAGE_CONNECTIONS = 18,
	GZ_MESSAGE_DRAIN = 19
};

enum { GZ_WELCOME_ARENA = 0, GZ_WELCOME_CHANNEL = 1, GZ_WELCOME_PAGE = 2, GZ_WELCOME_FDS = 3 };

enum { GZ_PAIRED_MEMORY = 0, GZ_PAIRED_SOCKET = 1, GZ_PAIRED_FDS = 2 };

struct gz_message {
	uint64_t magic; /* GZ_ATTACH_MAGIC */
	uint32_t abi_version;
	uint32_t kind;
	/* EVENT_QUEUE: which; DROP: sockets from 64 * number on; CARRY, ADOPTED, VOUCH: which socket; WELCOME: queue_id;
	 * PAIRED: the receiver's side, 0 connects, 1 listens; CONNECTIONS: records that follow;
	 * DRAIN: 1, 0 */
	uint32_t number;
	uint32_t attach_id; /* WELCOME: this process at this worker; FORKED: the child; ADOPTED: see above */
	int32_t status;     /* REFUSED, FORKED, ADOPTED, PAIRED: 0 or an errno */
	uint32_t member;  /* PAIRED: the receiver's number on its side; MEMBER: that of the process at the other end */
	uint32_t other;   /* PAIRED: the number of the process at the other end of the member socket */
	uint32_t life;    /* MEMBER, PAIRED: GZ_MEMBER_LIFE of the process at the other end */
	uint8_t addr[16]; /* PAIR: where it wants to connect; PAIRED: the same */
	uint16_t port;
	uint16_t more_members; /* PAIRED, side 0: how many MEMBERs follow, to all processes that can accept what it connects */
	uint32_t uid;          /* PAIRED: of the program that connects */
	union {
		uint64_t netns; /* PAIRED: cookie of its network namespace, as its socket showed; 0: it has shown none */
		uint64_t arena_size; /* WELCOME, bytes */
		uint64_t drop;       /* DROP: bit i = socket 64 * number + i */
		uint64_t cursor;     /* CONNECTIONS: where to go on */
	};
	uint64_t channel_size; /* WELCOME, bytes */
	char text[64];         /* REFUSED: why; CARRY, ADOPTED: the note */
};
_Static_assert(sizeof(struct gz_message) == 144, "one control message");

#endif
