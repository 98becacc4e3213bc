/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/attachment.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "core/mapping.h"

static struct attachment *all; /* every one there ever was; shim.lock */

void attachment_hold(struct attachment *a, uint32_t n, struct sock *sock)
{
	gz_store_release(&a->socks[n % GZ_SOCKS_MAX], sock);
	gz_add(&a->used, 1);
	if (a->ops->count)
		a->ops->count(1);
}

void attachment_let_go(struct attachment *a, uint32_t n)
{
	gz_store(&a->socks[n % GZ_SOCKS_MAX], NULL);
	gz_add(&a->used, (uint32_t)-1);
	if (a->ops->count)
		a->ops->count(-1);
	if (!gz_load(&a->dead))
		a->ops->let_go(a, n);
}

struct attachment *attachment_next(const struct attachment *a)
{
	return a ? a->next : all;
}

struct attachment *attachment_take(enum peer_kind kind)
{
	struct attachment *a;

	for (a = all; a; a = a->next)
		if (a->unused && a->ops->kind == kind)
			return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->socks = mapping_of(-1, GZ_SOCKS_MAX * sizeof(*a->socks), PROT_READ | PROT_WRITE, NULL);
	if (!a->socks) {
		free(a);
		return NULL;
	}
	a->ops = peer_ops[kind];
	a->unused = true;
	a->next = all;
	all = a;
	return a;
}

void attachment_publish(struct attachment *a)
{
	a->unused = a->unclaimed = false;
	gz_store(&a->woken, 0);
	a->serial = ++shim.attachments_serial;
	gz_store(&a->announced, 0);
	gz_store(&a->used, 0);
	if (shim.attachments_end < shim.workers)
		shim.attachments_end = shim.workers;
	if (shim.attachments_end <= a->slot)
		shim.attachments_end = a->slot + 1;
	gz_store_release(&a->dead, false);
	gz_store_release(&shim.attachments[a->slot], a);
}

void attachment_claim_all(void)
{
	WORKER_EACH(a, i)
	{
		if (__builtin_expect(!a->channel, 0))
			(void)a->ops->claim(a); /* one that cannot be claimed is dead, which the caller sees */
	}
}

void attachment_check_all(void)
{
	if (!shim_try_lock())
		return; /* another thread is at it */
	gz_store(&shim.checked_ns, now_ns());
	ATTACHMENT_EACH(a, i)
	{
		a->ops->check(a);
	}
	shim_unlock();
}
