/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/answer.h"

#include <errno.h>
#include <poll.h>

#include "core/real.h"
#include "core/shim.h"
#include "worker/control.h"

int answer_await(struct attachment *a, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
                 int patience_ms)
{
	struct patience patience;

	patience_begin(&patience, (uint64_t)patience_ms * 1000000ull);
	for (;;) {
		int got = control_receive(control_fd, message, fds, count);

		/* A worker that refuses does not wait for what we say. The kernel tells that first, what was said to us then. */
		if (got == -ECONNRESET)
			got = control_receive(control_fd, message, fds, count);
		if (got < 0)
			return got;
		if (got && message->kind == kind)
			return 0;
		if (got && message->kind == GZ_MESSAGE_REFUSED) {
			control_close(fds, *count);
			message->text[sizeof(message->text) - 1] = '\0';
			shim_refused(message->text);
			return message->status > 0 ? -message->status : -EACCES;
		}
		if (got && a)
			answer_unasked(a, message, fds, *count);
		else if (got)
			control_close(fds, *count);
		if (got)
			continue;
		uint64_t left = patience_left(&patience, control_fd);
		if (!left)
			return -ETIMEDOUT;
		struct pollfd wait = { .fd = control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)(left / 1000000ull) + 1);
	}
}
