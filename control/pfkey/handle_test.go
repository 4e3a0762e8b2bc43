package pfkey

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// with returns a copy of m that edit has changed.
func with(m *Message, edit func(*Message)) *Message {
	n := *m
	edit(&n)
	return &n
}

func TestHeadersThatAKernelWouldNotTake(t *testing.T) {
	p := newRig(t).connect(t, 0)
	flush := (&Message{Type: Flush}).Append(nil)
	edit := func(at int, v byte) []byte {
		b := bytes.Clone(flush)
		b[at] = v
		return b
	}
	for _, row := range []struct {
		name  string
		b     []byte
		errno unix.Errno
	}{
		{"empty", nil, unix.EMSGSIZE},
		{"short", flush[:8], unix.EMSGSIZE},
		{"too long", make([]byte, MaxMessage+1), unix.EMSGSIZE},
		{"version", edit(0, 3), unix.EINVAL},
		{"reserved", edit(6, 1), unix.EINVAL},
		{"length", edit(4, 3), unix.EMSGSIZE},
	} {
		if errno := p.Handle(row.b); errno != row.errno {
			t.Errorf("%s: %v, want %v", row.name, errno, row.errno)
		}
		if all := p.received(); len(all) != 0 {
			t.Errorf("%s: answered with %+v", row.name, all)
		}
	}
}

// An SA of AH comes back as it was set, and is deleted by its own name.
func TestAH(t *testing.T) {
	p := newRig(t).connect(t, 0)
	add := with(addSA(0x1000), func(m *Message) {
		m.SAType, m.SA.Enc, m.SA2.Mode = AH, 0, ModeTransport
		m.Has &^= 1 << ExtEncKey
	})
	p.ok(addSA(0x1000)) // ESP of the same SPI
	p.ok(add)
	get := with(add, func(m *Message) { m.Type, m.Has = Get, 1<<ExtSA|addresses })
	got := p.one(get)
	if got.Errno != 0 || got.SAType != AH || got.SA.Enc != 0 || got.SA.Auth != add.SA.Auth || !bytes.Equal(got.AuthKey, add.AuthKey) ||
		got.Has.Has(ExtEncKey) || got.SA2.Mode != ModeTransport {
		t.Errorf("got %+v", got)
	}
	p.ok(with(get, func(m *Message) { m.Type = Delete }))
	p.fails(get, unix.ESRCH)
	if got := p.one(with(get, func(m *Message) { m.SAType = ESP })); got.Errno != 0 {
		t.Errorf("ESP of the same SPI is gone, too: %v", got.Errno)
	}
}

// A policy of several SAs comes back with all of them, in their order.
func TestBundles(t *testing.T) {
	p := newRig(t).connect(t, 0)
	ask := []Request{
		{Proto: 50, Mode: ModeTransport, Level: LevelUnique, Reqid: 7},
		{Proto: 51, Mode: ModeTransport, Level: LevelUnique, Reqid: 8},
		{Proto: 50, Mode: ModeTunnel, Level: LevelRequire, Src: host("192.0.2.1").Addr, Dst: host("192.0.2.2").Addr},
	}
	for n := 2; n <= len(ask); n++ {
		m := with(spdUpdate(), func(m *Message) { m.Policy.Requests = ask[:n] })
		id := p.ok(m).Policy.ID
		got := p.one(&Message{Type: SPDGet, Has: 1 << ExtPolicy, Policy: Policy{Dir: m.Policy.Dir, ID: id}})
		if got.Errno != 0 || !slices.Equal(got.Policy.Requests, ask[:n]) {
			t.Errorf("asked for %+v, got %v %+v", ask[:n], got.Errno, got.Policy.Requests)
		}
	}
}

func TestRequestsThatFail(t *testing.T) {
	p := newRig(t).connect(t, 0)
	p.ok(addSA(0x1000))
	p.ok(spdUpdate())
	add := func(edit func(*Message)) *Message { return with(addSA(0x2000), edit) }
	pol := func(edit func(*Message)) *Message {
		return with(spdUpdate(), func(m *Message) {
			m.Policy.Requests = append([]Request(nil), m.Policy.Requests...)
			edit(m)
		})
	}
	for _, row := range []struct {
		name  string
		m     *Message
		errno unix.Errno
	}{
		{"ADD of an SA that is there", addSA(0x1000), unix.EEXIST},
		{"ADD of a reserved SPI", add(func(m *Message) { m.SA.SPI = 255 }), unix.EINVAL},
		{"ADD without keys", add(func(m *Message) { m.Has &^= keys }), unix.EINVAL},
		{"ADD without SA", add(func(m *Message) { m.Has &^= 1 << ExtSA }), unix.EINVAL},
		{"ADD without a destination", add(func(m *Message) { m.Has &^= 1 << ExtDst }), unix.EINVAL},
		{"ADD of two families", add(func(m *Message) { m.Dst = host("2001:db8::2") }), unix.EINVAL},
		{"ADD of a short key", add(func(m *Message) { m.EncKey = pattern(8, 0) }), unix.EINVAL},
		{"ADD of an unknown cipher", add(func(m *Message) { m.SA.Enc = 200 }), unix.ENOSYS},
		{"ADD of 3DES", add(func(m *Message) { m.SA.Enc = 3 }), unix.ENOSYS},
		{"ADD of an unknown hash", add(func(m *Message) { m.SA.Auth = 77 }), unix.ENOSYS},
		{"ADD of CBC alone", add(func(m *Message) { m.SA.Auth = 0; m.Has &^= 1 << ExtAuthKey }), unix.ENOSYS},
		{"ADD of no cipher", add(func(m *Message) { m.SA.Enc = 0 }), unix.EINVAL},
		{"ADD of BEET", add(func(m *Message) { m.SA2.Mode = 3 }), unix.EINVAL},
		{"ADD of a huge window", add(func(m *Message) { m.Has |= 1 << ExtSAReplay; m.Window = 1 << 30 }), unix.EINVAL},
		{"ADD with a policy", add(func(m *Message) { m.Has |= 1 << ExtPolicy }), unix.EINVAL},
		{"ADD of SA type 0", add(func(m *Message) { m.SAType = 0 }), unix.EINVAL},
		{"ADD of IPcomp", add(func(m *Message) { m.SAType = IPComp }), unix.EPROTONOSUPPORT},
		{"ADD of AH with a cipher", add(func(m *Message) { m.SAType = AH }), unix.EINVAL},
		{"ADD of AH with a key for one", add(func(m *Message) { m.SAType, m.SA.Enc = AH, 0 }), unix.EINVAL},
		{"ADD of AH with nothing", add(func(m *Message) { m.SAType, m.SA.Enc, m.SA.Auth = AH, 0, 0; m.Has &^= keys }), unix.EINVAL},
		{"ADD of AH without a key", add(func(m *Message) { m.SAType, m.SA.Enc = AH, 0; m.Has &^= keys }), unix.EINVAL},
		{"ADD of AH with an unknown hash", add(func(m *Message) { m.SAType, m.SA.Enc, m.SA.Auth = AH, 0, 77; m.Has &^= 1 << ExtEncKey }), unix.ENOSYS},
		{"ADD to nowhere", add(func(m *Message) { m.Dst = host("0.0.0.0") }), unix.EINVAL},
		{"UPDATE of an SA that is not there", with(addSA(0x2001), func(m *Message) { m.Type = Update }), unix.ESRCH},
		{"UPDATE of keys", with(addSA(0x1000), func(m *Message) { m.Type = Update; m.EncKey = pattern(32, 1) }), unix.EINVAL},
		{"GET of an SA that is not there", with(addSA(0x2001), func(m *Message) { m.Type = Get; m.Has = 1<<ExtSA | addresses }), unix.ESRCH},
		{"DELETE of an SA that is not there", with(addSA(0x2001), func(m *Message) { m.Type = Delete; m.Has = 1<<ExtSA | addresses }), unix.ESRCH},
		{"GETSPI of reserved ones", &Message{Type: GetSPI, SAType: ESP, Has: addresses | 1<<ExtSPIRange, Src: host("192.0.2.2"),
			Dst: host("192.0.2.1"), SPIRange: SPIRange{1, 255}}, unix.EINVAL},
		{"GETSPI backwards", &Message{Type: GetSPI, SAType: ESP, Has: addresses | 1<<ExtSPIRange, Src: host("192.0.2.2"),
			Dst: host("192.0.2.1"), SPIRange: SPIRange{9000, 8000}}, unix.EINVAL},
		{"FLUSH of SA type 5", &Message{Type: Flush, SAType: 5}, unix.EINVAL},
		{"REGISTER of SA type 200", register(200), unix.EINVAL},
		{"EXPIRE from a client", &Message{Type: Expire, SAType: ESP}, unix.EOPNOTSUPP},
		{"MIGRATE", &Message{Type: Migrate}, unix.EOPNOTSUPP},
		{"NEW_MAPPING from a client", &Message{Type: NATNewMapping}, unix.EOPNOTSUPP},
		{"ACQUIRE with a request in it", &Message{Type: Acquire, Has: 1 << ExtProposal}, unix.EOPNOTSUPP},
		{"X_PROMISC of 2", &Message{Type: Promisc, SAType: 2}, unix.EINVAL},
		{"X_SPDADD of a policy that is there", with(spdUpdate(), func(m *Message) { m.Type = SPDAdd }), unix.EEXIST},
		{"X_SPDUPDATE of no direction", pol(func(m *Message) { m.Policy.Dir = 0 }), unix.EINVAL},
		{"X_SPDUPDATE of direction 4", pol(func(m *Message) { m.Policy.Dir = 4 }), unix.EINVAL},
		{"X_SPDUPDATE of an entrusted one", pol(func(m *Message) { m.Policy.Kind = PolicyEntrust }), unix.EINVAL},
		{"X_SPDUPDATE without a request", pol(func(m *Message) { m.Policy.Requests = nil }), unix.EINVAL},
		{"X_SPDUPDATE of five SAs", pol(func(m *Message) { m.Policy.Requests = slices.Repeat(m.Policy.Requests, 5) }), unix.EPROTONOSUPPORT},
		{"X_SPDUPDATE of an SA and of one that may be missing", pol(func(m *Message) {
			m.Policy.Requests = slices.Repeat(m.Policy.Requests, 2)
			m.Policy.Requests[1].Level = LevelUse
		}), unix.EINVAL},
		{"X_SPDUPDATE of a tunnel without ends", pol(func(m *Message) { m.Policy.Requests[0].Src, m.Policy.Requests[0].Dst = netip.Addr{}, netip.Addr{} }), unix.EINVAL},
		{"X_SPDUPDATE of mode 0", pol(func(m *Message) { m.Policy.Requests[0].Mode = 0 }), unix.EINVAL},
		{"X_SPDUPDATE of level 9", pol(func(m *Message) { m.Policy.Requests[0].Level = 9 }), unix.EINVAL},
		{"X_SPDUPDATE of protocol 306", pol(func(m *Message) { m.Policy.Requests[0].Proto = 306 }), unix.EINVAL},
		{"X_SPDDELETE of one that is not there", pol(func(m *Message) { m.Type = SPDDelete; m.Src = net4("10.9.0.0/16") }), unix.ENOENT},
		{"X_SPDGET of one that is not there", &Message{Type: SPDGet, Has: 1 << ExtPolicy, Policy: Policy{ID: 99}}, unix.ENOENT},
		{"X_SPDDELETE2 of one that is not there", &Message{Type: SPDDelete2, Has: 1 << ExtPolicy, Policy: Policy{ID: 99}}, unix.ENOENT},
	} {
		t.Run(row.name, func(t *testing.T) {
			p.t = t
			p.fails(row.m, row.errno)
		})
	}
}

// TestIkedsLife walks through what openiked sends from its start to a rekey.
func TestIkedsLife(t *testing.T) {
	r := newRig(t)
	p := r.connect(t, 0)
	p.ok(&Message{Type: Flush, Seq: 1, PID: 4711})
	for _, typ := range []SAType{ESP, AH} {
		if a := p.ok(register(typ)); len(a.EncAlgs) == 0 || len(a.AuthAlgs) == 0 {
			t.Errorf("REGISTER of %v lists no algorithms", typ)
		}
	}
	p.fails(register(ESP), unix.EEXIST)
	id := p.ok(spdUpdate()).Policy.ID

	r.need(id, "10.2.0.9")
	var asked *Message
	for asked == nil {
		<-p.events.Ready()
		for _, m := range p.received() {
			asked = m
		}
	}
	if asked.Type != Acquire || asked.PID != 0 || asked.Seq == 0 || asked.SAType != ESP || asked.Dst.Addr != netip.MustParseAddr("192.0.2.2") ||
		asked.Policy.Dir != DirOut || asked.Policy.ID != id || len(asked.Proposal.Combs) == 0 {
		t.Fatalf("ACQUIRE: %+v", asked)
	}
	flow := p.ok(&Message{Type: SPDGet, Seq: 2, PID: 4711, Has: 1 << ExtPolicy, Policy: Policy{ID: id}})
	if flow.Src != net4("10.1.0.0/16") || flow.Dst != net4("10.2.0.0/16") {
		t.Errorf("X_SPDGET: %v -> %v", flow.Src, flow.Dst)
	}

	spi := p.ok(&Message{Type: GetSPI, SAType: ESP, Seq: 3, PID: 4711, Has: addresses | 1<<ExtSPIRange,
		Src: host("192.0.2.2"), Dst: host("192.0.2.1"), SPIRange: SPIRange{0x100, 0xffffffff}})
	if spi.SA.SPI < 0x100 || spi.SA.State != StateLarval || spi.Hard.AddTime != 60 {
		t.Errorf("GETSPI: %+v", spi.SA)
	}
	in := addSA(spi.SA.SPI)
	in.Type, in.Src, in.Dst = Update, in.Dst, in.Src
	if a := p.ok(in); a.SA.State != StateMature || a.Has&keys != 0 {
		t.Errorf("UPDATE: %+v", a)
	}
	if a := p.ok(addSA(0x7777)); a.SA.State != StateMature || a.Has&keys != 0 || a.SA.Auth != 6 || a.SA.Enc != 12 || a.SA2.Mode != ModeTunnel {
		t.Errorf("ADD: %+v", a)
	}
	_ = r.control.Keying(func(k *control.Keying) {
		if _, open := k.Acquire(asked.Seq); open {
			t.Error("the ACQUIRE is not answered by the SA")
		}
	})
	get := with(addSA(0x7777), func(m *Message) { m.Type = Get; m.Has = 1<<ExtSA | addresses })
	if a := p.ok(get); !bytes.Equal(a.EncKey, addSA(0).EncKey) || !bytes.Equal(a.AuthKey, addSA(0).AuthKey) || a.Hard != addSA(0).Hard {
		t.Errorf("GET: keys or lifetimes differ: %+v", a)
	}
	del := with(get, func(m *Message) { m.Type = Delete })
	if a := p.ok(del); a.SA.State != StateDead {
		t.Errorf("DELETE: %+v", a.SA)
	}
	p.ok(with(spdUpdate(), func(m *Message) { m.Type = SPDDelete }))
	p.fails(&Message{Type: SPDDump}, unix.ENOENT)
}

func TestAcquireIsClearedByTheDaemonsError(t *testing.T) {
	r := newRig(t)
	p := r.connect(t, 0)
	p.ok(register(ESP))
	id := p.ok(spdUpdate()).Policy.ID
	asks := func() *Message {
		r.need(id, "10.2.0.9")
		for {
			<-p.events.Ready()
			if all := p.received(); len(all) > 0 {
				return all[0]
			}
		}
	}
	first := asks()
	if all := p.ask(&Message{Type: Acquire, Errno: unix.ETIMEDOUT, Seq: first.Seq}); len(all) != 0 {
		t.Errorf("answered with %+v", all)
	}
	if second := asks(); second.Seq == first.Seq {
		t.Errorf("two ACQUIREs of seq %d", first.Seq)
	}
}

// TestKeysGoToThePrivilegedOnly holds which messages have keys, to whom, and
// that the log has none.
func TestKeysGoToThePrivilegedOnly(t *testing.T) {
	r := newRig(t)
	root, user, watcher := r.connect(t, 0), r.connect(t, 1000), r.connect(t, 0)
	root.ok(register(ESP))
	watcher.ok(&Message{Type: Promisc, SAType: 1})
	root.ok(addSA(0x1000))
	root.fails(addSA(0x1000), unix.EEXIST)
	get := with(addSA(0x1000), func(m *Message) { m.Type = Get; m.Has = 1<<ExtSA | addresses })
	dump := &Message{Type: Dump}
	for _, row := range []struct {
		name string
		who  *peer
		m    *Message
		want Set
	}{
		{"GET by root", root, get, keys}, {"DUMP by root", root, dump, keys},
		{"GET by a user", user, get, 0}, {"DUMP by a user", user, dump, 0},
	} {
		for _, a := range row.who.ask(row.m) {
			if a.Errno != 0 || a.Has&keys != row.want {
				t.Errorf("%s: errno %v, keys %v, want %v", row.name, a.Errno, a.Has&keys, row.want)
			}
		}
	}
	root.ok(with(get, func(m *Message) { m.Type = Delete }))
	news := watcher.received()
	if len(news) != 2 || news[0].Type != Add || news[1].Type != Delete {
		t.Errorf("the watcher heard %+v", news)
	}
	for _, m := range news {
		if m.Has&keys != 0 || m.PID != 4711 || m.Seq != 100 {
			t.Errorf("the watcher heard keys, or not of whom: %+v", m)
		}
	}
	k := addSA(0)
	for _, key := range []Key{k.EncKey, k.AuthKey} {
		if text := r.log.String(); strings.Contains(text, hex.EncodeToString(key[:8])) || strings.Contains(text, string(key)) {
			t.Errorf("the log has a key: %s", text)
		}
	}
}

func TestExtensionsOfOtherKernels(t *testing.T) {
	r := newRig(t)
	p := r.connect(t, 0)
	gcm := with(addSA(0x1000), func(m *Message) {
		m.SA.Enc, m.SA.Auth, m.SA.Flags = 20, 0, SAESN|SANoECN
		m.Has = m.Has&^(1<<ExtAuthKey) | 1<<ExtSAReplay
		m.EncKey, m.Window = pattern(36, 1), 4096
	})
	if a := p.ok(gcm); a.SA.Flags != SAESN|SANoECN || a.SA.Enc != 20 || a.SA.Auth != 0 {
		t.Errorf("ADD of AES-GCM with ESN: %+v", a.SA)
	}
	_ = r.control.Keying(func(k *control.Keying) {
		sa, err := k.SA(gcm.saID(), true)
		if err != nil || !sa.ESN || !sa.Outer.NoECN || sa.Outer.DecapDSCP || sa.Window != 4096 || sa.Encryption != "aes-gcm-16" || !bytes.Equal(sa.EncKey, gcm.EncKey) || sa.Direction != control.Outbound {
			t.Errorf("the SA is %v, %v, %v", sa.SAParams.Params, sa.Direction, err)
		}
	})
	p.ok(with(addSA(0x1001), func(m *Message) { m.Src, m.Dst = host("2001:db8::1"), host("2001:db8::2") }))
	filter := &Message{Type: Dump, Has: 1 << ExtFilter, Filter: Filter{unix.AF_INET, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("0.0.0.0/0")}}
	if all := p.ask(filter); len(all) != 1 || all[0].SA.SPI != 0x1000 || all[0].Seq != 0 {
		t.Errorf("DUMP with a filter: %+v", all)
	}
	p.fails(with(filter, func(m *Message) { m.Filter.Src = netip.MustParsePrefix("198.51.100.0/24") }), unix.ENOENT)
}

func TestPoliciesComeBackAsTheyWere(t *testing.T) {
	p := newRig(t).connect(t, 0)
	icmp := func(typ, code uint16) func(*Message) {
		return func(m *Message) { m.Src.Proto, m.Dst.Proto, m.Src.Port, m.Dst.Port = 1, 1, typ, code }
	}
	for name, edit := range map[string]func(*Message){
		"discard":       func(m *Message) { m.Policy.Kind, m.Policy.Requests = PolicyDiscard, nil },
		"none":          func(m *Message) { m.Policy.Kind, m.Policy.Requests = PolicyNone, nil },
		"in":            func(m *Message) { m.Policy.Dir = DirIn },
		"forward":       func(m *Message) { m.Policy.Dir = DirFwd },
		"priority":      func(m *Message) { m.Policy.Priority = 1 << 31 },
		"unique":        func(m *Message) { m.Policy.Requests[0].Level, m.Policy.Requests[0].Reqid = LevelUnique, 77 },
		"use":           func(m *Message) { m.Policy.Requests[0].Level = LevelUse },
		"ports":         func(m *Message) { m.Src.Proto, m.Dst.Proto, m.Src.Port, m.Dst.Port = 6, 6, 1024, 80 },
		"ICMP type":     icmp(8, 0),
		"ICMP and code": icmp(3, 4),
		"hosts":         func(m *Message) { m.Src, m.Dst = net4("10.1.2.3/32"), net4("0.0.0.0/0") },
		"IPv6": func(m *Message) {
			m.Src, m.Dst = net4("2001:db8:1::/48"), net4("2001:db8:2::/48")
			m.Policy.Requests[0].Src, m.Policy.Requests[0].Dst = host("2001:db8::1").Addr, host("2001:db8::2").Addr
		},
		"one SA a flow": func(m *Message) { m.Policy.PFP = 15 },
		"lifetime":      func(m *Message) { m.Has |= 1 << ExtHard; m.Hard.AddTime = 9999 },
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			m := spdUpdate()
			edit(m)
			a := p.ok(m)
			if a.Policy.ID == 0 {
				t.Error("it has no ID")
			}
			want := m.Policy
			want.ID = a.Policy.ID
			if len(want.Requests) == 1 && len(a.Policy.Requests) == 1 && want.Requests[0] != a.Policy.Requests[0] {
				t.Errorf("request %+v, want %+v", a.Policy.Requests[0], want.Requests[0])
			}
			if a.Policy.PFP != want.PFP {
				t.Errorf("takes %#x from packets, want %#x", a.Policy.PFP, want.PFP)
			}
			if a.Src != m.Src || a.Dst != m.Dst || a.Hard.AddTime != m.Hard.AddTime || a.Policy.Kind != want.Kind || a.Policy.Dir != want.Dir ||
				a.Policy.Priority != want.Priority || len(a.Policy.Requests) != len(want.Requests) {
				t.Errorf("came back as %v -> %v %+v, want %v -> %v %+v", a.Src, a.Dst, a.Policy, m.Src, m.Dst, want)
			}
			p.ok(&Message{Type: SPDDelete2, Has: 1 << ExtPolicy, Policy: Policy{ID: a.Policy.ID}})
		})
	}
}

func TestDumpCountsDownToZero(t *testing.T) {
	p := newRig(t).connect(t, 0)
	p.fails(&Message{Type: Dump}, unix.ENOENT)
	for i := range uint32(40) {
		p.ok(addSA(0x1000 + i))
	}
	all := p.ask(&Message{Type: Dump, SAType: ESP, Seq: 9, PID: 4711})
	if len(all) != 40 {
		t.Fatalf("%d answers, want 40", len(all))
	}
	for i, m := range all {
		if m.Type != Dump || m.Seq != uint32(39-i) || m.PID != 4711 {
			t.Errorf("answer %d: %v seq %d pid %d", i, m.Type, m.Seq, m.PID)
		}
	}
	p.fails(&Message{Type: Dump, SAType: AH}, unix.ENOENT)
}

func TestEncapsulationInUDP(t *testing.T) {
	p := newRig(t).connect(t, 0)
	natt := with(addSA(0x1000), func(m *Message) {
		m.Has |= 1<<ExtNATType | 1<<ExtNATSrcPort | 1<<ExtNATDstPort
		m.NATType, m.NATSport, m.NATDport = NATTypeESPinUDP, 4500, 61234
	})
	if a := p.ok(natt); a.NATType != NATTypeESPinUDP || a.NATSport != 4500 || a.NATDport != 61234 {
		t.Errorf("ADD: type %d, %d -> %d", a.NATType, a.NATSport, a.NATDport)
	}
	none := with(natt, func(m *Message) { m.SA.SPI, m.NATType = 0x1001, 0 })
	if a := p.ok(none); a.Has.Has(ExtNATType) {
		t.Errorf("ADD of type 0 comes back with type %d", a.NATType)
	}
	p.fails(with(natt, func(m *Message) { m.SA.SPI, m.NATType = 0x1002, 1 }), unix.EPROTONOSUPPORT)
}
