package control

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock is what the controller goes by. Nobody sets it, unlike the wall clock, so
// that no SA expires at once, and none never, when somebody does; and it goes on
// while the machine is suspended, unlike Go's monotonic clock, as the peer's clock
// does, and Linux's for the lifetimes of SAs. It is for the thread of control.
//
// A time.Time of it is good for Sub and for comparing; wall makes one for people.
type clock struct {
	read   func() time.Time     // the time, with its monotonic reading
	asleep func() time.Duration // how long the machine has been suspended, all in all
	before time.Duration        // what asleep said at the start
	slept  time.Duration        // since then
}

// newClock returns the machine's.
func newClock() clock { return clock{read: time.Now, asleep: asleep, before: asleep()} }

// now returns the time.
func (k *clock) now() time.Time { return k.read().Add(k.slept) }

// look finds, once a second, whether the machine has been suspended meanwhile.
// asleep cannot read two clocks at one moment, which is no reason to go back and
// forth: less than a second of sleep does not count.
func (k *clock) look() {
	if d := k.asleep() - k.before; d >= k.slept+time.Second {
		k.slept = d
	}
}

// wall returns when t, of this clock, was on the wall clock as that is set now:
// who subtracts it from the time of day gets the age. The zero Time stays that.
func (k *clock) wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	is := k.read()
	return is.Add(t.Sub(is.Add(k.slept)))
}

// asleep returns how long the machine has been suspended since it started.
func asleep() time.Duration {
	var all, awake unix.Timespec
	// Linux has both clocks, and they are read in the order that makes the answer too
	// small rather than too large.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &all)
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake)
	return time.Duration(all.Nano() - awake.Nano())
}
