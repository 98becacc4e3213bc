/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A program of this host as the peer of an attachment. */
#ifndef SHIM_SAMEHOST_PEER_H
#define SHIM_SAMEHOST_PEER_H

#include "core/attachment.h"

extern const struct peer_ops program_peer;

#endif
