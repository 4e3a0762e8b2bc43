package pfkey

import (
	"fmt"
	"math/bits"
	"strings"
)

// Version is PF_KEY_V2, the version of every message.
const Version = 2

// Type is what a message asks or tells (RFC 2367, section 3.1).
type Type uint8

// The message types, with the numbers of linux/pfkeyv2.h.
const (
	Reserved Type = iota
	GetSPI
	Update
	Add
	Delete
	Get
	Acquire
	Register
	Expire
	Flush
	Dump
	Promisc
	PChange
	SPDUpdate
	SPDAdd
	SPDDelete
	SPDGet
	SPDAcquire
	SPDDump
	SPDFlush
	SPDSetIdx
	SPDExpire
	SPDDelete2
	NATNewMapping
	Migrate

	maxType = Migrate
)

var typeNames = [maxType + 1]string{
	"RESERVED", "GETSPI", "UPDATE", "ADD", "DELETE", "GET", "ACQUIRE", "REGISTER", "EXPIRE", "FLUSH", "DUMP",
	"X_PROMISC", "X_PCHANGE", "X_SPDUPDATE", "X_SPDADD", "X_SPDDELETE", "X_SPDGET", "X_SPDACQUIRE", "X_SPDDUMP",
	"X_SPDFLUSH", "X_SPDSETIDX", "X_SPDEXPIRE", "X_SPDDELETE2", "X_NAT_T_NEW_MAPPING", "X_MIGRATE",
}

// String is the type's name without "SADB_".
func (t Type) String() string {
	if t <= maxType {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// SAType is the protocol that a message is about.
type SAType uint8

// The SA types that Spigot knows.
const (
	Unspec SAType = 0
	AH     SAType = 2
	ESP    SAType = 3
	IPComp SAType = 9

	maxSAType = IPComp
)

// The IP protocols of the SA types.
const (
	protoESP = 50
	protoAH  = 51
	anyProto = 255 // IPSEC_PROTO_ANY in an address
)

// Proto returns the IP protocol of t; 0 for one that is none, or that Spigot
// does not know.
func (t SAType) Proto() uint8 {
	switch t {
	case ESP:
		return protoESP
	case AH:
		return protoAH
	}
	return 0
}

// SATypeOf returns the SA type of an IP protocol, Unspec if it has none.
func SATypeOf(proto uint8) SAType {
	switch proto {
	case protoESP:
		return ESP
	case protoAH:
		return AH
	}
	return Unspec
}

// String names t.
func (t SAType) String() string {
	switch t {
	case Unspec:
		return "unspec"
	case AH:
		return "ah"
	case ESP:
		return "esp"
	case IPComp:
		return "ipcomp"
	}
	return fmt.Sprintf("satype %d", uint8(t))
}

// Ext is the type of an extension.
type Ext uint16

// The extensions. 26 is Linux's FILTER in DUMP and FreeBSD's SA_REPLAY
// elsewhere.
const (
	ExtSA            Ext = 1
	ExtCurrent       Ext = 2
	ExtHard          Ext = 3
	ExtSoft          Ext = 4
	ExtSrc           Ext = 5
	ExtDst           Ext = 6
	ExtProxy         Ext = 7
	ExtAuthKey       Ext = 8
	ExtEncKey        Ext = 9
	ExtSrcIdentity   Ext = 10
	ExtDstIdentity   Ext = 11
	ExtSensitivity   Ext = 12
	ExtProposal      Ext = 13
	ExtSupportedAuth Ext = 14
	ExtSupportedEnc  Ext = 15
	ExtSPIRange      Ext = 16
	ExtKMPrivate     Ext = 17
	ExtPolicy        Ext = 18
	ExtSA2           Ext = 19
	ExtNATType       Ext = 20
	ExtNATSrcPort    Ext = 21
	ExtNATDstPort    Ext = 22
	ExtNATOA         Ext = 23
	ExtSecCtx        Ext = 24
	ExtKMAddress     Ext = 25
	ExtFilter        Ext = 26
	ExtSAReplay      Ext = 26

	maxExt = ExtFilter
)

// Set is a set of extensions: bit i stands for Ext i.
type Set uint32

// SetOf returns the set of exts.
func SetOf(exts ...Ext) Set {
	var s Set
	for _, e := range exts {
		s |= 1 << e
	}
	return s
}

// Has says whether e is in s.
func (s Set) Has(e Ext) bool { return s&(1<<e) != 0 }

// String lists the numbers of s.
func (s Set) String() string {
	var text strings.Builder
	for r := s; r != 0; r &= r - 1 {
		if r != s {
			text.WriteByte(' ')
		}
		fmt.Fprint(&text, bits.TrailingZeros32(uint32(r)))
	}
	return text.String()
}

// The flags of SA that Spigot knows. SAESN is not in Linux's header: its PF_KEY
// has no extended sequence numbers.
const (
	SAPFS uint32 = 1
	SAESN uint32 = 0x400

	SANoPMTUDisc uint32 = 0x20000000
	SADecapDSCP  uint32 = 0x40000000
	SANoECN      uint32 = 0x80000000
)

// The values of SA.State.
const (
	StateLarval uint8 = iota
	StateMature
	StateDying
	StateDead
)

// The values of Policy.Kind.
const (
	PolicyDiscard uint16 = iota
	PolicyNone
	PolicyIPsec
	PolicyEntrust
	PolicyBypass
)

// The values of Policy.Dir.
const (
	DirIn  uint8 = 1
	DirOut uint8 = 2
	DirFwd uint8 = 3
)

// The values of Request.Mode and SA2.Mode.
const (
	ModeAny       uint8 = 0
	ModeTransport uint8 = 1
	ModeTunnel    uint8 = 2
)

// The values of Request.Level.
const (
	LevelDefault uint8 = iota
	LevelUse
	LevelRequire
	LevelUnique
)

// NATTypeESPinUDP is the only value of Message.NATType (RFC 3948).
const NATTypeESPinUDP = 2
