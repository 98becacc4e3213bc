/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The group page as a worker reads it: mapped read-only, and checked once, so that nobody else has to. */
#ifndef LSTACK_GROUP_H
#define LSTACK_GROUP_H

#include <stdint.h>

#include <gazelle/group_page.h>

/*
 * Maps a group page and checks every field the worker relies on. 0 and *group, or -errno with the reason in `why`
 * (-EINVAL: not a page of ours, or it contradicts itself).
 */
int group_open(const char *path, uint32_t queue_id, const struct gz_group_page **group, char *why, uint32_t why_size);

#endif
