/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The control sockets to the members of the other side: which there are, and what they say. */
#ifndef SHIM_SAMEHOST_MEMBER_H
#define SHIM_SAMEHOST_MEMBER_H

#include "samehost/pair_memory.h"

#define MEMBER_EACH(pair, m)                               \
	for (uint32_t m = 0; m < (pair)->members_end; m++) \
		if ((pair)->member_fd[m] > 0)

/* Adds the socket to a member of the other side; takes fd. a->post held, or the attachment is not public yet. */
void member_add(struct attachment *a, uint32_t member, uint32_t life, int fd);

/* Closes it. a->post held. */
void member_close(struct attachment *a, uint32_t member);

/* Reads what a member says, and adds to *heard how many messages there were. False: the member has died. a->post held. */
bool member_receive(struct attachment *a, uint32_t member, uint32_t *heard);

/* Reads what all of them say. False: nothing. a->post held. */
bool member_receive_all(struct attachment *a);

/* Wakes every thread of the other side that sleeps, by the control sockets, which all of them watch. */
void member_wake_all(struct attachment *a);

/* Of struct peer_ops. */
void member_announce(struct attachment *a, uint32_t queue, int fd);
bool member_hears(struct attachment *a, uint32_t queue);
uint32_t member_poll(struct attachment *a, struct pollfd *fds, uint32_t room);

#endif
