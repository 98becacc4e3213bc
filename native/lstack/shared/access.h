/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Who may attach, and whose the files are that this needs: as the group page says. */
#ifndef LSTACK_ACCESS_H
#define LSTACK_ACCESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include <gazelle/group_page.h>

/*
 * True if the process at the other end of this UNIX socket may attach; `cred` is what the kernel says of it (SO_PEERCRED), and
 * its other groups are asked for here. What a program started by root gives away by fork is not asked again: see attach.c.
 */
bool access_may_attach(const struct gz_group_page *group, int fd, const struct ucred *cred);

/* Gives a file, or the socket of this path, to those who may attach. 0 or -errno. Before privileges drop. */
int access_share_file(const struct gz_group_page *group, int fd);
int access_share_socket(const struct gz_group_page *group, const char *path);

#endif
