/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/lost.h"

#include "core/attachment.h"
#include "core/eventq.h"
#include "core/watch.h"

void attachment_activate(struct attachment *a)
{
	for (uint32_t n = 1; n < a->ops->numbers && gz_load(&a->used); n++) {
		struct sock *sock = gz_load(&a->socks[n]);

		if (sock)
			watch.activate(sock);
	}
	eventq_wake_all();
}

void attachment_lost(struct attachment *a)
{
	gz_store_release(&a->dead, true);
	gz_store(&shim.attachments[a->slot], NULL);
	a->ops->lost(a);
	attachment_activate(a);
}
