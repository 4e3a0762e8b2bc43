package xfrm

import (
	"context"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/internal/flow"
)

// kindsOf lists the events of each multicast group.
var kindsOf = [...]uint32{
	nl.XFRMNLGRP_ACQUIRE: control.KindSet(control.EventAcquire),
	nl.XFRMNLGRP_EXPIRE:  control.KindSet(control.EventExpire, control.EventPolicyExpire),
	nl.XFRMNLGRP_SA: control.KindSet(control.EventSA, control.EventSAUpdate, control.EventSADelete,
		control.EventSAFlush),
	nl.XFRMNLGRP_POLICY: control.KindSet(control.EventPolicy, control.EventPolicyUpdate, control.EventPolicyDelete,
		control.EventPolicyFlush),
	nl.XFRMNLGRP_MAPPING: control.KindSet(control.EventMapping),
}

// in says whether the event belongs to one of the groups.
func in(groups uint32, kind control.EventKind) bool { return interest(groups)>>kind&1 != 0 }

// interest returns the kinds of events in groups.
func interest(groups uint32) (kinds uint32) {
	for group, set := range kindsOf {
		if group > 0 && groups>>(group-1)&1 != 0 {
			kinds |= set
		}
	}
	return kinds
}

// want subscribes to what the clients have joined the groups of. Acquires that
// nobody listened for are asked again for whom comes.
func (s *Server) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kinds uint32
	for c := range s.clients {
		kinds |= interest(c.groups.Load())
	}
	s.news.Want(control.Interest{Kinds: kinds})
}

// Run tells clients the news, each once and as the group has it, until ctx
// ends.
func (s *Server) Run(ctx context.Context) {
	var buf [64]control.Event
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.news.Ready():
		}
		n := s.news.Take(buf[:])
		for i := range buf[:n] {
			s.tell(&buf[i])
		}
		clear(buf[:n])
	}
}

// tell tells all clients of e whom it concerns.
func (s *Server) tell(e *control.Event) {
	var b []byte
	if e.Kind != control.EventLost {
		if b = event(e); b == nil {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		switch {
		case e.Kind == control.EventLost && c.groups.Load() != 0:
			c.mu.Lock()
			c.lose(e.Lost)
			c.mu.Unlock()
		case in(c.groups.Load(), e.Kind):
			c.tell(b)
		}
	}
}

// event writes e; nil: the dialect has no word for it.
func event(e *control.Event) []byte {
	h := header{seq: e.By.Seq, port: e.By.PID}
	switch e.Kind {
	case control.EventAcquire:
		return acquireEvent(e.Acquire)
	case control.EventExpire:
		info, _ := saInfoOf(e.SA)
		return newMessage(nil, header{typ: msgExpire}, &userExpire{info, flagOf(e.Hard)}).end()
	case control.EventPolicyExpire:
		info, tmpls := policyInfoOf(e.Policy)
		return newMessage(nil, header{typ: msgPolExpire}, &userPolExpire{info, flagOf(e.Hard)}).templates(tmpls).end()
	case control.EventMapping:
		return mappingEvent(e)
	case control.EventSA:
		h.typ = msgNewSA
		return putSA(nil, h, e.SA)
	case control.EventSAUpdate:
		h.typ = msgUpdSA
		return putSA(nil, h, e.SA)
	case control.EventSADelete:
		h.typ = msgDelSA
		info, extra := saInfoOf(e.SA)
		m := newMessage(nil, h, &usersaID{dst: info.id.dst, spi: e.SA.SPI, family: info.family, proto: e.SA.Proto})
		m.attr(nl.XFRMA_SA, &info)
		return m.state(e.SA, &extra).end()
	case control.EventSAFlush:
		h.typ = msgFlushSA
		proto := octet(e.Proto)
		return newMessage(nil, h, &proto).end()
	case control.EventPolicy:
		h.typ = msgNewPolicy
		return putPolicy(nil, h, e.Policy)
	case control.EventPolicyUpdate:
		h.typ = msgUpdPolicy
		return putPolicy(nil, h, e.Policy)
	case control.EventPolicyDelete:
		h.typ = msgDelPolicy
		info, tmpls := policyInfoOf(e.Policy)
		m := newMessage(nil, h, &userpolicyID{sel: info.sel, index: info.index, dir: info.dir})
		m.attr(nl.XFRMA_POLICY, &info)
		return m.templates(tmpls).end()
	case control.EventPolicyFlush:
		h.typ = msgFlushPolicy
		return newMessage(nil, h, nil).end()
	}
	return nil
}

func flagOf(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// acquireEvent writes ACQUIRE: the policy's template, and the packet as a
// selector, or what an SA of that packet's flow alone is to carry.
func acquireEvent(a *control.Acquire) []byte {
	info, tmpls := policyInfoOf(a.Policy)
	info.dir = dirOut
	sel := selectorOfPacket(&a.Flow)
	if a.Policy.PFP != 0 {
		sel = selectorOf(&a.Sel)
	}
	m := newMessage(nil, header{typ: msgAcquire}, &userAcquire{
		id:  id{dst: addressOf(a.Peer), proto: a.Template.Proto},
		src: addressOf(a.Src), sel: sel, policy: info,
		aalgos: ^uint32(0), ealgos: ^uint32(0), calgos: ^uint32(0), seq: a.Seq,
	})
	m.templates(tmpls).cpu(a.CPU)
	return m.end()
}

// selectorOfPacket writes the selector of one packet's flow.
func selectorOfPacket(t *flow.Tuple) selector {
	f := flow.Selector{
		Src: flow.AddrRange{Lo: t.Src, Hi: t.Src}, Dst: flow.AddrRange{Lo: t.Dst, Hi: t.Dst},
		SrcPort: flow.AnyPort, DstPort: flow.AnyPort, Proto: t.Proto,
	}
	if !t.NoPorts {
		f.SrcPort = flow.PortRange{Lo: t.SrcPort, Hi: t.SrcPort}
		f.DstPort = flow.PortRange{Lo: t.DstPort, Hi: t.DstPort}
	}
	return selectorOf(&f)
}

// mappingEvent writes MAPPING: the peer's packets come from elsewhere now.
func mappingEvent(e *control.Event) []byte {
	info, _ := saInfoOf(e.SA)
	return newMessage(nil, header{typ: msgMapping}, &userMapping{
		id:     usersaID{dst: info.id.dst, spi: e.SA.SPI, family: info.family, proto: e.SA.Proto},
		reqid:  e.SA.Reqid,
		oldSrc: info.src, newSrc: addressOf(e.Peer),
		oldPort: e.SA.Encap.SrcPort, newPort: e.Port,
	}).end()
}
