package pfkey

import (
	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/spd"
)

// wants returns what the client is to hear of: nothing before it registers, and
// acquires and expiries of what it has registered for. Linux sends the rest to
// sockets that nobody reads, too.
func (c *Client) wants() control.Interest {
	if c.promisc {
		return control.Interest{Kinds: control.AllKinds}
	}
	i := control.Interest{Protos: []uint8{}}
	registered := false
	for t, on := range c.registered {
		registered = registered || on
		if proto := SAType(t).Proto(); on && proto != 0 {
			i.Protos = append(i.Protos, proto)
		}
	}
	if registered {
		i.Kinds = control.AllKinds &^ control.KindSet(control.EventSPI)
	}
	return i
}

// eventTypes are the messages that tell of changes, by kind of event.
var eventTypes = map[control.EventKind]Type{
	control.EventExpire:       Expire,
	control.EventPolicyExpire: SPDExpire,
	control.EventMapping:      NATNewMapping,
	control.EventSPI:          GetSPI,
	control.EventSA:           Add,
	control.EventSAUpdate:     Update,
	control.EventSADelete:     Delete,
	control.EventSAFlush:      Flush,
	control.EventPolicy:       SPDAdd,
	control.EventPolicyUpdate: SPDUpdate,
	control.EventPolicyDelete: SPDDelete,
	control.EventPolicyFlush:  SPDFlush,
}

// eventMessage returns what clients are told of e. What a request has changed
// carries the seq and pid of that request; all else has pid 0.
func (s *Server) eventMessage(e *control.Event) *Message {
	m := &Message{Type: eventTypes[e.Kind], Seq: e.By.Seq, PID: e.By.PID}
	switch e.Kind {
	case control.EventLost:
		return lost(e)
	case control.EventAcquire:
		if e.Acquire.CPU != 0 {
			return nil // no word says for which worker, and an SA for all is there
		}
		return s.acquireMessage(e.Acquire)
	case control.EventExpire:
		m.Seq, m.PID = 0, 0
		m.expired(e)
	case control.EventMapping:
		m.Seq, m.PID = 0, 0
		m.mapped(e)
	case control.EventPolicyExpire:
		m.Seq, m.PID = 0, 0
		m.describePolicy(e.Policy)
	case control.EventSPI, control.EventSA, control.EventSAUpdate, control.EventSADelete:
		m.describe(e.SA, lifetimes)
		if e.Kind == control.EventSADelete {
			m.SA.State = StateDead
		}
	case control.EventSAFlush:
		m.SAType = SATypeOf(e.Proto)
	case control.EventPolicy, control.EventPolicyUpdate, control.EventPolicyDelete:
		m.describePolicy(e.Policy)
	case control.EventPolicyFlush:
	default:
		return nil
	}
	return m
}

// lost tells a client that it was too slow: ENOBUFS, as BSD's sockets have it,
// in a message that daemons read and take for harmless. Seq is the number of
// events lost.
func lost(e *control.Event) *Message {
	return &Message{Type: Register, Errno: unix.ENOBUFS, Seq: uint32(min(e.Lost, 1<<32-1))}
}

func (s *Server) acquireMessage(a *control.Acquire) *Message {
	p, combs := a.Policy, s.supported.combs
	if a.Template.Proto == protoAH {
		combs = s.supported.ah
	}
	return &Message{
		Type: Acquire, SAType: SATypeOf(a.Template.Proto), Seq: a.Seq,
		Has:      addresses | 1<<ExtPolicy | 1<<ExtProposal,
		Src:      hostOf(a.Src, a.Peer),
		Dst:      hostOf(a.Peer, a.Peer),
		Policy:   Policy{Kind: PolicyIPsec, Dir: dirOf(spd.Out), ID: p.ID, Priority: p.Priority},
		Proposal: Proposal{Replay: proposedWindow, Combs: combs},
	}
}

const proposedWindow = 64 // packets

// expired writes which lifetime has ended, and nothing of the other.
func (m *Message) expired(e *control.Event) {
	m.describe(e.SA, 0)
	if e.Hard {
		m.Has |= SetOf(ExtHard)
		m.SA.State = StateDead
	} else {
		m.Has |= SetOf(ExtSoft)
		m.SA.State = StateDying
	}
}

// mapped writes the old address and port as the source's, the new ones as the
// destination's, as Linux does.
func (m *Message) mapped(e *control.Event) {
	sa := e.SA
	m.SAType = SATypeOf(sa.Proto)
	m.Has = 1<<ExtSA | addresses | 1<<ExtNATSrcPort | 1<<ExtNATDstPort
	m.SA.SPI = sa.SPI
	m.Src, m.Dst = hostOf(sa.Src, sa.Src), hostOf(e.Peer, e.Peer)
	m.NATSport, m.NATDport = sa.Encap.SrcPort, e.Port
}
