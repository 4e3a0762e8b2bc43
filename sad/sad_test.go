package sad

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"spigot/crypto"
	"spigot/internal/flow"
)

func addr(s string) flow.Addr { return flow.FromNetip(netip.MustParseAddr(s)) }

func prefix(s string) flow.AddrRange { return flow.RangeOf(netip.MustParsePrefix(s)) }

// params describes an ESP tunnel SA that is good in all respects, changed by edits.
func params(edits ...func(*Params)) *Params {
	p := &Params{
		SPI: 0x1000, Proto: 50, Tunnel: true, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2"),
		Encryption: "aes-gcm-16", EncKey: []byte("sixteen byte keysalt"), Window: 64, Reqid: 7, Name: "test",
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func inbound(t testing.TB, edits ...func(*Params)) *Inbound {
	t.Helper()
	sa, err := NewInbound(params(edits...))
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func outbound(t testing.TB, edits ...func(*Params)) *Outbound {
	t.Helper()
	sa, err := NewOutbound(params(edits...))
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// seals says whether an aes-gcm-16 key still works.
func seals(k *crypto.Key) bool {
	jobs := []Job{{Key: k, Pkt: make([]byte, 8+8+4+16)}}
	NewEngine().Seal(jobs)
	return jobs[0].OK
}

func TestParamsRefused(t *testing.T) {
	sel := func(edit func(*flow.Selector)) func(*Params) {
		return func(p *Params) {
			s := flow.Selector{Src: prefix("10.0.0.0/8"), Dst: prefix("10.0.0.0/8"), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
			edit(&s)
			p.Selectors = []flow.Selector{s}
		}
	}
	rows := []struct {
		name  string
		edit  func(*Params)
		says  string
		cause error
	}{
		{"SPI 0", func(p *Params) { p.SPI = 0 }, "choose one above 255", nil},
		{"SPI 255", func(p *Params) { p.SPI = 255 }, "RFC 4303, 2.1", nil},
		{"IPComp", func(p *Params) { p.Proto = 108 }, "51 for AH", nil},
		{"AH that encrypts", func(p *Params) { p.Proto = 51 }, "leave both out", nil},
		{"AH with a key for a cipher", func(p *Params) { ahParams(p); p.EncKey = make([]byte, 16) }, "leave both out", nil},
		{"AH of no algorithm", func(p *Params) { ahParams(p); p.Integrity = "" }, "hmac-sha2-256-128", crypto.ErrAlgorithm},
		{"AH with a short key", func(p *Params) { ahParams(p); p.AuthKey = p.AuthKey[:31] }, "32", crypto.ErrKeyLength},
		{"AH in UDP", func(p *Params) { ahParams(p); p.Encap = Encap{Type: EncapUDP, SrcPort: 4500, DstPort: 4500} }, "use ESP", nil},
		{"ESP with Align4", func(p *Params) { p.Align4 = true }, "leave it out", nil},
		{"AH over IPv6 with Align4", func(p *Params) {
			ahParams(p)
			p.Src, p.Dst, p.Align4 = addr("2001:db8::1"), addr("2001:db8::2"), true
		}, "leave it out", nil},
		{"no protocol", func(p *Params) { p.Proto = 0 }, "set Proto to 50", nil},
		{"no destination", func(p *Params) { p.Dst = flow.Addr{} }, "destination", nil},
		{"destination 0.0.0.0", func(p *Params) { p.Dst = addr("0.0.0.0") }, "destination", nil},
		{"no tunnel source", func(p *Params) { p.Src = flow.Addr{} }, "both ends", nil},
		{"from a group", func(p *Params) { p.Src = addr("239.1.1.1") }, "sender's address", nil},
		{"to a group in UDP", func(p *Params) {
			p.Dst, p.Encap = addr("239.1.1.1"), Encap{Type: EncapUDP, SrcPort: 4500, DstPort: 4500}
		},
			"no NAT", ErrUnsupported},
		{"tunnel source 0.0.0.0", func(p *Params) { p.Src = addr("0.0.0.0") }, "both ends", nil},
		{"two families", func(p *Params) { p.Src = addr("2001:db8::1") }, "different families", nil},
		{"two families, transport", func(p *Params) { p.Src, p.Tunnel = addr("2001:db8::1"), false }, "different families", nil},
		{"window below 0", func(p *Params) { p.Window = -1 }, "64 to 131072", nil},
		{"window too large", func(p *Params) { p.Window = MaxWindow + 1 }, "64 to 131072", nil},
		{"no such cipher", func(p *Params) { p.Encryption = "rot13" }, "rot13", crypto.ErrAlgorithm},
		{"cipher without integrity", func(p *Params) { p.Encryption = "aes-cbc" }, "integrity", crypto.ErrAlgorithm},
		{"key without salt", func(p *Params) { p.EncKey = p.EncKey[:16] }, "16 bytes", crypto.ErrKeyLength},
		{"integrity key for an AEAD", func(p *Params) { p.AuthKey = make([]byte, 32) }, "32 bytes", crypto.ErrKeyLength},
		{"selector upside down", sel(func(s *flow.Selector) { s.Src.Lo, s.Src.Hi = s.Src.Hi, s.Src.Lo }), "selector 0", nil},
		{"selector of two families", sel(func(s *flow.Selector) { s.Dst.Hi = addr("2001:db8::") }), "selector 0", nil},
		{"source ports upside down", sel(func(s *flow.Selector) { s.SrcPort = flow.PortRange{Lo: 2, Hi: 1} }), "selector 0", nil},
		{"OPAQUE and a port", sel(func(s *flow.Selector) {
			s.Proto, s.SrcPort, s.DstPort = 6, flow.OpaquePort, flow.PortRange{Lo: 2, Hi: 2}
		}), "OPAQUE at one end", nil},
		{"ports upside down", sel(func(s *flow.Selector) { s.DstPort = flow.PortRange{Lo: 2, Hi: 1} }), "selector 0", nil},
	}
	for _, r := range rows {
		in, errIn := NewInbound(params(r.edit))
		out, errOut := NewOutbound(params(r.edit))
		if in != nil || out != nil {
			t.Errorf("%s: made an SA", r.name)
		}
		for _, err := range []error{errIn, errOut} {
			if !errors.Is(err, ErrParams) || r.cause != nil && !errors.Is(err, r.cause) || !strings.Contains(err.Error(), r.says) {
				t.Errorf("%s: error %q does not say %q, or is not ErrParams and %v", r.name, err, r.says, r.cause)
			}
		}
	}

	esn := func(p *Params) { p.ESN, p.Window = true, 0 }
	if _, err := NewInbound(params(esn)); !errors.Is(err, ErrParams) {
		t.Errorf("inbound ESN without a window: error %v", err)
	}
	if _, err := NewOutbound(params(esn)); err != nil {
		t.Errorf("outbound ESN, which needs no window: error %v", err)
	}
}

func TestParamsAccepted(t *testing.T) {
	rows := []struct {
		name  string
		edit  func(*Params)
		suite string
		geo   Geometry
	}{
		{"4 in 4", func(*Params) {}, "aes-gcm-16-128", Geometry{20, 0, 16, 16, 4, 2}},
		{"in 6", func(p *Params) { p.Src, p.Dst = addr("2001:db8::1"), addr("2001:db8::2") }, "aes-gcm-16-128", Geometry{40, 0, 16, 16, 4, 2}},
		{"transport", func(p *Params) { p.Tunnel = false }, "aes-gcm-16-128", Geometry{0, 0, 16, 16, 4, 2}},
		{"transport, any source", func(p *Params) { p.Tunnel, p.Src = false, flow.Addr{} }, "aes-gcm-16-128", Geometry{0, 0, 16, 16, 4, 2}},
		{"first SPI", func(p *Params) { p.SPI = 256 }, "aes-gcm-16-128", Geometry{20, 0, 16, 16, 4, 2}},
		{"last SPI", func(p *Params) { p.SPI = 1<<32 - 1 }, "aes-gcm-16-128", Geometry{20, 0, 16, 16, 4, 2}},
		{"no window", func(p *Params) { p.Window = 0 }, "aes-gcm-16-128", Geometry{20, 0, 16, 16, 4, 2}},
		{"largest window", func(p *Params) { p.Window = MaxWindow }, "aes-gcm-16-128", Geometry{20, 0, 16, 16, 4, 2}},
		{"256-bit key", func(p *Params) { p.EncKey = make([]byte, 36) }, "aes-gcm-16-256", Geometry{20, 0, 16, 16, 4, 2}},
		{"chacha20", func(p *Params) { p.Encryption, p.EncKey = "chacha20-poly1305", make([]byte, 36) },
			"chacha20-poly1305", Geometry{20, 0, 16, 16, 4, 2}},
		{"cbc", func(p *Params) {
			p.Encryption, p.Integrity, p.EncKey, p.AuthKey = "aes-cbc", "hmac-sha2-256-128", make([]byte, 16), make([]byte, 32)
		}, "aes-cbc-128/hmac-sha2-256-128", Geometry{20, 0, 24, 16, 16, 2}},
		{"null", func(p *Params) {
			p.Encryption, p.Integrity, p.EncKey, p.AuthKey = "null", "hmac-sha2-256-128", nil, make([]byte, 32)
		}, "null/hmac-sha2-256-128", Geometry{20, 0, 8, 16, 4, 2}},
	}
	for _, r := range rows {
		p := params(r.edit)
		p.Soft, p.Hard = Lifetime{Packets: 1}, Lifetime{Seconds: 2}
		in, err := NewInbound(p)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		out, err := NewOutbound(p)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		for _, sa := range []*SA{&in.SA, &out.SA} {
			want := SA{
				SPI: p.SPI, Proto: p.Proto, Tunnel: p.Tunnel, ESN: p.ESN, Src: p.Src, Dst: p.Dst, Reqid: p.Reqid,
				Name: p.Name, Suite: r.suite, Key: sa.Key, Geo: r.geo, Soft: p.Soft, Hard: p.Hard,
			}
			if *sa != want || sa.Key == nil {
				t.Errorf("%s: %+v, want %+v", r.name, *sa, want)
			}
		}
	}
}

func TestOuterHeader(t *testing.T) {
	rows := []struct{ src, dst, header string }{
		{"192.0.2.1", "198.51.100.2", "45000000 00000000 40320000 c0000201 c6336402"},
		{"2001:db8::1", "2001:db8:0:1::2",
			"60000000 00003240 20010db8000000000000000000000001 20010db8000000010000000000000002"},
	}
	for _, r := range rows {
		want, _ := hex.DecodeString(strings.ReplaceAll(r.header, " ", ""))
		sa := outbound(t, func(p *Params) { p.Src, p.Dst = addr(r.src), addr(r.dst) })
		if got := sa.Header[:sa.Geo.Outer]; !bytes.Equal(got, want) {
			t.Errorf("%s -> %s: header %x, want %x", r.src, r.dst, got, want)
		}
	}
	if sa := outbound(t, func(p *Params) { p.Tunnel = false }); sa.Header != [48]byte{} {
		t.Errorf("transport mode: header %x, want none", sa.Header)
	}
}

func TestKeysAreNotShown(t *testing.T) {
	key, auth := []byte("SECRET-SECRET-SECRET-SECRET-SECR"), []byte("HIDDEN-HIDDEN-HIDDEN-HIDDEN-HIDD")
	p := params(func(p *Params) {
		p.Encryption, p.Integrity, p.EncKey, p.AuthKey = "aes-cbc", "hmac-sha2-256-128", key, auth
	})
	in, err := NewInbound(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewOutbound(p)
	if err != nil {
		t.Fatal(err)
	}

	var shown bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
		slog.New(h).Info("params", "v", *p, "p", p, "in", in, "out", out)
	}
	for _, v := range []any{p, *p, in, out, []Params{*p}, map[string]*Params{"x": p}, struct{ P Params }{*p}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
	}
	if err := json.NewEncoder(&shown).Encode([]any{p, in, out}); err != nil {
		t.Fatal(err)
	}
	_, err = NewInbound(params(func(p *Params) { p.EncKey, p.AuthKey = key, auth }))
	fmt.Fprintln(&shown, err)

	for _, secret := range [][]byte{key, auth} {
		part := secret[:6]
		for _, form := range []string{
			string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), strings.Trim(fmt.Sprint(part), "[]"),
			strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
		} {
			if strings.Contains(shown.String(), form) {
				t.Errorf("key shown as %q in:\n%s", form, shown.String())
			}
		}
	}
	if !strings.Contains(p.String(), "keys of 32 and 32 bytes") {
		t.Errorf("String %q does not tell the lengths of the keys", p)
	}
}

// What the caller does with its Params afterwards does not reach the SA.
func TestParamsAreCopied(t *testing.T) {
	p := params(func(p *Params) {
		p.Selectors = []flow.Selector{{Src: prefix("10.0.0.0/8"), Dst: prefix("10.0.0.0/8"), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}}
	})
	in, err := NewInbound(p)
	if err != nil {
		t.Fatal(err)
	}
	out := outbound(t)
	clear(p.EncKey)
	p.Selectors[0] = flow.Selector{}

	if !in.Admits(&flow.Tuple{Src: addr("10.1.1.1"), Dst: addr("10.2.2.2")}) {
		t.Error("the selectors changed with the Params")
	}
	a := []Job{{Key: in.Key, Pkt: make([]byte, 36)}, {Key: out.Key, Pkt: make([]byte, 36)}}
	NewEngine().Seal(a)
	if !a[0].OK || !bytes.Equal(a[0].Pkt, a[1].Pkt) {
		t.Error("the key changed with the Params")
	}
}

func TestAdmits(t *testing.T) {
	sa := inbound(t, func(p *Params) {
		p.Selectors = []flow.Selector{
			{Src: prefix("10.1.0.0/16"), Dst: prefix("10.2.0.0/16"), SrcPort: flow.AnyPort, DstPort: flow.PortRange{Lo: 80, Hi: 90}, Proto: 6},
			{Src: prefix("2001:db8:1::/48"), Dst: prefix("2001:db8:2::/48"), SrcPort: flow.AnyPort, DstPort: flow.AnyPort},
			{Src: prefix("10.4.0.0/16"), Dst: prefix("10.2.0.0/16"), SrcPort: flow.OpaquePort, DstPort: flow.OpaquePort, Proto: 6},
		}
	})
	const none = 0 // in place of a port: a fragment
	open := inbound(t)
	rows := []struct {
		src, dst string
		port     uint16
		proto    uint8
		want     bool
	}{
		{"10.1.2.3", "10.2.3.4", 80, 6, true},
		{"10.1.2.3", "10.2.3.4", 90, 6, true},
		{"10.1.2.3", "10.2.3.4", 91, 6, false},
		{"10.1.2.3", "10.2.3.4", 80, 17, false},
		{"10.2.3.4", "10.1.2.3", 80, 6, false},
		{"10.1.2.3", "10.3.0.0", 80, 6, false},
		{"2001:db8:1::1", "2001:db8:2::1", 1, 17, true},
		{"2001:db8:2::1", "2001:db8:1::1", 1, 17, false},
		{"2001:db8:1::1", "2001:db8:2::1", none, 17, true},
		{"10.1.2.3", "10.2.3.4", none, 6, false},
		{"10.4.2.3", "10.2.3.4", none, 6, true},
		{"10.4.2.3", "10.2.3.4", none, 17, false},
		{"10.4.2.3", "10.2.3.4", 80, 6, false},
	}
	for _, r := range rows {
		tuple := flow.Tuple{Src: addr(r.src), Dst: addr(r.dst), SrcPort: 1234, DstPort: r.port, Proto: r.proto, NoPorts: r.port == none}
		if got := sa.Admits(&tuple); got != r.want {
			t.Errorf("Admits(%v) = %v, want %v", tuple, got, r.want)
		}
		if !open.Admits(&tuple) {
			t.Errorf("an SA without selectors refuses %v", tuple)
		}
	}
}

// Workers write these; what they only read must not share their cache lines,
// wherever the allocator puts the SA.
func TestHotStateHasItsOwnCacheLines(t *testing.T) {
	const line = 64
	type span struct {
		name       string
		start, end uintptr
	}
	var in Inbound
	var out Outbound
	use := unsafe.Offsetof(in.Usage)
	useOut := unsafe.Offsetof(out.Usage)
	rows := map[string][]span{
		"Inbound": {
			{"read-only", 0, use},
			{"counts", unsafe.Offsetof(in.packets), unsafe.Offsetof(in.bytes) + 8},
			{"window, read-only", unsafe.Offsetof(in.window), unsafe.Offsetof(in.window) + unsafe.Offsetof(in.window.words) + 24},
			{"top", unsafe.Offsetof(in.window) + unsafe.Offsetof(in.window.top), unsafe.Offsetof(in.window) + unsafe.Offsetof(in.window.top) + 8},
			{"the next object", unsafe.Sizeof(in), unsafe.Sizeof(in)},
		},
		"Outbound": {
			{"read-only", 0, useOut},
			{"counts", unsafe.Offsetof(out.packets), unsafe.Offsetof(out.bytes) + 8},
			{"sequence", unsafe.Offsetof(out.seq), unsafe.Offsetof(out.seq) + 8},
			{"the next object", unsafe.Sizeof(out), unsafe.Sizeof(out)},
		},
	}
	for name, spans := range rows {
		for i, s := range spans[1:] {
			if before := spans[i]; s.start < before.end+line-8 {
				t.Errorf("%s: %s ends at %d and %s starts at %d: less than a cache line apart", name, before.name, before.end, s.name, s.start)
			}
		}
	}
	if last := unsafe.Offsetof(out.last); last > useOut {
		t.Errorf("Outbound.last lies at %d, among what workers write", last)
	}
}

func TestCountAndUsed(t *testing.T) {
	sa := inbound(t)
	sa.Count(3, 300)
	sa.Count(0, 0)
	sa.Count(2, 50)
	if packets, bytes := sa.Used(); packets != 5 || bytes != 350 {
		t.Errorf("used %d packets, %d bytes; want 5, 350", packets, bytes)
	}
	if n := testing.AllocsPerRun(100, func() { sa.Count(1, 1); sa.Used() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Many senders may have one SA to a group, of which a receiver knows no source;
// a sender has one.
func TestSAsToGroups(t *testing.T) {
	for _, dst := range []string{"239.1.1.1", "ff15::1"} {
		p := params()
		p.Src, p.Dst = flow.Addr{}, addr(dst)
		in, err := NewInbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if in.Dst != p.Dst || !in.Src.IsZero() || !in.Tunnel {
			t.Errorf("inbound: %v", in)
		}
		if _, err := NewOutbound(p); !errors.Is(err, ErrParams) {
			t.Errorf("outbound without a source: %v", err)
		}
	}
	p := params()
	p.Dst = addr("239.1.1.1")
	if out, err := NewOutbound(p); err != nil || out.Header[16] != 239 {
		t.Errorf("outbound: %v, %v", out, err)
	}
}
