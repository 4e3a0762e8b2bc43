package afxdp

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
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
