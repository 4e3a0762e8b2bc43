package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"

	"golang.org/x/sys/unix"

	"spigot/internal/uml"
)

const (
	maxFrame = 2048
	// overtakers is how many frames at the most pass one that is held back, which
	// goes on its way after holdTime at the latest.
	overtakers = 8
	holdTime   = 5000 // microseconds
)

// cross carries frames between two interfaces, in both directions, until the
// process ends.
func cross(c *uml.Cross) error {
	var ends [2]int
	for i, name := range c.Ports {
		fd, err := openPort(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ends[i] = fd
	}
	for i := range ends {
		l := &lane{in: ends[i], out: ends[1-i], lose: c.Lose, overtaken: c.Overtaken, dice: rand.New(rand.NewPCG(c.Seed, uint64(i)))}
		go l.carry()
	}
	return nil
}

// openPort opens a socket for all that an interface receives.
func openPort(name string) (int, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})) // the kernel wants it in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: dev.Index}); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return 0, err
	}
	promiscuous := unix.PacketMreq{Ifindex: int32(dev.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous); err != nil {
		return 0, err
	}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: holdTime})
}

// lane is one direction.
type lane struct {
	in, out         int
	lose, overtaken int // of a thousand
	dice            *rand.Rand
	held            []byte // the frame that is held back, if any
	left            int    // how many may still pass it
}

func (l *lane) carry() {
	buf := make([]byte, maxFrame)
	for {
		n, _, err := unix.Recvfrom(l.in, buf, 0)
		switch fate := l.dice.IntN(1000); {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			l.left = 0
		case err != nil:
			return
		case fate < l.lose:
			continue
		case fate < l.lose+l.overtaken && len(l.held) == 0:
			l.held = append(l.held[:0], buf[:n]...)
			l.left = 1 + l.dice.IntN(overtakers)
			continue
		default:
			_, _ = unix.Write(l.out, buf[:n]) // a full queue loses it, as queues do
			l.left--
		}
		if len(l.held) > 0 && l.left <= 0 {
			_, _ = unix.Write(l.out, l.held)
			l.held = l.held[:0]
		}
	}
}
