package keyd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	xfrmserver "spigot/control/xfrm"
)

// maxMessage bounds a message and a packet of messages, in bytes.
const maxMessage = 64 << 10

// What an exchange may fail with.
var (
	errGone = errors.New("the server is gone")
	errFull = errors.New("answers wait to be read")
)

// session is one socket that the daemon was given: a pair of sockets, one end
// of which is the daemon's, and a connection to the server. Three threads
// work on it: those of notified sends, one that relays from the server, and one
// that relays what the daemon sends in ways that are not notified.
type session struct {
	*dialect
	inode  uint64   // of the daemon's end
	end    net.Conn // the launcher's end
	srv    net.Conn
	server int32         // the process that serves srv
	gone   chan struct{} // closed when the server is
	late   *atomic.Uint64
	wait   time.Duration      // for a reply, before send returns
	bound  xfrmserver.Binding // guarded by the supervisor; Port 0: not bound

	turn sync.Mutex  // held for one exchange
	full atomic.Bool // the daemon does not read what is there

	mu    sync.Mutex
	lost  bool
	open  []byte        // header of the request that is being answered
	first chan struct{} // closed with the first answer to open
}

// exchange sends msg to the server. When it returns, the server's answer is
// queued for the daemon, unless there is none or it takes too long.
func (s *session) exchange(msg []byte) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	first, err := s.begin(msg)
	if err != nil || first == nil || s.full.Load() {
		return err
	}
	timeout := time.NewTimer(s.wait)
	defer timeout.Stop()
	select {
	case <-first:
		return nil
	case <-s.gone:
		return s.giveUp(first)
	case <-timeout.C:
		s.late.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.first = nil // it comes when it comes
		return nil
	}
}

// begin sends msg and returns what is closed when it is answered; nil where it
// will not be. The caller has the turn.
func (s *session) begin(msg []byte) (first chan struct{}, err error) {
	s.mu.Lock()
	lost := s.lost
	if req := s.asks(msg); req != nil && !lost {
		first = make(chan struct{})
		s.open, s.first = append([]byte(nil), req...), first
	}
	s.mu.Unlock()
	if lost {
		return nil, errGone
	}
	err = s.srv.SetWriteDeadline(time.Now().Add(s.wait))
	if err == nil {
		_, err = s.srv.Write(msg)
	}
	switch {
	case err == nil:
		return first, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errFull
	default:
		err = errGone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.first = nil, nil
	return nil, err
}

// giveUp ends the wait for first: the server is gone.
func (s *session) giveUp(first chan struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-first: // the last thing that it did
		return nil
	default:
		return errGone
	}
}

// answered looks whether packet answers the open request.
func (s *session) answered(packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return
	}
	answer, last := s.answers(s.open, packet)
	if answer && s.first != nil {
		close(s.first)
		s.first = nil
	}
	if last {
		s.open = nil
	}
}

// fromServer relays answers and events to the daemon until an end is closed. A
// daemon that does not read makes it wait, and so the server hears of it.
func (s *session) fromServer() error {
	buf := make([]byte, maxMessage)
	for {
		n, err := s.srv.Read(buf)
		if err != nil {
			return s.lose(err)
		}
		if s.deliver(buf[:n]) != nil {
			return nil // the daemon has closed its end
		}
		s.answered(buf[:n])
		clear(buf[:n]) // it may have had keys
	}
}

// deliver queues packet for the daemon, and says meanwhile if that takes long.
func (s *session) deliver(packet []byte) error {
	err := s.end.SetWriteDeadline(time.Now().Add(s.wait))
	if err == nil {
		_, err = s.end.Write(packet)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.full.Store(true)
	defer s.full.Store(false)
	if err = s.end.SetWriteDeadline(time.Time{}); err == nil {
		_, err = s.end.Write(packet)
	}
	return err
}

// lose marks the session: the server is gone. A daemon that waits for the rest
// of an answer hears of it; its end stays open, since daemons spin on one that
// is closed.
func (s *session) lose(err error) error {
	s.mu.Lock()
	s.lost = true
	close(s.gone)
	var refusal []byte
	if s.open != nil && s.first == nil {
		refusal = s.refuse(s.open, unix.ECONNREFUSED)
	}
	s.mu.Unlock()
	if refusal != nil && s.deliver(refusal) != nil {
		return nil // the daemon is gone, too
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return errGone
}

// fromDaemon relays what the daemon sends unnoticed, by write(2), until it has
// closed its end.
func (s *session) fromDaemon(send func(*session, []byte) unix.Errno) {
	buf := make([]byte, maxMessage)
	for {
		n, err := s.end.Read(buf)
		if err != nil {
			return
		}
		msg := buf[:n]
		if s.malformed(msg) != 0 {
			continue
		}
		errno := send(s, msg)
		if req := s.asks(msg); errno != 0 && req != nil {
			if _, err := s.end.Write(s.refuse(req, errno)); err != nil {
				return
			}
		}
		clear(msg) // it may have had keys
	}
}

// close ends the session.
func (s *session) close() error {
	return errors.Join(s.end.Close(), s.srv.Close())
}

// newPair makes the pair of sockets between launcher and daemon. The daemon's
// end is a bare descriptor: it is given away and closed.
func (d *dialect) newPair(nonblock bool) (end net.Conn, daemon int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, d.pair|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), d.name)
	defer func() { err = errors.Join(err, f.Close()) }()
	if d == &xfrm {
		err = bindAsKernel(fds[0])
	}
	if err == nil && nonblock {
		err = unix.SetNonblock(fds[1], true)
	}
	if err == nil {
		end, err = net.FileConn(f)
	}
	if err != nil {
		return nil, -1, errors.Join(err, unix.Close(fds[1]))
	}
	return end, fds[1], nil
}

// bindAsKernel names fd so that a peer reads the name as a struct sockaddr_nl
// of the kernel: 12 bytes with a port id of 0.
//
//	sockaddr_un  family:16 | 0 | name, 9 bytes
//	sockaddr_nl  family:16 | pad:16 | pid:32 | groups:32
//
// The pad and groups, which nobody reads, make it unique.
func bindAsKernel(fd int) error {
	for range 100 {
		var name [9]byte
		random(name[:1])
		random(name[5:])
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + string(name[:])})
		if !errors.Is(err, unix.EADDRINUSE) {
			return os.NewSyscallError("bind", err)
		}
	}
	return fmt.Errorf("%w: no free name for a socket", ErrLaunch)
}

// inodeOf returns the inode of a socket of this process.
func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Ino, nil
}
