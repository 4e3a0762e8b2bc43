package control

import (
	"time"

	"spigot/internal/fib"
)

// How many audit events are taken down: as many as somebody can read, and so
// that a flood does not fill a disk.
const (
	auditRate  = 10 // a second
	auditBurst = 50
	auditKept  = 256 // for who asks
)

// trail is the latest audit events.
type trail struct {
	limit  bucket
	kept   []AuditInfo
	number uint64
	unseen uint64 // that the limit has kept from it
}

// audit takes down a packet that a worker dropped.
func (c *Controller) audit(p *fib.Punt, now time.Time) {
	t := &c.trail
	if !t.limit.take(now) {
		t.unseen++
		return
	}
	t.number++
	a := AuditInfo{
		Number: t.number, Time: now.Add(-c.clock.slept), Reason: p.Reason.String(), SPI: p.SPI, Seq: p.Seq,
		Src: p.Via.String(), Dst: p.Dst.String(), Flow: p.Flow.String(), FlowLabel: p.Label, Unseen: t.unseen,
	}
	t.unseen = 0
	if len(t.kept) == auditKept {
		t.kept = append(t.kept[:0], t.kept[1:]...)
	}
	t.kept = append(t.kept, a)
	c.log.Warn("audit", "reason", a.Reason, "spi", a.SPI, "seq", a.Seq, "src", a.Src, "dst", a.Dst, "packet", a.Flow,
		"flow_label", a.FlowLabel, "unseen", a.Unseen)
}

// reportAudit lists the latest events.
func (c *Controller) reportAudit() []AuditInfo { return append([]AuditInfo{}, c.trail.kept...) }
