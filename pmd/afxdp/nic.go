package afxdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// nic is what the driver needs to know of an interface.
type nic struct {
	name   string
	index  int
	up     bool
	mac    net.HardwareAddr
	queues int // 0: the device does not say
}

// findNIC looks name up in the calling thread's network namespace.
func findNIC(name string) (nic, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nic{}, fmt.Errorf("%w: %q (`ip link` lists them)", ErrNoInterface, name)
	}
	q, err := Queues(name)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nic{}, err
	}
	return nic{
		name: name, index: ifi.Index, up: ifi.Flags&net.FlagUp != 0,
		mac: ifi.HardwareAddr, queues: q,
	}, nil
}

// Queues returns how many queues the interface called name has now: the
// greater of its receive and transmit channels. The error wraps EOPNOTSUPP
// for a device that has no notion of them; queue 0 exists nevertheless.
func Queues(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("afxdp: queues of %s: %w", name, err)
	}
	defer unix.Close(fd)
	ch, err := channels(fd, name)
	if err != nil {
		return 0, fmt.Errorf("afxdp: queues of %s: %w", name, because(err))
	}
	return int(ch.combinedCount + max(ch.rxCount, ch.txCount)), nil
}

// The kernel's netdev family (include/uapi/linux/netdev.h).
const (
	netdevDevGet    = 1 // NETDEV_CMD_DEV_GET
	netdevIfindex   = 1 // NETDEV_A_DEV_IFINDEX
	netdevZCMaxSegs = 4 // NETDEV_A_DEV_XDP_ZC_MAX_SEGS
)

// zeroCopySegments returns in how many buffers a packet may lie that n sends or
// receives without a copy: 1 where the kernel does not say.
func (n nic) zeroCopySegments() (int, error) {
	id, err := genericAttr(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY,
		nl.NewRtAttr(unix.CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated("netdev")), unix.CTRL_ATTR_FAMILY_ID)
	if err != nil || len(id) < 2 { // before Linux 6.3
		return 1, err
	}
	segs, err := genericAttr(int(binary.NativeEndian.Uint16(id)), netdevDevGet,
		nl.NewRtAttr(netdevIfindex, nl.Uint32Attr(uint32(n.index))), netdevZCMaxSegs)
	if err != nil || len(segs) < 4 {
		return 1, err
	}
	return int(binary.NativeEndian.Uint32(segs)), nil
}

// genericHeader is struct genlmsghdr: command, version, two bytes of zeros.
type genericHeader [4]byte

func (h genericHeader) Len() int          { return len(h) }
func (h genericHeader) Serialize() []byte { return h[:] }

// genericAttr sends a generic netlink command with the attribute which, and returns
// the value of the attribute want of the answer, or nil if it has none.
func genericAttr(family int, cmd byte, which *nl.RtAttr, want uint16) ([]byte, error) {
	req := nl.NewNetlinkRequest(family, 0)
	req.AddData(genericHeader{cmd, 1})
	req.AddData(which)
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for the device's features: %w", err)
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[min(len(genericHeader{}), len(m)):])
		if err != nil {
			return nil, fmt.Errorf("read the device's features: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == want {
				return a.Value, nil
			}
		}
	}
	return nil, nil
}

// checkSegments says whether n sends and receives the pool's jumbo frames without a
// copy.
func (u *UMEM) checkSegments(n nic) error {
	buffer := u.pool.Chunk() - pmd.Headroom // what is received lies behind headroom in each
	need := (u.jumboSize - pmd.Headroom + buffer - 1) / buffer
	segments, err := n.zeroCopySegments()
	if err == nil && segments < need {
		err = fmt.Errorf("%s takes packets of up to %d buffers (xdp-zc-max-segs), and a jumbo frame may come in %d of %d bytes",
			n.name, segments, need, buffer)
	}
	if err != nil {
		return fmt.Errorf("%w: no jumbo frames in zero-copy: %w", ErrMode, err)
	}
	return nil
}
