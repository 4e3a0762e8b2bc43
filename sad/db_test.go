package sad

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"spigot/internal/epoch"
	"spigot/internal/flow"
)

// fixture is a DB with one worker, and what was published.
type fixture struct {
	*DB
	d      epoch.Domain
	worker *epoch.Reader
	got    []*Snapshot
}

func newFixture() *fixture {
	f := new(fixture)
	f.worker = f.d.Register()
	f.worker.Online()
	f.DB = NewDB(&f.d, func(s *Snapshot) { f.got = append(f.got, s) })
	return f
}

func spi(n uint32) func(*Params) { return func(p *Params) { p.SPI = n } }

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestInboundIsFoundByWholeIdentity(t *testing.T) {
	f := newFixture()
	a, b, c := inbound(t, spi(1000)), inbound(t, spi(1001)), inbound(t, spi(1000), func(p *Params) { p.Dst = addr("192.0.2.9") })
	must(t, f.AddInbound(a), f.AddInbound(b), f.AddInbound(c))
	s := f.Snapshot()
	for _, r := range []struct {
		spi   uint32
		dst   string
		proto uint8
		want  *Inbound
	}{
		{1000, "192.0.2.2", 50, a},
		{1001, "192.0.2.2", 50, b},
		{1000, "192.0.2.9", 50, c},
		{1001, "192.0.2.9", 50, nil},
		{1000, "192.0.2.2", 51, nil},
		{1000, "::192.0.2.2", 50, nil},
		{1002, "192.0.2.2", 50, nil},
		{0, "192.0.2.2", 50, nil},
	} {
		dst := addr(r.dst)
		if got := s.Inbound(r.spi, &dst, r.proto); got != r.want {
			t.Errorf("Inbound(%d, %s, %d) = %v, want %v", r.spi, r.dst, r.proto, got, r.want)
		}
		if got := f.FindInbound(r.spi, dst, r.proto); got != r.want {
			t.Errorf("FindInbound(%d, %s, %d) = %v, want %v", r.spi, r.dst, r.proto, got, r.want)
		}
	}
	var none Snapshot
	if dst := addr("192.0.2.2"); none.Inbound(1000, &dst, 50) != nil || none.Outbound(1) != nil {
		t.Error("the zero Snapshot holds SAs")
	}
}

func TestEachEditPublishesOneSnapshot(t *testing.T) {
	f := newFixture()
	in, out := inbound(t, spi(2000)), outbound(t)
	var snapshots []*Snapshot
	step := func(name string, n int, err error) {
		t.Helper()
		must(t, err)
		if len(f.got) != len(snapshots)+n {
			t.Errorf("%s: %d snapshots, want %d", name, len(f.got)-len(snapshots), n)
		}
		snapshots = slices.Clone(f.got)
		if f.Snapshot() != f.got[len(f.got)-1] {
			t.Errorf("%s: Snapshot is not the one that was published last", name)
		}
	}
	step("NewDB", 1, nil)
	step("AddInbound", 1, f.AddInbound(in))
	step("AddOutbound", 0, f.AddOutbound(out))
	step("Bind", 1, f.Bind(1, out))
	step("Bind again", 0, f.Bind(1, out))
	step("Bind nil", 1, f.Bind(1, nil))
	step("Bind nil again", 0, f.Bind(1, nil))
	step("Remove", 1, f.Remove(in.SPI, in.Dst, in.Proto))
	step("empty Batch", 0, f.Batch(func() error { return nil }))
	step("Batch of three", 1, f.Batch(func() error {
		return errors.Join(
			f.AddInbound(inbound(t)),
			f.Batch(func() error { return f.Bind(1, out) }),
			f.Bind(2, out))
	}))
	for i, s := range f.got {
		if s.Gen != uint64(i+1) {
			t.Errorf("snapshot %d has generation %d", i, s.Gen)
		}
	}
	if last := f.got[len(f.got)-1]; last.Outbound(1) != out || last.Outbound(2) != out || f.got[1].Outbound(1) != nil {
		t.Error("the batch is not in the last snapshot, or in an older one, too")
	}
}

func TestBatchPublishesWhenItsFunctionFails(t *testing.T) {
	f := newFixture()
	in, failure := inbound(t), errors.New("failure")
	err := f.Batch(func() error {
		must(t, f.AddInbound(in))
		return failure
	})
	if err != failure || f.Snapshot().Inbound(in.SPI, &in.Dst, in.Proto) != in {
		t.Errorf("error %v, or the edit before it is lost", err)
	}
}

func TestEditsRefused(t *testing.T) {
	f := newFixture()
	in, out := inbound(t), outbound(t)
	must(t, f.AddInbound(in), f.AddOutbound(out)) // of one identity: each direction is its own
	removed := outbound(t, spi(2000))
	must(t, f.AddOutbound(removed), f.Remove(removed.SPI, removed.Dst, removed.Proto))
	before := len(f.got)
	for _, r := range []struct {
		name string
		err  error
		want error
	}{
		{"an inbound SA twice", f.AddInbound(inbound(t)), ErrExists},
		{"an outbound SA twice", f.AddOutbound(outbound(t)), ErrExists},
		{"a removed SA once more", f.AddOutbound(removed), ErrExists},
		{"bind a removed SA", f.Bind(1, removed), ErrNoSA},
		{"bind an SA that was not added", f.Bind(1, outbound(t)), ErrNoSA},
		{"remove what is not there", f.Remove(in.SPI, addr("192.0.2.3"), in.Proto), ErrNoSA},
		{"remove twice", f.Remove(removed.SPI, removed.Dst, removed.Proto), ErrNoSA},
	} {
		if !errors.Is(r.err, r.want) {
			t.Errorf("%s: error %v, want %v", r.name, r.err, r.want)
		}
	}
	if len(f.got) != before {
		t.Error("an edit that was refused published a snapshot")
	}
}

// Make before break: a policy goes over to the new SA; the old one is removed
// later, and only its own bindings go with it.
func TestBindings(t *testing.T) {
	f := newFixture()
	a, b := outbound(t, spi(1001)), outbound(t, spi(1002))
	must(t, f.AddOutbound(a), f.AddOutbound(b), f.Bind(3, a), f.Bind(1, a), f.Bind(2, b))
	bindings := func() map[uint32]*Outbound {
		got, last := map[uint32]*Outbound{}, uint32(0)
		for policy, sa := range f.Bindings() {
			if policy <= last {
				t.Errorf("policy %d after %d", policy, last)
			}
			last, got[policy] = policy, sa
		}
		return got
	}
	is := func(want map[uint32]*Outbound) {
		t.Helper()
		got := bindings()
		for policy := range uint32(5) {
			if sa := f.Snapshot().Outbound(policy); sa != want[policy] || got[policy] != want[policy] {
				t.Errorf("policy %d uses %v, and Bindings says %v; want %v", policy, sa, got[policy], want[policy])
			}
		}
	}
	is(map[uint32]*Outbound{1: a, 2: b, 3: a})
	must(t, f.Bind(1, b))
	is(map[uint32]*Outbound{1: b, 2: b, 3: a})
	must(t, f.Remove(a.SPI, a.Dst, a.Proto))
	is(map[uint32]*Outbound{1: b, 2: b})
	if f.FindOutbound(a.SPI, a.Dst, a.Proto) != nil || f.FindOutbound(b.SPI, b.Dst, b.Proto) != b {
		t.Error("the wrong SA was removed")
	}
	must(t, f.Bind(2, nil))
	is(map[uint32]*Outbound{1: b})
}

func TestListsAreInOrderOfAddition(t *testing.T) {
	f := newFixture()
	spis := []uint32{5000, 300, 70_000, 400, 6000}
	for _, n := range spis {
		must(t, f.AddInbound(inbound(t, spi(n))), f.AddOutbound(outbound(t, spi(n))))
	}
	var in, out []uint32
	for sa := range f.Inbounds() {
		in = append(in, sa.SPI)
		must(t, f.Remove(sa.SPI, sa.Dst, sa.Proto)) // of both directions
	}
	for sa := range f.Outbounds() {
		out = append(out, sa.SPI)
	}
	if !slices.Equal(in, spis) || len(out) != 0 {
		t.Errorf("inbound %v, want %v; outbound %v, want none", in, spis, out)
	}
	for _, n := range spis {
		must(t, f.AddOutbound(outbound(t, spi(n))))
	}
	for sa := range f.Outbounds() {
		if out = append(out, sa.SPI); len(out) == 3 {
			break
		}
	}
	if !slices.Equal(out, spis[:3]) {
		t.Errorf("outbound %v, want %v", out, spis[:3])
	}
}

// A removed SA is out of the snapshot at once; its key lives until the worker,
// which may have packets of it in hand, has ended its turn.
func TestRemovedKeysDieAfterATurn(t *testing.T) {
	f := newFixture()
	in, out := inbound(t), outbound(t)
	must(t, f.AddInbound(in), f.AddOutbound(out), f.Bind(1, out), f.Remove(in.SPI, in.Dst, in.Proto))
	if s := f.Snapshot(); s.Inbound(in.SPI, &in.Dst, in.Proto) != nil || s.Outbound(1) != nil {
		t.Error("the snapshot still holds a removed SA")
	}
	f.d.Reap()
	if !seals(in.Key) || !seals(out.Key) {
		t.Error("a key died under the worker")
	}
	f.worker.Quiesce()
	if left := f.d.Reap(); left != 0 || seals(in.Key) || seals(out.Key) {
		t.Errorf("%d keys wait, or live, after the worker's turn", left)
	}
}

// In a batch the removal is published at its end; the worker's turns before
// that do not count.
func TestRemovedKeysOutliveTheBatch(t *testing.T) {
	f := newFixture()
	in := inbound(t)
	must(t, f.AddInbound(in), f.Batch(func() error {
		err := f.Remove(in.SPI, in.Dst, in.Proto)
		f.worker.Quiesce()
		f.d.Reap()
		return err
	}))
	if f.d.Reap(); !seals(in.Key) {
		t.Error("a key died before the snapshot without it was published")
	}
	f.worker.Quiesce()
	if f.d.Reap(); seals(in.Key) {
		t.Error("the key lives after the worker's turn")
	}
}

func TestCloseZeroesAllKeys(t *testing.T) {
	f := newFixture()
	in, out, gone := inbound(t), outbound(t), inbound(t, spi(2000))
	must(t, f.AddInbound(in), f.AddOutbound(out), f.Bind(1, out), f.AddInbound(gone))
	must(t, f.Remove(gone.SPI, gone.Dst, gone.Proto)) // waits for the worker, which never comes back
	f.Close()
	for _, k := range []*SA{&in.SA, &out.SA, &gone.SA} {
		if seals(k.Key) {
			t.Errorf("the key of %v lives", k)
		}
	}
	if s := f.Snapshot(); s.Inbound(in.SPI, &in.Dst, in.Proto) != nil || s.Outbound(1) != nil {
		t.Error("the last snapshot holds SAs")
	}
	for sa := range f.Inbounds() {
		t.Errorf("%v is left", sa)
	}
	f.worker.Quiesce()
	f.d.Reap()
	f.Close()
}

// Workers look up, use and let go while the slow path replaces SAs. A key must
// work whenever a worker holds it: the race detector watches Zero.
func TestEditsUnderWorkers(t *testing.T) {
	const workers, rounds = 2, 100
	var d epoch.Domain
	var now atomic.Pointer[Snapshot]
	readers := [workers]*epoch.Reader{}
	for i := range readers {
		readers[i] = d.Register()
	}
	db := NewDB(&d, now.Store)
	var stop atomic.Bool
	var sealed atomic.Int64
	var wg sync.WaitGroup
	for _, r := range readers {
		wg.Go(func() {
			e := NewEngine()
			dst := addr("192.0.2.2")
			for !stop.Load() {
				r.Online()
				for range 8 {
					s := now.Load()
					in, out := s.Inbound(0x1000, &dst, 50), s.Outbound(1)
					if in != nil && out != nil {
						jobs := []Job{{Key: in.Key, Pkt: make([]byte, 36)}, {Key: out.Key, Pkt: make([]byte, 36)}}
						e.Seal(jobs)
						if !jobs[0].OK || !jobs[1].OK {
							t.Error("a worker holds a dead key")
						}
						sealed.Add(1)
					}
					r.Quiesce()
				}
				r.Offline()
				runtime.Gosched()
			}
		})
	}
	for round := range rounds {
		in, out := inbound(t), outbound(t)
		must(t, db.AddInbound(in), db.AddOutbound(out), db.Bind(1, out))
		for at := sealed.Load(); sealed.Load() == at && round%10 == 0 && !t.Failed(); {
			d.Reap()
			runtime.Gosched()
		}
		must(t, db.Remove(in.SPI, in.Dst, in.Proto))
		d.Reap()
	}
	stop.Store(true)
	wg.Wait()
	if left := d.Reap(); left != 0 {
		t.Errorf("%d keys wait for workers that have ended", left)
	}
	db.Close()
}

func TestHundredThousandSAs(t *testing.T) {
	const n = 100_000
	f := newFixture()
	f.worker.Offline()
	key := inbound(t).Key
	sas := make([]*Inbound, n)
	for i := range sas { // with one key: making 100,000 would take most of the time
		sas[i] = &Inbound{SA: SA{SPI: uint32(256 + i), Dst: flow.V4(0xc0000200 + uint32(i%7)), Proto: 50, Key: key}}
	}
	must(t, f.Batch(func() error {
		for _, sa := range sas[:n-1000] {
			must(t, f.AddInbound(sa))
		}
		return nil
	}))
	for _, sa := range sas[n-1000:] { // one snapshot each
		must(t, f.AddInbound(sa))
	}
	half := f.Snapshot()
	for _, sa := range sas[:1000] {
		must(t, f.Remove(sa.SPI, sa.Dst, sa.Proto))
	}
	s := f.Snapshot()
	for i, sa := range sas {
		if half.Inbound(sa.SPI, &sa.Dst, 50) != sa {
			t.Fatalf("%v is not in the older snapshot", sa)
		}
		if got := s.Inbound(sa.SPI, &sa.Dst, 50); (got == sa) != (i >= 1000) {
			t.Fatalf("%v: found %v", sa, got)
		}
	}
	if got := testing.AllocsPerRun(1000, func() { s.Inbound(70_000, &sas[0].Dst, 50); s.Outbound(7) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func benchmarkDB(b *testing.B, n int) (*DB, []*Inbound) {
	db := NewDB(new(epoch.Domain), func(*Snapshot) {})
	key := inbound(b).Key
	sas := make([]*Inbound, n)
	must(b, db.Batch(func() error {
		for i := range sas {
			sas[i] = &Inbound{SA: SA{SPI: 256 + uint32(i)*0x9e3779b1>>8, Dst: addr("192.0.2.2"), Proto: 50, Key: key}}
			must(b, db.AddInbound(sas[i]))
		}
		return nil
	}))
	return db, sas
}

func BenchmarkInbound(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		db, sas := benchmarkDB(b, n)
		s, at := db.Snapshot(), uint32(1)
		b.Run(fmt.Sprintf("sas=%d", n), func(b *testing.B) {
			for b.Loop() {
				at = at*1664525 + 1013904223
				sa := sas[uint64(at)*uint64(n)>>32]
				if s.Inbound(sa.SPI, &sa.Dst, 50) != sa {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkEdit(b *testing.B) {
	db, _ := benchmarkDB(b, 100_000)
	dst := addr("192.0.2.3")
	key := inbound(b).Key
	for b.Loop() {
		must(b, db.AddInbound(&Inbound{SA: SA{SPI: 1000, Dst: dst, Proto: 50, Key: key}}), db.Remove(1000, dst, 50))
		db.epochs.Reap()
	}
}
