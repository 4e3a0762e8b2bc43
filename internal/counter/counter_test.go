package counter

import (
	"math"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// Names are the keys of metrics and reports; texts explain them.
func TestReasonsAreNamed(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	names, texts := map[string]Reason{}, map[string]Reason{}
	for r := range NumReasons {
		if !name.MatchString(r.String()) {
			t.Errorf("reason %d is named %q", r, r)
		}
		if text := r.Text(); text == "" || strings.HasSuffix(text, ".") || text == r.String() {
			t.Errorf("%v is explained as %q", r, text)
		}
		if other, ok := names[r.String()]; ok {
			t.Errorf("reasons %d and %d are both named %v", other, r, r)
		}
		if other, ok := texts[r.Text()]; ok {
			t.Errorf("%v and %v are both explained as %q", other, r, r.Text())
		}
		names[r.String()], texts[r.Text()] = r, r
	}
	for _, r := range []Reason{NumReasons, math.MaxUint8} {
		if r.String() != "unknown" || r.Text() != "unknown" {
			t.Errorf("reason %d, which is none, is %q: %q", r, r.String(), r.Text())
		}
	}
	if None != 0 || None.String() != "none" {
		t.Errorf("None is %d, %v: the zero Reason must be no drop", None, None)
	}
}

func TestStagesAreNamed(t *testing.T) {
	names := map[string]Stage{}
	for s := range NumStages {
		if other, ok := names[s.String()]; ok || s.String() == "" {
			t.Errorf("stages %d and %d are both named %q", other, s, s)
		}
		names[s.String()] = s
	}
	if got := NumStages.String(); got != "unknown" {
		t.Errorf("stage %d, which is none, is %q", NumStages, got)
	}
}

// words returns the counters of v in the order of its declaration.
func words(v *Values) []*uint64 {
	var all []*uint64
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		switch f := s.Field(i); f.Kind() {
		case reflect.Array:
			for j := range f.Len() {
				all = append(all, f.Index(j).Addr().Interface().(*uint64))
			}
		default:
			all = append(all, f.Addr().Interface().(*uint64))
		}
	}
	return all
}

// What Publish was called on, Load returns: every counter, nothing later.
func TestLoadIsWhatWasPublished(t *testing.T) {
	w := new(Worker)
	if got := len(words(&w.Values)); got != numFields {
		t.Fatalf("Values has %d counters, %d are published", got, numFields)
	}
	if w.Load() != (Values{}) {
		t.Fatal("a new Worker has counted something")
	}
	for i, f := range words(&w.Values) { // each alone, and all different in the end
		*f = uint64(i + 1)
		before := w.Load()
		w.Publish()
		if after := w.Load(); after != w.Values || after == before {
			t.Errorf("counter %d is not published, or was before Publish", i)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		all := words(&w.Values)
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			*rapid.SampledFrom(all).Draw(t, "counter") = rapid.Uint64().Draw(t, "value")
		}
		want := w.Values
		w.Publish()
		*all[0]++
		if got := w.Load(); got != want {
			t.Fatalf("loaded %+v, published %+v", got, want)
		}
	})
}

func TestBalance(t *testing.T) {
	row := func(edit func(*Values)) *Values {
		v := &Values{Rx: 100, Injected: 5, Tx: 60, Punted: 15}
		v.Drops[NoPolicy], v.Drops[TxFull] = 20, 10
		edit(v)
		return v
	}
	if v := row(func(*Values) {}); v.Dropped() != 30 || !v.Balanced() {
		t.Errorf("%d dropped, balanced: %v", v.Dropped(), v.Balanced())
	}
	for name, v := range map[string]*Values{
		"a frame is lost":           row(func(v *Values) { v.Rx++ }),
		"an injected packet lost":   row(func(v *Values) { v.Injected++ }),
		"a frame is sent twice":     row(func(v *Values) { v.Tx++ }),
		"a frame is punted and out": row(func(v *Values) { v.Punted++ }),
		"a drop of the last reason": row(func(v *Values) { v.Drops[NumReasons-1]++ }),
		"a drop and nothing else":   {Drops: [NumReasons]uint64{Runt: 1}},
	} {
		if v.Balanced() {
			t.Errorf("%s: balanced", name)
		}
	}
}

// Readers see the values of one Publish, never a mixture of two, and never an
// older one after a newer one.
func TestLoadIsConsistent(t *testing.T) {
	const turns = 3000
	w := new(Worker)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			last := uint64(0)
			for !done.Load() {
				v := w.Load()
				for i, f := range words(&v) {
					if *f != v.Turns*uint64(i+1) {
						t.Errorf("turn %d: counter %d is %d, want %d", v.Turns, i, *f, v.Turns*uint64(i+1))
						return
					}
				}
				if v.Turns < last {
					t.Errorf("turn %d after turn %d", v.Turns, last)
				}
				last = v.Turns
			}
		})
	}
	all := words(&w.Values)
	for range turns {
		for i, f := range all {
			*f += uint64(i + 1)
		}
		w.Publish()
	}
	done.Store(true)
	wg.Wait()
	if got := w.Load().Turns; got != turns {
		t.Errorf("the last Publish was of turn %d, Load says %d", turns, got)
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	w := new(Worker)
	if n := testing.AllocsPerRun(100, func() { w.Rx++; w.Publish() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	w := new(Worker)
	for b.Loop() {
		w.Turns, w.Rx, w.RxBytes, w.Tx, w.TxBytes = w.Turns+1, w.Rx+64, w.RxBytes+64, w.Tx+64, w.TxBytes+64
		w.Publish()
	}
}
