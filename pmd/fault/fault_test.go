package fault_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"spigot/pmd"
	"spigot/pmd/fault"
	"spigot/pmd/memport"
)

const (
	chunk = 2048
	jumbo = 5 * chunk
	depth = 64
)

func newPool(t testing.TB) *pmd.Pool {
	t.Helper()
	pool, err := pmd.NewJumboPool(&pmd.Memory{Bytes: make([]byte, 256*chunk+16*jumbo)}, chunk, pmd.Jumbo{Size: jumbo, Count: 16})
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func allHome(t testing.TB, pool *pmd.Pool) {
	t.Helper()
	if pool.Len() != pool.Cap() || pool.Bad() != 0 {
		t.Errorf("%d of %d frames home, %d refused", pool.Len(), pool.Cap(), pool.Bad())
	}
}

// bench is a faulty port with a test at the far end of its cable.
type bench struct {
	t     testing.TB
	pool  *pmd.Pool
	inner *memport.Port
	port  *fault.Port
	tap   *memport.Tap
}

func newBench(t testing.TB, o fault.Options) *bench {
	t.Helper()
	pool := newPool(t)
	inner, tap, err := memport.NewTap(depth, memport.Options{Pool: pool, Name: "red0"})
	if err != nil {
		t.Fatal(err)
	}
	port, err := fault.New(inner, pool, o)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, pool, inner, port, tap}
}

// packet returns 64 bytes that begin with number.
func packet(number uint32) []byte {
	p := make([]byte, 64)
	binary.BigEndian.PutUint32(p, number)
	return p
}

// arrive puts the packets from first up to limit on the line.
func (b *bench) arrive(first, limit uint32) {
	b.t.Helper()
	for ; first < limit; first++ {
		if !b.tap.Inject(packet(first)) {
			b.t.Fatalf("line is full at packet %d", first)
		}
	}
}

// rx receives once, up to n, and returns the packets; frames go home.
func (b *bench) rx(n int) [][]byte {
	fs := make([]pmd.Frame, n)
	var packets [][]byte
	for _, f := range fs[:b.port.Rx(fs)] {
		packets = append(packets, bytes.Clone(b.pool.Bytes(f)))
		b.pool.Put(f.Base)
	}
	return packets
}

// run sends total packets through the port in bursts of 32, waits for those
// that are held, and returns all that came out.
func (b *bench) run(total uint32) [][]byte {
	b.t.Helper()
	var out [][]byte
	for first := uint32(0); first < total; first += 32 {
		b.arrive(first, min(first+32, total))
		out = append(out, b.rx(64)...)
	}
	for silent := 0; silent < 200; silent++ {
		out = append(out, b.rx(64)...)
	}
	return out
}

// frames takes n packets from the pool, numbered from first.
func (b *bench) frames(first uint32, n int) []pmd.Frame {
	bases := make([]uint32, n)
	fs := make([]pmd.Frame, b.pool.Get(bases))
	for i := range fs {
		fs[i] = pmd.Frame{Base: bases[i], Off: pmd.Headroom, Len: 64}
		copy(b.pool.Bytes(fs[i]), packet(first+uint32(i)))
	}
	return fs
}

// balanced checks the equations that fault.Port states.
func (b *bench) balanced() {
	b.t.Helper()
	b.port.Flush()
	in, out, did := b.inner.Stats(), b.port.Stats(), b.port.Faults()
	if in.RxPackets+did.RxDuplicated != out.RxPackets+did.RxLost+did.RxHeld {
		b.t.Errorf("received: %d + %d copies != %d + %d lost + %d held",
			in.RxPackets, did.RxDuplicated, out.RxPackets, did.RxLost, did.RxHeld)
	}
	if out.TxPackets != in.TxPackets+did.TxLost {
		b.t.Errorf("sent: %d != %d + %d lost", out.TxPackets, in.TxPackets, did.TxLost)
	}
	if out.TxDone != in.TxDone+did.TxLost {
		b.t.Errorf("done: %d != %d + %d lost", out.TxDone, in.TxDone, did.TxLost)
	}
}

// close closes the port and checks that all frames are home.
func (b *bench) close() {
	b.t.Helper()
	b.balanced()
	if err := b.port.Close(); err != nil {
		b.t.Error(err)
	}
	b.balanced()
	if held := b.port.Faults().RxHeld; held != 0 {
		b.t.Errorf("%d frames held after Close", held)
	}
	allHome(b.t, b.pool)
}

func numbers(packets [][]byte) []uint32 {
	ns := make([]uint32, len(packets))
	for i, p := range packets {
		ns[i] = binary.BigEndian.Uint32(p)
	}
	return ns
}

func upTo(n uint32) []uint32 {
	ns := make([]uint32, n)
	for i := range ns {
		ns[i] = uint32(i)
	}
	return ns
}

func TestOptions(t *testing.T) {
	b := newBench(t, fault.Options{})
	for _, o := range []fault.Options{
		{RxLose: -0.1}, {RxCorrupt: 1.01}, {RxTruncate: math.NaN()}, {RxDuplicate: math.Inf(1)}, {RxReorder: 2},
		{TxShort: -1}, {TxLose: math.Inf(-1)}, {Hold: -1}, {HoldFrames: -1}, {HoldPolls: -1},
	} {
		if _, err := fault.New(b.inner, b.pool, o); !errors.Is(err, fault.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := fault.New(nil, b.pool, fault.Options{}); !errors.Is(err, fault.ErrOptions) {
		t.Errorf("no port: %v", err)
	}
	if _, err := fault.New(b.inner, nil, fault.Options{}); !errors.Is(err, fault.ErrOptions) {
		t.Errorf("no pool: %v", err)
	}
	b.close()
}

// Without rates the port is the wrapped port.
func TestHarmless(t *testing.T) {
	b := newBench(t, fault.Options{Seed: 1})
	if got := b.run(500); !slices.Equal(numbers(got), upTo(500)) {
		t.Errorf("came out: %v", numbers(got))
	}
	fs := b.frames(0, 40)
	if n := b.port.Tx(fs); n != len(fs) {
		t.Errorf("Tx took %d of %d", n, len(fs))
	}
	b.port.Flush()
	if got := b.tap.Take(); !slices.Equal(numbers(got), upTo(40)) {
		t.Errorf("sent: %v", numbers(got))
	}
	if got := b.port.Faults(); got != (fault.Stats{}) {
		t.Errorf("faults %+v", got)
	}
	if got, want := b.port.Stats(), b.inner.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if b.port.Info().Name != "red0" || b.port.FD() != b.inner.FD() {
		t.Errorf("info %+v, descriptor %d", b.port.Info(), b.port.FD())
	}
	b.close()
}

func TestLoseAll(t *testing.T) {
	b := newBench(t, fault.Options{RxLose: 1, TxLose: 1})
	if got := b.run(200); len(got) != 0 {
		t.Errorf("%d packets came out", len(got))
	}
	if n := b.port.Tx(b.frames(0, 20)); n != 20 {
		t.Errorf("Tx took %d of 20", n)
	}
	b.port.Flush()
	if got := b.tap.Take(); got != nil {
		t.Errorf("%d packets sent", len(got))
	}
	if got, want := b.port.Faults(), (fault.Stats{RxLost: 200, TxLost: 20}); got != want {
		t.Errorf("faults %+v, want %+v", got, want)
	}
	b.close()
}

func TestCorruptAll(t *testing.T) {
	b := newBench(t, fault.Options{RxCorrupt: 1})
	got := b.run(300)
	if len(got) != 300 {
		t.Fatalf("%d packets came out", len(got))
	}
	for i, p := range got {
		flipped := 0
		for j, c := range packet(uint32(i)) {
			flipped += bits.OnesCount8(c ^ p[j])
		}
		if flipped < 1 || flipped > 8 || len(p) != 64 {
			t.Errorf("packet %d: %d bits flipped, length %d", i, flipped, len(p))
		}
	}
	b.close()
}

// Packets of one byte and of none are corrupted and truncated within bounds.
func TestShortPackets(t *testing.T) {
	b := newBench(t, fault.Options{RxCorrupt: 1, RxTruncate: 1, RxDuplicate: 1})
	for range 20 {
		b.tap.Inject([]byte{0})
		b.tap.Inject(nil)
	}
	for _, p := range b.run(0) {
		if len(p) != 0 {
			t.Errorf("packet %v", p)
		}
	}
	if got := b.port.Faults(); got.RxCorrupted != 20 || got.RxTruncated != 20 {
		t.Errorf("faults %+v", got)
	}
	b.close()
}

func TestTruncateAll(t *testing.T) {
	b := newBench(t, fault.Options{RxTruncate: 1})
	got := b.run(300)
	if len(got) != 300 {
		t.Fatalf("%d packets came out", len(got))
	}
	for i, p := range got {
		if len(p) >= 64 || !bytes.Equal(p, packet(uint32(i))[:len(p)]) {
			t.Errorf("packet %d: %d bytes", i, len(p))
		}
	}
	b.close()
}

func TestDuplicateAll(t *testing.T) {
	b := newBench(t, fault.Options{RxDuplicate: 1, Hold: 64})
	got := numbers(b.run(96))
	times := map[uint32]int{}
	for _, n := range got {
		times[n]++
		if times[n] > 2 {
			t.Errorf("packet %d came %d times", n, times[n])
		}
	}
	if did := b.port.Faults(); len(times) != 96 || len(got) != 96+int(did.RxDuplicated) || did.RxDuplicated < 64 {
		t.Errorf("%d packets, %d different, faults %+v", len(got), len(times), did)
	}
	b.close()
}

// Reordering loses nothing, and bounds how far a packet falls behind: by
// HoldFrames and the burst that it waits for.
func TestReorder(t *testing.T) {
	b := newBench(t, fault.Options{Seed: 3, RxReorder: 0.1, HoldFrames: 4})
	got := numbers(b.run(2000))
	if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, upTo(2000)) {
		t.Fatalf("%d packets came out, not each of 2000 once", len(got))
	}
	late, top := 0, uint32(0)
	for _, n := range got {
		if n < top {
			late++
			if top-n > 4+64 {
				t.Errorf("packet %d came behind %d", n, top)
			}
		}
		top = max(top, n)
	}
	did := b.port.Faults().RxReordered
	if did < 100 || late < int(did)/2 {
		t.Errorf("%d packets held back, %d came late", did, late)
	}
	b.close()
}

// A frame that is held when the line falls silent comes after HoldPolls.
func TestSilenceEndsHolding(t *testing.T) {
	b := newBench(t, fault.Options{RxReorder: 1, HoldPolls: 5})
	b.arrive(0, 3)
	var polls []int
	for range 10 {
		polls = append(polls, len(b.rx(8)))
	}
	if got := fmt.Sprint(polls); got != "[0 0 0 0 0 0 3 0 0 0]" {
		t.Errorf("packets by poll: %s", got)
	}
	b.close()
}

// With no room to hold a frame back, it goes on at once.
func TestHoldIsBounded(t *testing.T) {
	b := newBench(t, fault.Options{RxReorder: 1, Hold: 4, HoldFrames: 1000})
	b.arrive(0, 20)
	if got := b.rx(32); len(got) != 16 {
		t.Errorf("%d of 20 came out with 4 places to hold", len(got))
	}
	if got := b.port.Faults(); got.RxHeld != 4 || got.RxReordered != 4 {
		t.Errorf("faults %+v", got)
	}
	b.close() // with four held
	if got := b.port.Faults(); got.RxLost != 4 {
		t.Errorf("faults after Close %+v", got)
	}
}

func TestTxShort(t *testing.T) {
	b := newBench(t, fault.Options{TxShort: 1})
	next := uint32(0)
	for turn := range 200 {
		fs := b.frames(next, 16)
		n := b.port.Tx(fs)
		if n < 0 || n >= len(fs) {
			t.Fatalf("Tx took %d of %d", n, len(fs))
		}
		for _, f := range fs[n:] {
			b.pool.Put(f.Base)
		}
		b.port.Flush()
		for i, have := range numbers(b.tap.Take()) {
			if have != next+uint32(i) {
				t.Fatalf("turn %d: packet %d sent, want %d", turn, have, next+uint32(i))
			}
		}
		next += uint32(n)
	}
	if n := b.port.Tx(nil); n != 0 {
		t.Errorf("Tx of nothing took %d", n)
	}
	if got := b.port.Faults().TxShort; got != 200 {
		t.Errorf("%d calls cut short, want 200", got)
	}
	if next < 200*4 || next > 200*12 {
		t.Errorf("%d of 3200 frames taken", next)
	}
	b.close()
}

func TestRatesAreKept(t *testing.T) {
	const total = 20000
	b := newBench(t, fault.Options{Seed: 9, RxLose: 0.25, RxCorrupt: 0.1, RxTruncate: 0.5})
	b.run(total)
	did, kept := b.port.Faults(), float64(total-b.port.Faults().RxLost)
	for _, r := range []struct {
		name      string
		have, all float64
		want      float64
	}{
		{"lost", float64(did.RxLost), total, 0.25},
		{"corrupted", float64(did.RxCorrupted), kept, 0.1},
		{"truncated", float64(did.RxTruncated), kept, 0.5},
	} {
		if rate := r.have / r.all; math.Abs(rate-r.want) > 0.02 {
			t.Errorf("%s: rate %.3f, want %.3f", r.name, rate, r.want)
		}
	}
	b.close()
}

func TestSeedRepeats(t *testing.T) {
	run := func(seed uint64) string {
		b := newBench(t, fault.Options{Seed: seed, RxLose: 0.2, RxCorrupt: 0.2, RxTruncate: 0.2, RxDuplicate: 0.2, RxReorder: 0.2})
		defer b.close()
		return fmt.Sprintf("%x", b.run(300))
	}
	first := run(1)
	if run(1) != first {
		t.Error("one seed, two outcomes")
	}
	if run(2) == first {
		t.Error("two seeds, one outcome")
	}
}

// Whatever the rates and whatever the worker does, nothing leaks and the
// equations hold at every moment.
func TestEquationUnderAnyFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := func(name string) float64 {
			return rapid.SampledFrom([]float64{0, 0.05, 0.5, 1}).Draw(rt, name)
		}
		b := newBench(t, fault.Options{
			Seed: rapid.Uint64().Draw(rt, "seed"), RxLose: rate("lose"), RxCorrupt: rate("corrupt"),
			RxTruncate: rate("truncate"), RxDuplicate: rate("duplicate"), RxReorder: rate("reorder"),
			TxShort: rate("short"), TxLose: rate("txLose"),
			Hold: rapid.IntRange(0, 20).Draw(rt, "hold"), HoldFrames: rapid.IntRange(0, 40).Draw(rt, "frames"),
			HoldPolls: rapid.IntRange(0, 10).Draw(rt, "polls"),
		})
		for range rapid.IntRange(1, 30).Draw(rt, "turns") {
			for range rapid.IntRange(0, 20).Draw(rt, "arriving") {
				b.tap.Inject(make([]byte, rapid.OneOf(rapid.IntRange(0, chunk-pmd.Headroom), rapid.IntRange(0, jumbo-pmd.Headroom)).Draw(rt, "length")))
			}
			fs := make([]pmd.Frame, rapid.IntRange(0, 24).Draw(rt, "burst"))
			fs = fs[:b.port.Rx(fs)]
			for _, f := range fs {
				if f.Off < pmd.Headroom || int(f.Off)+int(f.Len) > len(b.pool.ChunkOf(f)) {
					rt.Fatalf("frame %+v lies outside its chunk or headroom", f)
				}
			}
			took := b.port.Tx(fs)
			for _, f := range fs[took:] {
				b.pool.Put(f.Base)
			}
			b.balanced()
			b.tap.Take()
		}
		b.close()
		if t.Failed() {
			rt.Fatal("not balanced")
		}
	})
}

func TestNoAllocations(t *testing.T) {
	const rate = 0.1
	pool := newPool(t)
	line, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Templates: [][]byte{packet(1)}})
	if err != nil {
		t.Fatal(err)
	}
	port, err := fault.New(line, pool, fault.Options{
		RxLose: rate, RxCorrupt: rate, RxTruncate: rate, RxDuplicate: rate, RxReorder: rate, TxShort: rate, TxLose: rate,
	})
	if err != nil {
		t.Fatal(err)
	}
	var fs [64]pmd.Frame
	turn := func() {
		n := port.Rx(fs[:])
		for _, f := range fs[port.Tx(fs[:n]):n] {
			pool.Put(f.Base)
		}
		port.Flush()
	}
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	allHome(t, pool)
}
