package pfkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// ErrTooMany says that a Server has as many clients as it takes.
var ErrTooMany = errors.New("pfkey: too many clients")

// DefaultClients is how many clients a Server takes unless it is told otherwise.
const DefaultClients = 256

// Config is what a Server is made of.
type Config struct {
	Control    *control.Controller
	Log        *slog.Logger // nil: discard
	MaxClients int          // 0: DefaultClients
}

// Server answers PF_KEY.
type Server struct {
	control   *control.Controller
	log       *slog.Logger
	max       int
	supported supported

	holding atomic.Int64 // bytes of messages with More, of all clients

	mu      sync.Mutex
	clients map[*Client]bool
	reqid   uint32 // given out last

	// Serve's alone.
	refused  int       // since it was logged last
	loggedAt time.Time // the last refusal
}

// firstReqid is above those that people choose (IPSEC_MANUAL_REQID_MAX).
const firstReqid = 0x3fff

// New returns a server.
func New(cfg Config) *Server {
	s := &Server{
		control: cfg.Control, log: cfg.Log, max: cfg.MaxClients, supported: supports(cfg.Control.AllowsLegacy()),
		clients: map[*Client]bool{}, reqid: firstReqid,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.max <= 0 {
		s.max = DefaultClients
	}
	return s
}

// freshReqid returns a reqid that no policy had from it before.
func (s *Server) freshReqid() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reqid++; s.reqid == 0 {
		s.reqid = firstReqid + 1
	}
	return s.reqid
}

const refusalPause = time.Second // between two lines of the log about refused clients

const acceptPause = 50 * time.Millisecond // after an error, such as too many open files

// Serve answers the clients that connect to ln, which it closes, until ctx
// ends; then it returns nil.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, end := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer end()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			_ = ln.Close()
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve PF_KEY on %v: %w", ln.Addr(), err)
		case err != nil:
			s.log.Error("accept a PF_KEY client", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		s.accept(ctx, conn, &conns)
	}
}

// accept starts to serve conn, or refuses it.
func (s *Server) accept(ctx context.Context, conn *net.UnixConn, conns *sync.WaitGroup) {
	uid, err := peerOf(conn)
	var c *Client
	if err == nil {
		c, err = s.Connect(uid)
	}
	if err != nil {
		s.tellRefusal(err)
		refuseConn(conn)
		return
	}
	conns.Go(func() {
		if err := s.serve(ctx, conn, c); err != nil {
			s.log.Debug("PF_KEY client is gone", "err", err)
		}
	})
}

// refuseConn says ENFILE and closes conn. It takes first what the client has
// sent already: the kernel would drop the refusal for it.
func refuseConn(conn *net.UnixConn) {
	refusal := Message{Type: Register, Errno: unix.ENFILE}
	_, _ = conn.Write(refusal.Append(nil)) // its buffer is empty: this does not wait
	_ = conn.CloseRead()
	var b [MaxMessage]byte
	for range batch {
		if n, err := conn.Read(b[:]); n == 0 || err != nil { // after CloseRead this does not wait either
			break
		}
	}
	clear(b[:])
	_ = conn.Close()
}

// tellRefusal logs refusals, but not each of a flood.
func (s *Server) tellRefusal(err error) {
	s.refused++
	if now := time.Now(); now.Sub(s.loggedAt) >= refusalPause {
		s.log.Warn("refuse PF_KEY clients", "err", err, "clients", s.refused)
		s.refused, s.loggedAt = 0, now
	}
}

// peerOf returns the user at the other end.
func peerOf(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, fmt.Errorf("ask who the peer is: %w", err)
	}
	return cred.Uid, nil
}

// serve carries messages between conn and c until either ends: this goroutine
// those of the client, another those for it.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, c *Client) error {
	defer c.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return err
	}
	done, end := context.WithCancel(ctx)
	closed := make(chan struct{})
	context.AfterFunc(done, func() { _ = conn.Close(); close(closed) })
	var writer sync.WaitGroup
	writer.Go(func() { defer end(); c.write(raw, done.Done()) })
	err = c.read(raw, done.Done())
	end()
	<-closed
	writer.Wait()
	return err
}

// write sends what waits for the client, as fast as it reads.
func (c *Client) write(raw syscall.RawConn, done <-chan struct{}) {
	for c.Wait(done) {
		var broken error
		err := raw.Write(func(fd uintptr) bool {
			return c.Deliver(func(b []byte) (ok bool) {
				ok, broken = sendNow(int(fd), b)
				return ok
			}) || broken != nil
		})
		if err != nil || broken != nil {
			return
		}
	}
}

// sendNow sends b, and says whether it could without waiting.
func sendNow(fd int, b []byte) (bool, error) {
	for {
		switch err := unix.Send(fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return false, nil
		default:
			return false, err
		}
	}
}

// batch is how many messages are handled in one step where as many wait.
const batch = 64

// read handles what the client sends until it closes.
func (c *Client) read(raw syscall.RawConn, done <-chan struct{}) error {
	buf := make([]byte, batch*(MaxMessage+1))
	defer clear(buf)
	defer c.spoil(unix.ECANCELED)
	for {
		for c.waiting() >= maxReplies/2 { // so that there is room for those of a batch
			select {
			case <-done:
				return nil
			case <-c.room:
			}
		}
		msgs, err := receive(raw, buf)
		if len(msgs) > 0 {
			c.handleAll(msgs)
			for _, b := range msgs {
				clear(b)
			}
		}
		if err != nil || len(msgs) == 0 {
			return err
		}
	}
}

// handleAll handles msgs, and makes answers of what Handle cannot answer.
func (c *Client) handleAll(msgs [][]byte) {
	from := 0
	for i, b := range msgs {
		if errno := headerErrno(b); errno != 0 {
			c.Handle(msgs[from:i]...)
			c.refuse(b, errno)
			from = i + 1
		}
	}
	c.Handle(msgs[from:]...)
}

// refuse answers a message that has no proper header with errno.
func (c *Client) refuse(b []byte, errno unix.Errno) {
	c.spoil(errno)
	m, _ := Decode(b)
	answer := m.header()
	answer.Errno = errno
	c.replies = append(c.replies, answer)
	c.flush()
}

// receive waits for a message and takes what has come by then, up to batch
// messages; none at the end. One that is too long is cut off, but for its
// length.
func receive(raw syscall.RawConn, buf []byte) (msgs [][]byte, err error) {
	e := raw.Read(func(fd uintptr) bool {
		for len(msgs) < batch {
			b := buf[len(msgs)*(MaxMessage+1):][:MaxMessage+1]
			n, rerr := unix.Read(int(fd), b)
			switch {
			case rerr == unix.EINTR:
				continue
			case rerr == unix.EAGAIN:
				return len(msgs) > 0
			case rerr != nil || n <= 0:
				err = rerr
				return true
			}
			msgs = append(msgs, b[:n])
		}
		return true
	})
	return msgs, errors.Join(err, e)
}
