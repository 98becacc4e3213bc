/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A socket of the stack on its way to another process. The kernel can carry descriptors (SCM_RIGHTS) but knows only the
 * placeholder under such a socket, so what travels in its place is a parcel: one end of a UNIX socketpair in whose queue lies
 * all that the receiver needs, the socket's image, the placeholder, and the control socket of a "child" that holds the
 * connection on the way, as one made by fork() would. A parcel that nobody opens is thrown away by the kernel like any
 * descriptor in a queue; the control socket in it ends, and whoever holds the other end of that lets go.
 *
 * Only processes of one program, related by fork, can open each other's parcels: they share the memory the socket is in.
 */
#ifndef SHIM_PARCEL_H
#define SHIM_PARCEL_H

#define PARCEL_FDS 253u /* descriptors of one message: the kernel's SCM_MAX_FD */

/*
 * A parcel for the socket that `fd` stands for. Its descriptor, the caller's to close, or -errno: ETOOMANYREFS, a worker has no
 * place for another child; ECONNRESET, its worker is gone. No locks held.
 */
int parcel_make(int fd);

/*
 * A descriptor that was received: if it is a parcel, it stands for the socket in it from now on, under the same number. 0, also if
 * it is none, or -errno: it is one of another program, or of one that is gone. No locks held.
 */
int parcel_open(int fd);

#endif
