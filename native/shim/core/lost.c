/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/lost.h"

#include <sys/mman.h>

#include "core/attachment.h"
#include "core/eventq.h"
#include "core/mapping.h"
#include "core/watch.h"
#include "core/window.h"

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

void attachment_free_unused(void)
{
	for (struct attachment *a = attachment_next(NULL); a; a = attachment_next(a)) {
		if (a->unused || !gz_load(&a->dead) || gz_load(&a->used))
			continue;
		(void)mapping_of(-1, a->blocks_from, PROT_READ | PROT_WRITE, a->arena);
		window_close(a);
		a->unused = true;
	}
}

void attachment_freed(struct attachment *a)
{
	if (!gz_load(&a->dead) || gz_load(&a->used) || !shim_try_lock())
		return;
	attachment_free_unused();
	shim_unlock();
}
