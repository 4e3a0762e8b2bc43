package sad

import (
	"errors"
	"testing"
)

// The whole table of an SA's DSCP map and ECN switch.
func TestTOSOfTheOuterHeader(t *testing.T) {
	for _, r := range []struct {
		outer Outer
		want  func(inner uint8) uint8
	}{
		{Outer{}, func(inner uint8) uint8 { return inner }},
		{Outer{DSCP: DSCPSet(46)}, func(inner uint8) uint8 { return 46<<2 | inner&3 }},
		{Outer{NoECN: true}, func(inner uint8) uint8 { return inner &^ 3 }},
		{Outer{DSCP: &DSCPMap{5: 7}, NoECN: true}, func(inner uint8) uint8 {
			if inner>>2 == 5 {
				return 7 << 2
			}
			return 0
		}},
	} {
		p := params()
		p.Outer = r.outer
		sa, err := NewOutbound(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Outer.DSCP != nil {
			*p.Outer.DSCP = DSCPMap{} // the SA's is its own
		}
		for inner := range 256 {
			if got, want := sa.TOS(uint8(inner)), r.want(uint8(inner)); got != want {
				t.Errorf("%v: TOS %#x becomes %#x, want %#x", &r.outer, inner, got, want)
			}
		}
	}
}

func TestBadOuterHeaders(t *testing.T) {
	for _, o := range []Outer{{DF: numDF}, {Label: numLabels}, {DSCP: &DSCPMap{63: 64}}} {
		p := params()
		p.Outer = o
		if _, err := NewInbound(p); !errors.Is(err, ErrParams) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if DF(9).String() != "unknown" {
		t.Error("a mode that is none has a name")
	}
}
