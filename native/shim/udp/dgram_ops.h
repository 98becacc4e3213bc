/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A datagram socket as core/ and wait/ see it. */
#ifndef SHIM_DGRAM_OPS_H
#define SHIM_DGRAM_OPS_H

#include "core/sock.h"

extern const struct sock_ops dgram_ops;

#endif
