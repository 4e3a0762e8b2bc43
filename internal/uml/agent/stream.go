package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"spigot/internal/uml"
)

// verdict is what a sink has seen of a stream: bytes, and their CRC-32C.
type verdict struct {
	Bytes int64
	Sum   uint32
	_     uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// send sends a stream that nobody can guess and holds the sink's verdict
// against it.
func send(s *uml.Send) (r uml.Report, err error) {
	from, to, err := addresses(s.From, s.To)
	if err != nil {
		return r, err
	}
	end := time.Now().Add(time.Duration(s.Seconds) * time.Second)
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Deadline: end}
	c, err := d.Dial("tcp", netip.AddrPortFrom(to, uml.SinkPort).String())
	if err != nil {
		return r, err
	}
	defer c.Close()
	_ = c.SetDeadline(end)
	block := make([]byte, 64<<10)
	noise := rand.NewChaCha8([32]byte{byte(s.Bytes)})
	begin, sum := time.Now(), uint32(0)
	last := begin
	for left := s.Bytes; left > 0; {
		b := block[:min(int64(len(block)), left)]
		_, _ = noise.Read(b)
		sum = crc32.Update(sum, castagnoli, b)
		n, err := c.Write(b)
		r.Sent += int64(n)
		left -= int64(n)
		now := time.Now()
		r.Stall = max(r.Stall, now.Sub(last).Seconds())
		last = now
		if err != nil {
			return r, fmt.Errorf("after %d of %d bytes: %w", r.Sent, s.Bytes, err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return r, err
	}
	var v verdict
	if err := binary.Read(c, binary.BigEndian, &v); err != nil {
		return r, fmt.Errorf("the sink's verdict on %d bytes: %w", r.Sent, err)
	}
	r.Duration = time.Since(begin).Seconds()
	r.Stall = max(r.Stall, time.Since(last).Seconds())
	if v.Sum != sum {
		return r, fmt.Errorf("the sink has %d bytes with CRC %#x, of %d with %#x", v.Bytes, v.Sum, r.Sent, sum)
	}
	r.Intact = v.Bytes
	return r, nil
}

// sink counts a stream and tells its verdict.
func sink(c net.Conn) {
	defer c.Close()
	block := make([]byte, 64<<10)
	var v verdict
	for {
		n, err := c.Read(block)
		v.Bytes += int64(n)
		v.Sum = crc32.Update(v.Sum, castagnoli, block[:n])
		if errors.Is(err, io.EOF) {
			_ = binary.Write(c, binary.BigEndian, v) // the peer waits for it, or is gone
			return
		}
		if err != nil {
			return
		}
	}
}

// listen answers at EchoPort and SinkPort, of IPv4 and IPv6.
func listen() error {
	u, err := net.ListenUDP("udp", &net.UDPAddr{Port: uml.EchoPort})
	if err != nil {
		return err
	}
	go echoes(u)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: uml.SinkPort})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go sink(c)
		}
	}()
	return nil
}
