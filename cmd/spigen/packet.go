package main

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"spigot/pmd"
)

// packetPort is a pmd.Port over AF_PACKET, for interfaces and kernels without
// AF_XDP. It makes a system call a packet: a fallback, not a driver for gateways.
type packetPort struct {
	fd    int
	info  pmd.Info
	pool  *pmd.Pool
	queue []pmd.Frame
	pmd.Counters
}

const packetQueue = 256

func openPacket(nic *net.Interface, pool *pmd.Pool) (*packetPort, error) {
	const all = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8) // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return nil, fmt.Errorf("AF_PACKET socket (needs root or CAP_NET_RAW): %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nic.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind AF_PACKET socket to %s: %w", nic.Name, err)
	}
	// A larger buffer is a wish: without the right to force it the default stays.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	return &packetPort{fd: fd, pool: pool, queue: make([]pmd.Frame, 0, packetQueue),
		info: pmd.Info{Name: nic.Name, Index: nic.Index, Driver: "packet", Mode: "copy", MAC: nic.HardwareAddr}}, nil
}

// Rx receives what others sent to the interface.
func (p *packetPort) Rx(fs []pmd.Frame) int {
	n := 0
	var base [1]uint32
	for n < len(fs) && p.pool.Get(base[:]) == 1 {
		chunk := p.pool.ChunkOf(pmd.Frame{Base: base[0]})
		size, from, err := unix.Recvfrom(p.fd, chunk[pmd.Headroom:], 0)
		if err != nil {
			p.pool.Put(base[0])
			break
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			p.pool.Put(base[0])
			continue
		}
		fs[n] = pmd.Frame{Base: base[0], Off: pmd.Headroom, Len: uint16(size)}
		p.RxPackets++
		p.RxBytes += uint64(size)
		n++
	}
	return n
}

// Tx queues frames for Flush.
func (p *packetPort) Tx(fs []pmd.Frame) int {
	n := min(len(fs), packetQueue-len(p.queue))
	p.queue = append(p.queue, fs[:n]...)
	return n
}

// Flush sends the queue; what the kernel refuses is counted and lost.
func (p *packetPort) Flush() {
	for _, f := range p.queue {
		if _, err := unix.Write(p.fd, p.pool.Bytes(f)); err != nil {
			p.TxErrors++
		} else {
			p.TxPackets++
			p.TxBytes += uint64(f.Len)
		}
		p.pool.Put(f.Base)
	}
	p.queue = p.queue[:0]
	p.Publish()
}

// FD returns the socket.
func (p *packetPort) FD() int { return p.fd }

// Info describes the port.
func (p *packetPort) Info() pmd.Info { return p.info }

// Stats returns the counters as of the last Flush.
func (p *packetPort) Stats() pmd.Stats { return p.Load() }

// Close drops the queue and closes the socket.
func (p *packetPort) Close() error {
	for _, f := range p.queue {
		p.pool.Put(f.Base)
	}
	p.queue = nil
	return unix.Close(p.fd)
}
