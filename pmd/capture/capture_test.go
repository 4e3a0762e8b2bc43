package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"spigot/pmd"
	"spigot/pmd/capture"
	"spigot/pmd/memport"
)

const (
	chunk = 2048
	jumbo = 5 * chunk
)

func newPool(t testing.TB) *pmd.Pool {
	t.Helper()
	pool, err := pmd.NewJumboPool(&pmd.Memory{Bytes: make([]byte, 256*chunk+4*jumbo)}, chunk, pmd.Jumbo{Size: jumbo, Count: 4})
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

// newTap returns a recorded port over a tap.
func newTap(t testing.TB, rec *capture.Recorder, pool *pmd.Pool, name string) (*capture.Port, *memport.Tap) {
	t.Helper()
	inner, tap, err := memport.NewTap(64, memport.Options{Pool: pool, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	port, err := rec.Wrap(inner, pool)
	if err != nil {
		t.Fatal(err)
	}
	return port, tap
}

func newRecorder(t testing.TB, w io.Writer, o capture.Options) *capture.Recorder {
	t.Helper()
	rec, err := capture.NewRecorder(w, o)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// forward moves one burst through the port, in and out again.
func forward(port pmd.Port, pool *pmd.Pool, room int) {
	var fs [64]pmd.Frame
	n := port.Rx(fs[:])
	took := port.Tx(fs[:min(n, room)])
	for _, f := range fs[took:n] {
		pool.Put(f.Base)
	}
	port.Flush()
}

// packet is one record as an independent reader sees it.
type packet struct {
	port, dir, data string
	length          int
}

// read reads a capture with gopacket.
func read(t testing.TB, file []byte) []packet {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	var ps []packet
	for {
		data, info, opts, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return ps
		}
		if err != nil {
			t.Fatal(err)
		}
		intf, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(info.Timestamp); age < 0 || age > time.Minute {
			t.Errorf("timestamp %v", info.Timestamp)
		}
		if intf.LinkType != layers.LinkTypeEthernet || info.CaptureLength != len(data) {
			t.Errorf("link type %v, capture length %d of %d", intf.LinkType, info.CaptureLength, len(data))
		}
		dir := "none"
		if opts.Flags != nil {
			dir = fmt.Sprint(opts.Flags.Direction)
		}
		ps = append(ps, packet{intf.Name, dir, string(data), info.Length})
	}
}

var (
	in  = fmt.Sprint(pcapgo.NgEpbFlagDirectionInbound)
	out = fmt.Sprint(pcapgo.NgEpbFlagDirectionOutbound)
)

func TestOptions(t *testing.T) {
	for _, o := range []capture.Options{
		{}, {Rx: true, Depth: -8}, {Tx: true, Depth: 12}, {Rx: true, Snap: -1},
	} {
		if _, err := capture.NewRecorder(io.Discard, o); !errors.Is(err, capture.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	rec := newRecorder(t, io.Discard, capture.Options{Rx: true})
	if _, err := rec.Wrap(nil, newPool(t)); !errors.Is(err, capture.ErrOptions) {
		t.Errorf("no port: %v", err)
	}
	_, tap, _ := memport.NewPair(4, memport.Options{Pool: newPool(t)}, memport.Options{Pool: newPool(t)})
	if _, err := rec.Wrap(tap, nil); !errors.Is(err, capture.ErrOptions) {
		t.Errorf("no pool: %v", err)
	}
	if err := rec.Close(); err != nil {
		t.Error(err)
	}
}

// What is recorded: packets of the directions asked for, whole or cut, by the
// port that they passed; of those offered to Tx, the ones that it took.
func TestRecords(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), jumbo-pmd.Headroom))
	for _, row := range []struct {
		name string
		opts capture.Options
		want []packet
	}{
		{"both ways", capture.Options{Rx: true, Tx: true}, []packet{
			{"red0/0", in, "a", 1}, {"red0/0", in, "", 0}, {"red0/0", in, long, len(long)}, {"red0/0", in, "four", 4},
			{"red0/0", out, "a", 1}, {"red0/0", out, "", 0}, {"red0/0", out, long, len(long)},
		}},
		{"received, cut", capture.Options{Rx: true, Snap: 3}, []packet{
			{"red0/0", in, "a", 1}, {"red0/0", in, "", 0}, {"red0/0", in, "xxx", len(long)}, {"red0/0", in, "fou", 4},
		}},
		{"sent", capture.Options{Tx: true, Snap: 1 << 20, Depth: 8}, []packet{
			{"red0/0", out, "a", 1}, {"red0/0", out, "", 0}, {"red0/0", out, long, len(long)},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var file bytes.Buffer
			pool := newPool(t)
			rec := newRecorder(t, &file, row.opts)
			port, tap := newTap(t, rec, pool, "red0")
			for _, p := range []string{"a", "", long, "four"} {
				tap.Inject([]byte(p))
			}
			forward(port, pool, 3)
			if err := rec.Close(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, file.Bytes()); fmt.Sprint(got) != fmt.Sprint(row.want) {
				t.Errorf("recorded %.400v\nwant %.400v", got, row.want)
			}
			if rec.Written() != uint64(len(row.want)) || rec.Dropped() != 0 {
				t.Errorf("%d written, %d dropped", rec.Written(), rec.Dropped())
			}
			if got := tap.Take(); len(got) != 3 {
				t.Errorf("%d packets sent", len(got))
			}
			if err := port.Close(); err != nil {
				t.Error(err)
			}
			allHome(t, pool)
		})
	}
}

// A port that takes nothing leaves no record.
func TestRefusedFramesAreNotRecorded(t *testing.T) {
	var file bytes.Buffer
	pool := newPool(t)
	rec := newRecorder(t, &file, capture.Options{Tx: true, Depth: 256})
	port, tap := newTap(t, rec, pool, "red0")
	for i := range 160 { // the cable holds 64, the port's queue another 64
		tap.Inject([]byte{byte(i)})
		forward(port, pool, 1)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	got := read(t, file.Bytes())
	if len(got) != 128 || port.Stats().TxPackets != 128 {
		t.Fatalf("%d recorded, %d taken, want 128", len(got), port.Stats().TxPackets)
	}
	for i, p := range got {
		if p.data != string([]byte{byte(i)}) {
			t.Errorf("record %d holds %q", i, p.data)
		}
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	allHome(t, pool)
}

// Ports of several workers go to one file.
func TestManyPorts(t *testing.T) {
	const each = 500
	var file bytes.Buffer
	rec := newRecorder(t, &file, capture.Options{Rx: true, Tx: true})
	var workers sync.WaitGroup
	for w := range 3 {
		workers.Go(func() {
			pool := newPool(t)
			port, tap := newTap(t, rec, pool, fmt.Sprintf("red%d", w))
			for i := range each {
				tap.Inject(fmt.Appendf(nil, "%d-%d", w, i))
				forward(port, pool, 1)
				tap.Take()
			}
			if err := port.Close(); err != nil {
				t.Error(err)
			}
			allHome(t, pool)
		})
	}
	workers.Wait()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for _, p := range read(t, file.Bytes()) {
		var w, i int
		if _, err := fmt.Sscanf(p.data, "%d-%d", &w, &i); err != nil {
			t.Fatal(err)
		}
		if lane := p.port + p.dir; p.port != fmt.Sprintf("red%d/0", w) || i != next[lane] {
			t.Fatalf("%s holds %q, want number %d", lane, p.data, next[lane])
		} else {
			next[lane]++
		}
	}
	if len(next) != 6 || rec.Written() != 3*2*each {
		t.Errorf("recorded %v, %d in total", next, rec.Written())
	}
}

// gate is a file whose writes wait until it is opened.
type gate chan struct{}

func (g gate) Write(b []byte) (int, error) {
	<-g
	return len(b), nil
}

// A disk that stands still costs records, not packets.
func TestSlowDiskLosesRecordsOnly(t *testing.T) {
	disk := make(gate)
	pool := newPool(t)
	rec := newRecorder(t, disk, capture.Options{Rx: true, Depth: 16})
	port, tap := newTap(t, rec, pool, "red0")
	passed := 0
	for range 10 {
		for range 20 {
			tap.Inject([]byte("packet"))
		}
		forward(port, pool, 64)
		passed += len(tap.Take())
	}
	if passed != 200 {
		t.Errorf("%d of 200 packets passed", passed)
	}
	close(disk)
	if err := rec.Close(); err != nil {
		t.Error(err)
	}
	if rec.Written() != 16 || rec.Dropped() != 184 {
		t.Errorf("%d written and %d dropped, want 16 and 184", rec.Written(), rec.Dropped())
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	allHome(t, pool)
}

var errDiskFull = errors.New("disk full")

// fullDisk is a file that takes a few writes.
type fullDisk struct{ left int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.left == 0 {
		return 0, errDiskFull
	}
	d.left--
	return len(b), nil
}

// A disk that fails ends the recording; packets go on, and Close says why.
func TestFullDisk(t *testing.T) {
	for left := range 3 {
		pool := newPool(t)
		rec := newRecorder(t, &fullDisk{left}, capture.Options{Rx: true, Tx: true})
		port, tap := newTap(t, rec, pool, "red0")
		for range 50 {
			tap.Inject([]byte("packet"))
			forward(port, pool, 1)
			if len(tap.Take()) != 1 {
				t.Fatal("packet did not pass")
			}
			time.Sleep(100 * time.Microsecond)
		}
		for range 2 {
			if err := rec.Close(); !errors.Is(err, capture.ErrWrite) || !errors.Is(err, errDiskFull) {
				t.Errorf("after %d writes: Close says %v", left, err)
			}
		}
		if err := port.Close(); err != nil {
			t.Error(err)
		}
		allHome(t, pool)
	}
}

// After Close packets pass and nothing is recorded.
func TestCloseWhileRunning(t *testing.T) {
	var file bytes.Buffer
	pool := newPool(t)
	rec := newRecorder(t, &file, capture.Options{Rx: true, Tx: true, Depth: 8})
	port, tap := newTap(t, rec, pool, "red0")
	for i := range 100 {
		if i == 1 {
			if err := rec.Close(); err != nil {
				t.Fatal(err)
			}
		}
		tap.Inject([]byte{byte(i)})
		forward(port, pool, 1)
		if got := tap.Take(); len(got) != 1 || got[0][0] != byte(i) {
			t.Fatalf("packet %d: sent %v", i, got)
		}
	}
	if rec.Written() != 2 || rec.Dropped() != 0 || len(read(t, file.Bytes())) != 2 {
		t.Errorf("%d written, %d dropped", rec.Written(), rec.Dropped())
	}
	if port.Info().Name != "red0" || port.FD() != -1 {
		t.Errorf("info %+v, descriptor %d", port.Info(), port.FD())
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	allHome(t, pool)
}

// The worker's side allocates nothing, whether there is room or not.
func TestNoAllocations(t *testing.T) {
	for _, depth := range []int{16, 4096} {
		pool := newPool(t)
		rec := newRecorder(t, make(gate), capture.Options{Rx: true, Tx: true, Depth: depth}) // stays shut: only the worker runs
		inner, err := memport.NewGenerator(memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Templates: [][]byte{make([]byte, 60)}})
		if err != nil {
			t.Fatal(err)
		}
		port, err := rec.Wrap(inner, pool)
		if err != nil {
			t.Fatal(err)
		}
		var fs [16]pmd.Frame
		turn := func() {
			port.Tx(fs[:port.Rx(fs[:])])
			port.Flush()
		}
		if n := testing.AllocsPerRun(120, turn); n != 0 {
			t.Errorf("depth %d: %v allocations a turn", depth, n)
		}
		if err := port.Close(); err != nil {
			t.Error(err)
		}
		allHome(t, pool)
	}
}
