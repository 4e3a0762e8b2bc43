package wire

import "spigot/internal/counter"

// EtherTypes (the IANA registry "IEEE 802 Numbers").
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100 // 802.1Q customer tag
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8 // 802.1ad service tag
)

// Ethernet is a frame without its FCS, with or without one 802.1Q tag:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Destination                          |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                            Source                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       Type, or 0x8100         | PCP |D|  VLAN identifier      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Type, behind a tag           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Ethernet []byte

// Offsets and lengths of Ethernet.
const (
	etherDst  = 0
	etherSrc  = 6
	etherType = 12
	etherTCI  = 14

	// EthernetLen is the length of an untagged header in bytes.
	EthernetLen = 14
	// TagLen is what an 802.1Q tag adds.
	TagLen = 4
)

// Valid says whether h has a whole header with at most one tag: Runt or
// BadEtherType if not. The payload's type is the caller's to judge.
func (h Ethernet) Valid() counter.Reason {
	if len(h) < EthernetLen {
		return counter.Runt
	}
	switch be.Uint16(h[etherType:]) {
	case EtherTypeVLAN:
	case EtherTypeQinQ:
		return counter.BadEtherType
	default:
		return counter.None
	}
	if len(h) < EthernetLen+TagLen {
		return counter.Runt
	}
	if typ := be.Uint16(h[etherType+TagLen:]); typ == EtherTypeVLAN || typ == EtherTypeQinQ {
		return counter.BadEtherType
	}
	return counter.None
}

// Dst returns the destination address; it aliases h.
func (h Ethernet) Dst() *[6]byte { return (*[6]byte)(h[etherDst:]) }

// Src returns the source address; it aliases h.
func (h Ethernet) Src() *[6]byte { return (*[6]byte)(h[etherSrc:]) }

// Tagged says whether h carries an 802.1Q tag.
func (h Ethernet) Tagged() bool { return be.Uint16(h[etherType:]) == EtherTypeVLAN }

// VLAN returns the VLAN identifier of a tagged frame, and 0 for the others and
// for those that are tagged for their priority only.
func (h Ethernet) VLAN() uint16 {
	if !h.Tagged() {
		return 0
	}
	return be.Uint16(h[etherTCI:]) & 0xfff
}

// HeaderLen returns where the payload starts, in bytes.
func (h Ethernet) HeaderLen() int {
	if h.Tagged() {
		return EthernetLen + TagLen
	}
	return EthernetLen
}

// EtherType returns the payload's type, behind the tag if there is one.
func (h Ethernet) EtherType() uint16 {
	return be.Uint16(h[h.HeaderLen()-2:])
}

// Payload returns what follows the header, padding included.
func (h Ethernet) Payload() []byte { return h[h.HeaderLen():] }

// Put writes an untagged header to the first EthernetLen bytes of h.
func (h Ethernet) Put(dst, src *[6]byte, typ uint16) {
	_ = h[EthernetLen-1]
	*(*[6]byte)(h[etherDst:]) = *dst
	*(*[6]byte)(h[etherSrc:]) = *src
	be.PutUint16(h[etherType:], typ)
}
