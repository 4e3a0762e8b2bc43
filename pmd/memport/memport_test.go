package memport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"spigot/pmd"
	"spigot/pmd/memport"
)

const chunk = 2048

// newPool returns a pool of n chunks on the heap.
func newPool(t testing.TB, n int) *pmd.Pool {
	t.Helper()
	pool, err := pmd.NewPool(&pmd.Memory{Bytes: make([]byte, n*chunk)}, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// allHome fails the test unless every frame is in its pool and none came twice.
func allHome(t testing.TB, pools ...*pmd.Pool) {
	t.Helper()
	for i, p := range pools {
		if p.Len() != p.Cap() || p.Bad() != 0 {
			t.Errorf("pool %d: %d of %d frames home, %d refused", i, p.Len(), p.Cap(), p.Bad())
		}
	}
}

// frame takes a chunk of pool and lays packet in it.
func frame(t testing.TB, pool *pmd.Pool, packet []byte) pmd.Frame {
	t.Helper()
	var base [1]uint32
	if pool.Get(base[:]) != 1 {
		t.Fatal("pool is empty")
	}
	f := pmd.Frame{Base: base[0], Off: pmd.Headroom, Len: uint16(len(packet))}
	copy(pool.Bytes(f), packet)
	return f
}

func TestOptions(t *testing.T) {
	pool := newPool(t, 4)
	good := memport.Options{Pool: pool}
	pair := func(depth int, a, b memport.Options) error { _, _, err := memport.NewPair(depth, a, b); return err }
	tap := func(depth int, o memport.Options) error { _, _, err := memport.NewTap(depth, o); return err }
	generator := func(o memport.GeneratorOptions) error { _, err := memport.NewGenerator(o); return err }
	long := [][]byte{make([]byte, 60), make([]byte, chunk-pmd.Headroom+1)}
	for name, err := range map[string]error{
		"pair: depth 0":                  pair(0, good, good),
		"pair: depth 3":                  pair(3, good, good),
		"pair: negative depth":           pair(-4, good, good),
		"pair: no pool here":             pair(4, memport.Options{}, good),
		"pair: no pool there":            pair(4, good, memport.Options{}),
		"tap: depth 5":                   tap(5, good),
		"tap: no pool":                   tap(4, memport.Options{}),
		"generator: no pool":             generator(memport.GeneratorOptions{}),
		"generator: template too long":   generator(memport.GeneratorOptions{Options: good, Templates: long}),
		"generator: negative HeaderOnly": generator(memport.GeneratorOptions{Options: good, HeaderOnly: -1}),
	} {
		if !errors.Is(err, memport.ErrOptions) {
			t.Errorf("%s: error %v is not ErrOptions", name, err)
		}
	}
	allHome(t, pool)
}

func TestInfo(t *testing.T) {
	a, b, err := memport.NewPair(4, memport.Options{Pool: newPool(t, 4), Name: "red0", Index: 7, Queue: 2, MAC: []byte{2, 0, 0, 0, 0, 1}},
		memport.Options{Pool: newPool(t, 4)})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(a.Info()), "{red0 7 2 memport memory 02:00:00:00:00:01 false 1792 }"; got != want {
		t.Errorf("Info = %s, want %s", got, want)
	}
	if b.Info().Name != "mem0" || b.FD() != -1 {
		t.Errorf("defaults: name %q, descriptor %d", b.Info().Name, b.FD())
	}
}

// The two ends carry packets both ways, in order, between pools, and take no
// more than they have room for.
func TestPairAgainstQueue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const depth = 8
		pools := []*pmd.Pool{newPool(t, 24), newPool(t, 24)}
		a, b, err := memport.NewPair(depth, memport.Options{Pool: pools[0]}, memport.Options{Pool: pools[1]})
		if err != nil {
			rt.Fatal(err)
		}
		ports := []*memport.Port{a, b}
		var queued, wire [2][][]byte // the oracle, by sending end
		var serial uint32
		rt.Repeat(map[string]func(*rapid.T){
			"tx": func(rt *rapid.T) {
				end, n := rapid.IntRange(0, 1).Draw(rt, "end"), rapid.IntRange(0, 12).Draw(rt, "n")
				var fs []pmd.Frame
				var packets [][]byte
				for range n {
					p := make([]byte, rapid.IntRange(4, chunk-pmd.Headroom).Draw(rt, "length"))
					serial++
					binary.BigEndian.PutUint32(p, serial)
					packets = append(packets, p)
					fs = append(fs, frame(t, pools[end], p))
				}
				took, want := ports[end].Tx(fs), min(n, depth-len(queued[end]))
				if took != want {
					rt.Fatalf("Tx took %d of %d with %d queued, want %d", took, n, len(queued[end]), want)
				}
				queued[end] = append(queued[end], packets[:took]...)
				for _, f := range fs[took:] {
					pools[end].Put(f.Base)
				}
			},
			"flush": func(rt *rapid.T) {
				end := rapid.IntRange(0, 1).Draw(rt, "end")
				ports[end].Flush()
				n := min(len(queued[end]), depth-len(wire[end]))
				wire[end] = append(wire[end], queued[end][:n]...)
				queued[end] = queued[end][n:]
			},
			"rx": func(rt *rapid.T) {
				end := rapid.IntRange(0, 1).Draw(rt, "end")
				fs := make([]pmd.Frame, rapid.IntRange(0, 12).Draw(rt, "n"))
				n := ports[end].Rx(fs)
				sent := &wire[1-end]
				if want := min(len(fs), len(*sent)); n != want {
					rt.Fatalf("Rx returned %d, want %d", n, want)
				}
				for i, f := range fs[:n] {
					if !bytes.Equal(pools[end].Bytes(f), (*sent)[i]) || f.Off != pmd.Headroom {
						rt.Fatalf("packet %d differs or lies at %d", i, f.Off)
					}
					pools[end].Put(f.Base)
				}
				*sent = (*sent)[n:]
			},
			"": func(rt *rapid.T) {
				for i, p := range pools {
					if held := p.Cap() - p.Len(); held != len(queued[i]) {
						rt.Fatalf("end %d: %d frames away, %d queued", i, held, len(queued[i]))
					}
				}
			},
		})
		for _, p := range ports {
			if err := p.Close(); err != nil {
				rt.Fatal(err)
			}
		}
		allHome(t, pools...)
	})
}

// A packet that no chunk can hold is lost and counted, and an empty pool loses
// nothing.
func TestRxWithoutRoom(t *testing.T) {
	pool := newPool(t, 2)
	port, tap, err := memport.NewTap(8, memport.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{chunk - pmd.Headroom + 1, 1, chunk - pmd.Headroom, 70000, 0, 2} {
		if !tap.Inject(make([]byte, n)) {
			t.Fatalf("cable is full at %d", n)
		}
	}
	var fs [8]pmd.Frame
	var lengths []int
	for range 8 {
		n := port.Rx(fs[:]) // two chunks: at most two packets at a time
		for _, f := range fs[:n] {
			lengths = append(lengths, int(f.Len))
			pool.Put(f.Base)
		}
	}
	if got, want := fmt.Sprint(lengths), fmt.Sprint([]int{1, chunk - pmd.Headroom, 0, 2}); got != want {
		t.Errorf("received lengths %s, want %s", got, want)
	}
	port.Flush()
	if s := port.Stats(); s.RxDropped != 2 || s.RxPackets != 4 || s.RxBytes != uint64(chunk-pmd.Headroom+3) {
		t.Errorf("stats %+v", s)
	}
	allHome(t, pool)
}

// A packet beyond a chunk lies in a jumbo frame; it is lost and counted when none is
// free, or when it is longer than that, and leaves whole.
func TestJumbo(t *testing.T) {
	const jumbo = 3 * chunk
	pool, err := pmd.NewJumboPool(&pmd.Memory{Bytes: make([]byte, 8*chunk+2*jumbo)}, chunk, pmd.Jumbo{Size: jumbo, Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	port, tap, err := memport.NewTap(8, memport.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{chunk - pmd.Headroom + 1, jumbo - pmd.Headroom + 1, chunk - pmd.Headroom, jumbo - pmd.Headroom, 3000, 60} {
		if !tap.Inject(bytes.Repeat([]byte{byte(i)}, n)) {
			t.Fatalf("cable is full at %d", n)
		}
	}
	var fs [8]pmd.Frame
	n := port.Rx(fs[:])
	if took := port.Tx(fs[:n]); took != n {
		t.Errorf("took %d of %d", took, n)
	}
	port.Flush()
	var lengths []int
	for _, p := range tap.Take() {
		lengths = append(lengths, len(p))
		if !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
			t.Errorf("%d bytes arrived changed", len(p))
		}
	}
	if got, want := fmt.Sprint(lengths), fmt.Sprint([]int{chunk - pmd.Headroom + 1, chunk - pmd.Headroom, jumbo - pmd.Headroom, 60}); got != want {
		t.Errorf("lengths %s, want %s", got, want)
	}
	if s := port.Stats(); s.RxPackets != 4 || s.RxJumbo != 2 || s.RxDropped != 1 || s.JumboEmpty != 1 {
		t.Errorf("stats %+v", s)
	}
	allHome(t, pool)
}

func TestTap(t *testing.T) {
	pool := newPool(t, 16)
	port, tap, err := memport.NewTap(4, memport.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if ok := tap.Inject([]byte{byte(i)}); ok != (i < 4) {
			t.Errorf("Inject %d: %v on a cable of 4", i, ok)
		}
	}
	var fs [8]pmd.Frame
	n := port.Rx(fs[:])
	if took := port.Tx(fs[:n]); n != 4 || took != 4 {
		t.Fatalf("Rx %d, Tx %d, want 4 and 4", n, took)
	}
	if got := tap.Take(); got != nil {
		t.Errorf("sent before Flush: %v", got)
	}
	port.Flush()
	if got := fmt.Sprint(tap.Take()); got != "[[0] [1] [2] [3]]" {
		t.Errorf("sent %s", got)
	}
	if got := tap.Take(); got != nil {
		t.Errorf("sent twice: %v", got)
	}
	want := pmd.Stats{RxPackets: 4, RxBytes: 4, TxPackets: 4, TxBytes: 4, TxDone: 4}
	if s := port.Stats(); s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
	allHome(t, pool)
}

// Frames that wait for room on the cable go home at Close.
func TestCloseReturnsQueuedFrames(t *testing.T) {
	pool := newPool(t, 16)
	port, tap, err := memport.NewTap(4, memport.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		port.Tx([]pmd.Frame{frame(t, pool, []byte{byte(i)})})
		if i == 3 {
			port.Flush() // fills the cable
		}
	}
	port.Flush()
	if away := pool.Cap() - pool.Len(); away != 3 {
		t.Errorf("%d frames wait, want 3", away)
	}
	for range 2 {
		if err := port.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(tap.Take()); got != "[[0] [1] [2] [3]]" {
		t.Errorf("sent %s", got)
	}
	allHome(t, pool)
}

// Two workers, each with a pool of its own, on the two ends.
func TestPairBetweenGoroutines(t *testing.T) {
	const total = 20000
	there, here := newPool(t, 64), newPool(t, 64)
	a, b, err := memport.NewPair(32, memport.Options{Pool: here}, memport.Options{Pool: there})
	if err != nil {
		t.Fatal(err)
	}
	echoed := make(chan error, 1)
	go func() { // echoes total packets
		var fs [16]pmd.Frame
		for left := total; left > 0; {
			n := b.Rx(fs[:])
			for sent := 0; sent < n; runtime.Gosched() {
				sent += b.Tx(fs[sent:n])
				b.Flush()
			}
			left -= n
			runtime.Gosched()
		}
		for b.Flush(); there.Len() < there.Cap(); b.Flush() {
			runtime.Gosched()
		}
		echoed <- b.Close()
	}()
	var fs [16]pmd.Frame
	for sent, got := uint32(0), uint32(0); got < total; runtime.Gosched() {
		if sent < total && here.Len() > 32 {
			var p [64]byte
			binary.BigEndian.PutUint32(p[:], sent)
			f := frame(t, here, p[:])
			if a.Tx([]pmd.Frame{f}) == 1 {
				sent++
			} else {
				here.Put(f.Base)
			}
		}
		a.Flush()
		n := a.Rx(fs[:])
		for _, f := range fs[:n] {
			if have := binary.BigEndian.Uint32(here.Bytes(f)); have != got || f.Len != 64 {
				t.Fatalf("packet %d of %d bytes came as number %d", have, f.Len, got)
			}
			got++
			here.Put(f.Base)
		}
	}
	if err := <-echoed; err != nil {
		t.Error(err)
	}
	if s := b.Stats(); s.RxPackets != total || s.TxDone != total {
		t.Errorf("echo stats %+v", s)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	allHome(t, here, there)
}

func TestNoAllocations(t *testing.T) {
	pool := newPool(t, 256)
	a, b, err := memport.NewPair(128, memport.Options{Pool: pool}, memport.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	g, err := memport.NewGenerator(memport.GeneratorOptions{
		Options: memport.Options{Pool: pool}, Templates: [][]byte{make([]byte, 60), make([]byte, 1400)}, OnWrap: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	var fs [64]pmd.Frame
	turn := func() {
		a.Tx(fs[:g.Rx(fs[:])])
		a.Flush()
		g.Tx(fs[:b.Rx(fs[:])])
		g.Flush()
	}
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
	allHome(t, pool)
}
