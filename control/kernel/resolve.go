package kernel

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/flow"
)

// Resolve asks the kernel to find the link-layer address of addr on the link
// with that interface index. The answer, if there is one, comes as an update.
// It does not block, and repeats within a second are ignored.
func (m *Mirror) Resolve(link int, addr flow.Addr) {
	select {
	case m.queue <- neighbour{link, addr}:
	default: // the packet that asked was dropped anyway; the next one asks again
	}
}

// resolve passes a request on, unless the kernel was asked just now.
func (m *Mirror) resolve(n neighbour, now time.Time) {
	ip := n.addr.Netip()
	if !m.state.ours(n.link) || n.addr.IsZero() || ip.IsMulticast() || ip.IsUnspecified() || ip.IsLoopback() {
		return
	}
	if now.Sub(m.asked[n]) < resolveGap {
		return
	}
	if len(m.asked) >= maxAsked {
		for k, t := range m.asked {
			if now.Sub(t) >= resolveGap {
				delete(m.asked, k)
			}
		}
		if len(m.asked) >= maxAsked { // a scan: what waits is asked for again later
			return
		}
	}
	m.asked[n] = now
	m.use(n)
}

// use tells the kernel that n is in use (NTF_USE): it solicits n if it does not
// know it or doubts it, as if it had sent a packet there itself. State NONE
// creates an entry without claiming anything about it.
func (m *Mirror) use(n neighbour) {
	ip := n.addr.Netip()
	family := netlink.FAMILY_V6
	if ip.Is4() {
		family = netlink.FAMILY_V4
	}
	// NeighSet, not NeighAdd: an entry that exists is no error.
	err := m.handle.NeighSet(&netlink.Neigh{
		LinkIndex: n.link,
		Family:    family,
		State:     netlink.NUD_NONE,
		Flags:     netlink.NTF_USE,
		IP:        ip.AsSlice(),
	})
	if err == nil || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENODEV) {
		return
	}
	if now := time.Now(); now.Sub(m.warned) >= warnGap {
		m.warned = now
		m.cfg.Log.Warn("kernel: resolve a neighbour (a full table is mended by net.ipv4.neigh.default.gc_thresh3)",
			"addr", ip, "link", n.link, "err", err)
	}
}

// refresh asks for the stale neighbours of the ports again. The kernel sees
// nothing of what the gateway forwards, so it neither confirms an entry that
// carries traffic nor notices that the neighbour has a new address, and after
// gc_stale_time it would forget the entry. A neighbour that is gone fails to
// answer and so leaves the table. Permanent entries are left alone: NTF_USE
// would end their permanence.
func (m *Mirror) refresh() {
	asked := 0
	for i := range m.state.neighbours {
		n := &m.state.neighbours[i]
		if n.State != unix.NUD_STALE || n.Flags&(netlink.NTF_EXT_LEARNED|netlink.NTF_PROXY) != 0 || !m.state.ours(n.LinkIndex) {
			continue
		}
		if asked++; asked > maxRefresh {
			return // those asked now will not be stale next time
		}
		m.use(neighbour{n.LinkIndex, neighbourAddr(n)})
	}
}
