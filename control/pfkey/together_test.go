package pfkey

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// together returns the messages as ones that stand or fall together, with the
// numbers 1 and up.
func together(ms ...*Message) (bs [][]byte) {
	for i, m := range ms {
		n := *m
		n.Seq, n.More = uint32(i+1), i < len(ms)-1
		bs = append(bs, n.Append(nil))
	}
	return bs
}

// lists returns what the server has, one line an entry.
func (p *peer) lists() (lines []string) {
	p.t.Helper()
	for _, typ := range []Type{Dump, SPDDump} {
		for _, m := range p.ask(&Message{Type: typ}) {
			if m.Errno != unix.ENOENT {
				lines = append(lines, m.Content())
			}
		}
	}
	return lines
}

func TestMessagesThatStandOrFallTogether(t *testing.T) {
	flush := &Message{Type: Flush, SAType: ESP}
	keyless := with(addSA(0x2001), func(m *Message) { m.Has &^= SetOf(ExtEncKey) })
	broken := together(addSA(0x2000), addSA(0x2001), addSA(0x2002))
	broken[1][0] = 3 // the version
	big := together(addSA(0x2000), addSA(0x2001))
	for _, row := range []struct {
		name  string
		msgs  [][]byte
		typ   Type // of the one answer
		seq   uint32
		errno unix.Errno
		more  int // entries in the end
	}{
		{"one alone", together(addSA(0x2000)), Add, 1, 0, 1},
		{"SAs and a policy that is there", together(addSA(0x2000), addSA(0x2001), spdUpdate()), SPDUpdate, 3, 0, 2},
		{"the last exists", together(addSA(0x2000), addSA(0x1000)), Add, 2, unix.EEXIST, 0},
		{"the first exists", together(addSA(0x1000), addSA(0x2000)), Add, 1, unix.EEXIST, 0},
		{"one twice", together(addSA(0x2000), spdUpdate(), addSA(0x2000)), Add, 3, unix.EEXIST, 0},
		{"what cannot be undone", together(addSA(0x2000), flush), Flush, 2, unix.EOPNOTSUPP, 0},
		{"the same in the middle", together(addSA(0x2000), flush, addSA(0x2001)), Flush, 2, unix.EOPNOTSUPP, 0},
		{"no key", together(addSA(0x2000), keyless), Add, 2, unix.EINVAL, 0},
		{"no header in the middle", broken, Add, 3, unix.EINVAL, 0},
		{"too many", append(slices.Repeat(big[:1], maxHeld/len(big[0])+1), big[1]), Add, 2, unix.ENOBUFS, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			p, other := r.connect(t, 0), r.connect(t, 0)
			p.ok(addSA(0x1000))
			p.ok(spdUpdate())
			before := other.lists()
			last := len(row.msgs) - 1
			p.Handle(row.msgs[:last]...)
			if now := other.lists(); !slices.Equal(now, before) || len(p.received()) > 0 {
				t.Errorf("before the last message has come there are %q, and answers", now)
			}
			if errno := p.Handle(row.msgs[last]); errno != 0 {
				t.Fatalf("Handle: %v", errno)
			}
			all := p.received()
			if len(all) != 1 || all[0].Type != row.typ || all[0].Seq != row.seq || all[0].Errno != row.errno {
				t.Fatalf("answers %+v, want one: %v, seq %d, %v", all, row.typ, row.seq, row.errno)
			}
			if now := other.lists(); len(now) != len(before)+row.more || row.errno != 0 && !slices.Equal(now, before) {
				t.Errorf("before\n%q\nafter\n%q", before, now)
			}
			p.ok(addSA(0x4000)) // what follows is on its own again
			if n := r.holding.Load(); n != 0 {
				t.Errorf("%d bytes are held in the end", n)
			}
		})
	}
}

// TestHeldMessagesAreBoundedTogether: clients share the room, and what one of
// them has is free again when it leaves.
func TestHeldMessagesAreBoundedTogether(t *testing.T) {
	r := newRig(t)
	big := together(addSA(0x2000), addSA(0x2001))
	greedy, other := r.connect(t, 0), r.connect(t, 0)
	for range maxHeld / (len(big[0]) + heldSlot) {
		greedy.Handle(big[0])
	}
	other.Handle(big...)
	if all := other.received(); len(all) != 1 || all[0].Errno != unix.ENOBUFS {
		t.Errorf("beside a client that has taken all of the room: %+v, want one answer: ENOBUFS", all)
	}
	greedy.spoil(unix.ECANCELED) // as the end of its connection does
	if n := r.holding.Load(); n != 0 {
		t.Errorf("%d bytes are held for a client that is gone", n)
	}
	other.Handle(big...)
	if all := other.received(); len(all) != 1 || all[0].Errno != 0 {
		t.Errorf("after it has left: %+v, want one answer: success", all)
	}
}

// TestAPacketNeverSeesHalfOfWhatGoesTogether: two policies that change places,
// among as many others as make several batches of the socket's.
func TestAPacketNeverSeesHalfOfWhatGoesTogether(t *testing.T) {
	r := newRig(t)
	p := r.connect(t, 0)
	policy := func(i int, kind uint16) *Message {
		return with(spdUpdate(), func(m *Message) {
			m.Dst.Addr = host("10.2.0.0").Addr
			m.Dst.Port, m.Dst.Proto, m.Src.Proto = uint16(1000+i), 17, 17
			m.Policy.Kind, m.Policy.Requests = kind, nil
		})
	}
	const n = 4 * batch
	swap := func(first uint16) {
		kinds := [2]uint16{first, PolicyDiscard + PolicyNone - first}
		var ms []*Message
		for i := range n {
			ms = append(ms, policy(i, kinds[i%2]))
		}
		for part := range slices.Chunk(together(ms...), batch) {
			p.Handle(part...)
		}
		if all := p.received(); len(all) != 1 || all[0].Errno != 0 {
			t.Fatalf("answers %+v, want one", all)
		}
	}
	swap(PolicyDiscard)
	var stop atomic.Bool
	var worker sync.WaitGroup
	worker.Go(func() {
		for !stop.Load() {
			rules := r.tables.Load().SPD.Out.Policies()
			for i, rule := range rules {
				if want := rules[i%2].Action; rule.Action != want || rules[0].Action == rules[1].Action {
					t.Errorf("policy %d of %d says %v, policy %d says %v", i, len(rules), rule.Action, i%2, want)
					return
				}
			}
			if len(rules) != n {
				t.Errorf("%d policies, want %d", len(rules), n)
				return
			}
		}
	})
	for range 10 {
		swap(PolicyNone)
		swap(PolicyDiscard)
	}
	stop.Store(true)
	worker.Wait()
}
