package counter

import "sync/atomic"

// Stage is a part of the worker's turn whose cycles are counted.
type Stage uint8

// The stages of both directions.
const (
	StageRx Stage = iota
	StageClassify
	StagePolicy
	StageRoute
	StageSA
	StageSeal
	StageOpen
	StagePolicyBack
	StageSend
	StageFlush
	NumStages
)

var stageNames = [NumStages]string{"rx", "classify", "policy", "route", "sa", "seal", "open", "policy_back", "send", "flush"}

// String returns s's name as reports show it.
func (s Stage) String() string {
	if s >= NumStages {
		return "unknown"
	}
	return stageNames[s]
}

// Values is what one worker has counted. Every frame that enters a turn leaves
// it once. A packet that is cut up goes on as its fragments, and fragments that
// are put together go on as the last of them: Rx + Injected + Fragments = Tx +
// Punted + Cut + Joined + Waiting + sum(Drops).
type Values struct {
	Turns     uint64 // turns of the loop
	Busy      uint64 // turns that carried at least one frame
	Sleeps    uint64 // times the worker slept in poll
	Rx        uint64 // frames received from ports
	RxBytes   uint64
	Injected  uint64 // packets that the slow path handed in
	Tx        uint64 // frames that a port took
	TxBytes   uint64
	Punted    uint64 // packets handed to the slow path for an answer, or to the host
	Cut       uint64 // packets that were cut up, to fit the path
	Fragments uint64 // what they were cut into
	Joined    uint64 // fragments that became a part of another, which goes on as their datagram
	Waiting   uint64 // fragments that wait for the rest of their datagram now
	Acquires  uint64 // acquire requests sent to the slow path
	LostMsgs  uint64 // messages to the slow path that found its ring full
	Drops     [NumReasons]uint64

	// Cycles counts TSC ticks by stage in the turns that were sampled, and
	// Packets how many packets those stages saw.
	Cycles  [NumStages]uint64
	Packets [NumStages]uint64
}

// Dropped returns the sum of all drops.
func (v *Values) Dropped() uint64 {
	var n uint64
	for _, d := range v.Drops {
		n += d
	}
	return n
}

// Balanced says whether every frame that came in went out once.
func (v *Values) Balanced() bool {
	return v.Rx+v.Injected+v.Fragments == v.Tx+v.Punted+v.Cut+v.Joined+v.Waiting+v.Dropped()
}

// fields lists v's counters in one fixed order.
func (v *Values) fields(yield func(i int, f *uint64) bool) {
	i := 0
	each := func(fs ...*uint64) bool {
		for _, f := range fs {
			if !yield(i, f) {
				return false
			}
			i++
		}
		return true
	}
	if !each(&v.Turns, &v.Busy, &v.Sleeps, &v.Rx, &v.RxBytes, &v.Injected, &v.Tx, &v.TxBytes,
		&v.Punted, &v.Cut, &v.Fragments, &v.Joined, &v.Waiting, &v.Acquires, &v.LostMsgs) {
		return
	}
	for _, a := range [][]uint64{v.Drops[:], v.Cycles[:], v.Packets[:]} {
		for j := range a {
			if !each(&a[j]) {
				return
			}
		}
	}
}

const numFields = 15 + int(NumReasons) + 2*int(NumStages)

// Worker is the counters of one worker. The worker adds to the embedded
// Values without atomics and calls Publish once a turn; everybody else calls
// Load. A sequence lock keeps what Load returns consistent.
type Worker struct {
	Values // owned by the worker

	_   [64]byte
	seq atomic.Uint64 // odd while Publish is at work
	pub [numFields]atomic.Uint64
}

// Publish makes the values visible to Load. Worker only.
func (w *Worker) Publish() {
	w.seq.Add(1)
	w.Values.fields(func(i int, f *uint64) bool {
		if w.pub[i].Load() != *f {
			w.pub[i].Store(*f)
		}
		return true
	})
	w.seq.Add(1)
}

// Load returns the values as of the last Publish. Any goroutine may call it.
func (w *Worker) Load() Values {
	for {
		var v Values
		seq := w.seq.Load()
		v.fields(func(i int, f *uint64) bool {
			*f = w.pub[i].Load()
			return true
		})
		if seq&1 == 0 && w.seq.Load() == seq {
			return v
		}
	}
}
