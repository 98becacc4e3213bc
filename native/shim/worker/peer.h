/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A worker as the peer of an attachment. */
#ifndef SHIM_WORKER_PEER_H
#define SHIM_WORKER_PEER_H

#include "core/attachment.h"

extern const struct peer_ops worker_peer;

#endif
