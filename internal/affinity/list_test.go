package affinity

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int
	}{
		{"0", []int{0}},
		{"1,3-5", []int{1, 3, 4, 5}},
		{"5,1", []int{5, 1}},
		{" 2 , 4 - 5 \n", []int{2, 4, 5}},
		{"7-7", []int{7}},
		{"8191", []int{8191}},
	} {
		got, err := Parse(c.list)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q is %v, %v; want %v", c.list, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ list, why string }{
		{"", "a number is missing"},
		{"1,", "a number is missing"},
		{",1", "a number is missing"},
		{"1,,2", "a number is missing"},
		{"a", `"a" is no core number`},
		{"1-", `"1-": "" is no core number`},
		{"-1", `"-1": "" is no core number`},
		{"1-2-3", `"1-2-3": "2-3" is no core number`},
		{"0x1", `"0x1" is no core number`},
		{"+1", `"+1" is no core number`},
		{"5-3", `"5-3" runs backwards; write it as 3-5`},
		{"1,0-2", "core 1 stands there twice"},
		{"3,3", "core 3 stands there twice"},
		{"8192", "core numbers end at 8191"},
		{"0-99999999999999999999", "core numbers end at 8191"},
	} {
		got, err := Parse(c.list)
		if !errors.Is(err, ErrList) || got != nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q is %v, %v; want an error with %q", c.list, got, err, c.why)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		cores []int
		want  string
	}{
		{nil, "none"},
		{[]int{0}, "0"},
		{[]int{5, 4, 1, 3}, "1,3-5"},
		{[]int{0, 1}, "0-1"},
		{[]int{2, 2, 4}, "2,4"},
	} {
		if got := Format(c.cores); got != c.want {
			t.Errorf("%v is %q, want %q", c.cores, got, c.want)
		}
	}
}

func TestParseReadsWhatFormatWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cores := rapid.SliceOfNDistinct(rapid.IntRange(0, 40), 1, 30, rapid.ID).Draw(t, "cores")
		got, err := Parse(Format(cores))
		if want := slices.Sorted(slices.Values(cores)); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v came back as %v, %v", want, got, err)
		}
	})
}

func TestWithout(t *testing.T) {
	for _, c := range []struct{ cores, taken, want []int }{
		{[]int{0, 1, 2, 3}, []int{1, 3}, []int{0, 2}},
		{[]int{0, 1}, []int{1, 0}, nil},
		{[]int{0, 1}, nil, []int{0, 1}},
		{[]int{0, 1}, []int{7}, []int{0, 1}},
	} {
		if got := Without(c.cores, c.taken); !slices.Equal(got, c.want) {
			t.Errorf("%v without %v is %v, want %v", c.cores, c.taken, got, c.want)
		}
	}
}
