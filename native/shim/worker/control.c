/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/message.h>
#include <gazelle/wake.h>

#include "core/confined.h"
#include "core/real.h"
#include "core/shim.h"

#define AGAIN_NS 100000000ull /* so often a worker that waits for a CPU is looked at */

bool control_is_pair_end(int fd)
{
	int domain = -1, type = -1;
	socklen_t len = sizeof(int);

	return !REAL(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !REAL(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &len) && domain == GZ_WAKE_DOMAIN && type == GZ_WAKE_TYPE;
}

bool control_is_workers(int fd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (!control_is_pair_end(fd) || REAL(getsockopt)(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof(peer))
		return false;
	return peer.uid == 0 || peer.uid == shim.group->run_uid || peer.uid == shim.group_uid;
}

/* True if the process that made the other end would run if it could; also if that cannot be told. */
static bool waits_for_cpu(int control_fd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	char path[32], line[512];
	const char *state;
	ssize_t n = -1;
	int fd;

	if (REAL(getsockopt)(control_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	if (peer.pid <= 0)
		return true; /* of another pid namespace */
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)peer.pid);
	fd = (int)UNCANCELLED(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd >= 0) {
		n = UNCANCELLED(read, fd, line, sizeof(line) - 1);
		UNCANCELLED(close, fd);
	}
	if (n <= 0)
		return false;
	line[n] = 0;
	state = strrchr(line, ')'); /* behind a name that may be anything */
	return state && (!strncmp(state, ") R", 3) || !strncmp(state, ") D", 3));
}

static void say_once(void)
{
	static const char text[] = "liblstack: a worker waits for a CPU; waiting for it up to 5 seconds\n";
	static _Atomic bool said;

	if (!atomic_exchange(&said, true))
		(void)!UNCANCELLED(write, STDERR_FILENO, text, sizeof(text) - 1);
}

void patience_begin(struct patience *patience, uint64_t ns)
{
	uint64_t now = now_ns();

	patience->until = now + ns;
	patience->last = ns && ns < PATIENCE_MOST_NS ? now + PATIENCE_MOST_NS : patience->until;
}

uint64_t patience_left(struct patience *patience, int control_fd)
{
	uint64_t now = now_ns();

	if (now >= patience->until && now < patience->last && waits_for_cpu(control_fd)) {
		say_once();
		patience->until = patience->last - now > AGAIN_NS ? now + AGAIN_NS : patience->last;
	}
	return now < patience->until ? patience->until - now : 0;
}

int control_send(int control_fd, struct gz_message *message, int fd)
{
	struct gz_envelope envelope;
	const struct msghdr *msg = gz_envelope_message(&envelope, message, &fd, fd >= 0);
	int kept = errno, err = 0;
	long sent = confined && fd < 0 ? UNCANCELLED(write, control_fd, message, sizeof(*message))
	                               : UNCANCELLED(sendmsg, control_fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent != (long)sizeof(*message))
		err = -errno;
	errno = kept;
	return err;
}

void control_close(int *fds, int count)
{
	while (count > 0)
		if (fds[--count] >= 0)
			UNCANCELLED(close, fds[count]);
}

int control_receive(int control_fd, struct gz_message *message, int *fds, int *count)
{
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, message, sizeof(*message));
	int all[GZ_ENVELOPE_FDS], kept = errno;
	ssize_t n = UNCANCELLED(recvmsg, control_fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*count = 0;
	if (n < 0) {
		n = -errno;
		errno = kept; /* the program's: it has called something else */
		return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
	}
	*count = (int)gz_fds_take(msg, all, GZ_ENVELOPE_FDS);
	while (*count > (int)GZ_WELCOME_FDS) /* the other program of a pair may send more than any message has */
		UNCANCELLED(close, all[--*count]);
	memcpy(fds, all, (size_t)*count * sizeof(int));
	if (!n) { /* the end; or an empty message, which may bring descriptors all the same */
		control_close(fds, *count);
		return -EPIPE;
	}
	if (gz_message_check(message, n)) {
		control_close(fds, *count);
		return -EPROTO;
	}
	return 1;
}
