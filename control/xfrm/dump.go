package xfrm

import (
	"bytes"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
)

// dumpFill is how many bytes a datagram of a dump has before no other message
// is added to it: clients receive into 8 KB, or into a page.
const dumpFill = 3 << 10

// dump is a walk over the SADB or SPD, which goes on when the client has read
// what there was.
type dump interface {
	// next appends the next message to b; false: there is none.
	next(b []byte) ([]byte, bool)
	// done is the message that ends the dump.
	done() []byte
}

// dumpEnd is what both dumps have in common: the answers' header.
type dumpEnd header

func (e dumpEnd) done() []byte {
	h := header(e)
	h.typ = syscall.NLMSG_DONE
	var errno word
	return newMessage(nil, h, &errno).end()
}

// saDump walks the SADB.
type saDump struct {
	dumpEnd
	walk   *control.SADump
	filter *addressFilter // nil: all
}

// dumpSAs begins a dump of SAs. Unlike other requests it has no structure in
// front of its attributes.
func (r *request) dumpSAs(k *control.Keying) (dump, error) {
	a, err := parseAttrs(r.body)
	if err != nil {
		return nil, err
	}
	d := &saDump{dumpEnd: dumpEnd(r.dumpHeader(msgNewSA))}
	if b := a[nl.XFRMA_ADDRESS_FILTER]; b != nil {
		d.filter = &addressFilter{}
		if err := decode(b, d.filter); err != nil {
			return nil, err
		}
		if d.filter.plenSrc > 128 || d.filter.plenDst > 128 {
			return nil, refuse(eINVAL, "filter for prefixes of %d and %d bits: at most 128", d.filter.plenSrc, d.filter.plenDst)
		}
	}
	var proto uint8
	if b := a[nl.XFRMA_PROTO]; b != nil && b[0] != 255 { // 255: any
		proto = b[0]
	}
	d.walk = k.DumpSAs(proto)
	return d, nil
}

func (r *request) dumpHeader(typ uint16) header {
	h := r.answer(typ)
	h.flags = syscall.NLM_F_MULTI
	return h
}

func (d *saDump) next(b []byte) ([]byte, bool) {
	var buf [1]control.SA
	sa := &buf[0]
	for d.walk.Next(buf[:], true) == 1 {
		if d.filter.has(sa) {
			b = putSA(b, header(d.dumpEnd), sa)
			wipe(sa)
			return b, true
		}
		wipe(sa)
	}
	return b, false
}

// has says whether sa is to be shown. A family that is none is every one.
func (f *addressFilter) has(sa *control.SA) bool {
	if f == nil {
		return true
	}
	if (f.family == afInet || f.family == afInet6) && f.family != familyOf(sa.Dst) {
		return false
	}
	return sameHead(addressOf(sa.Src), f.src, f.plenSrc) && sameHead(addressOf(sa.Dst), f.dst, f.plenDst)
}

// sameHead says whether the first bits of a and b, at most 128, are the same.
func sameHead(a, b address, bits uint8) bool {
	whole := bits / 8
	if !bytes.Equal(a[:whole], b[:whole]) {
		return false
	}
	return bits%8 == 0 || (a[whole]^b[whole])>>(8-bits%8) == 0
}

// policyDump walks the SPD.
type policyDump struct {
	dumpEnd
	walk *control.PolicyDump
}

// dumpPolicies begins a dump of policies.
func (r *request) dumpPolicies(k *control.Keying) (dump, error) {
	return &policyDump{dumpEnd(r.dumpHeader(msgNewPolicy)), k.DumpPolicies()}, nil
}

func (d *policyDump) next(b []byte) ([]byte, bool) {
	var buf [1]control.Policy
	if d.walk.Next(buf[:]) == 0 {
		return b, false
	}
	return putPolicy(b, header(d.dumpEnd), &buf[0]), true
}
