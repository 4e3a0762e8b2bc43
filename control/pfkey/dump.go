package pfkey

import (
	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/spd"
)

// walk yields the entries of a DUMP or X_SPDDUMP.
type walk interface {
	// step returns the next entry, nil at the end, and the most that can follow.
	step(withKeys bool) (m *Message, left int)
	// request is the message that asked.
	request() *Message
}

// dump is a walk on its way to the client. It looks one entry ahead, because
// the last one has to say that it is the last: seq counts down to 0.
type dump struct {
	walk  walk
	begun bool
	ahead *Message
	left  int
}

// next returns the next message; the one with which ahead becomes nil is the
// last. A walk without entries is a message of ENOENT, as Linux has it.
func (d *dump) next(withKeys bool) []byte {
	if !d.begun {
		d.begun = true
		if d.ahead, d.left = d.walk.step(withKeys); d.ahead == nil {
			m := d.walk.request().header()
			m.Errno = unix.ENOENT
			return m.Append(nil)
		}
	}
	m, left := d.ahead, d.left
	if d.ahead, d.left = d.walk.step(withKeys); d.ahead == nil {
		left = 0
	}
	r := d.walk.request()
	m.Type, m.PID, m.Seq = r.Type, r.PID, uint32(left)
	b := m.Append(make([]byte, 0, m.room()))
	m.Wipe()
	return b
}

// dumpStep is how many entries are asked for at once.
const dumpStep = 16

// saWalk is a DUMP. Like Linux it begins with the acquires that wait for an
// answer, as larval SAs without an SPI.
type saWalk struct {
	msg  *Message
	asks []control.Acquire
	from *control.SADump
	buf  [dumpStep]control.SA
	have []control.SA
}

func (w *saWalk) request() *Message { return w.msg }

func (w *saWalk) step(withKeys bool) (*Message, int) {
	for len(w.asks) > 0 {
		sa := larva(&w.asks[0])
		m := &Message{}
		m.describe(&sa, lifetimes)
		m.Hard.AddTime = askedLife
		m.Has |= SetOf(ExtProxy)
		m.Proxy = flowSource(&w.asks[0].Flow)
		w.asks = w.asks[1:]
		if w.msg.admits(&sa) {
			return m, len(w.asks) + w.from.Len()
		}
	}
	for {
		if len(w.have) == 0 {
			n := w.from.Next(w.buf[:], withKeys)
			if n == 0 {
				return nil, 0
			}
			w.have = w.buf[:n]
		}
		sa := &w.have[0]
		w.have = w.have[1:]
		if !w.msg.admits(sa) {
			clear(sa.EncKey)
			clear(sa.AuthKey)
			continue
		}
		m := &Message{}
		m.describe(sa, lifetimes)
		return m, len(w.have) + w.from.Len()
	}
}

// askedLife is for how many seconds an acquire waits for its answer.
const askedLife = 30

// larva returns the SA that a is to become.
func larva(a *control.Acquire) control.SA {
	t := &a.Template
	sa := control.SA{State: control.Larval, Created: a.Time}
	sa.Proto, sa.Src, sa.Dst, sa.Tunnel, sa.Reqid = t.Proto, a.Src, a.Peer, t.Mode == spd.Tunnel, t.Reqid
	return sa
}

// flowSource returns the source of the packet that made an acquire.
func flowSource(t *flow.Tuple) Address {
	a := hostOf(t.Src, t.Dst)
	a.Proto, a.Port = t.Proto, t.SrcPort
	return a
}

// admits says whether a DUMP asks for sa.
func (m *Message) admits(sa *control.SA) bool {
	if proto := m.SAType.Proto(); proto != 0 && proto != sa.Proto {
		return false
	}
	return !m.Has.Has(ExtFilter) || m.Filter.has(sa)
}

// policyWalk is an X_SPDDUMP.
type policyWalk struct {
	msg  *Message
	from *control.PolicyDump
	buf  [dumpStep]control.Policy
	have []control.Policy
}

func (w *policyWalk) request() *Message { return w.msg }

func (w *policyWalk) step(bool) (*Message, int) {
	if len(w.have) == 0 {
		n := w.from.Next(w.buf[:])
		if n == 0 {
			return nil, 0
		}
		w.have = w.buf[:n]
	}
	p := &w.have[0]
	w.have = w.have[1:]
	m := &Message{}
	m.describePolicy(p)
	return m, len(w.have) + w.from.Len()
}
