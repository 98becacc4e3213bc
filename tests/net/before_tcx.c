/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Preloaded: libbpf of a kernel before 6.6, which attaches network programs to queueing disciplines only. */
#include <bpf/bpf.h>
#include <errno.h>

int bpf_prog_query(int target, enum bpf_attach_type type, __u32 query, __u32 *flags, __u32 *ids, __u32 *count)
{
	(void)target, (void)type, (void)query, (void)flags, (void)ids, (void)count;
	errno = EINVAL;
	return -EINVAL;
}

int bpf_prog_attach(int program, int target, enum bpf_attach_type type, unsigned int flags)
{
	(void)program, (void)target, (void)type, (void)flags;
	errno = EINVAL;
	return -EINVAL;
}
