/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Bytes: every form of read and write of the program ends in stream_recv or stream_send, which copy between the program's
 * iovec and the connection's FIFOs. They block if the socket does, by the policy of wait.h.
 */
#ifndef SHIM_STREAM_H
#define SHIM_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct sock;

/*
 * recvmsg() without addresses, on a STREAM with rx held, which is given back. Bytes, 0 at the end, or -errno; no bytes asked
 * for, it waits for some all the same, as recv() does. flags: MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC;
 * MSG_OOB and MSG_ERRQUEUE answer as a kernel socket with nothing there.
 */
ssize_t stream_recv(struct sock *s, const struct iovec *iov, int count, int flags);

/* sendmsg() on a STREAM with tx held, which is given back. Bytes or -errno; SIGPIPE as the kernel sends it. */
ssize_t stream_send(struct sock *s, const struct iovec *iov, int count, int flags);

/* sendfile() to a STREAM with tx held, which is given back. */
ssize_t stream_sendfile(struct sock *s, int in_fd, off_t *offset, size_t len);

/* shutdown() of a STREAM; no locks held. 0 or -errno. */
int stream_shutdown(struct sock *s, int how);

extern const struct sock_ops stream_ops;

/* It has a peer, as getpeername and shutdown see it. */
bool stream_connected(struct sock *s);

/* Bytes that can be read now (FIONREAD), and bytes not yet acknowledged (SIOCOUTQ). */
int stream_unread(struct sock *s);
int stream_unsent(struct sock *s);

/* ---- between stream.c and stream_send.c */

/* Asks the peer to ring when there is room. True if there is by now. */
bool stream_want_space(struct sock *s);

/* tx held: keeps other processes that share the socket after a fork from writing, for as long as a copy takes. */
void stream_writer_begin(struct sock *s);
void stream_writer_end(struct sock *s);

/* Threads of ours that sleep in this socket look again. After a fence that follows what they shall see. */
void stream_wake_own(struct sock *s);

#endif
