package control

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"spigot/control/kernel"
	"spigot/crypto"
	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// The names of spd's enums in reports.
var (
	actionNames = [...]string{spd.Discard: "discard", spd.Bypass: "bypass", spd.Protect: "protect"}
	levelNames  = [...]string{spd.Require: "require", spd.Acquire: "acquire", spd.Use: "use", spd.DontAcq: "dontacq"}
	dirNames    = [...]string{spd.Out: DirOut, spd.In: DirIn, Fwd: "fwd"}

	directionNames = [...]string{DirectionUnknown: DirWaiting, Inbound: DirIn, Outbound: DirOut}
)

// reportPorts describes the queues of all ports.
func (c *Controller) reportPorts() []PortInfo {
	all := []PortInfo{}
	for i, p := range c.cfg.Ports {
		var k kernel.PortState
		if c.view != nil && i < len(c.view.Ports) {
			k = c.view.Ports[i]
		}
		addrs := []string{}
		for _, a := range k.Addrs {
			addrs = append(addrs, a.String())
		}
		for _, q := range p.Queues {
			info, s := q.Info(), q.Stats()
			all = append(all, PortInfo{
				Name: p.Name, Side: p.Side, Driver: info.Driver, Mode: info.Mode, Queue: info.Queue,
				MAC: info.MAC.String(), Hugepages: info.Hugetlb, Longest: info.Longest, NoJumbo: info.NoJumbo,
				Up: k.Up, Carrier: k.Carrier, MTU: k.MTU, Addrs: addrs, Trouble: c.broken[i],
				Stats: PortStats{
					RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes,
					TxDone: s.TxDone, TxErrors: s.TxErrors, Kicks: s.Kicks,
					RxDropped: s.RxDropped, FillEmpty: s.FillEmpty, BadDesc: s.BadDesc,
					RxJumbo: s.RxJumbo, RxGiant: s.RxGiant, JumboEmpty: s.JumboEmpty,
				},
			})
		}
	}
	return all
}

// reportWorkers describes all workers.
func (c *Controller) reportWorkers() []WorkerInfo {
	all := []WorkerInfo{}
	tier, _ := crypto.ChosenTier() // without one the program has ended
	for _, w := range c.cfg.Workers {
		v := w.Counters.Load()
		info := WorkerInfo{
			Core: w.Core, Crypto: tier.String(), Turns: v.Turns, Busy: v.Busy, Sleeps: v.Sleeps,
			Rx: v.Rx, RxBytes: v.RxBytes, Injected: v.Injected, Tx: v.Tx, TxBytes: v.TxBytes,
			Punted: v.Punted, Cut: v.Cut, Fragments: v.Fragments, Joined: v.Joined, Waiting: v.Waiting, Acquires: v.Acquires, LostMsgs: v.LostMsgs,
			Dropped: v.Dropped(), Drops: map[string]uint64{}, Balanced: v.Balanced(),
		}
		for r, n := range v.Drops {
			if n != 0 {
				info.Drops[counter.Reason(r).String()] = n
			}
		}
		for s := range counter.NumStages {
			stage := StageInfo{Stage: s.String(), Cycles: v.Cycles[s], Packets: v.Packets[s]}
			if stage.Packets != 0 {
				stage.CyclesPerPacket = float64(stage.Cycles) / float64(stage.Packets)
			}
			info.Stages = append(info.Stages, stage)
		}
		all = append(all, info)
	}
	return all
}

// reportDrops describes all reasons to drop.
func (c *Controller) reportDrops() []DropInfo {
	all := []DropInfo{}
	for r := counter.None + 1; r < counter.NumReasons; r++ {
		all = append(all, DropInfo{Reason: r.String(), Text: r.Text(), Workers: make([]uint64, len(c.cfg.Workers))})
	}
	for i, w := range c.cfg.Workers {
		v := w.Counters.Load()
		for k := range all {
			n := v.Drops[int(counter.None)+1+k]
			all[k].Workers[i] = n
			all[k].Total += n
		}
	}
	return all
}

// saWalk reports the SAs that were there when it began, those that wait for their
// direction last.
type saWalk struct {
	c       *Controller
	start   time.Time
	list    []*record
	waiting []*manual
}

// saPortion is how many SAs are described while key daemons wait.
const saPortion = 512

// walkSAs begins a walk. The caller is in the thread of control.
func (c *Controller) walkSAs() *saWalk {
	return &saWalk{c, c.clock.now(), slices.Collect(c.sas.all), slices.Clone(c.pending)}
}

// next appends the description of a portion to all and says whether that was the
// last one. An SA that has left since is described as it was, in use by no policy.
// The caller is in the thread of control, which it may leave between two portions.
func (w *saWalk) next(all []SAInfo) ([]SAInfo, bool) {
	n := min(saPortion, len(w.list))
	for _, r := range w.list[:n] {
		all = append(all, w.c.describe(r, w.start))
	}
	if w.list = w.list[n:]; len(w.list) > 0 {
		return all, false
	}
	n = min(saPortion, len(w.waiting))
	for _, m := range w.waiting[:n] {
		v := m.describeSA()
		all = append(all, infoOf(&v))
	}
	w.waiting = w.waiting[n:]
	return all, len(w.waiting) == 0
}

// reportSAs describes all SAs, a portion at a time. The caller is not in the thread
// of control.
func (c *Controller) reportSAs() []SAInfo {
	var w *saWalk
	c.Do(func() { w = c.walkSAs() })
	all := make([]SAInfo, 0, len(w.list)+len(w.waiting))
	for done := false; !done; {
		c.Do(func() { all, done = w.next(all) })
	}
	return all
}

// describe describes r.
func (c *Controller) describe(r *record, now time.Time) SAInfo {
	v := c.viewOf(r, false)
	info := infoOf(&v.SAParams)
	info.Direction, info.Seq, info.Window = directionNames[v.Direction], r.seq(), r.window
	if r.in != nil {
		info.ForDSCP = nil // it takes what comes
	}
	info.Packets, info.Bytes = v.Packets, v.Bytes
	info.AgeSeconds = now.Sub(r.added).Seconds()
	if sa := r.sa(); sa != nil {
		info.Suite = sa.Suite
	}
	if r.out != nil {
		info.Policies = c.db.AppendUsers(info.Policies, r.out)
		if r.out.PathKnown() {
			info.PathMTU = r.out.PathMTU()
		}
	}
	if r.larval {
		info.Direction = DirLarval
	}
	return info
}

func nameOfLookup(l sad.Lookup) string {
	if l == sad.ByDst {
		return ""
	}
	return l.String()
}

// infoOf describes an SA that waits.
func infoOf(p *SAParams) SAInfo {
	suite := p.Encryption
	if p.Integrity != "" {
		suite += "/" + p.Integrity
	}
	var cpu *int
	if p.CPU != 0 {
		n := int(p.CPU) - 1
		cpu = &n
	}
	var forDSCP []int
	for d := range p.ForDSCP.All {
		forDSCP = append(forDSCP, int(d))
	}
	return SAInfo{
		CPU: cpu, ForDSCP: forDSCP, Direction: DirWaiting, SPI: p.SPI, Src: nameOfAddr(p.Src), Dst: p.Dst.String(),
		Proto: nameOfProto(p.Proto), Mode: nameOfMode(p.Tunnel), Suite: suite,
		Reqid: p.Reqid, ESN: p.ESN, Window: p.Window,
		Soft: Lifetime(p.Soft), Hard: Lifetime(p.Hard), Policies: []uint32{}, Outer: p.Outer.String(), Lookup: nameOfLookup(p.Lookup), Name: p.Name,
	}
}

// reportPolicies describes the SPD, outbound first.
func (c *Controller) reportPolicies() []PolicyInfo {
	all := []PolicyInfo{}
	now, sas := c.spds.tables, c.db.Snapshot()
	for _, t := range []*spd.Table{now.Out, now.In} {
		for _, p := range t.Policies() {
			info := PolicyInfo{
				ID: p.ID, Dir: dirNames[p.Dir], Priority: p.Priority,
				Src: p.Sel.Src.String(), Dst: p.Sel.Dst.String(), Proto: "any",
				SrcPort: nameOfPorts(p.Sel.SrcPort), DstPort: nameOfPorts(p.Sel.DstPort),
				Action: actionNames[p.Action], Static: p.Static, Name: p.Name,
			}
			if p.Sel.Proto != flow.AnyProto {
				info.Proto = strconv.Itoa(int(p.Sel.Proto))
			}
			if p.Action == spd.Protect {
				info.Level, info.PFP = levelNames[p.Level], namesOf(p.PFP)
				info.wants(p.Templates(), sas, p.ID)
			}
			all = append(all, info)
		}
	}
	return all
}

// reportRoutes describes the forwarding table.
func (c *Controller) reportRoutes() []RouteInfo {
	all := []RouteInfo{}
	for _, r := range c.cfg.FIB.Load().Routes() {
		hop := &r.Hop
		info := RouteInfo{Dst: r.Dst.String(), State: hop.State.String()}
		if !hop.Via.IsZero() {
			info.Via = hop.Via.String()
		}
		if hop.State >= fib.Unresolved {
			info.MTU = int(hop.MTU)
			if int(hop.Port) < len(c.cfg.Ports) {
				info.Port = c.cfg.Ports[hop.Port].Name
			}
		}
		if hop.State == fib.Ready {
			info.MAC = net.HardwareAddr(hop.DstMAC[:]).String()
		}
		all = append(all, info)
	}
	return all
}

// reportStatus describes the slow path itself.
func (c *Controller) reportStatus(now time.Time) StatusInfo {
	s := StatusInfo{
		UptimeSeconds: now.Sub(c.start).Seconds(),
		Mirrored:      c.view != nil,
		WaitingSAs:    len(c.pending) + c.waiting,
		Stats:         c.stats,
	}
	if c.view != nil {
		s.Neighbours, s.Local = len(c.view.FIB.Neighbours), len(c.view.FIB.Local)
	}
	return s
}

func nameOfAddr(a flow.Addr) string {
	if a.IsZero() {
		return "any"
	}
	return a.String()
}

func nameOfMode(tunnel bool) string {
	if tunnel {
		return "tunnel"
	}
	return "transport"
}

func nameOfProto(p uint8) string {
	switch p {
	case wire.ProtoESP:
		return "esp"
	case wire.ProtoAH:
		return "ah"
	}
	return strconv.Itoa(int(p))
}

func nameOfPorts(r flow.PortRange) string {
	switch {
	case r == flow.AnyPort:
		return "any"
	case r == flow.OpaquePort:
		return "opaque"
	case r.Lo == r.Hi:
		return strconv.Itoa(int(r.Lo))
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// namesOf lists the fields that a policy takes from packets.
func namesOf(p spd.PFP) (names []string) {
	for i, name := range [...]string{"src", "dst", "proto", "ports"} {
		if p>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

// wants says which SAs a policy wants, the innermost first, and which it has.
func (i *PolicyInfo) wants(templates []spd.Template, sas *sad.Snapshot, id uint32) {
	all := make([]TemplateInfo, len(templates))
	for k := range templates {
		t := &templates[k]
		all[k] = TemplateInfo{
			Proto: nameOfProto(t.Proto), Mode: nameOfMode(t.Mode == spd.Tunnel),
			Src: nameOfAddr(t.Src), Dst: nameOfAddr(t.Dst), Reqid: t.Reqid,
		}
	}
	i.Template, i.Outer = &all[0], all[1:]
	sa, classes := sas.OutboundsOn(id, 0)
	if classes != nil {
		for _, own := range classes {
			if own != nil && !slices.Contains(i.DSCPSPIs, own.SPI) {
				i.DSCPSPIs = append(i.DSCPSPIs, own.SPI)
			}
		}
	}
	switch {
	case sa == nil:
	case sa.Bundle == nil:
		i.BoundSPI = sa.SPI
	default:
		i.BoundSPI = sa.Bundle[0].SPI
		for _, one := range sa.Bundle[1:] {
			i.OuterSPIs = append(i.OuterSPIs, one.SPI)
		}
	}
}
