// Package pfkey speaks PF_KEYv2 (RFC 2367) in the Linux and KAME dialect: a
// codec between bytes and Message, and a Server that answers key daemons and
// operators on a Unix socket with SOCK_SEQPACKET, one message a packet.
//
// A message is a header of 16 bytes and extensions, each padded to 8 bytes.
// Lengths are in words of 8 bytes; numbers are in the host's byte order but
// for SPIs, ports and addresses.
//
//	header     version | type | errno | satype | length:16 | 0:16 | seq:32 | pid:32
//	extension  length:16 | type:16 | body .. padding
//
// Which extensions a message may have and must have stands in two tables
// (sets.go); one small function a message type acts (sa.go, policy.go).
package pfkey
