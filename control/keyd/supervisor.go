package keyd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor's bounds.
const (
	maxSessions = 4096
	replyWait   = 5 * time.Second // for a server, before a send returns without its answer
	reapEvery   = 2 * time.Second // look for datagram sockets that the daemon closed
)

// listener is the descriptor that system calls are announced on.
type listener int

// supervisor answers the system calls of a daemon and its descendants.
type supervisor struct {
	cfg  *Config
	log  *slog.Logger
	fd   listener
	late atomic.Uint64 // sends that returned before their answer

	end     func(cause error) // ends the daemon
	stopped chan struct{}     // closed when run returns
	work    sync.WaitGroup

	mu       sync.Mutex
	sessions map[uint64]*session // by the inode of the daemon's end
	ports    map[uint32]*session // by netlink port id
}

func newSupervisor(cfg *Config, fd listener) *supervisor {
	return &supervisor{
		cfg:      cfg,
		log:      cfg.Log,
		fd:       fd,
		stopped:  make(chan struct{}),
		sessions: map[uint64]*session{},
		ports:    map[uint32]*session{},
	}
}

// run answers system calls until no process has the filter any more, or ctx
// ends.
func (v *supervisor) run(ctx context.Context) error {
	reaper := time.NewTicker(reapEvery)
	defer reaper.Stop()
	defer v.work.Wait()
	defer v.closeAll()
	defer close(v.stopped)
	for {
		fds := []unix.PollFd{{Fd: int32(v.fd), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, 100)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("poll", err)
		case ctx.Err() != nil:
			return nil
		case err != nil:
			continue
		case fds[0].Revents&unix.POLLIN != 0:
			n := &notif{}
			switch err := v.fd.receive(n); {
			case err == nil:
				v.work.Go(func() { v.handle(n) })
			case !errors.Is(err, unix.ENOENT):
				return os.NewSyscallError("receive a system call", err)
			}
		case fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0:
			return nil
		}
		select {
		case <-reaper.C:
			v.reap()
		default:
		}
	}
}

// passOn as an errno says: let the kernel do the call.
const passOn = ^unix.Errno(0)

// done as an errno says: the call has been answered.
const done = passOn - 1

// handle answers the system call n.
func (v *supervisor) handle(n *notif) {
	val, errno := v.emulate(n)
	r := resp{id: n.id}
	switch errno {
	case done:
		return
	case passOn:
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	case 0:
		r.val = val
	default:
		r.errno = -int32(errno)
	}
	// ENOENT: the process was killed meanwhile.
	if err := v.fd.send(&r); err != nil && !errors.Is(err, unix.ENOENT) {
		v.log.Error("answer a system call of the daemon", "pid", n.pid, "call", n.nr, "err", err)
	}
}

// emulate returns the result of n.
func (v *supervisor) emulate(n *notif) (int64, unix.Errno) {
	if n.nr == unix.SYS_SOCKET {
		return 0, v.socket(n)
	}
	s := v.find(n)
	if s == nil {
		return 0, passOn
	}
	switch n.nr {
	case unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_WRITEV:
		return v.sendmsg(s, n)
	case unix.SYS_BIND:
		return 0, v.bind(s, n)
	case unix.SYS_GETSOCKNAME:
		return 0, v.getsockname(s, n)
	case unix.SYS_SETSOCKOPT:
		return 0, v.setsockopt(s, n)
	}
	return 0, passOn
}

// find returns the session of the socket that n is about, or nil.
func (v *supervisor) find(n *notif) *session {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
	if err != nil {
		return nil // no such descriptor, or the process is gone
	}
	ino, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return nil
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64)
	if err != nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sessions[inode]
}

// socket gives the daemon one end of a pair that is connected to the server.
func (v *supervisor) socket(n *notif) unix.Errno {
	d, absent := &pfkey, unix.EAFNOSUPPORT
	if int32(n.args[0]) == unix.AF_NETLINK {
		d, absent = &xfrm, unix.EPROTONOSUPPORT
	}
	path := v.pathOf(d)
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if errno := d.socket(int(int32(n.args[1]))&^flags, int(int32(n.args[2]))); errno != 0 {
		return errno
	}
	srv, err := net.DialTimeout("unixpacket", path, v.cfg.ReplyWait)
	if err != nil {
		v.log.Error("the daemon gets no "+d.name+" socket: is spigot running, and is its socket there?", "path", path, "err", err)
		return absent
	}
	s := &session{
		dialect: d,
		srv:     srv,
		server:  serverOf(srv),
		gone:    make(chan struct{}),
		late:    &v.late,
		wait:    v.cfg.ReplyWait,
	}
	end, daemon, err := d.newPair(n.args[1]&unix.SOCK_NONBLOCK != 0)
	if err != nil {
		v.log.Error("make a socket for the daemon", "err", errors.Join(err, srv.Close()))
		return unix.ENFILE
	}
	s.end = end
	return v.giveAway(s, n, daemon)
}

// giveAway starts s and makes its end of the pair a descriptor of the daemon.
func (v *supervisor) giveAway(s *session, n *notif, daemon int) unix.Errno {
	defer func() {
		if err := unix.Close(daemon); err != nil {
			v.log.Error("close the daemon's end of a socket", "err", err)
		}
	}()
	var err error
	if s.inode, err = inodeOf(daemon); err != nil || !v.add(s) {
		v.log.Error("no more sockets for the daemon", "limit", maxSessions, "err", errors.Join(err, s.close()))
		return unix.ENFILE
	}
	v.work.Go(func() { v.relay(s) })
	v.work.Go(func() {
		s.fromDaemon(v.send)
		v.remove(s)
	})
	if err := v.fd.sendFD(n.id, daemon, n.args[1]&unix.SOCK_CLOEXEC != 0); err != nil {
		v.remove(s)
		var errno unix.Errno
		if errors.As(err, &errno) {
			return errno // EMFILE, for one; ENOENT: nobody hears it
		}
		return unix.EIO
	}
	v.log.Debug("the daemon has a "+s.name+" socket", "pid", n.pid, "inode", s.inode)
	return done
}

// relay carries what the server says to the daemon.
func (v *supervisor) relay(s *session) {
	if !errors.Is(s.fromServer(), errGone) {
		return
	}
	v.log.Error("spigot has closed a "+s.name+" connection: the daemon's messages by it fail from now on", "inode", s.inode)
	v.work.Go(func() { v.watch(s) })
}

// send carries a message of the daemon to the server and waits for the answer.
func (v *supervisor) send(s *session, msg []byte) unix.Errno {
	if s.dialect == &xfrm {
		port, errno := v.portOf(s, uint32(os.Getpid()))
		if errno != 0 {
			return errno
		}
		setPort(msg, port)
	}
	return errnoOf(s.exchange(msg))
}

// errnoOf is what the daemon gets for an error of an exchange.
func errnoOf(err error) unix.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFull):
		return unix.ENOBUFS
	}
	return unix.ECONNREFUSED
}

// sendmsg does what send, sendto, sendmsg and writev do.
func (v *supervisor) sendmsg(s *session, n *notif) (int64, unix.Errno) {
	msg, err := sent(n)
	defer clear(msg) // it may have keys
	var errno unix.Errno
	switch {
	case !v.fd.valid(n.id):
		return 0, unix.EINTR // what was read may be another process's
	case errors.As(err, &errno):
		return 0, errno
	case err != nil:
		return 0, unix.EIO
	}
	if errno := s.malformed(msg); errno != 0 {
		return 0, errno
	}
	size := int64(len(msg))
	if s.dialect == &xfrm {
		if _, errno := v.portOf(s, processOf(n.pid)); errno != 0 {
			return 0, errno
		}
	}
	return size, v.send(s, msg)
}

// add makes s known by its inode.
func (v *supervisor) add(s *session) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.sessions) >= maxSessions {
		return false
	}
	v.sessions[s.inode] = s
	return true
}

// remove forgets s and closes it, once.
func (v *supervisor) remove(s *session) {
	v.mu.Lock()
	known := v.sessions[s.inode] == s
	if known {
		delete(v.sessions, s.inode)
	}
	if v.ports[s.bound.Port] == s {
		delete(v.ports, s.bound.Port)
	}
	v.mu.Unlock()
	if !known {
		return
	}
	if err := s.close(); err != nil {
		v.log.Error("close a socket", "err", err)
	}
	v.log.Debug("the daemon has closed a "+s.name+" socket", "inode", s.inode)
}

func (v *supervisor) closeAll() {
	v.mu.Lock()
	all := make([]*session, 0, len(v.sessions))
	for _, s := range v.sessions {
		all = append(all, s)
	}
	v.mu.Unlock()
	for _, s := range all {
		v.remove(s)
	}
	if late := v.late.Load(); late > 0 {
		v.log.Warn("spigot was slow to answer: sends returned before their answers", "sends", late)
	}
}

// reap removes the sessions whose sockets nobody has any more. The other end of
// a datagram pair does not hear of that, but the kernel's list does.
func (v *supervisor) reap() {
	v.mu.Lock()
	var old []*session
	for _, s := range v.sessions {
		if s.pair == unix.SOCK_DGRAM {
			old = append(old, s)
		}
	}
	v.mu.Unlock()
	if len(old) == 0 {
		return
	}
	alive, err := unixInodes()
	if err != nil {
		v.log.Error("look for sockets that the daemon has closed", "err", err)
		return
	}
	for _, s := range old {
		if !alive[s.inode] {
			v.remove(s)
		}
	}
}

// unixInodes returns the inodes of all Unix sockets that are open.
func unixInodes() (map[uint64]bool, error) {
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil, err
	}
	inodes := map[uint64]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() { // Num RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(lines.Text()); len(f) >= 7 {
			if ino, err := strconv.ParseUint(f[6], 10, 64); err == nil {
				inodes[ino] = true
			}
		}
	}
	return inodes, lines.Err()
}
