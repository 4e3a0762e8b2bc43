package pipeline

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"spigot/internal/counter"
	"spigot/internal/flow"
)

// part makes a fragment of an IPv4 datagram with body, and what of it the header
// says.
func part(id uint16, body []byte, at, end int) *fragment {
	ip := make([]byte, 20, 20+end-at)
	ip[0], ip[9] = 0x45, 50
	ip = append(ip, body[at:end]...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	return &fragment{
		key: datagramKey{src: flow.V4(1), dst: flow.V4(2), id: uint32(id), proto: 50},
		ip:  ip, head: 20, at: at, more: end < len(body),
	}
}

// give adds f and joins what that completes.
func (r *reassembler) give(f *fragment, now time.Duration, dst []byte) (int, counter.Reason) {
	done, reason := r.add(f, now)
	if done == 0 {
		return 0, reason
	}
	return r.join(done, dst)
}

func newTestReassembler() (*reassembler, *counter.Worker) {
	c := new(counter.Worker)
	return newReassembler(c, 1, 2048), c
}

// Fragments of several datagrams in any order, some of them never complete, some
// that overlap: what comes out is what a plain map of bytes makes of them, and
// every fragment is counted once.
func TestReassemblerAgainstPlainBytes(t *testing.T) {
	type plain struct {
		have map[int]byte
		ends map[[2]int]bool
		dead bool
	}
	rapid.Check(t, func(t *rapid.T) {
		r, c := newTestReassembler()
		bodies, oracle := map[uint16][]byte{}, map[uint16]*plain{}
		fed, out, refused := uint64(0), uint64(0), uint64(0)
		dst := make([]byte, 2048)
		for range rapid.IntRange(1, 120).Draw(t, "fragments") {
			id := rapid.Uint16Range(0, 7).Draw(t, "id")
			if oracle[id] == nil {
				oracle[id] = &plain{map[int]byte{}, map[[2]int]bool{}, false}
				body := make([]byte, rapid.IntRange(2, 5).Draw(t, "parts")*64)
				for i := range body {
					body[i] = byte(i*7 + int(id))
				}
				bodies[id] = body
			}
			o, body := oracle[id], bodies[id]
			at := rapid.IntRange(0, len(body)/64-1).Draw(t, "at") * 64
			end := at + 64
			if at > 0 && rapid.IntRange(0, 30).Draw(t, "overlap") == 0 {
				at -= 8
			}
			n, reason := r.give(part(id, body, at, end), 0, dst)
			fed++
			again, overlap := o.ends[[2]int{at, end}], false
			for i := at; i < end; i++ {
				_, there := o.have[i]
				overlap = overlap || there
			}
			switch {
			case o.dead || overlap:
				if refused++; reason != counter.BadFragment {
					t.Fatalf("%d at %d: %v", id, at, reason)
				}
				o.dead = o.dead || overlap && !again
				continue
			case reason != counter.None:
				t.Fatalf("%d at %d: refused for %v", id, at, reason)
			}
			o.ends[[2]int{at, end}] = true
			for i := at; i < end; i++ {
				o.have[i] = body[i]
			}
			if complete := len(o.have) == len(body); complete != (n != 0) {
				t.Fatalf("%d has %d of %d bytes: %d came out", id, len(o.have), len(body), n)
			} else if !complete {
				continue
			}
			if !bytes.Equal(dst[20:n], body) || int(binary.BigEndian.Uint16(dst[2:])) != n {
				t.Fatalf("%d: came out wrong", id)
			}
			out++
			delete(oracle, id)
		}
		if fed != refused+c.Waiting+c.Joined+out+c.Dropped() {
			t.Fatalf("%d in; %d refused, %d wait, %d joined, %d out, %d dropped", fed, refused, c.Waiting, c.Joined, out, c.Dropped())
		}
		r.sweep(reassemblyAge)
		if c.Waiting != 0 || len(r.free) != maxDatagrams || len(r.freeBlocks) != maxDatagrams || r.all != (ages{}) {
			t.Fatalf("%d wait, %d numbers and %d blocks are free", c.Waiting, len(r.free), len(r.freeBlocks))
		}
	})
}

// What does not come together in 15 seconds is dropped, all of it.
func TestReassemblyEnds(t *testing.T) {
	r, c := newTestReassembler()
	body, dst := make([]byte, 300), make([]byte, 2048)
	r.give(part(1, body, 0, 96), 0, dst)
	r.give(part(2, body, 0, 96), 10*time.Second, dst)
	r.give(part(1, body, 96, 192), 14*time.Second, dst)
	n, _ := r.give(part(1, body, 192, 300), 15*time.Second, dst)
	if n != 0 || c.Drops[counter.FragmentTimeout] != 2 || c.Waiting != 2 {
		t.Errorf("%d bytes; %d timed out, %d wait", n, c.Drops[counter.FragmentTimeout], c.Waiting)
	}
	r.sweep(30 * time.Second)
	if c.Drops[counter.FragmentTimeout] != 4 || c.Waiting != 0 {
		t.Errorf("%d timed out, %d wait", c.Drops[counter.FragmentTimeout], c.Waiting)
	}
}

// What is dead stays so until its time is over.
func TestReassemblyOfTheDead(t *testing.T) {
	r, _ := newTestReassembler()
	body, dst := make([]byte, 192), make([]byte, 2048)
	r.give(part(1, body, 0, 96), 0, dst)
	r.give(part(1, body, 88, 192), 0, dst)
	for _, at := range []int{0, 96} {
		if n, reason := r.give(part(1, body, at, at+96), 14*time.Second, dst); n != 0 || reason != counter.BadFragment {
			t.Errorf("at %d: %d bytes, %v", at, n, reason)
		}
	}
	r.give(part(1, body, 0, 96), 15*time.Second, dst)
	if n, reason := r.give(part(1, body, 96, 192), 15*time.Second, dst); n != 212 || reason != counter.None {
		t.Errorf("%d bytes, %v", n, reason)
	}
}

// A datagram in more fragments than are kept of one.
func TestReassemblyOfTooManyPieces(t *testing.T) {
	r, c := newTestReassembler()
	body, dst := make([]byte, (maxPieces+1)*48), make([]byte, 65536)
	for at := 0; at < maxPieces*48; at += 48 {
		r.give(part(1, body, at, at+48), 0, dst)
	}
	n, reason := r.give(part(1, body, maxPieces*48, len(body)), 0, dst)
	if n != 0 || reason != counter.BadFragment || c.Drops[reason] != maxPieces {
		t.Errorf("%d bytes, %v, %d dropped", n, reason, c.Drops[counter.BadFragment])
	}
}

// When all blocks are taken by one datagram and its likes, the oldest go first,
// and one that is the oldest itself goes with its fragment.
func TestReassemblyMakesRoom(t *testing.T) {
	r, c := newTestReassembler()
	body, dst := make([]byte, maxPieces*48), make([]byte, 65536)
	for id := range uint16(8) { // 8 times 64 blocks are all there are
		for at := 0; at < len(body)-48; at += 48 {
			r.give(part(id, body, at, at+48), 0, dst)
		}
	}
	for id := range uint16(8) {
		r.give(part(100+id, body, 0, 48), 0, dst)
	}
	if len(r.freeBlocks) != 0 || c.Waiting != maxDatagrams {
		t.Fatalf("%d blocks are free, %d wait", len(r.freeBlocks), c.Waiting)
	}
	_, reason := r.give(part(0, body, len(body)-48, len(body)), 0, dst)
	if reason != counter.FragmentEvicted || c.Drops[reason] != 63 {
		t.Errorf("%v, %v", reason, c.Drops[counter.FragmentEvicted])
	}
	for at := 0; at < 64*48; at += 48 {
		r.give(part(200, body, at, at+48), 0, dst)
	}
	if c.Drops[counter.FragmentEvicted] != 126 || c.Joined != 63 {
		t.Errorf("%d evicted, %d joined", c.Drops[counter.FragmentEvicted], c.Joined)
	}
}
