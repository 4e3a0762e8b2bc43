package pmd_test

import (
	"reflect"
	"testing"

	"spigot/pmd"
)

// Every field of Stats is published, and each as itself.
func TestCountersPublishEveryField(t *testing.T) {
	var c pmd.Counters
	own := reflect.ValueOf(&c.Stats).Elem()
	for i := range own.NumField() {
		own.Field(i).SetUint(uint64(100 + i))
	}
	if got := c.Load(); got != (pmd.Stats{}) {
		t.Errorf("before Publish: %+v", got)
	}
	c.Publish()
	if got := c.Load(); got != c.Stats {
		t.Errorf("published %+v, want %+v", got, c.Stats)
	}
}

// What Load returns was true at one moment: here, that all counters are equal.
func TestCountersAreConsistent(t *testing.T) {
	var c pmd.Counters
	const turns = 20000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range turns {
			c.RxPackets++
			c.TxPackets++
			c.BadDesc++
			c.Publish()
		}
	}()
	last := uint64(0)
	for last < turns {
		s := c.Load()
		if s.RxPackets != s.TxPackets || s.RxPackets != s.BadDesc || s.RxPackets < last {
			t.Fatalf("torn or older than %d: %+v", last, s)
		}
		last = s.RxPackets
	}
	<-done
}

func TestCountersNoAllocations(t *testing.T) {
	var c pmd.Counters
	sum := uint64(0)
	turn := func() {
		c.RxPackets++
		c.Publish()
		sum += c.Load().RxPackets
	}
	if n := testing.AllocsPerRun(100, turn); n != 0 || sum == 0 {
		t.Errorf("%v allocations a turn", n)
	}
}
