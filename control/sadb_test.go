package control

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"spigot/crypto"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// key runs f on the databases.
func (g *gateway) key(t *testing.T, f func(*Keying)) {
	t.Helper()
	if err := g.Keying(f); err != nil {
		t.Fatal(err)
	}
}

// daemon is whose requests the tests make.
var daemon = Origin{Client: 7, PID: 1234, Seq: 56}

// keyedSA is what a key daemon says of the SA that sa describes.
func keyedSA(spi uint32, src, dst string, edit ...func(*SAParams)) SAParams {
	p := SAParams{Params: *sa(spi, src, dst)}
	for _, f := range edit {
		f(&p)
	}
	return p
}

func id(spi uint32, dst string) SAID { return SAID{SPI: spi, Dst: addr(dst), Proto: 50} }

func TestGetSPI(t *testing.T) {
	for _, c := range []struct {
		name string
		q    GetSPIRequest
		is   error
	}{
		{"any", GetSPIRequest{Proto: 50, Dst: addr(here)}, nil},
		{"a range", GetSPIRequest{Proto: 50, Dst: addr(here), Min: 0xc0000000, Max: 0xcfffffff}, nil},
		{"exactly one", GetSPIRequest{Proto: 50, Dst: addr(here), Min: 4711, Max: 4711}, nil},
		{"from the reserved ones on", GetSPIRequest{Proto: 50, Dst: addr(here), Min: 0, Max: 256}, nil},
		{"the last one", GetSPIRequest{Proto: 50, Dst: addr(here), Min: math.MaxUint32, Max: math.MaxUint32}, nil},
		{"AH", GetSPIRequest{Proto: 51, Dst: addr(here)}, nil},
		{"reserved", GetSPIRequest{Proto: 50, Dst: addr(here), Min: 1, Max: 255}, ErrInvalid},
		{"upside down", GetSPIRequest{Proto: 50, Dst: addr(here), Min: 500, Max: 400}, ErrInvalid},
		{"no destination", GetSPIRequest{Proto: 50}, ErrInvalid},
		{"destination 0.0.0.0", GetSPIRequest{Proto: 50, Dst: flow.V4(0)}, ErrInvalid},
		{"not IPsec", GetSPIRequest{Proto: 6, Dst: addr(here)}, ErrUnsupported},
	} {
		g := newGateway(t)
		c.q.Src, c.q.Reqid, c.q.Tunnel, c.q.Acquire = addr(peer), 9, true, 3
		g.key(t, func(k *Keying) {
			got, err := k.GetSPI(daemon, c.q)
			if !errors.Is(err, c.is) || (err == nil) != (c.is == nil) {
				t.Errorf("%s: %v, want %v", c.name, err, c.is)
			}
			if err != nil {
				return
			}
			low, high := max(c.q.Min, 256), c.q.Max
			if c.q.Max == 0 {
				high = math.MaxUint32
			}
			if got.SPI < low || got.SPI > high {
				t.Errorf("%s: SPI %#x", c.name, got.SPI)
			}
			if got.State != Larval || got.Reqid != 9 || !got.Tunnel || got.Acquire != 3 || got.Owner != daemon || got.Src != addr(peer) {
				t.Errorf("%s: %+v", c.name, got)
			}
		})
	}
}

func TestSPIsOfARangeRunOut(t *testing.T) {
	g := newGateway(t)
	q := GetSPIRequest{Proto: 50, Dst: addr(here), Min: 1000, Max: 1099}
	seen := map[uint32]bool{}
	g.key(t, func(k *Keying) {
		for range 100 {
			got, err := k.GetSPI(daemon, q)
			if err != nil || seen[got.SPI] {
				t.Fatalf("SPI %d: %v after %d", got.SPI, err, len(seen))
			}
			seen[got.SPI] = true
		}
		if _, err := k.GetSPI(daemon, q); !errors.Is(err, ErrExists) {
			t.Errorf("one more: %v", err)
		}
		if q.Dst = addr("198.51.100.1"); true { // another destination has SPIs of its own
			if _, err := k.GetSPI(daemon, q); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestLarvalSAsAreBoundedAndDieSilently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.key(t, func(k *Keying) {
			for i := range maxLarval {
				if _, err := k.GetSPI(daemon, GetSPIRequest{Proto: 50, Dst: addr(here)}); err != nil {
					t.Fatalf("SPI %d: %v", i, err)
				}
			}
			if _, err := k.GetSPI(daemon, GetSPIRequest{Proto: 50, Dst: addr(here)}); !errors.Is(err, ErrLimit) {
				t.Errorf("one too many: %v", err)
			}
		})
		time.Sleep(larvalLife - time.Second)
		g.round(time.Now())
		if n := len(g.list()); n != maxLarval {
			t.Errorf("%d left before their time", n)
		}
		time.Sleep(time.Second)
		g.round(time.Now())
		if n := len(g.list()); n != 0 || g.larvals != 0 {
			t.Errorf("%d of %d are there after their time", n, g.larvals)
		}
		if news := g.hear(EventExpire); len(news) != 0 {
			t.Errorf("told of %d", len(news))
		}
	})
}

// TestAnSPIBecomesAnSA goes the way of iked: GETSPI, UPDATE, and ADD for the
// other direction.
func TestAnSPIBecomesAnSA(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, protect("10.2.0.0/16"))
	var spi uint32
	g.key(t, func(k *Keying) {
		larva, err := k.GetSPI(daemon, GetSPIRequest{Proto: 50, Src: addr(peer), Dst: addr(here), Acquire: 5})
		if err != nil {
			t.Fatal(err)
		}
		spi = larva.SPI
		if err := k.AddSA(daemon, keyedSA(spi, peer, here)); !errors.Is(err, ErrExists) {
			t.Errorf("ADD of a reserved SPI: %v", err)
		}
	})
	local := addr(here)
	if g.sad.Load().Inbound(spi, &local, 50) != nil {
		t.Error("workers see a larval SA")
	}
	in := keyedSA(spi, peer, here)
	g.key(t, func(k *Keying) {
		if err := k.UpdateSA(daemon, in); err != nil {
			t.Fatal(err)
		}
		if err := k.AddSA(daemon, keyedSA(400, here, peer)); err != nil {
			t.Fatal(err)
		}
		got, err := k.SA(id(spi, here), true)
		if err != nil || got.State != Mature || got.Direction != Inbound || got.Acquire != 5 || !bytes.Equal(got.EncKey, in.EncKey) {
			t.Errorf("%v: %+v", err, got)
		}
		if got, _ := k.SA(id(spi, here), false); got.EncKey != nil || got.AuthKey != nil {
			t.Error("keys without being asked for")
		}
	})
	if g.sad.Load().Inbound(spi, &local, 50) == nil {
		t.Error("workers do not see the SA that has its keys")
	}
	if got := g.boundTo(t, "to 10.2.0.0/16"); got != 400 {
		t.Errorf("the static flow is bound to %d", got)
	}
	for kind, n := range map[EventKind]int{EventSPI: 1, EventSAUpdate: 1, EventSA: 1} {
		if news := g.hear(kind); len(news) != n || news[0].By != daemon || news[0].SA.EncKey != nil {
			t.Errorf("event %d: %+v", kind, news)
		}
	}
}

func TestAddUpdateDeleteErrors(t *testing.T) {
	static := sa(900, here, peer)
	for _, c := range []struct {
		name  string
		do    func(*Keying) error
		is    error
		errno syscall.Errno
	}{
		{"add twice", func(k *Keying) error { return k.AddSA(daemon, keyedSA(300, here, peer)) }, ErrExists, syscall.EEXIST},
		{"add over the configuration's", func(k *Keying) error { return k.AddSA(daemon, keyedSA(900, here, peer)) }, ErrExists, syscall.EEXIST},
		{"add over one that waits", func(k *Keying) error { return k.AddSA(daemon, keyedSA(901, "203.0.113.1", peer)) }, ErrExists, syscall.EEXIST},
		{"no key", func(k *Keying) error {
			return k.AddSA(daemon, keyedSA(301, here, peer, func(p *SAParams) { p.EncKey = nil }))
		}, crypto.ErrKeyLength, syscall.EINVAL},
		{"no such algorithm", func(k *Keying) error {
			return k.AddSA(daemon, keyedSA(301, here, peer, func(p *SAParams) { p.Encryption = "rot13" }))
		}, crypto.ErrAlgorithm, syscall.ENOSYS},
		{"reserved SPI", func(k *Keying) error { return k.AddSA(daemon, keyedSA(255, here, peer)) }, ErrInvalid, syscall.EINVAL},
		{"ESN without a window", func(k *Keying) error {
			return k.AddSA(daemon, keyedSA(301, peer, here, func(p *SAParams) { p.ESN, p.Window = true, 0 }))
		}, ErrInvalid, syscall.EINVAL},
		{"update of nothing", func(k *Keying) error { return k.UpdateSA(daemon, keyedSA(302, here, peer)) }, ErrNotFound, syscall.ESRCH},
		{"update of the configuration's", func(k *Keying) error { return k.UpdateSA(daemon, keyedSA(900, here, peer)) }, ErrStatic, syscall.EPERM},
		{"update of keys", func(k *Keying) error {
			return k.UpdateSA(daemon, keyedSA(300, here, peer, func(p *SAParams) { p.EncKey = bytes.Repeat([]byte{9}, 16) }))
		}, ErrInvalid, syscall.EINVAL},
		{"update with the same keys", func(k *Keying) error { return k.UpdateSA(daemon, keyedSA(300, here, peer)) }, nil, 0},
		{"update without keys", func(k *Keying) error {
			return k.UpdateSA(daemon, keyedSA(300, here, peer, func(p *SAParams) { p.EncKey, p.AuthKey = nil, nil }))
		}, nil, 0},
		{"delete of nothing", func(k *Keying) error { _, err := k.DeleteSA(daemon, id(302, peer)); return err }, ErrNotFound, syscall.ESRCH},
		{"delete at another destination", func(k *Keying) error { _, err := k.DeleteSA(daemon, id(300, here)); return err }, ErrNotFound, syscall.ESRCH},
		{"delete of the configuration's", func(k *Keying) error { _, err := k.DeleteSA(daemon, id(900, peer)); return err }, ErrStatic, syscall.EPERM},
		{"get of nothing", func(k *Keying) error { _, err := k.SA(id(302, peer), true); return err }, ErrNotFound, syscall.ESRCH},
		{"sequence of nothing", func(k *Keying) error { return k.SetReplay(daemon, id(302, peer), 5) }, ErrNotFound, syscall.ESRCH},
		{"sequence onwards", func(k *Keying) error { return k.SetReplay(daemon, id(300, peer), 5) }, nil, 0},
		{"sequence backwards", func(k *Keying) error {
			return errors.Join(k.SetReplay(daemon, id(300, peer), 9), k.SetReplay(daemon, id(300, peer), 8))
		}, ErrInvalid, syscall.EINVAL},
		{"delete", func(k *Keying) error { _, err := k.DeleteSA(daemon, id(300, peer)); return err }, nil, 0},
	} {
		g := newGateway(t)
		g.see()
		g.load(t, static, sa(901, "203.0.113.1", peer))
		g.key(t, func(k *Keying) {
			if err := k.AddSA(daemon, keyedSA(300, here, peer)); err != nil {
				t.Fatal(err)
			}
			err := c.do(k)
			if !errors.Is(err, c.is) || (err == nil) != (c.is == nil) || Errno(err) != c.errno {
				t.Errorf("%s: %v (%v), want %v (%v)", c.name, err, Errno(err), c.is, c.errno)
			}
		})
	}
}

func TestAMatureSAChangesItsLifetimes(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.key(t, func(k *Keying) {
		p := keyedSA(300, here, peer, func(p *SAParams) { p.Soft.Packets, p.Hard.Packets = 1, 10 })
		if err := k.AddSA(daemon, p); err != nil {
			t.Fatal(err)
		}
	})
	r := g.list()[0]
	r.out.Count(1, 100)
	g.Do(func() { g.chores(r.added.Add(time.Second)) })
	g.key(t, func(k *Keying) {
		if v, _ := k.SA(r.id, false); v.State != Dying || v.Packets != 1 || v.Bytes != 100 || v.FirstUse.IsZero() || v.LastUse.IsZero() {
			t.Errorf("after its soft lifetime: %+v", v)
		}
		p := keyedSA(300, here, peer, func(p *SAParams) { p.Soft.Packets, p.Hard.Packets = 5, 20 })
		if err := k.UpdateSA(daemon, p); err != nil {
			t.Fatal(err)
		}
		if v, _ := k.SA(r.id, false); v.State != Mature || v.Hard.Packets != 20 {
			t.Errorf("after the update: %+v", v)
		}
	})
	for i, c := range []struct {
		packets uint64
		soft    int
		there   bool
	}{{3, 1, true}, {1, 2, true}, {10, 2, true}, {5, 2, false}} {
		r.out.Count(c.packets, 0)
		g.Do(func() { g.chores(r.added.Add(time.Duration(i+2) * time.Second)) })
		soft := 0
		for _, e := range g.hear(EventExpire) {
			if !e.Hard {
				soft++
			}
		}
		if there := len(g.list()) == 1; soft != c.soft || there != c.there {
			t.Errorf("after %d packets: %d soft expiries, there: %v; want %d, %v", r.seen, soft, there, c.soft, c.there)
		}
	}
	if r.keyed.params.EncKey != nil {
		t.Error("the keys of an expired SA are kept")
	}
}

func TestKeysAreCopiedAndWiped(t *testing.T) {
	g := newGateway(t)
	g.see()
	p := keyedSA(300, here, peer)
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, p); err != nil {
			t.Fatal(err)
		}
		clear(p.EncKey)
		v, _ := k.SA(p.ID(), true)
		if bytes.Equal(v.EncKey, p.EncKey) {
			t.Error("the caller's key is the SADB's")
		}
		clear(v.AuthKey)
		if v, _ := k.SA(p.ID(), true); v.AuthKey[0] == 0 {
			t.Error("the key that was returned is the SADB's")
		}
	})
	kept := g.list()[0].keyed.params.EncKey
	held := g.list()[0].sa()
	g.key(t, func(k *Keying) {
		if _, err := k.DeleteSA(daemon, p.ID()); err != nil {
			t.Fatal(err)
		}
	})
	g.Do(func() { g.poll(time.Now()) })
	if !bytes.Equal(kept, make([]byte, len(kept))) || alive(held) {
		t.Error("the keys of a deleted SA live")
	}
}

func TestFlushSparesTheConfiguration(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, sa(900, here, peer), sa(901, peer, here), protect("10.9.0.0/16"))
	g.key(t, func(k *Keying) {
		for i := range uint32(5) {
			if err := errors.Join(k.AddSA(daemon, keyedSA(300+i, here, peer)), k.AddSA(daemon, keyedSA(300+i, peer, here))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.GetSPI(daemon, GetSPIRequest{Proto: 51, Dst: addr(here)}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.AddPolicy(daemon, PolicyParams{Policy: *protect("10.2.0.0/16")}); err != nil {
			t.Fatal(err)
		}
	})
	if spi := g.boundTo(t, "to 10.9.0.0/16"); spi != 304 {
		t.Errorf("bound to %d, want the newest", spi)
	}
	g.key(t, func(k *Keying) {
		if n := k.FlushSAs(daemon, 51); n != 1 {
			t.Errorf("flushed %d of AH", n)
		}
		if n, p := k.FlushSAs(daemon, 0), k.FlushPolicies(daemon); n != 10 || p != 1 || k.SACount() != 2 {
			t.Errorf("flushed %d SAs and %d policies, %d SAs left", n, p, k.SACount())
		}
	})
	if spi := g.boundTo(t, "to 10.9.0.0/16"); spi != 900 {
		t.Errorf("bound to %d after the flush, want the configuration's", spi)
	}
	if n := len(g.spd.Load().Out.Policies()); n != 1 {
		t.Errorf("%d policies", n)
	}
	if n := len(g.hear(EventSAFlush)) + len(g.hear(EventPolicyFlush)); n != 3 || len(g.hear(EventSADelete)) != 0 {
		t.Errorf("told of %d flushes", n)
	}
}

// TestBothWaysOfMatching holds the SA that each policy gets: charon ties them by
// reqid, iked by the tunnel.
func TestBothWaysOfMatching(t *testing.T) {
	narrow := selector("10.1.0.0/16", "10.2.0.0/24")
	add := func(edit ...func(*SAParams)) func(*Keying) error {
		return func(k *Keying) error { return k.AddSA(daemon, keyedSA(uint32(300+k.SACount()), here, peer, edit...)) }
	}
	withReqid := func(n uint32) func(*SAParams) { return func(p *SAParams) { p.Reqid = n } }
	from := func(src string) func(*SAParams) { return func(p *SAParams) { p.Src = addr(src) } }
	transport := func(p *SAParams) { p.Tunnel = false }
	for _, c := range []struct {
		name string
		sas  []func(*Keying) error
		tmpl func(*spd.Template)
		want uint32
	}{
		{"by the tunnel", []func(*Keying) error{add()}, func(*spd.Template) {}, 300},
		{"by the peer alone", []func(*Keying) error{add()}, func(t *spd.Template) { t.Src = flow.Addr{} }, 300},
		{"by reqid", []func(*Keying) error{add(withReqid(7))}, func(t *spd.Template) { t.Reqid = 7 }, 300},
		{"by reqid alone", []func(*Keying) error{add(withReqid(7))},
			func(t *spd.Template) { *t = spd.Template{Proto: 50, Reqid: 7} }, 300},
		{"another reqid", []func(*Keying) error{add(withReqid(8))}, func(t *spd.Template) { t.Reqid = 7 }, 0},
		{"an SA without reqid", []func(*Keying) error{add()}, func(t *spd.Template) { t.Reqid = 7 }, 0},
		{"any reqid", []func(*Keying) error{add(withReqid(8))}, func(*spd.Template) {}, 300},
		{"the newest", []func(*Keying) error{add(), add(), add()}, func(*spd.Template) {}, 302},
		{"the newest of its reqid", []func(*Keying) error{add(withReqid(7)), add(withReqid(7)), add()}, func(t *spd.Template) { t.Reqid = 7 }, 301},
		{"another end", []func(*Keying) error{add(from("10.1.0.1"))}, func(*spd.Template) {}, 0},
		{"another mode", []func(*Keying) error{add(transport)}, func(*spd.Template) {}, 0},
		{"transport", []func(*Keying) error{add(transport)}, func(t *spd.Template) { t.Mode = spd.Transport }, 300},
		{"no peer and no reqid", []func(*Keying) error{add()}, func(t *spd.Template) { *t = spd.Template{Proto: 50} }, 0},
		{"an SA for a part of the traffic", []func(*Keying) error{add(), add(func(p *SAParams) { p.Sel = &narrow })}, func(*spd.Template) {}, 300},
	} {
		for _, sasFirst := range []bool{false, true} {
			g := newGateway(t)
			g.see()
			p := protect("10.2.0.0/16", func(p *spd.Policy) { c.tmpl(&p.Template) })
			steps := []func(*Keying) error{func(k *Keying) error { _, err := k.AddPolicy(daemon, PolicyParams{Policy: *p}); return err }}
			if steps = append(steps, c.sas...); sasFirst {
				slices.Reverse(steps)
				slices.Reverse(steps[:len(c.sas)])
			}
			for _, f := range steps {
				g.key(t, func(k *Keying) {
					if err := f(k); err != nil {
						t.Fatal(c.name, err)
					}
				})
			}
			if got := g.boundTo(t, p.Name); got != c.want {
				t.Errorf("%s, SAs first %v: bound to %d, want %d", c.name, sasFirst, got, c.want)
			}
		}
	}
}

// TestAKeyedRekeyLeavesNoGap is a rekey by a daemon: at no time is a policy without an SA.
func TestAKeyedRekeyLeavesNoGap(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, protect("10.2.0.0/16"))
	step := func(want uint32, f func(*Keying) error) {
		t.Helper()
		g.key(t, func(k *Keying) {
			if err := f(k); err != nil {
				t.Fatal(err)
			}
		})
		if got := g.boundTo(t, "to 10.2.0.0/16"); got != want {
			t.Errorf("bound to %d, want %d", got, want)
		}
	}
	del := func(spi uint32) func(*Keying) error {
		return func(k *Keying) error { _, err := k.DeleteSA(daemon, id(spi, peer)); return err }
	}
	step(300, func(k *Keying) error { return k.AddSA(daemon, keyedSA(300, here, peer)) })
	step(301, func(k *Keying) error { return k.AddSA(daemon, keyedSA(301, here, peer)) })
	step(301, del(300))
	step(302, func(k *Keying) error { return k.AddSA(daemon, keyedSA(302, here, peer)) })
	step(301, del(302)) // back to the old one
	step(0, del(301))
}

func TestAKeyedSAWaitsForItsAddress(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.load(t, protect("10.2.0.0/16", func(p *spd.Policy) { p.Template.Src = flow.Addr{} }))
	g.key(t, func(k *Keying) {
		if err := k.AddSA(daemon, keyedSA(300, "203.0.113.1", peer)); err != nil {
			t.Fatal(err)
		}
		if err := k.AddSA(daemon, keyedSA(301, "203.0.113.1", "203.0.113.2", func(p *SAParams) { p.Direction = Inbound })); err != nil {
			t.Fatal(err)
		}
		if v, _ := k.SA(id(300, peer), false); v.State != Mature || v.Direction != DirectionUnknown {
			t.Errorf("it waits as %+v", v)
		}
	})
	if got := g.reportStatus(time.Now()).WaitingSAs; got != 1 {
		t.Errorf("%d wait, want 1", got)
	}
	dst := addr("203.0.113.2")
	if g.sad.Load().Inbound(301, &dst, 50) == nil {
		t.Error("an SA whose direction was given waits")
	}
	g.see("203.0.113.1")
	if got := g.boundTo(t, "to 10.2.0.0/16"); got != 300 || g.waiting != 0 {
		t.Errorf("bound to %d after the address came, %d wait", got, g.waiting)
	}
}

func TestReplayStateIsTakenOver(t *testing.T) {
	g := newGateway(t)
	g.see()
	g.key(t, func(k *Keying) {
		out := keyedSA(300, here, peer, func(p *SAParams) { p.ESN, p.Replay.Seq = true, 1<<33 })
		in := keyedSA(301, peer, here, func(p *SAParams) {
			p.Replay = sad.Replay{Seq: 100, Seen: []uint64{0b101}}
			p.Carried, p.Hard = sad.Lifetime{Packets: 99, Bytes: 9900}, sad.Lifetime{Packets: 100}
		})
		if err := errors.Join(k.AddSA(daemon, out), k.AddSA(daemon, in)); err != nil {
			t.Fatal(err)
		}
		if v, _ := k.SA(id(301, here), false); v.Replay.Seq != 100 || v.Replay.Seen[0] != 0b101 || v.Packets != 99 || v.Bytes != 9900 {
			t.Errorf("inbound: %+v", v)
		}
		if v, _ := k.SA(id(300, peer), false); v.Replay.Seq != 1<<33 {
			t.Errorf("outbound: %+v", v.Replay)
		}
	})
	if first, _ := g.list()[0].out.Reserve(1); first != 1<<33+1 {
		t.Errorf("the next number is %d", first)
	}
	g.list()[1].in.Count(1, 100)
	g.Do(func() { g.chores(time.Now()) })
	if e := g.hear(EventExpire); len(e) != 1 || !e[0].Hard || e[0].Reason != "packets" {
		t.Errorf("what was carried elsewhere does not count: %+v", e)
	}
}

func TestDumpShowsWhatWasThere(t *testing.T) {
	g := newGateway(t)
	g.see()
	var sas *SADump
	var policies *PolicyDump
	g.load(t, sa(900, here, peer), protect("10.9.0.0/16"))
	g.key(t, func(k *Keying) {
		for i := range uint32(4) {
			p := PolicyParams{Policy: *protect(fmt.Sprintf("10.%d.0.0/16", 20+i))}
			if _, err := k.AddPolicy(daemon, p); err != nil {
				t.Fatal(err)
			}
			if err := k.AddSA(daemon, keyedSA(300+i, here, peer)); err != nil {
				t.Fatal(err)
			}
		}
		sas, policies = k.DumpSAs(0), k.DumpPolicies()
		if none := k.DumpSAs(51); none.Len() != 0 {
			t.Error("there are SAs of AH")
		}
	})
	if sas.Len() != 5 || policies.Len() != 5 {
		t.Fatalf("%d SAs, %d policies", sas.Len(), policies.Len())
	}
	var spis []uint32
	var keys int
	buf := make([]SA, 2)
	for n := sas.Next(buf, true); n > 0; n = sas.Next(buf, true) {
		for _, v := range buf[:n] {
			spis = append(spis, v.SPI)
			keys += len(v.EncKey)
		}
		g.key(t, func(k *Keying) { k.FlushSAs(daemon, 0) }) // in the middle of it
	}
	if !slices.Equal(spis, []uint32{900, 300, 301, 302, 303}) || keys != 16 {
		t.Errorf("SAs %v with %d bytes of keys, want those of the first keyed SA only", spis, keys)
	}
	var names []string
	for one := make([]Policy, 1); policies.Next(one) > 0; {
		names = append(names, one[0].Name)
	}
	if want := []string{"to 10.9.0.0/16", "to 10.20.0.0/16", "to 10.21.0.0/16", "to 10.22.0.0/16", "to 10.23.0.0/16"}; !slices.Equal(names, want) {
		t.Errorf("policies %v", names)
	}
}
