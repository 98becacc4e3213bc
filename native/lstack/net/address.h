/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Addresses of the shared ABI (16 bytes, IPv4 mapped) to lwIP's and back. */
#ifndef LSTACK_ADDRESS_H
#define LSTACK_ADDRESS_H

#include <stdint.h>

#include <lwip/ip_addr.h>

struct gz_group_page;

void address_write(const ip_addr_t *ip, uint8_t out[16]);
void address_read(const uint8_t in[16], ip_addr_t *out);

/* The slot of an address of the stack's own in the group page; 0: it is none. */
uint8_t address_own_slot(const struct gz_group_page *group, const ip_addr_t *ip);

/*
 * The stack's own address in a slot, if it is of the family of another; else the first of that family, which is any if there
 * is none.
 */
void address_own(const struct gz_group_page *group, uint8_t slot, const ip_addr_t *towards, ip_addr_t *out);

#endif
