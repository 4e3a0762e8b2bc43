package main

import (
	"fmt"
	"slices"

	"spigot/pmd"
)

// warnings lists what c does that its author may not want, one sentence each.
func warnings(c *Config, m *machine) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch {
	case slices.Contains(c.Cores, c.ControlCore):
		add("core %d runs the slow path and a worker, which will disturb each other", c.ControlCore)
	case len(otherCores(c, m.cores)) == 0:
		add("every core runs a worker: the slow path shares them and will disturb the data path")
	}
	for _, port := range c.Ports {
		link, owned := m.links[port.Name], len(slices.Concat(port.Queues...))
		if link.queues > owned {
			add("%s has %d queues and the workers own %d: what arrives on the others is dropped; "+
				"list them, or ethtool -L %s combined %d", port.Name, link.queues, owned, port.Name, owned)
		}
		frame := c.FrameSize
		if port.Driver == "afxdp" {
			frame = max(frame, c.Jumbo.Size)
		}
		if room := pmd.Room(frame); link.mtu > room {
			add("%s has MTU %d and a frame of %d bytes carries packets of %d: longer ones are dropped; %s, or ip link set %s mtu %d",
				port.Name, link.mtu, frame, room, howToCarry(c, port), port.Name, room)
		}
	}
	for _, setting := range kernelForwards(c, m) {
		add("the kernel forwards packets by itself: before the gateway has started and after it has ended they go around "+
			"the policies, in clear; sysctl -w %s=0", setting)
	}
	if c.Faults != (Faults{}) {
		add("faults are on: packets are lost and damaged on purpose")
	}
	if c.IPsecConf == "" {
		add("there is no ipsec.conf: every packet is discarded")
	}
	return list
}

// howToCarry says what makes longer packets pass by port.
func howToCarry(c *Config, port PortConfig) string {
	switch {
	case port.Driver != "afxdp":
		return "the driver " + port.Driver + " has no jumbo frames: choose afxdp"
	case c.Jumbo.Count == 0:
		return "leave memory.jumbo_frames out"
	}
	return "there are no longer ones"
}

// kernelForwards lists the settings by which the kernel forwards what the ports
// receive, each once.
func kernelForwards(c *Config, m *machine) []string {
	var list []string
	for _, port := range c.Ports {
		list = append(list, m.links[port.Name].forwarding...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
