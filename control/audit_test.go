package control

import (
	"fmt"
	"testing"
	"time"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
)

// Audit events are logged and kept, the latest of them, and at a rate that
// somebody can read; how many were not is told.
func TestAuditTrail(t *testing.T) {
	g := newGateway(t)
	now := time.Now()
	tell := func(after time.Duration, n int) {
		t.Helper()
		for i := range n {
			p := fib.Punt{
				Kind: fib.PuntAudit, Reason: counter.AuthFailed, SPI: 0x1000, Seq: uint64(i), Via: addr(peer), Dst: addr(here),
				Flow: flow.Tuple{Src: addr(peer), Dst: addr(here), Proto: 50, NoPorts: true}, Label: 0xabcde,
			}
			g.Do(func() { g.punt(0, &p, now.Add(after)) })
		}
	}
	tell(0, auditBurst+20)
	list := g.reportAudit()
	if len(list) != auditBurst || g.log.count("msg=audit") != auditBurst {
		t.Fatalf("%d kept, %d logged", len(list), g.log.count("msg=audit"))
	}
	want := AuditInfo{
		Number: 1, Time: now, Reason: "auth_failed", SPI: 0x1000, Src: peer, Dst: here,
		Flow: fmt.Sprintf("proto 50 %s -> %s", peer, here), FlowLabel: 0xabcde,
	}
	if list[0] != want {
		t.Errorf("got  %+v\nwant %+v", list[0], want)
	}
	tell(time.Second, auditRate)
	list = g.reportAudit()
	if n := len(list); n != auditBurst+auditRate || list[auditBurst].Unseen != 20 || list[n-1].Unseen != 0 {
		t.Errorf("%d kept, the next missed %d", n, list[auditBurst].Unseen)
	}
	for i := range 40 {
		tell(time.Duration(i+2)*time.Second, auditRate)
	}
	list = g.reportAudit()
	if len(list) != auditKept || list[auditKept-1].Number-list[0].Number != auditKept-1 {
		t.Errorf("%d kept, from %d to %d", len(list), list[0].Number, list[len(list)-1].Number)
	}
}
