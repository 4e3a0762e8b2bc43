package sad

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"spigot/internal/counter"
)

func TestSequenceNumbersStartWhereTheyStood(t *testing.T) {
	for _, c := range []struct {
		name  string
		esn   bool
		seq   uint64
		first uint64 // 0: none is left
		ok    bool
	}{
		{"new", false, 0, 1, true},
		{"goes on", false, 41, 42, true},
		{"the last but one", false, math.MaxUint32 - 1, math.MaxUint32, true},
		{"used up", false, math.MaxUint32, 0, true},
		{"beyond the end", false, math.MaxUint32 + 1, 0, false},
		{"ESN", true, math.MaxUint32, math.MaxUint32 + 1, true},
		{"ESN used up", true, math.MaxUint64, 0, true},
	} {
		p := params(func(p *Params) { p.ESN, p.Replay.Seq = c.esn, c.seq })
		sa, err := NewOutbound(p)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrParams) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err != nil {
			continue
		}
		if sa.Seq() != c.seq {
			t.Errorf("%s: stands at %d", c.name, sa.Seq())
		}
		if first, n := sa.Reserve(1); first != c.first || n == 1 != (c.first != 0) {
			t.Errorf("%s: number %d, want %d", c.name, first, c.first)
		}
	}
}

func TestAdvanceGoesUpOnly(t *testing.T) {
	out, err := NewOutbound(params())
	must(t, err)
	in, err := NewInbound(params())
	must(t, err)
	for _, c := range []struct {
		seq uint64
		ok  bool
	}{{10, true}, {10, true}, {9, false}, {math.MaxUint32, true}, {1 << 32, false}, {0, false}} {
		if out.Advance(c.seq) != c.ok || in.Advance(c.seq) != c.ok {
			t.Errorf("to %d: want %v", c.seq, c.ok)
		}
	}
	if out.Seq() != math.MaxUint32 || in.Seq() != math.MaxUint32 {
		t.Errorf("stand at %d and %d", out.Seq(), in.Seq())
	}
	if _, n := out.Reserve(1); n != 0 {
		t.Error("there is a number behind the last")
	}
	// What was skipped and lies in the window has not been received.
	if got := in.Mark(math.MaxUint32 - 5); got != counter.None {
		t.Errorf("a number that was skipped: %v", got)
	}
	if got := in.Mark(math.MaxUint32 - 64); got != counter.ReplayOld {
		t.Errorf("a number left of the window: %v", got)
	}
}

// TestAWindowIsTakenOver moves the state of one window to another SA: the two
// judge alike from then on.
func TestAWindowIsTakenOver(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{64, 96, 128, 1024}).Draw(rt, "size")
		esn := rapid.Bool().Draw(rt, "esn")
		make := func(r Replay) *Inbound {
			sa, err := NewInbound(params(func(p *Params) { p.Window, p.ESN, p.Replay = size, esn, r }))
			if err != nil {
				rt.Fatal(err)
			}
			return sa
		}
		base := rapid.SampledFrom([]uint64{0, 1000, math.MaxUint32 - 700}).Draw(rt, "base")
		numbers := rapid.SliceOfN(rapid.Uint64Range(base+1, base+600), 1, 300)
		old := make(Replay{})
		for _, n := range numbers.Draw(rt, "received") {
			old.Mark(n)
		}
		state := old.Replay()
		fresh := make(state)
		if got := fresh.Replay(); got.Seq != state.Seq || !slices.Equal(got.Seen, state.Seen) {
			rt.Fatalf("%v became %v", state, got)
		}
		for _, n := range numbers.Draw(rt, "then") {
			if a, b := old.Mark(n), fresh.Mark(n); a != b {
				rt.Fatalf("number %d: %v, and %v after the move", n, a, b)
			}
		}
	})
}

func TestWhatIsNotSaidCountsAsReceived(t *testing.T) {
	for _, c := range []struct {
		name string
		seen []uint64
		n    uint64
		want counter.Reason
	}{
		{"nothing said, the highest", nil, 1000, counter.ReplaySeen},
		{"nothing said, in the window", nil, 937, counter.ReplaySeen},
		{"left of the window", nil, 936, counter.ReplayOld},
		{"the next one", nil, 1001, counter.None},
		{"said to be missing", []uint64{1}, 999, counter.None},
		{"said to be there", []uint64{1}, 1000, counter.ReplaySeen},
		{"even the highest may be missing", []uint64{0}, 1000, counter.None},
	} {
		sa, err := NewInbound(params(func(p *Params) { p.Window, p.Replay = 64, Replay{1000, c.seen} }))
		must(t, err)
		if got := sa.Mark(c.n); got != c.want {
			t.Errorf("%s: %d is %v, want %v", c.name, c.n, got, c.want)
		}
	}
}

func TestWhatTheDataPathCannotDoIsSaid(t *testing.T) {
	for name, edit := range map[string]func(*Params){
		"IPComp":     func(p *Params) { p.Proto = 108 },
		"ESP in TCP": func(p *Params) { p.Encap = Encap{Type: 7, SrcPort: 4500, DstPort: 4500} },
	} {
		_, err := NewInbound(params(edit))
		if !errors.Is(err, ErrUnsupported) || !errors.Is(err, ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
