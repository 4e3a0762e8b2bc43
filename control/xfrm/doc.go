// Package xfrm speaks netlink XFRM, the dialect of Linux's own IPsec, to key
// daemons and operators' tools: strongSwan's kernel-netlink and iproute2's
// "ip xfrm" work on it as they are.
//
// A message is a header, a structure of linux/xfrm.h and attributes, each
// padded to 4 bytes. Numbers are in the host's byte order but for SPIs and
// ports.
//
//	header     length:32 | type:16 | flags:16 | seq:32 | port:32
//	attribute  length:16 | type:16 | value .. padding
//
// The way of a request, and the files in the order in which it meets them:
//
//	server.go     a Client hands in datagrams, and takes replies and events out
//	request.go    a datagram becomes requests; each has its function; errors and acks
//	wire.go       bytes <-> structures, each laid out once in layout.go
//	state.go      SAs              algorithm.go, convert.go: the kernel's names for
//	policy.go     policies                                   what Spigot names otherwise
//	event.go      news of the SADB and SPD, to whoever has joined their groups
//	listen.go     the Unix socket
//
// Errors have the numbers that Linux 6.1 gives them. What differs:
//
//   - An error quotes the header of the request only, since the rest may hold
//     keys. Keys go out in GETSA's answers alone, and never in an event.
//   - What Spigot cannot do (marks, interface IDs, offload, MIGRATE, more than
//     four SAs around a packet) is refused with a text for extended acks, rather
//     than kept and ignored.
//   - HMAC-SHA-256 without a length has an ICV of 128 bits (RFC 4868), not 96.
//   - Events about thresholds (AEVENTS) and reports are never sent.
package xfrm
