/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The end of an attachment. */
#ifndef LSTACK_DETACH_H
#define LSTACK_DETACH_H

struct apps;

/*
 * Ends the attachments that app_detach_later has marked: everything those processes hold is let go. Each struct lives until
 * apps_flush.
 */
void detach_leaving(struct apps *apps);

#endif
