package pfkey

import (
	"testing"
	"time"
)

// TestTranscript replays what a client sent to Linux 6.1 and compares what it
// gets: types, errnos and extensions of each message. Where Spigot differs on
// purpose, the differ says so:
//
//   - keys are in answers to GET and DUMP only (Linux echoes them in those to
//     ADD and DELETE);
//   - REGISTER lists AEAD, too; HMAC-SHA2-256 means 128 bits.
//
// The order in which a DUMP lists SAs is anyone's, and an error of write is the
// errno of Handle.
func TestTranscript(t *testing.T) {
	r := newRig(t)
	p := r.connect(t, 0)
	var got []*Message // not compared yet
	var policy uint32
	entries := golden(t)
	for i := 0; i < len(entries); {
		e := entries[i]
		i++
		if !e.tx {
			t.Fatalf("%s: an answer to nothing", e.name)
		}
		if e.name == "ADD-life" {
			e.b = spreadLifetimes(t, e.b)
		}
		if errno := p.Handle(e.b); errno != e.errno {
			t.Errorf("%s: Handle returns %v, Linux's write %v", e.name, errno, e.errno)
		}
		var want []entry
		for i < len(entries) && !entries[i].tx {
			want = append(want, entries[i])
			i++
		}
		for _, w := range want {
			if w.typ == Acquire {
				got = p.received()
				policy = got[0].Policy.ID
				r.need(policy, "10.1.0.5")
			}
		}
		deadline := time.Now().Add(60 * time.Second)
		for got = append(got, p.received()...); len(got) < len(want) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
			got = append(got, p.received()...)
		}
		compare(t, e.name, got, want)
		got = nil
	}
	if policy == 0 {
		t.Error("the transcript has no ACQUIRE")
	}
}

// spreadLifetimes makes the hard lifetime of a second after the soft one one of
// three: on a busy machine both might be found at once, and the hard one alone
// be told.
func spreadLifetimes(t *testing.T, b []byte) []byte {
	m, err := Decode(b)
	if err != nil || m.Soft.AddTime != 1 || m.Hard.AddTime != 2 {
		t.Fatalf("the SA with lifetimes of 1 and 2 s: %+v, %v", m, err)
	}
	m.Hard.AddTime = 4
	return m.Append(nil)
}

// compare says how got differs from want, as multisets.
func compare(t *testing.T, name string, got []*Message, want []entry) {
	t.Helper()
	type kind struct {
		typ   Type
		errno uint8
		exts  Set
	}
	count := map[kind]int{}
	for _, w := range want {
		exts := w.exts
		if w.typ != Get && w.typ != Dump {
			exts &^= keys
		}
		count[kind{w.typ, uint8(w.errno), exts}]++
	}
	for _, m := range got {
		count[kind{m.Type, uint8(m.Errno), m.Has}]--
	}
	for k, n := range count {
		if n != 0 {
			t.Errorf("%s: %+d of %v errno %d extensions %v, against Linux", name, -n, k.typ, k.errno, k.exts)
		}
	}
}
