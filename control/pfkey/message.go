package pfkey

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// MaxMessage is the longest message in bytes that is read or written: clients
// read into buffers of 4096.
const MaxMessage = 4096

const (
	headerLen = 16
	word      = 8 // lengths count words of so many bytes
)

const errInvalid = unix.EINVAL

// Error is why a message is refused. Errno is what the client is told, Text
// what the log is.
type Error struct {
	Errno unix.Errno
	Text  string
}

// Error returns Text with the errno's name.
func (e *Error) Error() string { return fmt.Sprintf("pfkey: %s (%s)", e.Text, unix.ErrnoName(e.Errno)) }

// Unwrap returns Errno.
func (e *Error) Unwrap() error { return e.Errno }

func errorf(errno unix.Errno, format string, args ...any) error {
	return &Error{errno, fmt.Sprintf(format, args...)}
}

// errnoOf returns the errno of err, EINVAL where it has none; 0 for nil.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno) && errno != 0:
		return errno
	}
	return errInvalid
}

// Message is a PF_KEY message. An extension's field counts if Has names it.
// What Decode returns shares no memory with its input.
type Message struct {
	Type   Type
	Errno  unix.Errno
	SAType SAType
	Seq    uint32
	PID    uint32
	// More says that the server is to keep the message until one without comes,
	// and then to do what all of them say, or nothing. It is Spigot's own.
	More bool

	// Has names the extensions that are there, opaque ones aside.
	Has Set

	SA                 SA
	SA2                SA2
	Current            Lifetime
	Hard, Soft         Lifetime
	Src, Dst           Address
	Proxy              Address
	NATOA              Address
	AuthKey, EncKey    Key
	SrcID, DstID       Identity
	Proposal           Proposal
	AuthAlgs, EncAlgs  []Algorithm
	SPIRange           SPIRange
	Policy             Policy
	NATType            uint8
	NATSport, NATDport uint16
	Filter             Filter // in DUMP
	Window             uint32 // SA_REPLAY in other messages: the replay window in packets
}

// SA is SADB_EXT_SA.
type SA struct {
	SPI    uint32 // host order
	Replay uint8  // window in packets
	State  uint8
	Auth   uint8 // number of the algorithm
	Enc    uint8
	Flags  uint32
}

// SA2 is SADB_X_EXT_SA2.
type SA2 struct {
	Mode  uint8
	Seq   uint32
	Reqid uint32
}

// Lifetime is one of the three lifetime extensions. In Current, AddTime and
// UseTime are seconds since 1970; else they are bounds in seconds. 0 bounds
// nothing.
type Lifetime struct {
	Allocations      uint32 // packets, in Linux's reading
	Bytes            uint64
	AddTime, UseTime uint64
}

// Address is an address extension: an IPv4 or IPv6 address with what it
// stands for.
type Address struct {
	Addr   netip.Addr // valid; never a mapped IPv4 address
	Port   uint16     // 0: any
	Prefix uint8      // bits
	Proto  uint8      // 255: any, in a policy
}

// Key is key material. Formatted by fmt it does not show it.
type Key []byte

// Format writes the length whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "(%d bytes)", len(k)) }

// Identity is SADB_EXT_IDENTITY_SRC or _DST.
type Identity struct {
	Kind uint16
	ID   uint64
	Name string
}

// Proposal is SADB_EXT_PROPOSAL: what an ACQUIRE would like, best first.
type Proposal struct {
	Replay uint8
	Combs  []Comb
}

// Comb is one combination of algorithms.
type Comb struct {
	Auth, Enc                uint8
	Flags                    uint16
	AuthMin, AuthMax         uint16 // bits
	EncMin, EncMax           uint16
	SoftAllocs, HardAllocs   uint32
	SoftBytes, HardBytes     uint64
	SoftAddTime, HardAddTime uint64
	SoftUseTime, HardUseTime uint64
}

// Algorithm is one entry of SADB_EXT_SUPPORTED_AUTH or _ENCRYPT.
type Algorithm struct {
	ID      uint8
	IVLen   uint8 // bytes; for AEAD as Linux gives it
	MinBits uint16
	MaxBits uint16
}

// SPIRange is SADB_EXT_SPIRANGE, both ends included.
type SPIRange struct{ Min, Max uint32 }

// Policy is SADB_X_EXT_POLICY.
type Policy struct {
	Kind     uint16
	Dir      uint8
	ID       uint32
	Priority uint32
	Requests []Request // innermost first
	PFP      uint8     // spd.PFP, in a byte that others leave 0
}

// Request is one transformation of a policy. Src and Dst are the ends of the
// tunnel, not valid where there are none.
type Request struct {
	Proto    uint16
	Mode     uint8
	Level    uint8
	Reqid    uint32
	Src, Dst netip.Addr
}

// Filter is Linux's SADB_X_EXT_FILTER: DUMP only what lies in both prefixes.
type Filter struct {
	Family   uint16 // AF_INET, AF_INET6, or AF_UNSPEC: all
	Src, Dst netip.Prefix
}

// Wipe zeroes the keys of m.
func (m *Message) Wipe() {
	clear(m.AuthKey)
	clear(m.EncKey)
}

// header returns an answer to m with no extension.
func (m *Message) header() *Message {
	return &Message{Type: m.Type, SAType: m.SAType, Seq: m.Seq, PID: m.PID}
}
