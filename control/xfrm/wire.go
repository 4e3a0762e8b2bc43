package xfrm

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
)

// The message types, as numbers of their width.
const (
	msgNewSA       = uint16(nl.XFRM_MSG_NEWSA)
	msgDelSA       = uint16(nl.XFRM_MSG_DELSA)
	msgGetSA       = uint16(nl.XFRM_MSG_GETSA)
	msgNewPolicy   = uint16(nl.XFRM_MSG_NEWPOLICY)
	msgDelPolicy   = uint16(nl.XFRM_MSG_DELPOLICY)
	msgGetPolicy   = uint16(nl.XFRM_MSG_GETPOLICY)
	msgAllocSPI    = uint16(nl.XFRM_MSG_ALLOCSPI)
	msgAcquire     = uint16(nl.XFRM_MSG_ACQUIRE)
	msgExpire      = uint16(nl.XFRM_MSG_EXPIRE)
	msgUpdPolicy   = uint16(nl.XFRM_MSG_UPDPOLICY)
	msgUpdSA       = uint16(nl.XFRM_MSG_UPDSA)
	msgPolExpire   = uint16(nl.XFRM_MSG_POLEXPIRE)
	msgFlushSA     = uint16(nl.XFRM_MSG_FLUSHSA)
	msgFlushPolicy = uint16(nl.XFRM_MSG_FLUSHPOLICY)
	msgNewAE       = uint16(nl.XFRM_MSG_NEWAE)
	msgGetAE       = uint16(nl.XFRM_MSG_GETAE)
	msgReport      = uint16(nl.XFRM_MSG_REPORT)
	msgMigrate     = uint16(nl.XFRM_MSG_MIGRATE)
	msgNewSADInfo  = uint16(nl.XFRM_MSG_NEWSADINFO)
	msgGetSADInfo  = uint16(nl.XFRM_MSG_GETSADINFO)
	msgNewSPDInfo  = uint16(nl.XFRM_MSG_NEWSPDINFO)
	msgGetSPDInfo  = uint16(nl.XFRM_MSG_GETSPDINFO)
	msgMapping     = uint16(nl.XFRM_MSG_MAPPING)
	msgSetDefault  = 0x27
	msgGetDefault  = 0x28
)

const (
	headerLen = syscall.NLMSG_HDRLEN
	alignment = syscall.NLMSG_ALIGNTO // of messages and of attributes
	attrHdr   = syscall.NLA_HDRLEN

	flagCapped  = 0x100 // of an error: it quotes the header of the request only
	flagAckTLVs = 0x200 // of an error: attributes follow
)

func align(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// header is struct nlmsghdr.
type header struct {
	length uint32
	typ    uint16
	flags  uint16
	seq    uint32
	port   uint32
}

func (h *header) wire(w *wire) {
	w.u32(&h.length)
	w.u16(&h.typ)
	w.u16(&h.flags)
	w.u32(&h.seq)
	w.u32(&h.port)
}

// wire carries the fields of a structure between bytes and Go, in the
// direction that put says, so that each layout is written down once. Its first
// error sticks: after it, reading yields zeros.
//
// Numbers are in the host's byte order, unless the method says otherwise.
type wire struct {
	b   []byte // what is left to read, or what was written
	put bool
	err error
}

// layout is a structure of the protocol.
type layout interface{ wire(*wire) }

// decode reads v from the head of b.
func decode(b []byte, v layout) error {
	w := wire{b: b}
	v.wire(&w)
	return w.err
}

// encode appends v to b.
func encode(b []byte, v layout) []byte {
	w := wire{b: b, put: true}
	v.wire(&w)
	return w.b
}

// field returns the n bytes of the next field: to be filled, or as they were
// read. It is nil after an error.
func (w *wire) field(n int) []byte {
	switch {
	case w.put:
		at := len(w.b)
		w.b = append(w.b, make([]byte, n)...)
		return w.b[at:]
	case w.err == nil && len(w.b) < n:
		w.err = fmt.Errorf("%w: %d bytes left of a structure that goes on for %d", syscall.EINVAL, len(w.b), n)
	}
	if w.err != nil {
		return nil
	}
	f := w.b[:n:n]
	w.b = w.b[n:]
	return f
}

func (w *wire) u8(v *uint8) {
	if f := w.field(1); w.put {
		f[0] = *v
	} else if f != nil {
		*v = f[0]
	}
}

func (w *wire) u16(v *uint16) { w.num16(v, binary.NativeEndian) }
func (w *wire) u32(v *uint32) { w.num32(v, binary.NativeEndian) }

// be16 and be32 are in network byte order.
func (w *wire) be16(v *uint16) { w.num16(v, binary.BigEndian) }
func (w *wire) be32(v *uint32) { w.num32(v, binary.BigEndian) }

func (w *wire) num16(v *uint16, order binary.ByteOrder) {
	if f := w.field(2); w.put {
		order.PutUint16(f, *v)
	} else if f != nil {
		*v = order.Uint16(f)
	}
}

func (w *wire) num32(v *uint32, order binary.ByteOrder) {
	if f := w.field(4); w.put {
		order.PutUint32(f, *v)
	} else if f != nil {
		*v = order.Uint32(f)
	}
}

func (w *wire) u64(v *uint64) {
	if f := w.field(8); w.put {
		binary.NativeEndian.PutUint64(f, *v)
	} else if f != nil {
		*v = binary.NativeEndian.Uint64(f)
	}
}

// raw copies bytes as they are.
func (w *wire) raw(v []byte) {
	if f := w.field(len(v)); w.put {
		copy(f, v)
	} else if f != nil {
		copy(v, f)
	}
}

// pad is n bytes that mean nothing: written as zeros, since what a compiler
// leaves there has leaked memory before (CVE-2022-1353), and not read.
func (w *wire) pad(n int) { w.field(n) }

// attrMax is the last attribute that is looked at; a later one is ignored, as
// by a kernel that does not know it.
const attrMax = attrCPU

// attrCPU is XFRMA_SA_PCPU of Linux 6.13: the processor that an SA is for, u32.
const attrCPU = 35

// attrs holds the attributes of a message by type, aliasing the message; nil:
// not there. Of several of one type the last counts.
type attrs [attrMax + 1][]byte

// attrMin is how long an attribute has to be.
var attrMin = [attrMax + 1]int{
	nl.XFRMA_ALG_AUTH:       algoLen,
	nl.XFRMA_ALG_CRYPT:      algoLen,
	nl.XFRMA_ALG_COMP:       algoLen,
	nl.XFRMA_ENCAP:          24,
	nl.XFRMA_TMPL:           tmplLen,
	nl.XFRMA_SA:             usersaInfoLen,
	nl.XFRMA_POLICY:         userpolicyInfoLen,
	nl.XFRMA_SEC_CTX:        8,
	nl.XFRMA_LTIME_VAL:      32,
	nl.XFRMA_REPLAY_VAL:     12,
	nl.XFRMA_REPLAY_THRESH:  4,
	nl.XFRMA_ETIMER_THRESH:  4,
	nl.XFRMA_SRCADDR:        16,
	nl.XFRMA_COADDR:         16,
	nl.XFRMA_LASTUSED:       8,
	nl.XFRMA_POLICY_TYPE:    6,
	nl.XFRMA_MIGRATE:        76,
	nl.XFRMA_ALG_AEAD:       algoLen + 4,
	nl.XFRMA_KMADDRESS:      40,
	nl.XFRMA_ALG_AUTH_TRUNC: algoLen + 4,
	nl.XFRMA_MARK:           8,
	nl.XFRMA_TFCPAD:         4,
	nl.XFRMA_REPLAY_ESN_VAL: replayESNLen,
	nl.XFRMA_SA_EXTRA_FLAGS: 4,
	nl.XFRMA_PROTO:          1,
	nl.XFRMA_ADDRESS_FILTER: 36,
	nl.XFRMA_OFFLOAD_DEV:    8,
	nl.XFRMA_SET_MARK:       4,
	nl.XFRMA_SET_MARK_MASK:  4,
	nl.XFRMA_IF_ID:          4,
	attrCPU:                 4,
}

// parseAttrs splits b, what follows a message's structure, into its attributes.
// As in a kernel, bytes that make no attribute end the list, whatever they are,
// and an attribute that is too short is ERANGE.
func parseAttrs(b []byte) (a attrs, err error) {
	err = eachAttr(b, func(typ int, v []byte) error {
		if typ == 0 || typ > attrMax {
			return nil
		}
		if len(v) < attrMin[typ] {
			return refuse(syscall.ERANGE, "attribute %d has %d bytes, and needs %d", typ, len(v), attrMin[typ])
		}
		a[typ] = v
		return nil
	})
	return a, err
}

// eachAttr calls f with the type and the value of each attribute in b.
func eachAttr(b []byte, f func(typ int, v []byte) error) error {
	for len(b) >= attrHdr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHdr || n > len(b) {
			return nil
		}
		typ := binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK
		if err := f(int(typ), b[attrHdr:n:n]); err != nil {
			return err
		}
		b = b[min(align(n), len(b)):]
	}
	return nil
}

// u32 returns the number in attribute typ, 0 if there is none.
func (a *attrs) u32(typ int) uint32 {
	if a[typ] == nil {
		return 0
	}
	return binary.NativeEndian.Uint32(a[typ])
}

// message builds one netlink message behind what b holds.
type message struct {
	b     []byte
	start int
}

// newMessage appends a header, whose length end fills in, and the structure of
// the message if it has one.
func newMessage(b []byte, h header, body layout) *message {
	m := &message{b: encode(b, &h), start: len(b)}
	if body != nil {
		m.b = encode(m.b, body)
	}
	m.align()
	return m
}

func (m *message) align() {
	for (len(m.b)-m.start)%alignment != 0 {
		m.b = append(m.b, 0)
	}
}

// attr appends an attribute.
func (m *message) attr(typ int, v layout) {
	m.align()
	at := len(m.b)
	m.b = encode(append(m.b, 0, 0, 0, 0), v)
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
	binary.NativeEndian.PutUint16(m.b[at+2:], uint16(typ))
	m.align()
}

// end returns everything, with the message's length in place.
func (m *message) end() []byte {
	binary.NativeEndian.PutUint32(m.b[m.start:], uint32(len(m.b)-m.start))
	return m.b
}

// refusal is an error with the number that a kernel would give it.
type refusal struct {
	errno syscall.Errno
	text  string // what is wrong and how to mend it, for extended acks
}

func refuse(errno syscall.Errno, format string, args ...any) error {
	return &refusal{errno, fmt.Sprintf(format, args...)}
}

// Error returns the text.
func (r *refusal) Error() string { return r.text }

// Unwrap returns the number.
func (r *refusal) Unwrap() error { return r.errno }

// The small values that are attributes.
type (
	word  uint32
	octet uint8
	text  string // ends with a zero byte
	long  uint64
)

func (v *word) wire(w *wire)  { w.u32((*uint32)(v)) }
func (v *octet) wire(w *wire) { w.u8((*uint8)(v)) }
func (v *long) wire(w *wire)  { w.u64((*uint64)(v)) }

func (v *text) wire(w *wire) {
	w.raw([]byte(*v))
	w.pad(1)
}
