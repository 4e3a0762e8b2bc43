package xfrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 64 << 10
	maxBatch    = 64                    // datagrams that are served in one step of the control
	acceptPause = 50 * time.Millisecond // after an error, such as too many open files

	refusalPause = time.Second // between two lines of the log about refused clients
)

// Serve answers the clients that connect to ln, a socket with SOCK_SEQPACKET,
// which it closes, and tells them the news, until ctx ends; then it returns
// nil.
//
// A packet is what a netlink socket would be sent or receive. Besides, a client
// may send Binding.Message.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, end := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer end()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	work.Go(func() { s.Run(ctx) })
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case err == nil && ctx.Err() == nil:
			s.accept(ctx, conn, &work)
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			_ = ln.Close()
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve XFRM on %v: %w", ln.Addr(), err)
		default:
			s.log.Error("accept an XFRM client", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// accept starts to serve conn, or refuses it with an error that is no answer to
// anything.
func (s *Server) accept(ctx context.Context, conn *net.UnixConn, work *sync.WaitGroup) {
	s.mu.Lock()
	full := len(s.clients) >= s.max
	s.mu.Unlock()
	privileged, err := privilegedPeer(conn)
	if full && err == nil {
		err = fmt.Errorf("there are %d XFRM clients: close some", s.max)
	}
	if err != nil {
		s.tellRefusal(err)
		refusal := newMessage(nil, header{typ: syscall.NLMSG_ERROR, flags: flagCapped}, &nlError{errno: negative(syscall.ENFILE)}).end()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // its buffer is empty: this does not wait
		_, _ = conn.Write(refusal)
		_ = conn.Close()
		return
	}
	c := s.NewClient(privileged)
	work.Go(func() {
		if err := c.carry(ctx, conn); err != nil {
			s.log.Info("an XFRM client is gone", "err", err)
		}
	})
}

// tellRefusal logs refusals, but not each of a flood.
func (s *Server) tellRefusal(err error) {
	s.refused++
	if now := time.Now(); now.Sub(s.loggedAt) >= refusalPause {
		s.log.Warn("refuse XFRM clients", "err", err, "clients", s.refused)
		s.refused, s.loggedAt = 0, now
	}
}

// carry serves c on conn until one of both ends, or ctx.
func (c *Client) carry(ctx context.Context, conn *net.UnixConn) error {
	defer c.Close()
	ctx, end := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var writer sync.WaitGroup
	defer writer.Wait()
	defer end()
	writer.Go(func() {
		defer end() // a client that has closed its end sends nothing any more
		c.write(ctx, conn)
	})
	err := c.read(ctx, conn)
	if ctx.Err() != nil {
		return nil // whatever it was, it was the end
	}
	return err
}

// privilegedPeer says whether the peer is root or the gateway's own user.
func privilegedPeer(conn *net.UnixConn) (bool, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return false, err
	}
	if cerr != nil {
		return false, fmt.Errorf("ask who the peer is: %w", cerr)
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Getuid(), nil
}

// read serves what the client sends, until it closes. One that does not read
// its answers is not read either.
func (c *Client) read(ctx context.Context, conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("read requests: %w", err)
	}
	buf := make([]byte, maxDatagram)
	defer clear(buf)
	for {
		batch, err := receive(raw, buf)
		if err != nil {
			return fmt.Errorf("read requests: %w", err)
		}
		if len(batch) == 0 {
			return nil
		}
		for err = c.Handle(batch...); errors.Is(err, ErrFull); err = c.Handle(batch...) {
			select {
			case <-c.room:
			case <-ctx.Done():
				return nil
			}
		}
		for _, b := range batch {
			clear(b) // it may hold keys
		}
		if err != nil {
			return err
		}
	}
}

// receive waits for a datagram and takes the others that are there. None is the
// end.
func receive(raw syscall.RawConn, buf []byte) (batch [][]byte, err error) {
	werr := raw.Read(func(fd uintptr) bool {
		for len(batch) < maxBatch {
			var n int
			n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				err = nil
				return len(batch) > 0
			case err != nil || n == 0:
				return true
			}
			batch = append(batch, append([]byte(nil), buf[:n]...))
		}
		return true
	})
	if len(batch) > 0 {
		return batch, nil // and the rest the next time
	}
	return nil, errors.Join(err, werr)
}

// write sends what there is for the client until ctx ends. Only this waits for
// a client that reads slowly.
func (c *Client) write(ctx context.Context, conn *net.UnixConn) {
	for {
		b := c.Next()
		if b == nil {
			select {
			case <-c.ready:
				continue
			case <-ctx.Done():
				return
			}
		}
		_, err := conn.Write(b)
		clear(b) // it may hold keys
		if err != nil {
			return
		}
	}
}
