package main

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The port of ESP in UDP (RFC 3948), and the kernel's name for it.
const (
	natPort     = 4500
	udpEncapESP = 2 // UDP_ENCAP_ESPINUDP
)

// decapsulate hands ESP in UDP that comes to port 4500 to the kernel's IPsec
// stack, as a key daemon does. The sockets live as long as the process.
func decapsulate() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		sa, level, policy := unix.Sockaddr(&unix.SockaddrInet4{Port: natPort}), unix.IPPROTO_IP, unix.IP_XFRM_POLICY
		if family == unix.AF_INET6 {
			sa, level, policy = &unix.SockaddrInet6{Port: natPort}, unix.IPPROTO_IPV6, unix.IPV6_XFRM_POLICY
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
				return err
			}
		}
		// The UDP around ESP is not under the policies for what is in it.
		for _, dir := range []uint8{0, 1} { // XFRM_POLICY_IN, XFRM_POLICY_OUT
			bypass := nl.XfrmUserpolicyInfo{Dir: dir} // and Action 0, XFRM_POLICY_ALLOW
			bypass.Sel.Family = uint16(family)
			if err := unix.SetsockoptString(fd, level, policy, string(bypass.Serialize())); err != nil {
				return fmt.Errorf("bypass: %w", err)
			}
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, udpEncapESP); err != nil {
			return fmt.Errorf("UDP_ENCAP: %w", err)
		}
		if err := unix.Bind(fd, sa); err != nil {
			return fmt.Errorf("port %d: %w", natPort, err)
		}
	}
	return nil
}
