package crypto

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// ErrTier is wrapped by ChosenTier's error.
var ErrTier = errors.New("crypto: no such tier")

// TierVariable is the environment variable that names the tier to use instead
// of the best, so that tests run all of them on one machine.
const TierVariable = "SPIGOT_CRYPTO_TIER"

// Tier is a set of processor features that kernels are written for. A higher
// one is faster; a cipher without a kernel for a tier runs on the next lower.
type Tier uint8

// The tiers.
const (
	Std     Tier = iota // the standard library and x/crypto, one packet after the other
	VAES256             // AVX2 with VAES and VPCLMULQDQ: two blocks an instruction
	VAES512             // AVX-512 with VAES and VPCLMULQDQ: four blocks an instruction
	numTiers
)

var tierNames = [numTiers]string{Std: "std", VAES256: "vaes256", VAES512: "vaes512"}

// String is the tier's name, as TierVariable takes it.
func (t Tier) String() string { return tierNames[t] }

// Tiers lists what this machine and build can run, the best first and Std last.
func Tiers() []Tier { return append(hardwareTiers(), Std) }

// ChosenTier tells which tier the suites use. It is chosen once, before main
// runs: the best, or the one that TierVariable names. If it names none that
// can run here, the suites use the best and the error wraps ErrTier; a program
// should stop at it.
func ChosenTier() (Tier, error) { return chosenTier() }

var chosenTier = sync.OnceValues(func() (Tier, error) { return chooseTier(os.Getenv(TierVariable), Tiers()) })

// chooseTier takes the tier of that name; "" is the best.
func chooseTier(name string, tiers []Tier) (Tier, error) {
	if name == "" {
		return tiers[0], nil
	}
	var names []string
	for _, t := range tiers {
		names = append(names, t.String())
	}
	if i := slices.Index(names, name); i >= 0 {
		return tiers[i], nil
	}
	return tiers[0], fmt.Errorf("%w: %s=%q; this machine and build can run %s",
		ErrTier, TierVariable, name, strings.Join(names, ", "))
}
