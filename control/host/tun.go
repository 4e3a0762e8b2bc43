package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spigot/internal/fib"
)

const tunPath = "/dev/net/tun"

// openTUN opens a queue of the device called name, which the first one makes.
func openTUN(name string, first bool) (*os.File, error) {
	bad := func(what string, err error) error { return fmt.Errorf("%w %s: %s: %w", ErrDevice, name, what, err) }
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, bad("this system has no "+tunPath+": mknod "+tunPath+" c 10 200, with CONFIG_TUN", err)
	case err != nil:
		return nil, bad("open "+tunPath, err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, errors.Join(bad("its name", err), unix.Close(fd))
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE)
	if first {
		flags |= unix.IFF_TUN_EXCL
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		what := "make it"
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			what = "there is one of that name: delete it, or choose another name"
		}
		return nil, errors.Join(bad(what, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// The bounds of the device's MTU: IPv6 needs the one (RFC 8200, section 5), a
// HostPacket carries no more than the other.
const (
	minMTU = 1280
	maxMTU = fib.HostSize
)

// setUp finds the device in the kernel and sets it up: without an address of its
// own, so that it chooses none and says nothing about itself.
func (d *Device) setUp() error {
	link, err := netlink.LinkByName(d.cfg.Name)
	if err != nil {
		return d.wrap("find it", err)
	}
	d.index = link.Attrs().Index
	if err := d.claim(link); err != nil {
		return err
	}
	// A kernel without IPv6 has none to keep from making an address.
	const noAddresses = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := netlink.LinkSetIP6AddrGenMode(link, noAddresses); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) &&
		!errors.Is(err, unix.EOPNOTSUPP) {
		return d.wrap("keep it from making an address", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return d.wrap("set it up", err)
	}
	if err := d.table.open(d.index); err != nil {
		return d.wrap("route into it", err)
	}
	return nil
}

// alias marks the device in the kernel. Like the device it ends with the process.
const alias = "spigot: the host's own packets"

// claim marks link as d's, unless another gateway's device is there: two would take
// each other's rules and routes away, and the host's packets would leave in clear.
func (d *Device) claim(link netlink.Link) error {
	all, err := netlink.LinkList()
	if err != nil {
		return d.wrap("look for another one", err)
	}
	for _, l := range all {
		if a := l.Attrs(); a.Alias == alias && a.Index != d.index {
			return d.wrap(fmt.Sprintf("table %d is that of %s, another gateway's device: one for each network namespace; "+
				"leave host.enc out, or use another namespace", Table, a.Name), unix.EBUSY)
		}
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return d.wrap("mark it", err)
	}
	return nil
}

// isUp says whether the device is there and up.
func (d *Device) isUp() bool {
	link, err := net.InterfaceByIndex(d.index)
	return err == nil && link.Flags&net.FlagUp != 0
}

// setMTU sets the device's MTU to what fits the SAs, as far as it may be.
func (d *Device) setMTU(mtu int) error {
	mtu = min(max(mtu, minMTU), maxMTU)
	if mtu == d.mtu {
		return nil
	}
	link, err := netlink.LinkByIndex(d.index)
	if err != nil {
		return d.wrap("find it", err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return d.wrap(fmt.Sprintf("set MTU %d", mtu), err)
	}
	d.mtu = mtu
	return nil
}
