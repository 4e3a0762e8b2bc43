package xfrm

import (
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/spd"
)

// TestAnSAForEachSession: a template that is for one session only has its SAs'
// selectors from packets, and the answer to an acquire serves its flow.
func TestAnSAForEachSession(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	listener := r.client(t, 1<<(nl.XFRMNLGRP_ACQUIRE-1))
	var id uint32
	for _, dir := range []uint8{dirIn, dirOut} {
		session := with(nl.XFRMA_TMPL, &tmplList{sessionTmpl(dir)})
		r.do(t, c, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, charonPolicy(dir), session))
		want := map[uint8]spd.PFP{dirIn: 0, dirOut: spd.PFPAll}[dir]
		if err := r.ctl.Keying(func(k *control.Keying) {
			p := must(k.Policy(control.PolicyName{Dir: dirs[dir], Sel: must(charonPolicy(dir).sel.flow())}))
			if id = p.ID; p.PFP != want {
				t.Errorf("direction %d takes %#x from packets, want %#x", dir, p.PFP, want)
			}
		}); err != nil {
			t.Fatal(err)
		}
		m := r.one(t, c, r.req(msgGetPolicy, 0, &userpolicyID{sel: charonPolicy(dir).sel, dir: dir}))
		var shown tmpl
		if err := decode(m.attr(t, policyLen, nl.XFRMA_TMPL), &shown); err != nil || shown.share != shareSession {
			t.Errorf("comes back as %+v, %v", shown, err)
		}
	}

	f := flow.Tuple{Src: host("10.1.0.5"), Dst: host("10.2.0.6"), SrcPort: 1234, DstPort: 80, Proto: 6}
	r.acquires.Push([]spd.AcquireRequest{{Policy: id, Flow: f}})
	var a userAcquire
	if m := r.event(t, listener); m.typ != msgAcquire || decode(m.body, &a) != nil {
		t.Fatalf("%+v", m.header)
	}
	if a.sel.plenSrc != 32 || a.sel.plenDst != 32 || a.sel.sport != 1234 || a.sel.dport != 80 || a.sel.proto != 6 {
		t.Errorf("acquire for %+v", a.sel)
	}
	sa := outboundSA(0x1000)
	sa.sel = a.sel
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	if got := r.ipsec.Load().SAD.OutboundFlow(id, &f); got == nil || got.SPI != 0x1000 {
		t.Errorf("the flow has SA %v", got)
	}
	if f.SrcPort++; r.ipsec.Load().SAD.OutboundFlow(id, &f) != nil {
		t.Error("another flow has its SA")
	}
}

// sessionTmpl is charonTmpl for one session only.
func sessionTmpl(dir uint8) tmpl {
	t := tmpl{
		id: id{dst: addr("192.0.2.2"), proto: 50}, src: addr("192.0.2.1"), family: afInet, reqid: 7, mode: modeTunnel,
		share: shareSession, aalgos: ^uint32(0), ealgos: ^uint32(0), calgos: ^uint32(0),
	}
	if dir != dirOut {
		t.id.dst, t.src = t.src, t.id.dst
	}
	return t
}
