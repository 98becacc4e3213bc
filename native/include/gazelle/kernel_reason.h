/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Why a socket of an attached program is served by the kernel. The names are in gz_kernel_reason_name (reason.h). */
#ifndef GAZELLE_KERNEL_REASON_H
#define GAZELLE_KERNEL_REASON_H

enum gz_kernel_reason {
	GZ_KERNEL_FAMILY = 0,   /* not a family or type the stack serves */
	GZ_KERNEL_ADDRESS,      /* bound or connected to an address that is not the stack's */
	GZ_KERNEL_LOOPBACK,     /* loopback, and no attached program listens there */
	GZ_KERNEL_NO_ROUTE,     /* the stack has no route to the peer */
	GZ_KERNEL_NOT_ATTACHED, /* no worker could be attached */
	GZ_KERNEL_NO_RESOURCE,  /* no free socket in the stack */
	GZ_KERNEL_CLIENT,       /* accepted from the kernel side of a listener on 0.0.0.0, :: or loopback */
	GZ_KERNEL_OPTION,       /* an option was set that the stack does not have */
	GZ_KERNEL_REASONS = 16
};

#endif
