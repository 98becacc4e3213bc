/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * lwIP for a server: its defaults are for microcontrollers. One thread, raw API, no lwIP timers of its own (tcp_table.c and
 * netif.c run them), memory from heap.c. Whoever includes an lwIP header sees this file.
 */
#ifndef LSTACK_LWIPOPTS_H
#define LSTACK_LWIPOPTS_H

/* One thread, raw API */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_TIMERS 0

/* Memory: everything from heap.c's free lists, no pools of fixed number (their counts wrap at 65,535) */
#define MEM_ALIGNMENT 8
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define mem_clib_malloc lwip_heap_alloc
#define mem_clib_calloc lwip_heap_calloc
#define mem_clib_free lwip_heap_free
#define PBUF_POOL_BUFSIZE 2048
#define LWIP_SUPPORT_CUSTOM_PBUF 1
/* What waits for an ARP answer outlives the turn, so it must not refer to an application's FIFO: copy all but plain RAM. */
#define PBUF_NEEDS_COPY(p) (!((p)->type_internal & PBUF_TYPE_FLAG_STRUCT_DATA_CONTIGUOUS))

/* IP */
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_IPV6_MLD 0
#define LWIP_IPV6_SCOPES 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_REASS 1
#define IPV6_FRAG_COPYHEADER 1 /* the reassembly helper holds pointers of 64 bits */
#define LWIP_ND6_QUEUEING 1
#define LWIP_ND6_NUM_NEIGHBORS 64
#define LWIP_ND6_NUM_DESTINATIONS 120 /* lwIP counts them in 7 bits */
#define LWIP_HOOK_ND6_GET_GW(netif, dest) lwip_gateway6(netif, dest)
#define LWIP_ND6_RDNSS_MAX_DNS_SERVERS 0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 1
#define IP_FORWARD 0
#define IP_REASSEMBLY 1
#define IP_REASS_MAX_PBUFS 256
#define MEMP_NUM_REASSDATA 32
#define IP_FRAG 1
#define LWIP_NETIF_TX_SINGLE_PBUF 0
#define LWIP_SINGLE_NETIF 0
#define LWIP_HAVE_LOOPIF 0
#define LWIP_NETIF_LOOPBACK 0
#define PBUF_LINK_ENCAPSULATION_HLEN 0

/* ARP */
#define LWIP_ARP 1
#define ARP_TABLE_SIZE 64
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 16
#define ETHARP_TRUST_IP_MAC 0
#define ETHARP_SUPPORT_STATIC_ENTRIES 1

/* Other protocols */
#define LWIP_ICMP 1
#define LWIP_UDP 1
#define LWIP_RAW 0
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define LWIP_IGMP 0

/* TCP: windows and buffers */
#define LWIP_TCP 1
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 5
#define TCP_WND (1024 * 1024)
#define TCP_SND_BUF (1024 * 1024)
#define TCP_SND_QUEUELEN 0x7fff
#define TCP_SNDLOWAT 0x4000
#define TCP_SNDQUEUELOWAT (TCP_SND_QUEUELEN / 2)
#define TCP_MSS 8960   /* the most; the interface's MTU and the peer decide */
#define TCP_MSS_MIN 88 /* a peer that asks for less would cost more headers than data */
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define TCP_OVERSIZE 0 /* data is never copied into segments */
/* Tell the peer when the window it sees would at least double: often enough when it is small, seldom when it is large. */
#define TCP_WND_UPDATE_THRESHOLD (pcb->rcv_ann_wnd / 2 + 1)
/* What comes out of order waits in the connection's FIFO, where it belongs (conn_receive.c), and holds no mbuf. */
#define TCP_QUEUE_OOSEQ 0
#define LWIP_HOOK_TCP_OUT_OF_ORDER(pcb, seqno, p, fin, left, right) lwip_out_of_order(pcb, seqno, p, fin, left, right)
#define LWIP_HOOK_TCP_FOLLOWING(pcb) lwip_following(pcb)
#define LWIP_HOOK_TCP_FIN_FOLLOWS(pcb) lwip_fin_follows(pcb)
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 4
#define LWIP_TCP_TIMESTAMPS 1
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 4096
#define LWIP_TCP_KEEPALIVE 1
#define SO_REUSE 1
/*
 * conn.c learns of a pcb's end by the destroy callback of its ext arg: lwIP frees TIME-WAIT pcbs without another. So does
 * syncookie.c of half-open ones.
 */
#define LWIP_TCP_PCB_NUM_EXT_ARGS 2

/*
 * TCP: timers. The slow tick is 2 * TCP_TMR_INTERVAL = 50 ms; delayed ACKs leave after at most 25 ms. All of lwIP's times
 * below are milliseconds unless they are ticks.
 */
#define TCP_TMR_INTERVAL 25
#define TCP_MSL 30000UL
#define TCP_FIN_WAIT_TIMEOUT 60000
#define LWIP_TCP_RTO_TIME 1000 /* initial RTO, RFC 6298 */
#define LWIP_TCP_RTO_MIN 200   /* as Linux: a peer's delayed ACK is no loss */
#define TCP_MAXRTX 15
#define TCP_SYNMAXRTX 6

/* Initial sequence numbers by RFC 6528 */
#define LWIP_HOOK_TCP_ISN(local, local_port, remote, remote_port) lwip_tcp_isn(local, local_port, remote, remote_port)
/* A listener is going: connections in all buckets forget it, not only those in the bucket that is entered. */
#define LWIP_HOOK_TCP_LISTEN_CLOSED(listener) tcp_table_forget_listener(listener)
/* Half-open connections beyond a number take no memory: a segment for a listener passes the SYN cookies first. */
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, options_len, options_first_len, options_rest, p)               \
	((pcb)->state == LISTEN                                                                                \
	         ? lwip_listener_segment((struct tcp_pcb_listen *)(pcb), header, options_len, options_rest, p) \
	         : ERR_OK)
/* What a path takes, as far as it is known: for TCP of both families, and for the rest of IPv6. */
#define LWIP_HOOK_TCP_PATH_MTU(dest, netif) lwip_tcp_path_mtu(dest, netif)
#define LWIP_HOOK_IP6_PATH_MTU(dest, netif) lwip_ip6_path_mtu(dest, netif)
#define LWIP_HOOK_FILENAME "hooks.h"

/* Checksums: TCP and UDP are verified before steering and generated by the port, see netif.c and port.h */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY 0
#define LWIP_CHKSUM lwip_checksum

/* Statistics: what the worker page shows of TCP */
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LINK_STATS 0
#define ETHARP_STATS 0
#define IP_STATS 0
#define IPFRAG_STATS 0
#define ICMP_STATS 0
#define UDP_STATS 0
#define TCP_STATS 1
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0
#define IP6_STATS 0
#define ICMP6_STATS 0
#define IP6_FRAG_STATS 0
#define ND6_STATS 0
#define MIB2_STATS 1

#endif
