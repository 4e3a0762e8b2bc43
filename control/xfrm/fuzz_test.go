package xfrm

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"
)

// FuzzHandle sends a datagram to a server that has an SA and a policy: it must
// not panic, each answer must be whole, and the next request must be served. Its
// corpus starts with what charon and iproute2 send, and with the hostile rows.
func FuzzHandle(f *testing.F) {
	r := newRig(f)
	owner := r.client(f, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		r.do(t, owner, 0, r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(32)))
		r.do(t, owner, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dirOut), charonTmpl(dirOut, 0)))
		c := r.NewClient(true)
		defer c.Close()
		c.SetExtendedAcks(true)
		if err := c.Handle(b); err != nil {
			t.Fatal(err)
		}
		for range 1 << 16 {
			out := c.Next()
			if out == nil {
				break
			}
			for _, m := range split(t, out) {
				if m.typ == msgNewSA || m.typ == msgNewPolicy {
					if _, err := nl.ParseRouteAttr(m.body[serviceOf(m.typ).size:]); err != nil {
						t.Fatalf("answer % x: %v", out, err)
					}
				}
			}
		}
		var all octet
		r.do(t, owner, 0, r.req(msgFlushSA, syscall.NLM_F_ACK, &all))
		r.do(t, owner, 0, r.req(msgFlushPolicy, syscall.NLM_F_ACK, nil))
	})
}

// hostile are messages that lie (protocol.md's item 13), and what is said to
// them; noAnswer where there is nothing to be said.
func hostile() []struct {
	name  string
	b     []byte
	errno syscall.Errno
} {
	r := &rig{}
	newSA := func(attrs ...func(*message)) []byte {
		return r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x2000), attrs...)
	}
	good := func() []byte { return newSA(with(nl.XFRMA_ALG_AEAD, gcm()), window(32)) }
	edit := func(b []byte, at int, v uint32) []byte { binary.NativeEndian.PutUint32(b[at:], v); return b }
	short := func(b []byte, at int, v uint16) []byte { binary.NativeEndian.PutUint16(b[at:], v); return b }
	cut := func(b []byte, n int) []byte { return edit(b[:n:n], 0, uint32(n)) }
	const attr, ring = 16 + usersaInfoLen, 16 + usersaInfoLen + 4 + 72 + 36
	return []struct {
		name  string
		b     []byte
		errno syscall.Errno
	}{
		{"nothing", nil, noAnswer},
		{"a byte", []byte{1}, noAnswer},
		{"length 0", edit(good(), 0, 0), noAnswer},
		{"length 15", edit(good(), 0, 15), noAnswer},
		{"length 65535", edit(good(), 0, 65535), noAnswer},
		{"length 2^32-1", edit(good(), 0, ^uint32(0)), noAnswer},
		{"a header alone", cut(good(), 16), syscall.EINVAL},
		{"half a structure", cut(good(), 100), syscall.EINVAL},
		{"no attributes", cut(good(), attr), syscall.EINVAL},
		{"attribute of length 0", short(good(), attr, 0), syscall.EINVAL},
		{"attribute of length 3", short(good(), attr, 3), syscall.EINVAL},
		{"attribute of length 65535", short(good(), attr, 65535), syscall.EINVAL},
		{"attribute without a value", short(good(), attr, 4), syscall.ERANGE},
		{"key of 0 bits", edit(good(), attr+4+64, 0), syscall.EINVAL},
		{"key of 7 bits", edit(good(), attr+4+64, 7), syscall.EINVAL},
		{"key of 2^32-1 bits", edit(good(), attr+4+64, ^uint32(0)), syscall.EINVAL},
		{"key of 2^32-8 bits", edit(good(), attr+4+64, ^uint32(7)), syscall.EINVAL},
		{"a name without an end", newSA(with(nl.XFRMA_ALG_AEAD, &longName{}), window(32)), syscall.ENOSYS},
		{"bitmap of 129 words", edit(good(), ring+4, 129), syscall.EINVAL},
		{"bitmap of 2^30 words", edit(good(), ring+4, 1<<30), syscall.EINVAL},
		{"bitmap of 2^32-1 words", edit(good(), ring+4, ^uint32(0)), syscall.EINVAL},
		{"bitmap of half the words it tells", edit(good(), ring+4, 2), syscall.EINVAL},
		{"window of 2^32-1", edit(good(), ring+4+20, ^uint32(0)), syscall.EINVAL},
		{"family 0", short(good(), 16+212, 0), syscall.EINVAL},
		{"family 65535", short(good(), 16+212, 65535), syscall.EINVAL},
		{"type 0x11 as if it were 0x10", short(good(), 4, msgDelSA), syscall.EINVAL},
		{"type 65535", short(good(), 4, 65535), syscall.EINVAL},
		{"a report", short(good(), 4, msgReport), syscall.EINVAL},
		{"a mapping", short(good(), 4, msgMapping), syscall.EINVAL},
		{"an acquire from a client", r.req(msgAcquire, syscall.NLM_F_ACK, &userAcquire{}), syscall.EOPNOTSUPP},
		{"an expiry from a client", r.req(msgExpire, syscall.NLM_F_ACK, &userExpire{}), syscall.EOPNOTSUPP},
		{"a policy's expiry from a client", r.req(msgPolExpire, syscall.NLM_F_ACK, &userPolExpire{}), syscall.EOPNOTSUPP},
		{"a migration", r.req(msgMigrate, syscall.NLM_F_ACK, &userpolicyID{}), syscall.ENOPROTOOPT},
		{"half a template", r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dirIn), with(nl.XFRMA_TMPL, &encap{})), syscall.ERANGE},
		{"templates of 64 KB", r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dirIn), with(nl.XFRMA_TMPL, &blob{65000})), syscall.EINVAL},
		{"a threshold of 200 bits", r.req(msgNewSPDInfo, syscall.NLM_F_ACK, new(word), with(spdThreshold6, &threshold{200, 0})), syscall.EINVAL},
		{"half a threshold", r.req(msgNewSPDInfo, syscall.NLM_F_ACK, new(word), with(spdThreshold4, new(octet))), syscall.ERANGE},
		{"SPIs upside down", r.req(msgAllocSPI, 0, &userSPIInfo{info: *inboundSA(0), min: 9, max: 8}), syscall.EINVAL},
		{"SPIs that are reserved", r.req(msgAllocSPI, 0, &userSPIInfo{info: *inboundSA(0), min: 0, max: 255}), syscall.EINVAL},
		{"an SA of no family", r.req(msgDelSA, syscall.NLM_F_ACK, &usersaID{spi: 0x1000, proto: 50}), syscall.ESRCH},
		{"an SA of TCP", r.req(msgDelSA, syscall.NLM_F_ACK, &usersaID{spi: 0x1000, proto: 6, family: afInet}), syscall.EINVAL},
		{"SAs of TCP", r.req(msgFlushSA, syscall.NLM_F_ACK, func() *octet { v := octet(6); return &v }()), 0},
		{"to accept what no policy is for", r.req(msgSetDefault, syscall.NLM_F_ACK, &policyDefault{2, 0, 0}), syscall.EOPNOTSUPP},
		{"to block what no policy is for", r.req(msgSetDefault, syscall.NLM_F_ACK, &policyDefault{1, 1, 0}), 0},
		{"half a bind", r.req(msgBind, syscall.NLM_F_ACK, new(word)), syscall.EINVAL},
		{"no request", edit(r.req(msgFlushSA, syscall.NLM_F_ACK, new(octet)), 4, uint32(msgFlushSA)), noAnswer},
		{"a filter for 200 bits", r.req(msgGetSA, syscall.NLM_F_DUMP, nil, with(nl.XFRMA_ADDRESS_FILTER, &addressFilter{plenDst: 200})), syscall.EINVAL},
	}
}

const noAnswer = syscall.Errno(9999)

// longName is an algorithm whose name has no end.
type longName struct{}

func (*longName) wire(w *wire) {
	b := make([]byte, 72)
	for i := range b[:64] {
		b[i] = 'a'
	}
	w.raw(b)
}

// blob is many zeros.
type blob struct{ n int }

func (z *blob) wire(w *wire) { w.raw(make([]byte, z.n)) }
