package control

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"spigot/crypto"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

const here, peer = "192.0.2.1", "192.0.2.2"

func TestTheHostsAddressesTellTheDirection(t *testing.T) {
	for _, c := range []struct {
		name     string
		src, dst string
		want     string
	}{
		{"from here", here, peer, DirOut},
		{"to here", peer, here, DirIn},
		{"from here to here", "10.1.0.1", here, DirIn},
		{"IPv6 from here", "2001:db8::1", "2001:db8::2", DirOut},
		{"IPv6 to here", "2001:db8::2", "2001:db8::1", DirIn},
		{"between others", "203.0.113.1", "203.0.113.2", DirWaiting},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, sa(300, c.src, c.dst))
		if got := g.reportSAs(); len(got) != 1 || got[0].Direction != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
		dst := addr(c.dst)
		if got := g.sad.Load().Inbound(300, &dst, 50) != nil; got != (c.want == DirIn) {
			t.Errorf("%s: workers find it: %v", c.name, got)
		}
	}
}

func TestAnSaWaitsForItsAddress(t *testing.T) {
	g := newGateway(t)
	p := sa(300, "203.0.113.1", peer)
	g.load(t, p, protect("10.2.0.0/16", func(p *spd.Policy) { p.Template.Src = flow.Addr{} }))
	if n := g.log.count("SA waits"); n != 0 {
		t.Errorf("complained %d times before the addresses were known", n)
	}
	g.see()
	g.see()
	g.see("198.51.100.1")
	if n := g.log.count("SA waits"); n != 1 {
		t.Errorf("complained %d times, want once", n)
	}
	if spi := g.boundTo(t, "to 10.2.0.0/16"); spi != 0 {
		t.Fatalf("bound to %d before the address is there", spi)
	}
	g.see("203.0.113.1")
	if spi := g.boundTo(t, "to 10.2.0.0/16"); spi != 300 {
		t.Errorf("bound to %d after the address came, want 300", spi)
	}
	if len(g.pending) != 0 || len(g.locals) != 3 {
		t.Errorf("%d wait; the steering program was told %d times, want 3", len(g.pending), len(g.locals))
	}
	if k := g.list()[0].manual.params; k.EncKey != nil || k.AuthKey != nil {
		t.Error("the keys of a made SA are kept")
	}
}

func TestLoadIsAllOrNothing(t *testing.T) {
	good := func() []any { return []any{sa(300, here, peer), sa(301, peer, here), protect("10.2.0.0/16")} }
	for _, c := range []struct {
		name string
		bad  []any
		is   error
		says string
	}{
		{"reserved SPI", []any{sa(302, here, peer), sa(7, here, peer)}, sad.ErrParams, "reserved"},
		{"short key", []any{sa(302, here, peer, func(p *sad.Params) { p.EncKey = p.EncKey[:3] })}, nil, "SPI 0x12e"},
		{"unknown cipher", []any{sa(302, here, peer, func(p *sad.Params) { p.Encryption = "rot13" })}, nil, "rot13"},
		{"one SPI twice", []any{sa(302, here, peer), sa(302, "10.1.0.1", peer)}, sad.ErrExists, "SPI"},
		{"bad SA that waits", []any{sa(302, "203.0.113.1", "203.0.113.2", func(p *sad.Params) { p.Window = -1 })}, sad.ErrParams, "window"},
		{"policy without a template", []any{sa(302, here, peer), protect("10.3.0.0/16", func(p *spd.Policy) { p.Template = spd.Template{} })}, spd.ErrPolicy, "template"},
		{"SHA-1", []any{sa(302, here, peer, sha1)}, crypto.ErrAlgorithm, "--allow-legacy"},
		{"manual GCM", []any{sa(302, here, peer, gcm)}, ErrManualKey, "--allow-manual-aead"},
		{"manual ChaCha20", []any{sa(302, here, peer, func(p *sad.Params) {
			p.Encryption, p.Integrity, p.AuthKey, p.EncKey = "chacha20-poly1305", "", nil, make([]byte, 36)
		})}, ErrManualKey, "restart"},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, good()...)
		spdBefore, sadBefore, sasBefore := g.spd.Load(), g.sad.Load(), len(g.list())
		err := g.Load(conf(append(good(), c.bad...)...))
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if g.spd.Load() != spdBefore || g.sad.Load() != sadBefore || len(g.list()) != sasBefore {
			t.Errorf("%s: something changed", c.name)
		}
		if spi := g.boundTo(t, "to 10.2.0.0/16"); spi != 300 {
			t.Errorf("%s: bound to %d", c.name, spi)
		}
	}
}

func sha1(p *sad.Params) { p.Integrity, p.AuthKey = "hmac-sha1-96", make([]byte, 20) }

func TestAllowedLegacyAlgorithms(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.AllowLegacy = true })
	g.see()
	g.load(t, sa(300, here, peer, sha1))
	if got := g.list()[0].sa().Suite; !strings.HasSuffix(got, "hmac-sha1-96") {
		t.Errorf("SA of %s", got)
	}
}

func TestManualAeadKeysMustDiffer(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.AllowManualAEAD = true })
	g.see()
	same := func(p *sad.Params) { gcm(p); p.EncKey = bytes.Repeat([]byte{9}, 20) }
	if err := g.Load(conf(sa(300, here, peer, same), sa(301, peer, here, same))); !errors.Is(err, ErrManualKey) {
		t.Errorf("one key for both directions: %v", err)
	}
	a, b := sa(300, here, peer, gcm), sa(301, peer, here, gcm)
	g.load(t, a, b)
	g.load(t, b)
	if err := g.Load(conf(a, b)); !errors.Is(err, ErrManualKey) {
		t.Errorf("a key that an SA has had before: %v", err)
	}
	wider := sa(301, peer, here, gcm, func(p *sad.Params) { p.Window = 128 })
	if err := g.Load(conf(wider)); !errors.Is(err, ErrManualKey) {
		t.Errorf("another SA with the key of the one it replaces: %v", err)
	}
	if len(g.list()) != 1 || g.list()[0].sa().SPI != 301 {
		t.Errorf("after all: %d SAs", len(g.list()))
	}
}

func TestAReloadRenamesAndChangesLifetimes(t *testing.T) {
	g := newGateway(t)
	g.see()
	waits := sa(301, "203.0.113.1", peer)
	g.load(t, sa(300, here, peer), waits, protect("10.2.0.0/16"))
	before, id := g.list()[0].out, g.spd.Load().Out.Policies()[0].ID
	edit := func(p *sad.Params) { p.Name, p.Hard.Seconds = "ipsec.conf:99", 7 }
	edit(waits)
	g.load(t, sa(300, here, peer, edit), waits, protect("10.2.0.0/16", func(p *spd.Policy) { p.Name = "ipsec.conf:98" }))
	if p := g.spd.Load().Out.Policies()[0]; p.ID != id || p.Name != "ipsec.conf:98" {
		t.Errorf("policy %d %q, want the same one renamed", p.ID, p.Name)
	}
	if g.list()[0].out != before {
		t.Error("the SA was made again")
	}
	for _, s := range g.reportSAs() {
		if s.Name != "ipsec.conf:99" || s.Hard.Seconds != 7 {
			t.Errorf("SA %d is %q with %+v", s.SPI, s.Name, s.Hard)
		}
	}
}

func TestAReloadKeepsWhatStays(t *testing.T) {
	g := newGateway(t)
	g.see()
	a, b := protect("10.2.0.0/16"), protect("10.3.0.0/16")
	g.load(t, sa(300, here, peer), sa(301, peer, here), a, b)
	ids := map[string]uint32{}
	for _, p := range g.spd.Load().Out.Policies() {
		ids[p.Name] = p.ID
		if p.ID == 0 || !p.Static {
			t.Errorf("policy %s: ID %d, static %v", p.Name, p.ID, p.Static)
		}
	}
	old := g.sad.Load().Outbound(ids[a.Name])
	old.Reserve(41)
	dst := addr(here)
	in := g.sad.Load().Inbound(301, &dst, 50)

	// b leaves, c comes, the inbound SA has another key.
	newKey := sa(301, peer, here, func(p *sad.Params) { p.EncKey = bytes.Repeat([]byte{0x77}, 16) })
	g.load(t, newKey, sa(300, here, peer), protect("10.2.0.0/16"), protect("10.4.0.0/16"))
	policies := g.spd.Load().Out.Policies()
	if len(policies) != 2 || policies[0].ID != ids[a.Name] || policies[1].ID <= ids[b.Name] {
		t.Errorf("IDs after the reload: %v; before: %v", policies, ids)
	}
	if sa := g.sad.Load().Outbound(policies[0].ID); sa != old || sa.Seq() != 41 {
		t.Error("the SA that stayed was made again: its sequence would repeat")
	}
	if sa := g.sad.Load().Outbound(policies[1].ID); sa != old {
		t.Error("the new policy has no SA")
	}
	if g.sad.Load().Outbound(ids[b.Name]) != nil {
		t.Error("the policy that left is still bound")
	}
	if sa := g.sad.Load().Inbound(301, &dst, 50); sa == in || sa == nil {
		t.Error("the SA whose key changed was not replaced")
	}
	g.Do(func() { g.poll(time.Now()) })
	if alive(&in.SA) || !alive(&old.SA) {
		t.Error("keys: want the replaced one zeroed and the other one alive")
	}
}

func TestCloseZeroesAllKeys(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, sa(300, here, peer), sa(301, "203.0.113.1", "203.0.113.2"), protect("10.2.0.0/16"))
	made, waiting := g.list()[0].sa(), g.pending[0].params.EncKey
	g.Close()
	g.Close()
	if alive(made) || !bytes.Equal(waiting, make([]byte, 16)) {
		t.Error("a key has outlived Close")
	}
	if err := g.Load(conf()); !errors.Is(err, ErrClosed) {
		t.Errorf("Load after Close: %v", err)
	}
	if g.spd.Load().Out.Policies() != nil || g.sad.Load().Outbound(1) != nil {
		t.Error("tables are not empty")
	}
}

func TestPoliciesFindTheirSa(t *testing.T) {
	template := func(f func(*spd.Template)) *spd.Policy {
		return protect("10.2.0.0/16", func(p *spd.Policy) { f(&p.Template) })
	}
	for _, c := range []struct {
		name   string
		policy *spd.Policy
		sas    []any
		want   uint32
	}{
		{"by the tunnel", template(func(*spd.Template) {}), []any{sa(300, here, peer)}, 300},
		{"by the peer alone", template(func(t *spd.Template) { t.Src = flow.Addr{} }), []any{sa(300, here, peer)}, 300},
		{"the newest", template(func(*spd.Template) {}), []any{sa(300, here, peer), sa(301, here, peer)}, 301},
		{"not another peer's", template(func(*spd.Template) {}), []any{sa(300, here, "192.0.2.3")}, 0},
		{"not from another source", template(func(*spd.Template) {}), []any{sa(300, "10.1.0.1", peer)}, 0},
		{"not a transport SA", template(func(*spd.Template) {}), []any{sa(300, here, peer, func(p *sad.Params) { p.Tunnel = false })}, 0},
		{"transport by transport", template(func(t *spd.Template) { t.Mode = spd.Transport }),
			[]any{sa(300, here, peer, func(p *sad.Params) { p.Tunnel = false })}, 300},
		{"not ESP for AH", template(func(t *spd.Template) { t.Proto = 51 }), []any{sa(300, here, peer)}, 0},
		{"by reqid", template(func(t *spd.Template) { t.Reqid = 5 }), []any{sa(300, here, peer, reqid(5)), sa(301, here, peer, reqid(6))}, 300},
		{"by reqid alone", template(func(t *spd.Template) { *t = spd.Template{Proto: 50, Reqid: 5} }),
			[]any{sa(300, here, peer, reqid(5)), sa(301, here, peer)}, 300},
		{"reqid 0 takes any", template(func(*spd.Template) {}), []any{sa(300, here, peer, reqid(5))}, 300},
		{"not by an SA without the reqid", template(func(t *spd.Template) { t.Reqid = 5 }), []any{sa(300, here, peer)}, 0},
		{"any peer is nobody", template(func(t *spd.Template) { t.Src, t.Dst = flow.Addr{}, flow.Addr{} }), []any{sa(300, here, peer)}, 0},
		{"not by an inbound SA", template(func(t *spd.Template) { t.Src, t.Dst = addr(peer), addr(here) }), []any{sa(300, peer, here)}, 0},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, append(c.sas, c.policy)...)
		if got := g.boundTo(t, c.policy.Name); got != c.want {
			t.Errorf("%s: SPI %d, want %d", c.name, got, c.want)
		}
	}
}

func TestMakeBeforeBreak(t *testing.T) {
	g := newGateway(t)
	g.see()
	p := protect("10.2.0.0/16")
	for _, step := range []struct {
		parts []any
		want  uint32
	}{
		{[]any{sa(300, here, peer), p}, 300},
		{[]any{sa(300, here, peer), sa(301, here, peer), p}, 301},
		{[]any{sa(301, here, peer), p}, 301},
		{[]any{sa(301, here, peer), sa(302, here, peer), p}, 302},
		{[]any{sa(301, here, peer), p}, 301}, // back to the one that is left
		{[]any{p}, 0},
	} {
		g.load(t, step.parts...)
		if got := g.boundTo(t, p.Name); got != step.want {
			t.Errorf("bound to %d, want %d", got, step.want)
		}
	}
}

func TestAnExhaustedSaIsNotBoundAgain(t *testing.T) {
	g := newGateway(t)
	g.see()
	first, second := sa(300, here, peer), sa(301, here, peer)
	g.load(t, first, second)
	g.list()[1].out.Reserve(math.MaxUint32 - 1)
	g.list()[1].out.Reserve(1)
	g.load(t, first, second, protect("10.2.0.0/16")) // before its expiry is judged
	if got := g.boundTo(t, "to 10.2.0.0/16"); got != 300 {
		t.Errorf("bound to %d, want the one that can still seal", got)
	}
}
