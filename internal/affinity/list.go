package affinity

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrList is wrapped by the errors of Parse.
var ErrList = errors.New("affinity: bad list of cores")

// Parse reads a list of cores such as "1,3-5" (cpuset(7), "List format") and
// returns them in the order in which they stand. No core may stand there twice.
func Parse(list string) ([]int, error) {
	var cores []int
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		part = strings.TrimSpace(part)
		lo, hi, err := parseRange(part)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrList, list, err)
		}
		for core := lo; core <= hi; core++ {
			if slices.Contains(cores, core) {
				return nil, fmt.Errorf("%w %q: core %d stands there twice", ErrList, list, core)
			}
			cores = append(cores, core)
		}
	}
	return cores, nil
}

// parseRange reads "3" or "3-5".
func parseRange(part string) (lo, hi int, err error) {
	if part == "" {
		return 0, 0, errors.New(`a number is missing; write it as "1,3-5"`)
	}
	first, last, isRange := strings.Cut(part, "-")
	if lo, err = parseCore(first); err != nil {
		return 0, 0, fmt.Errorf("%q: %w", part, err)
	}
	if !isRange {
		return lo, lo, nil
	}
	if hi, err = parseCore(last); err != nil {
		return 0, 0, fmt.Errorf("%q: %w", part, err)
	}
	if hi < lo {
		return 0, 0, fmt.Errorf("%q runs backwards; write it as %d-%d", part, hi, lo)
	}
	return lo, hi, nil
}

func parseCore(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && n >= maxCores {
		return 0, fmt.Errorf("core numbers end at %d", maxCores-1)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is no core number", s)
	}
	return int(n), nil
}

// Format writes cores in ascending order as Parse reads them, "1,3-5", or
// "none" if there are none.
func Format(cores []int) string {
	if len(cores) == 0 {
		return "none"
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(cores)))
	var b strings.Builder
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(sorted[i]))
		if j > i {
			fmt.Fprintf(&b, "-%d", sorted[j])
		}
		i = j + 1
	}
	return b.String()
}

// Without returns cores without those that are taken, in their order: what the
// workers leave to all other threads.
func Without(cores, taken []int) []int {
	var left []int
	for _, core := range cores {
		if !slices.Contains(taken, core) {
			left = append(left, core)
		}
	}
	return left
}
