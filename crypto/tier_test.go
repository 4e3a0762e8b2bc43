package crypto

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestChooseTier(t *testing.T) {
	all := []Tier{VAES512, VAES256, Std}
	for _, c := range []struct {
		name  string
		tiers []Tier
		want  Tier
		fails bool
	}{
		{"", all, VAES512, false},
		{"", []Tier{Std}, Std, false},
		{"vaes512", all, VAES512, false},
		{"vaes256", all, VAES256, false},
		{"std", all, Std, false},
		{"vaes512", []Tier{VAES256, Std}, VAES256, true},
		{"VAES512", all, VAES512, true},
		{"fast", []Tier{Std}, Std, true},
	} {
		got, err := chooseTier(c.name, c.tiers)
		if got != c.want || errors.Is(err, ErrTier) != c.fails {
			t.Errorf("%q of %v: %v, %v", c.name, c.tiers, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), TierVariable) || !strings.Contains(err.Error(), "std")) {
			t.Errorf("%q: does not tell how to mend: %v", c.name, err)
		}
	}
}

// The tests that run now are those of the tier that the environment asked for.
func TestChosenTier(t *testing.T) {
	got, err := ChosenTier()
	if err != nil {
		t.Fatal(err)
	}
	if want := os.Getenv(TierVariable); want != "" && got.String() != want {
		t.Errorf("runs on %v, want %s", got, want)
	}
	if tiers := Tiers(); tiers[len(tiers)-1] != Std {
		t.Errorf("%v does not end with std", tiers)
	}
	t.Logf("tier %v of %v", got, Tiers())
}
