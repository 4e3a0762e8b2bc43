package xfrm

import (
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// pair is what is too short to number a processor.
type pair struct{}

func (*pair) wire(w *wire) { w.pad(2) }

// TestAnSAForEachProcessor: an SA for one processor serves its worker alone, the
// others use the one without; the number is said again, and no other is made up. A
// policy that says so has acquires name the processor that has none. An SA for a
// processor that has no worker serves nobody, and costs no room.
func TestAnSAForEachProcessor(t *testing.T) {
	r := makeRigOver(t, func(c *control.Config) { c.Workers = slices.Repeat(c.Workers, 2) }, func(*Config) {}, "192.0.2.1")
	c := r.client(t, 0)
	tmpl := sessionTmpl(dirOut)
	tmpl.share = 0
	info := charonPolicy(dirOut)
	info.flags |= flagCPUAcquire
	r.do(t, c, 0, r.req(msgNewPolicy, syscall.NLM_F_ACK, info, with(nl.XFRMA_TMPL, &tmplList{tmpl})))
	zero, one, none := word(0), word(1), word(sad.MaxCPU-1)
	for _, row := range []struct {
		spi uint32
		cpu *word
	}{{0x1000, nil}, {0x1001, &zero}, {0x1002, &one}, {0x1003, &none}} {
		sa := outboundSA(row.spi)
		sa.flags = flagAnyFamily
		attrs := []func(*message){with(nl.XFRMA_ALG_AEAD, gcm())}
		if row.cpu != nil {
			attrs = append(attrs, with(attrCPU, row.cpu))
		}
		r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, sa, attrs...))
		back := r.one(t, c, r.req(msgGetSA, 0, &usersaID{dst: sa.id.dst, spi: row.spi, family: afInet, proto: 50}))
		all, err := parseAttrs(back.body[usersaInfoLen:])
		if err != nil || (all[attrCPU] != nil) != (row.cpu != nil) || row.cpu != nil && all.u32(attrCPU) != uint32(*row.cpu) {
			t.Errorf("SPI %#x: comes back for processor %x, %v", row.spi, all[attrCPU], err)
		}
	}
	ids := r.ipsec.Load().SPD.Out.Policies()
	if len(ids) != 1 {
		t.Fatalf("%d policies", len(ids))
	}
	uses := func(want ...uint32) {
		t.Helper()
		for cpu, spi := range want {
			if got := r.ipsec.Load().SAD.OutboundOn(ids[0].ID, uint16(cpu)); spiOf(got) != spi {
				t.Errorf("worker %d uses %v, want SPI %#x", cpu-1, got, spi)
			}
		}
	}
	uses(0x1000, 0x1001, 0x1002, 0x1000)
	if got := r.ipsec.Load().SAD.OutboundOn(ids[0].ID, sad.MaxCPU); spiOf(got) != 0x1000 {
		t.Errorf("there is an SA, %v, for a worker that is not there", got)
	}
	r.do(t, c, 0, r.req(msgDelSA, syscall.NLM_F_ACK, &usersaID{dst: outboundSA(0).id.dst, spi: 0x1001, family: afInet, proto: 50}))
	uses(0x1000, 0x1000, 0x1002)

	listener := r.client(t, 1<<(nl.XFRMNLGRP_ACQUIRE-1))
	f := flow.Tuple{Src: host("10.1.0.5"), Dst: host("10.2.0.6"), NoPorts: true, Proto: 6}
	r.acquires.Push([]spd.AcquireRequest{{Policy: ids[0].ID, CPU: 2, Flow: f}, {Policy: ids[0].ID, CPU: 1, Flow: f}})
	var a userAcquire
	m := r.event(t, listener)
	if m.typ != msgAcquire || decode(m.body, &a) != nil || a.policy.flags&flagCPUAcquire == 0 {
		t.Fatalf("%+v: %+v", m.header, a)
	}
	if all, err := parseAttrs(m.body[userAcquireLen:]); err != nil || all[attrCPU] == nil || all.u32(attrCPU) != 0 || all[nl.XFRMA_TMPL] == nil {
		t.Errorf("acquire for processor %x, %v", all[attrCPU], err)
	}

	r.do(t, c, 0, r.req(msgDelSA, syscall.NLM_F_ACK, &usersaID{dst: outboundSA(0).id.dst, spi: 0x1000, family: afInet, proto: 50}))
	uses(0, 0, 0x1002)
}

// spiOf returns sa's SPI, 0 of none.
func spiOf(sa *sad.Outbound) uint32 {
	if sa == nil {
		return 0
	}
	return sa.SPI
}
