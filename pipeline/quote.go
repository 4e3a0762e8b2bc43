package pipeline

import (
	"spigot/internal/counter"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/spd"
)

// isICMP says whether p is a whole ICMP message.
func (p *packet) isICMP() bool {
	return (p.info.Proto == wire.ProtoICMP || p.info.Proto == wire.ProtoICMPv6) && !p.info.Fragment
}

// quotes returns the flow that the ICMP error p is about, in the direction in
// which p goes itself: that of the packet that it quotes, turned round. isError
// is false for what is no error; ok, if the quote cannot be read, or if p does
// not go to who has sent what it quotes.
func (p *packet) quotes() (q flow.Tuple, isError, ok bool) {
	ip := p.ip()
	m := wire.ICMP(ip[p.info.HeaderLen:])
	v6 := p.info.Proto == wire.ProtoICMPv6
	if v6 != p.info.V6 || m.Valid() != counter.None || !m.IsError(v6) {
		return flow.Tuple{}, false, false
	}
	quote := m.Body()
	proto, upper, ok := wire.Quoted(quote)
	if !ok || v6 != (quote[0]>>4 == 6) {
		return flow.Tuple{}, true, false
	}
	var t flow.Tuple
	if v6 {
		t.Src, t.Dst = flow.From16(quote[8:]), flow.From16(quote[24:])
	} else {
		t.Src, t.Dst = flow.From4(quote[12:]), flow.From4(quote[16:])
	}
	t.Proto, t.NoPorts = proto, true
	if wire.FirstPorts(&t, upper) != counter.None { // too little is quoted: its ports are not known
		t.SrcPort, t.DstPort, t.NoPorts = 0, 0, true
	}
	q = t
	q.Src, q.Dst = t.Dst, t.Src
	if proto != wire.ProtoICMP && proto != wire.ProtoICMPv6 {
		q.SrcPort, q.DstPort = t.DstPort, t.SrcPort
	}
	return q, true, q.Dst == p.tuple.Dst
}

// judgedBy returns the tuple by which packet i, an ICMP message that came by an
// SA, is held against that and the SPD (RFC 4301, section 6.2). An error is
// judged by what it quotes, turned round, so that a router behind the peer can
// tell of a flow that the SA carries, and nobody of another: by the quoted flow,
// where the SA carries that, else as ICMP from where the quoted packet went. It
// is nil, and the packet dropped, if the quote does not fit the packet.
func (w *Worker) judgedBy(b *Burst, i uint8) *flow.Tuple {
	p := &b.pkts[i]
	q, isError, ok := p.quotes()
	switch {
	case !isError:
		return &p.tuple
	case !ok:
		b.Drop(i, counter.BadQuote)
		return nil
	}
	w.quote = q
	if pol := w.inCache.Lookup(w.spd.In, &w.quote); pol != nil && pol.Action != spd.Discard && p.in.Admits(&w.quote) {
		return &w.quote
	}
	w.quote = p.tuple
	w.quote.Src = q.Src
	return &w.quote
}

// byQuote returns the outbound policy of the flow that p is about, and that flow,
// if p is an ICMP error, else nil: what a router in front of the gateway, whom no policy names,
// has to say of a flow goes by the flow's SA (RFC 4301, section 6.2).
func (w *Worker) byQuote(p *packet) (*spd.Policy, *flow.Tuple) {
	if !p.isICMP() {
		return nil, nil
	}
	q, _, ok := p.quotes()
	if !ok {
		return nil, nil
	}
	w.quote = q
	return w.outCache.Lookup(w.spd.Out, &w.quote), &w.quote
}
