/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Every form of reading and writing. */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "api/api.h"
#include "udp/dgram.h"
#include "udp/dgram_message.h"
#include "core/real.h"
#include "process/fd_passing.h"
#include "core/sock.h"
#include "stream/splice.h"
#include "stream/stream.h"

/* The fortified forms have no prototypes in public headers. */
EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags);
EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags, __SOCKADDR_ARG addr, socklen_t *alen);
extern void __chk_fail(void) __attribute__((noreturn));

/* Not a stream. True: a datagram socket of the stack, and *out is the answer; else the call is the kernel's. */
static bool dgram_read(int fd, const struct iovec *iov, int count, int flags, struct sockaddr *addr, socklen_t *alen,
                       ssize_t *out)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
	struct sock *s = dgram_enter(fd, false);

	if (!s)
		return false;
	msg.msg_name = alen ? addr : NULL;
	msg.msg_namelen = alen ? *alen : 0;
	*out = api_return(dgram_recv(s, fd, &msg, flags));
	if (*out >= 0 && alen)
		*alen = msg.msg_namelen;
	return true;
}

static bool dgram_write(int fd, const struct iovec *iov, int count, int flags, const struct sockaddr *addr,
                        socklen_t alen, ssize_t *out)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
		              .msg_iovlen = (size_t)count,
		              .msg_name = (void *)addr,
		              .msg_namelen = addr ? alen : 0 };
	struct sock *s = dgram_enter(fd, addr != NULL);

	if (s)
		*out = api_return(dgram_send(s, fd, &msg, flags));
	return s != NULL;
}

/* ------------------------------------------------------------------ reading */

/* read() of a file, which needs no bytes to give none; recv() waits for some. A stream with rx held, which is given back. */
static ssize_t read_stream(struct sock *s, const struct iovec *iov, int count)
{
	bool any = count < 0 || count > IOV_MAX;

	for (int i = 0; i < count && !any; i++)
		any = iov[i].iov_len != 0;
	if (any)
		return api_return(stream_recv(s, iov, count, 0));
	lock_give(&s->rx);
	return 0;
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, false);
	ssize_t r;

	if (s)
		return read_stream(s, &iov, 1);
	return dgram_read(fd, &iov, 1, 0, NULL, NULL, &r) ? r : REAL(read)(fd, buf, len);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct sock *s = sock_enter_stream(fd, false);
	ssize_t r;

	if (s)
		return read_stream(s, iov, count);
	return dgram_read(fd, iov, count, 0, NULL, NULL, &r) ? r : REAL(readv)(fd, iov, count);
}

EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, false);
	ssize_t r;

	if (s)
		return api_return(stream_recv(s, &iov, 1, flags));
	return dgram_read(fd, &iov, 1, flags, NULL, NULL, &r) ? r : REAL(recv)(fd, buf, len, flags);
}

EXPORT ssize_t recvfrom(int fd, void *buf, size_t len, int flags, __SOCKADDR_ARG addr, socklen_t *alen)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, false);
	ssize_t r;

	if (!s && dgram_read(fd, &iov, 1, flags, addr.__sockaddr__, alen, &r))
		return r;
	if (!s)
		return REAL(recvfrom)(fd, buf, len, flags, addr.__sockaddr__, alen);
	if (addr.__sockaddr__ && alen)
		*alen = 0; /* a stream has no sender */
	return api_return(stream_recv(s, &iov, 1, flags));
}

/* 0, or what the kernel says of such a message. */
static int check_message(const struct msghdr *msg)
{
	return !msg ? -EFAULT : msg->msg_iovlen > IOV_MAX ? -EMSGSIZE : 0;
}

/* A stream with rx held, which is given back. */
static ssize_t recv_message(struct sock *s, struct msghdr *msg, int flags)
{
	int err = check_message(msg);

	if (err) {
		lock_give(&s->rx);
		return err;
	}
	ssize_t n = stream_recv(s, msg->msg_iov, (int)msg->msg_iovlen, flags);

	if (n >= 0) {
		msg->msg_namelen = 0;
		msg->msg_controllen = 0;
		msg->msg_flags = 0;
	}
	return n;
}

static ssize_t recv_of_kernel(int fd, struct msghdr *msg, int flags)
{
	ssize_t n = REAL(recvmsg)(fd, msg, flags);

	if (n >= 0)
		fd_passing_received(msg);
	return n;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct sock *s = sock_enter_stream(fd, false);

	if (s)
		return api_return(recv_message(s, msg, flags));
	s = dgram_enter(fd, false);
	return s ? api_return(dgram_recv(s, fd, msg, flags)) : recv_of_kernel(fd, msg, flags);
}

/* recvmmsg's own idea of a time limit: it is looked at after each message, and a wait for the next one is not cut short. */
EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags, struct timespec *timeout)
{
	struct sock *s = fd_sock(fd);
	uint64_t until = 0, now;
	unsigned int done = 0;
	ssize_t n = 0;

	if (!s || sock_kind(s) == KIND_FRESH || sock_kind(s) == KIND_LISTENER) {
		int got = REAL(recvmmsg)(fd, msgs, count, flags, timeout);

		for (int i = 0; i < got; i++)
			fd_passing_received(&msgs[i].msg_hdr);
		return got;
	}
	if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)) {
		errno = EINVAL;
		return -1;
	}
	if (timeout)
		until = now_ns() + (timeout->tv_sec < 1000000000 ? (uint64_t)timeout->tv_sec : 1000000000u) * 1000000000u +
		        (uint64_t)timeout->tv_nsec;
	while (done < count) {
		n = recvmsg(fd, &msgs[done].msg_hdr, flags & ~MSG_WAITFORONE);
		if (n < 0)
			break;
		msgs[done++].msg_len = (unsigned int)n;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		now = timeout ? now_ns() : 0;
		if (timeout && now >= until)
			break;
	}
	if (timeout && done) {
		now = now_ns();
		until = until > now ? until - now : 0;
		*timeout = (struct timespec){ .tv_sec = (time_t)(until / 1000000000u),
			                      .tv_nsec = (long)(until % 1000000000u) };
	}
	return done ? (int)done : (int)n;
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room)
		__chk_fail();
	return read(fd, buf, len);
}

EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
	if (len > room)
		__chk_fail();
	return recv(fd, buf, len, flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags, __SOCKADDR_ARG addr, socklen_t *alen)
{
	if (len > room)
		__chk_fail();
	return recvfrom(fd, buf, len, flags, addr, alen);
}

/* ------------------------------------------------------------------ writing */

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, true);
	ssize_t r;

	if (s)
		return api_return(stream_send(s, &iov, 1, 0));
	return dgram_write(fd, &iov, 1, 0, NULL, 0, &r) ? r : REAL(write)(fd, buf, len);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct sock *s = sock_enter_stream(fd, true);
	ssize_t r;

	if (s)
		return api_return(stream_send(s, iov, count, 0));
	return dgram_write(fd, iov, count, 0, NULL, 0, &r) ? r : REAL(writev)(fd, iov, count);
}

EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, true);
	ssize_t r;

	if (s)
		return api_return(stream_send(s, &iov, 1, flags));
	return dgram_write(fd, &iov, 1, flags, NULL, 0, &r) ? r : REAL(send)(fd, buf, len, flags);
}

/* A connect() in disguise, of a stream that could be the stack's: refused as by a kernel with tcp_fastopen off. */
static bool fast_open(int fd, int flags)
{
	struct sock *s = fd_sock(fd);

	return flags & MSG_FASTOPEN && s && !s->datagram;
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, __CONST_SOCKADDR_ARG addr, socklen_t alen)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct sock *s = sock_enter_stream(fd, true);
	ssize_t r;

	/* A connected stream ignores the address, in the kernel too. */
	if (s)
		return api_return(stream_send(s, &iov, 1, flags));
	if (fast_open(fd, flags))
		return api_return(-EOPNOTSUPP);
	if (dgram_write(fd, &iov, 1, flags, addr.__sockaddr__, alen, &r))
		return r;
	return REAL(sendto)(fd, buf, len, flags, addr.__sockaddr__, alen);
}

/* A stream with tx held, which is given back. */
static ssize_t send_message(struct sock *s, const struct msghdr *msg, int flags)
{
	int err = check_message(msg);

	if (!err)
		return stream_send(s, msg->msg_iov, (int)msg->msg_iovlen, flags);
	lock_give(&s->tx);
	return err;
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct sock *s = sock_enter_stream(fd, true);

	if (s)
		return api_return(send_message(s, msg, flags));
	if (fast_open(fd, flags))
		return api_return(-EOPNOTSUPP);
	if (fd_passing_concerns(msg))
		return api_return(fd_passing_send(fd, msg, flags));
	s = msg ? dgram_enter(fd, msg->msg_name != NULL) : NULL;
	return s ? api_return(dgram_send(s, fd, msg, flags)) : REAL(sendmsg)(fd, msg, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
	struct sock *s = fd_sock(fd);
	unsigned int done = 0;
	ssize_t n = 0;

	bool ours = s && (sock_kind(s) == KIND_STREAM || s->datagram);

	for (unsigned int i = 0; i < count && msgs && !ours; i++)
		ours = fd_passing_concerns(&msgs[i].msg_hdr); /* then one by one: those before it go out */
	if (!ours)
		return REAL(sendmmsg)(fd, msgs, count, flags);
	for (; done < count; done++) {
		n = sendmsg(fd, &msgs[done].msg_hdr, flags);
		if (n < 0)
			break;
		msgs[done].msg_len = (unsigned int)n;
	}
	return done ? (int)done : (int)n;
}

static bool is_dgram(int fd)
{
	struct sock *s = fd_sock(fd);

	return s && sock_kind(s) == KIND_DGRAM;
}

static ssize_t send_file(int out_fd, int in_fd, off_t *offset, size_t len)
{
	struct sock *s = sock_enter_stream(out_fd, true);
	struct stat st;
	int err = 0;

	if (!s && is_dgram(out_fd)) {
		errno = EINVAL; /* a datagram socket: programs then copy */
		return -1;
	}
	if (!s)
		return REAL(sendfile)(out_fd, in_fd, offset, len);
	if (fstat(in_fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		err = -EINVAL;
	if (!err)
		return api_return(stream_sendfile(s, in_fd, offset, len));
	lock_give(&s->tx);
	return api_return(err);
}

EXPORT ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t len)
{
	return send_file(out_fd, in_fd, offset, len);
}

EXPORT ssize_t sendfile64(int out_fd, int in_fd, off64_t *offset, size_t len)
{
	_Static_assert(sizeof(off_t) == sizeof(off64_t), "one form serves both");
	return send_file(out_fd, in_fd, offset, len);
}

EXPORT ssize_t splice(int in_fd, off64_t *in_off, int out_fd, off64_t *out_off, size_t len, unsigned int flags)
{
	/* One of the two must be a pipe; and a pipe has no datagrams: programs then copy. */
	if ((stream_of(in_fd) && stream_of(out_fd)) || is_dgram(in_fd) || is_dgram(out_fd)) {
		errno = EINVAL;
		return -1;
	}
	if (stream_of(in_fd))
		return api_return(in_off ? -EINVAL : splice_from_stream(in_fd, out_fd, out_off, len, flags));
	if (stream_of(out_fd))
		return api_return(out_off ? -EINVAL : splice_to_stream(in_fd, in_off, out_fd, len, flags));
	return REAL(splice)(in_fd, in_off, out_fd, out_off, len, flags);
}

/* ------------------------------------------------------------------ with an offset */

/* preadv2 and pwritev2 of a socket of the stack. Flags of recv or send, or -errno: only offset -1 means the stream itself. */
static int message_flags(off_t offset, int flags)
{
	if (offset != -1)
		return -ESPIPE;
	if (flags & ~(RWF_HIPRI | RWF_NOWAIT))
		return -EOPNOTSUPP;
	return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}

static bool on_stack(int fd)
{
	struct sock *s = fd_sock(fd);

	return s && (sock_kind(s) == KIND_STREAM || sock_kind(s) == KIND_DGRAM);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };

	if (!on_stack(fd))
		return REAL(preadv2)(fd, iov, count, offset, flags);
	flags = message_flags(offset, flags);
	return flags < 0 ? api_return(flags) : recvmsg(fd, &msg, flags);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return preadv2(fd, iov, count, offset, flags);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };

	if (!on_stack(fd))
		return REAL(pwritev2)(fd, iov, count, offset, flags);
	flags = message_flags(offset, flags);
	return flags < 0 ? api_return(flags) : sendmsg(fd, &msg, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return pwritev2(fd, iov, count, offset, flags);
}
