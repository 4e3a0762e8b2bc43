package pipeline

import (
	"testing"
	"time"

	"spigot/internal/flow"
)

// What is remembered is recalled for 15 seconds, unless much newer datagrams make
// it go; what is not, never.
func TestPortMemory(t *testing.T) {
	m := portMemory{seed: spread(1)}
	key := func(id uint32, lane uint8) *datagramKey {
		return &datagramKey{src: flow.V4(1), dst: flow.V4(2), id: id, proto: 17, lane: lane}
	}
	m.remember(key(1, laneOut), ports{src: 10, dst: 20}, 0)
	for _, r := range []struct {
		id   uint32
		lane uint8
		at   time.Duration
		ok   bool
	}{
		{1, laneOut, 0, true},
		{1, laneOut, reassemblyAge, true}, // noted at 1 ns, since 0 is none
		{1, laneOut, reassemblyAge + 1, false},
		{1, laneSecured, 0, false},
		{2, laneOut, 0, false},
	} {
		if has, ok := m.recall(key(r.id, r.lane), r.at); ok != r.ok || ok && has != (ports{src: 10, dst: 20}) {
			t.Errorf("%d in lane %d at %v: %+v, %t", r.id, r.lane, r.at, has, ok)
		}
	}
	m.remember(key(1, laneOut), ports{src: 11, dst: 21}, time.Second)
	if has, _ := m.recall(key(1, laneOut), time.Second); has.src != 11 {
		t.Errorf("the newest is not what counts: %d", has.src)
	}
	const all = portSets * portWays
	found := 0
	for id := range uint32(20 * all) {
		m.remember(key(id, laneOut), ports{src: 1, dst: 2}, time.Second+time.Duration(id))
	}
	for id := uint32(19 * all); id < 20*all; id++ {
		if _, ok := m.recall(key(id, laneOut), 2*time.Second); ok {
			found++
		}
	}
	if found < all*6/10 || len(m.sets) != portSets {
		t.Errorf("of the newest %d, %d are there", all, found)
	}
}
