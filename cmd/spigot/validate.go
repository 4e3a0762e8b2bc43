package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"spigot/internal/affinity"
	"spigot/pipeline"
	"spigot/pmd"
	"spigot/pmd/afxdp"
)

// maxSleep bounds how long an idle worker sleeps, so that messages of the slow
// path wait no longer.
const maxSleep = 5 * time.Millisecond

// Bounds that keep a slip of the finger from becoming an allocation.
const (
	maxWorkers   = 1024
	maxQueue     = 65535
	maxFrames    = 1 << 20 // a worker's memory is at most 4 GiB
	maxKeepalive = 3600    // seconds; a NAT forgets after some minutes at the most
	minPathLife  = 300     // seconds (RFC 1191, section 3)
	maxPathLife  = 86400
	maxName      = 15 // of an interface: IFNAMSIZ without the final zero
)

// check returns the Config that doc means, or all that is wrong with it, also
// in view of the machine.
func check(doc *document, queues []queueFlag, at *places, m *machine) (*Config, error) {
	p := &problems{at: at}
	c := &Config{
		Socket:          doc.Control.Socket,
		PFKey:           keysPath(&doc.Control, doc.Control.PFKey, "pfkey.sock"),
		XFRM:            keysPath(&doc.Control, doc.Control.XFRM, "xfrm.sock"),
		NATKeepalive:    time.Duration(doc.Control.NATKeepalive) * time.Second,
		PathMTULife:     time.Duration(doc.Control.PathMTULife) * time.Second,
		Metrics:         doc.Control.Metrics,
		Enc:             doc.Host.Enc,
		Frames:          doc.Memory.Frames,
		FrameSize:       doc.Memory.FrameSize,
		Burst:           doc.Burst,
		IPsecConf:       doc.IPsec,
		AllowManualAEAD: doc.Manual,
		AllowLegacy:     doc.Legacy,
		LogFormat:       doc.Log.Format,
		Faults:          doc.Faults,
	}
	if m.noXDP {
		p.list = append(p.list, "this kernel has no AF_XDP: run one that is built with CONFIG_XDP_SOCKETS=y (Linux 5.4 or later)")
	}
	c.Ports = checkPorts(p, doc.Ports, m)
	c.Cores = checkCores(p, doc.Workers.Cores, m)
	c.ControlCore = checkControl(p, &doc.Control, m)
	if c.Cores != nil {
		assignQueues(p, c, doc.Ports, queues)
		checkQueues(p, c.Ports, m)
	}
	p.inRange("control.nat_keepalive", doc.Control.NATKeepalive, 0, maxKeepalive)
	p.inRange("control.path_mtu_life", doc.Control.PathMTULife, minPathLife, maxPathLife)
	checkEnc(p, c.Enc, m)
	c.Idle = checkIdle(p, &doc.Idle)
	checkMemory(p, c, doc.Memory.Jumbo, m)
	c.LogLevel = checkLog(p, &doc.Log)
	checkFaults(p, &doc.Faults)
	return c, p.err()
}

// oneOf adds a problem unless value is one of the choices.
func (p *problems) oneOf(part, value string, choices ...string) {
	if !slices.Contains(choices, value) {
		p.add(part, "%q is not one of %s", value, strings.Join(choices, ", "))
	}
}

// inRange adds a problem unless lo <= value <= hi.
func (p *problems) inRange(part string, value, lo, hi int) bool {
	if value < lo || value > hi {
		p.add(part, "%d is not from %d to %d", value, lo, hi)
		return false
	}
	return true
}

// checkCores returns the workers' cores, or nil when they cannot be used.
// Without any, one worker runs on the machine's last core, the farthest from
// what the kernel does on its first.
func checkCores(p *problems, cores []int, m *machine) []int {
	if len(cores) == 0 && len(m.cores) > 0 {
		return []int{m.cores[len(m.cores)-1]}
	}
	if len(cores) > maxWorkers {
		p.add("workers.cores", "%d workers are more than %d", len(cores), maxWorkers)
		return nil
	}
	before := len(p.list)
	for i, core := range cores {
		part := fmt.Sprintf("workers.cores[%d]", i)
		if err := affinity.Check(core, m.cores); err != nil {
			p.add(part, "%v", err)
		}
		if slices.Contains(cores[:i], core) {
			p.add(part, "core %d has a worker already", core)
		}
	}
	if len(p.list) > before {
		return nil
	}
	return cores
}

// keysPath returns the path of a socket for key daemons: name beside the
// operators' unless the configuration says otherwise, and nowhere if it is empty
// there.
func keysPath(doc *controlDoc, path *string, name string) string {
	switch {
	case path != nil:
		return *path
	case doc.Socket == "":
		return ""
	}
	return filepath.Join(filepath.Dir(doc.Socket), name)
}

func checkControl(p *problems, doc *controlDoc, m *machine) int {
	if doc.Socket == "" {
		p.add("control.socket", "is empty: spigotctl needs a path")
	}
	if doc.Metrics != "" {
		_, port, err := net.SplitHostPort(doc.Metrics)
		if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
			p.add("control.metrics", "%q is not ADDRESS:PORT, as in 127.0.0.1:9100", doc.Metrics)
		}
	}
	if doc.Core == nil {
		return anyCore
	}
	if err := affinity.Check(*doc.Core, m.cores); err != nil {
		p.add("control.core", "%v", err)
	}
	return *doc.Core
}

// checkEnc checks the name of the host's device.
func checkEnc(p *problems, name string, m *machine) {
	_, taken := m.links[name]
	switch {
	case len(name) > maxName:
		p.add("host.enc", "%q is longer than an interface's name can be (%d bytes)", name, maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == '%' }) || name == "." || name == "..":
		p.add("host.enc", "%q is no name for an interface", name)
	case taken:
		p.add("host.enc", "there is an interface %s already: choose another name, or delete it with: ip link del %s", name, name)
	}
}

// checkPorts checks each port by itself, against the other ports and against
// the machine's interfaces.
func checkPorts(p *problems, docs []portDoc, m *machine) []PortConfig {
	ports := make([]PortConfig, len(docs))
	sides, unsure := map[pipeline.Side]int{}, false
	for i, doc := range docs {
		part := fmt.Sprintf("ports[%d]", i)
		side, known := sideOf(doc.Side)
		switch {
		case known:
			sides[side]++
		case doc.Side == "":
			p.add(part, "has no side: protected (towards the hosts) or wire (towards the peers)")
			unsure = true
		default:
			p.oneOf(part+".side", doc.Side, "protected", "wire")
			unsure = true
		}
		checkName(p, part, docs, i, m)
		ports[i] = PortConfig{
			Name:    doc.Name,
			Side:    side,
			Driver:  orElse(doc.Driver, "afxdp"),
			Mode:    orElse(doc.Mode, "auto"),
			Capture: doc.Capture,
		}
		p.oneOf(part+".driver", ports[i].Driver, "afxdp", "asavie")
		p.oneOf(part+".mode", ports[i].Mode, "auto", "zerocopy", "copy", "generic")
	}
	for _, side := range []pipeline.Side{pipeline.Protected, pipeline.Wire} {
		if sides[side] == 0 && !unsure {
			p.add("ports", "no port has side %v: a gateway has at least one protected and one wire port", side)
		}
	}
	return ports
}

// checkName checks that port i names one interface of the machine, which is up.
func checkName(p *problems, part string, docs []portDoc, i int, m *machine) {
	name := docs[i].Name
	if name == "" {
		p.add(part, "has no name: the interface to use")
		return
	}
	if len(name) > maxName {
		p.add(part+".name", "%q is longer than an interface's name can be (%d bytes)", name, maxName)
		return
	}
	if slices.ContainsFunc(docs[:i], func(d portDoc) bool { return d.Name == name }) {
		p.add(part+".name", "port %s is there twice", name)
		return
	}
	link, ok := m.links[name]
	switch {
	case !ok:
		p.add(part+".name", "no interface %q here; there are %s", name, m.linkNames())
	case link.loopback:
		p.add(part+".name", "%s is the loopback interface, which cannot be a port", name)
	case !link.up:
		p.add(part+".name", "interface %s is down; bring it up with: ip link set %s up", name, name)
	}
}

// checkQueues checks that the interfaces have the queues that workers own.
func checkQueues(p *problems, ports []PortConfig, m *machine) {
	for i, port := range ports {
		link, ok := m.links[port.Name]
		for _, queue := range slices.Concat(port.Queues...) {
			if ok && queue >= link.queues {
				p.add(fmt.Sprintf("ports[%d].queues", i), "%s has no queue %d: its %d are numbered from 0", port.Name, queue, link.queues)
			}
		}
	}
}

func sideOf(name string) (pipeline.Side, bool) {
	for _, side := range []pipeline.Side{pipeline.Protected, pipeline.Wire} {
		if side.String() == name {
			return side, true
		}
	}
	return 0, false
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func checkIdle(p *problems, doc *idleDoc) pipeline.Idle {
	p.oneOf("idle.policy", doc.Policy, "spin", "adaptive")
	ok := p.inRange("idle.turns", doc.Turns, 1, math.MaxInt32)
	if doc.Policy != "adaptive" || !ok {
		return pipeline.Idle{}
	}
	return pipeline.Idle{Turns: doc.Turns, Sleep: maxSleep}
}

// frameSlack is how many frames a worker gets beyond what its rings can hold:
// what it has in its hands, and what faults hold back.
const frameSlack = 1024

// checkMemory checks the frames against the rings that they have to fill. An
// unset number becomes what the rings can hold at most.
func checkMemory(p *problems, c *Config, jumbo *int, m *machine) {
	p.inRange("burst", c.Burst, 1, pipeline.MaxBurst)
	if size := c.FrameSize; size != 2048 && size != 4096 {
		p.add("memory.frame_size", "%d bytes: AF_XDP has frames of 2048 or 4096", size)
	}
	queues := 0
	for i := range c.Cores {
		n := 0
		for _, port := range c.Ports {
			if i < len(port.Queues) {
				n += len(port.Queues[i])
			}
		}
		queues = max(queues, n)
	}
	if queues == 0 {
		return // nobody can say how many frames it takes
	}
	if c.Frames == 0 {
		c.Frames = min(queues*afxdp.Options{}.Frames()+frameSlack, maxFrames)
	}
	// Each queue can keep a fill ring and a receive ring from the others.
	least := queues*2*afxdp.DefaultRing + frameSlack
	switch {
	case c.Frames < least:
		p.add("memory.frames", "%d frames are too few for the rings of %d queues: %d at least, or 0 for as many as they can hold",
			c.Frames, queues, least)
	case c.Frames > maxFrames:
		p.add("memory.frames", "%d frames are more than %d", c.Frames, maxFrames)
	}
	checkJumbo(p, c, jumbo, queues, m)
}

// Jumbo frames.
const (
	jumboSlack = 2 * pipeline.MaxBurst // a queue, beyond what its TX ring can hold
	maxJumbo   = 65536                 // a worker
	usualJumbo = 9216                  // bytes of the packets that they are for at the least, where they are asked for by number
)

// checkJumbo says how many jumbo frames a worker gets with that many queues: as many
// as are asked for, or, where nothing is said, if the MTU of a port that can use them
// is beyond what a frame carries, so many that a link that is down, whose TX ring
// fills, does not keep them from the others: 5 to 10 MB a queue.
func checkJumbo(p *problems, c *Config, asked *int, queues int, m *machine) {
	mtu := 0
	for _, port := range c.Ports {
		if port.Driver == "afxdp" {
			mtu = max(mtu, m.links[port.Name].mtu)
		}
	}
	if asked != nil {
		if !p.inRange("memory.jumbo_frames", *asked, 0, maxJumbo) {
			return
		}
		mtu = max(mtu, usualJumbo)
	}
	size := pmd.JumboSize(mtu, c.FrameSize)
	if size == 0 || asked != nil && *asked == 0 {
		return
	}
	c.Jumbo = pmd.Jumbo{Size: size, Count: queues * (afxdp.DefaultRing/(size/c.FrameSize) + jumboSlack)}
	if asked != nil {
		c.Jumbo.Count = *asked
	}
}

func checkLog(p *problems, doc *logDoc) slog.Level {
	p.oneOf("log.format", doc.Format, "text", "json")
	p.oneOf("log.level", doc.Level, "debug", "info", "warn", "error")
	var level slog.Level
	if err := level.UnmarshalText([]byte(doc.Level)); err != nil {
		return slog.LevelInfo // told by oneOf
	}
	return level
}

func checkFaults(p *problems, f *Faults) {
	for _, each := range []struct {
		part  string
		value float64
	}{
		{"faults.rx_lose", f.RxLose},
		{"faults.rx_corrupt", f.RxCorrupt},
		{"faults.rx_truncate", f.RxTruncate},
		{"faults.rx_duplicate", f.RxDuplicate},
		{"faults.rx_reorder", f.RxReorder},
		{"faults.tx_short", f.TxShort},
		{"faults.tx_lose", f.TxLose},
	} {
		if !(each.value >= 0 && each.value <= 1) { // NaN is neither
			p.add(each.part, "%v is no probability: 0 to 1", each.value)
		}
	}
}
