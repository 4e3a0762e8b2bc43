package keyd

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A dialect is what the launcher has to know of the messages that it relays:
// which of them are answered, and by what.
type dialect struct {
	name string
	// pair is the type of the pair of Unix sockets whose one end the daemon has.
	pair int
	// socket returns the errno of socket(2) with these arguments, or 0.
	socket func(typ, protocol int) unix.Errno
	// malformed returns the errno of sending msg where it is too short or its
	// length is wrong, or 0. The functions below get other messages only.
	malformed func(msg []byte) unix.Errno
	// asks returns the header of the request in msg whose answer the daemon
	// finds when send returns, or nil.
	asks func(msg []byte) []byte
	// answers says whether msg answers the request with that header, and
	// whether it is the last to do so.
	answers func(req, msg []byte) (answer, last bool)
	// refuse returns the answer to the request with that header that says errno.
	refuse func(req []byte, errno unix.Errno) []byte
}

// Numbers of RFC 2367 and linux/pfkeyv2.h.
const (
	pfkeyV2        = 2 // PF_KEY_V2
	sadbLen        = 16
	sadbAcquire    = 6
	sadbExpire     = 8
	sadbDump       = 10
	sadbSPDDump    = 18
	sadbSPDExpire  = 21
	sadbNewMapping = 23
)

// pfkey is PF_KEYv2: version | type | errno | satype | length:16 | 0:16 |
// seq:32 | pid:32. A datagram pair, since openiked spins where an end of file
// is read.
var pfkey = dialect{
	name: "PF_KEY",
	pair: unix.SOCK_DGRAM,
	socket: func(typ, protocol int) unix.Errno {
		switch {
		case typ != unix.SOCK_RAW:
			return unix.ESOCKTNOSUPPORT
		case protocol != pfkeyV2:
			return unix.EPROTONOSUPPORT
		}
		return 0
	},
	malformed: func(msg []byte) unix.Errno {
		if len(msg) < sadbLen {
			return unix.EMSGSIZE
		}
		return 0
	},
	asks: func(msg []byte) []byte {
		switch msg[1] {
		case sadbAcquire, sadbExpire, sadbSPDExpire, sadbNewMapping:
			return nil
		}
		return msg[:sadbLen]
	},
	answers: func(req, msg []byte) (answer, last bool) {
		if len(msg) < sadbLen || msg[1] != req[1] || [4]byte(msg[12:]) != [4]byte(req[12:]) {
			return false, false
		}
		if msg[1] == sadbDump || msg[1] == sadbSPDDump { // counts down to 0
			return true, msg[2] != 0 || [4]byte(msg[8:]) == [4]byte{}
		}
		return [4]byte(msg[8:]) == [4]byte(req[8:]), true
	},
	refuse: func(req []byte, errno unix.Errno) []byte {
		msg := append([]byte(nil), req...)
		msg[2] = byte(errno)
		binary.NativeEndian.PutUint16(msg[4:], sadbLen/8)
		return msg
	},
}

// Numbers of linux/xfrm.h.
const (
	xfrmGetSA      = 0x12
	xfrmGetPolicy  = 0x15
	xfrmAllocSPI   = 0x16
	xfrmGetAE      = 0x1f
	xfrmGetSADInfo = 0x23
	xfrmGetSPDInfo = 0x25
	xfrmGetDefault = 0x28
)

// xfrm is netlink: length:32 | type:16 | flags:16 | seq:32 | pid:32. A
// seqpacket pair, since its messages can have a sender's address.
var xfrm = dialect{
	name: "netlink XFRM",
	pair: unix.SOCK_SEQPACKET,
	socket: func(typ, _ int) unix.Errno {
		if typ != unix.SOCK_RAW && typ != unix.SOCK_DGRAM {
			return unix.ESOCKTNOSUPPORT
		}
		return 0
	},
	malformed: func(msg []byte) unix.Errno {
		if next(msg) == nil {
			return unix.EINVAL
		}
		return 0
	},
	asks: func(msg []byte) (last []byte) {
		for m := next(msg); m != nil; m = next(msg) {
			if hasData(m) || nlFlags(m)&unix.NLM_F_ACK != 0 {
				last = m[:unix.NLMSG_HDRLEN]
			}
			msg = msg[min(len(msg), align(len(m))):]
		}
		return last
	},
	answers: func(req, msg []byte) (answer, last bool) {
		for m := next(msg); m != nil; m = next(msg) {
			final := nlType(m) == unix.NLMSG_ERROR || nlType(m) == unix.NLMSG_DONE
			if [8]byte(m[8:]) == [8]byte(req[8:]) && (final || hasData(req)) {
				answer = true
				last = last || final || nlFlags(m)&unix.NLM_F_MULTI == 0
			}
			msg = msg[min(len(msg), align(len(m))):]
		}
		return answer, last
	},
	refuse: func(req []byte, errno unix.Errno) []byte {
		msg := make([]byte, unix.NLMSG_HDRLEN+4, unix.NLMSG_HDRLEN+4+unix.NLMSG_HDRLEN)
		msg = append(msg, req...)
		binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
		binary.NativeEndian.PutUint16(msg[4:], unix.NLMSG_ERROR)
		copy(msg[8:16], req[8:16])
		binary.NativeEndian.PutUint32(msg[16:], uint32(-int32(errno)))
		return msg
	},
}

func nlType(m []byte) uint16  { return binary.NativeEndian.Uint16(m[4:]) }
func nlFlags(m []byte) uint16 { return binary.NativeEndian.Uint16(m[6:]) }
func align(n int) int         { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// hasData says whether request m is answered by more than an acknowledgement.
func hasData(m []byte) bool {
	switch nlType(m) {
	case xfrmGetSA, xfrmGetPolicy, xfrmAllocSPI, xfrmGetAE, xfrmGetSADInfo, xfrmGetSPDInfo, xfrmGetDefault:
		return true
	}
	return false
}

// next returns the first netlink message of b, or nil where there is none.
func next(b []byte) []byte {
	if len(b) < unix.NLMSG_HDRLEN {
		return nil
	}
	n := binary.NativeEndian.Uint32(b)
	if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
		return nil
	}
	return b[:n]
}

// setPort writes a port id into the headers of all netlink messages of b.
func setPort(b []byte, port uint32) {
	for m := next(b); m != nil; m = next(b) {
		binary.NativeEndian.PutUint32(m[12:], port)
		b = b[min(len(b), align(len(m))):]
	}
}
