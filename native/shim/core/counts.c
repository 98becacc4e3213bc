/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/counts.h"

#include "core/attachment.h"
#include "core/shim.h"

void count_paired(int by)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[0]);

	gz_add(&shim.paired, (uint32_t)by);
	if (a && a->channel)
		gz_store(&a->channel->pair_sockets, gz_load(&shim.paired));
}

void count_refused(void)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[0]);

	if (a && a->channel)
		gz_add(&a->channel->pairs_refused, 1);
}

void count_kernel(enum gz_kernel_reason reason, int by)
{
	struct attachment *a;

	if (!shim.group || reason >= GZ_KERNEL_REASONS)
		return;
	gz_add(&shim.kernel[reason], (uint32_t)by);
	if (shim.explain && by > 0)
		gz_add(&shim.explain->kernel[reason], (uint32_t)by);
	/* The first worker shows them; it copies them to its page. Two threads may store out of order: a gauge, right again next time. */
	a = gz_load_acquire(&shim.attachments[0]);
	if (a && a->channel)
		gz_store(&a->channel->kernel_sockets[reason], gz_load(&shim.kernel[reason]));
}
