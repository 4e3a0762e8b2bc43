package memport_test

import (
	"bytes"
	"fmt"
	"testing"

	"spigot/pmd"
	"spigot/pmd/memport"
)

func newGenerator(t testing.TB, o memport.GeneratorOptions) *memport.Generator {
	t.Helper()
	g, err := memport.NewGenerator(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// firsts takes want frames with one Rx and returns their first bytes; fewer
// when Rx gave fewer.
func firsts(g *memport.Generator, pool *pmd.Pool, want int) string {
	fs := make([]pmd.Frame, want)
	fs = fs[:g.Rx(fs)]
	var s []byte
	for _, f := range fs {
		s = append(s, pool.Bytes(f)[0])
	}
	g.Tx(fs)
	return string(s)
}

func letters(s string) [][]byte {
	var ts [][]byte
	for _, c := range []byte(s) {
		ts = append(ts, bytes.Repeat([]byte{c}, 60))
	}
	return ts
}

func TestGeneratorRoundRobin(t *testing.T) {
	pool := newPool(t, 8)
	g := newGenerator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Templates: letters("abc")})
	for i, want := range []string{"abcab", "cabca", "bcabcabc"} {
		if got := firsts(g, pool, len(want)); got != want {
			t.Errorf("burst %d: %s, want %s", i, got, want)
		}
	}
	if got := firsts(g, pool, 20); got != "abcabcab" {
		t.Errorf("with 8 frames in the pool: %s", got)
	}
	g.Flush()
	want := pmd.Stats{RxPackets: 26, RxBytes: 26 * 60, TxPackets: 26, TxBytes: 26 * 60, TxDone: 26}
	if s := g.Stats(); s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
	allHome(t, pool)
}

// OnWrap stands between two rounds: no Rx spans it.
func TestGeneratorOnWrap(t *testing.T) {
	pool := newPool(t, 8)
	var seen string
	g := newGenerator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Templates: letters("abc"), OnWrap: func() { seen += "|" }})
	for range 5 {
		seen += firsts(g, pool, 2) + " "
	}
	if want := "ab c |ab c |ab "; seen != want {
		t.Errorf("bursts %q, want %q", seen, want)
	}
	allHome(t, pool)
}

// With HeaderOnly the payload of a frame is what lay there before.
func TestGeneratorHeaderOnly(t *testing.T) {
	pool := newPool(t, 1)
	for i := range pool.Mem() {
		pool.Mem()[i] = '.'
	}
	g := newGenerator(t, memport.GeneratorOptions{
		Options: memport.Options{Pool: pool}, Templates: [][]byte{[]byte("headpayload"), []byte("he")}, HeaderOnly: 4,
	})
	for _, want := range []string{"head.......", "he"} {
		got := receiveOne(t, g, pool)
		if string(got) != want {
			t.Errorf("packet %q, want %q", got, want)
		}
	}
	allHome(t, pool)
}

func receiveOne(t *testing.T, g *memport.Generator, pool *pmd.Pool) []byte {
	t.Helper()
	var fs [1]pmd.Frame
	if g.Rx(fs[:]) != 1 {
		t.Fatal("nothing received")
	}
	defer g.Tx(fs[:])
	return bytes.Clone(pool.Bytes(fs[0]))
}

// What a gateway does to a frame does not reach the template.
func TestGeneratorKeepsTemplates(t *testing.T) {
	pool := newPool(t, 1)
	g := newGenerator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Templates: letters("a")})
	var fs [1]pmd.Frame
	for range 3 {
		g.Rx(fs[:])
		if got := pool.Bytes(fs[0]); !bytes.Equal(got, letters("a")[0]) {
			t.Fatalf("packet %q", got)
		}
		clear(pool.Bytes(fs[0]))
		g.Tx(fs[:])
	}
	allHome(t, pool)
}

func TestGeneratorSink(t *testing.T) {
	pool := newPool(t, 4)
	var seen []string
	g := newGenerator(t, memport.GeneratorOptions{Options: memport.Options{Pool: pool}, Sink: func(p []byte) { seen = append(seen, string(p)) }})
	var fs [4]pmd.Frame
	if n := g.Rx(fs[:]); n != 0 {
		t.Errorf("%d packets without templates", n)
	}
	g.Tx([]pmd.Frame{frame(t, pool, []byte("one")), frame(t, pool, []byte("two"))})
	if got := fmt.Sprint(seen); got != "[one two]" {
		t.Errorf("sink saw %s", got)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if s := g.Stats(); s.TxPackets != 2 || s.TxBytes != 6 || s.TxDone != 2 {
		t.Errorf("stats %+v", s)
	}
	if g.FD() != -1 || g.Info().Driver != "memport" {
		t.Errorf("descriptor %d, info %+v", g.FD(), g.Info())
	}
	allHome(t, pool)
}

// BenchmarkGenerator is the price of a source and a sink around nothing.
func BenchmarkGenerator(b *testing.B) {
	for _, bench := range []struct {
		name               string
		length, headerOnly int
	}{{"64", 60, 0}, {"1400", 1400, 0}, {"1400/header=64", 1400, 64}} {
		b.Run("size="+bench.name, func(b *testing.B) {
			pool := newPool(b, 512)
			templates := make([][]byte, 1024)
			for i := range templates {
				templates[i] = make([]byte, bench.length)
			}
			g := newGenerator(b, memport.GeneratorOptions{
				Options: memport.Options{Pool: pool}, Templates: templates, HeaderOnly: bench.headerOnly,
			})
			var fs [64]pmd.Frame
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(fs) {
				g.Tx(fs[:g.Rx(fs[:])])
				g.Flush()
			}
		})
	}
}
