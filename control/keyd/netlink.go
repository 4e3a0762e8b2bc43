package keyd

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	xfrmserver "spigot/control/xfrm"
)

// firstSpare is where the search for a port id begins when the process's own
// number is taken; it goes down, as in the kernel.
const firstSpare = ^uint32(4096)

// bind does what bind(2) does to a netlink socket: port id and groups.
func (v *supervisor) bind(s *session, n *notif) unix.Errno {
	if s.dialect != &xfrm {
		return unix.EOPNOTSUPP
	}
	addr, err := peek(n.pid, span{n.args[1], sockaddrNLLen})
	if err != nil || !v.fd.valid(n.id) {
		return unix.EFAULT
	}
	if binary.NativeEndian.Uint16(addr) != unix.AF_NETLINK {
		return unix.EINVAL
	}
	if errno := v.bindPort(s, binary.NativeEndian.Uint32(addr[4:]), n.pid); errno != 0 {
		return errno
	}
	return v.rebind(s, func(b *xfrmserver.Binding) { b.Groups = binary.NativeEndian.Uint32(addr[8:]) })
}

// bindPort gives s the port id want, or one of the process's if that is 0.
func (v *supervisor) bindPort(s *session, want, pid uint32) unix.Errno {
	if want == 0 {
		_, errno := v.portOf(s, processOf(pid))
		return errno
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case s.bound.Port == want:
		return 0
	case s.bound.Port != 0:
		return unix.EINVAL
	case v.ports[want] != nil:
		return unix.EADDRINUSE
	}
	s.bound.Port = want
	v.ports[want] = s
	return 0
}

// portOf returns the port id of s, after giving it one if it has none:
// process's number, where that is free.
func (v *supervisor) portOf(s *session, process uint32) (uint32, unix.Errno) {
	v.mu.Lock()
	port := s.bound.Port
	if port != 0 {
		v.mu.Unlock()
		return port, 0
	}
	port = process
	for spare := firstSpare; port == 0 || v.ports[port] != nil; spare-- {
		port = spare // the limit on sessions ends this
	}
	s.bound.Port = port
	v.ports[port] = s
	v.mu.Unlock()
	return port, v.rebind(s, func(*xfrmserver.Binding) {})
}

// rebind changes what s is bound to and tells the server, in order.
func (v *supervisor) rebind(s *session, change func(*xfrmserver.Binding)) unix.Errno {
	s.turn.Lock()
	defer s.turn.Unlock()
	v.mu.Lock()
	change(&s.bound)
	msg := s.bound.Message()
	v.mu.Unlock()
	_, err := s.begin(msg)
	return errnoOf(err)
}

// processOf returns the number of the process of thread tid, or 0 if it is
// gone.
func processOf(tid uint32) uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Tgid:" {
			if id, err := strconv.ParseUint(f[1], 10, 32); err == nil {
				return uint32(id)
			}
		}
	}
	return 0
}

// getsockname tells the daemon its port id and groups.
func (v *supervisor) getsockname(s *session, n *notif) unix.Errno {
	if s.dialect != &xfrm {
		return unix.EOPNOTSUPP
	}
	room, err := peek(n.pid, span{n.args[2], 4})
	if err != nil || !v.fd.valid(n.id) {
		return unix.EFAULT
	}
	size := int32(binary.NativeEndian.Uint32(room))
	if size < 0 {
		return unix.EINVAL
	}
	v.mu.Lock()
	bound := s.bound
	v.mu.Unlock()
	addr := make([]byte, sockaddrNLLen)
	binary.NativeEndian.PutUint16(addr, unix.AF_NETLINK)
	binary.NativeEndian.PutUint32(addr[4:], bound.Port)
	binary.NativeEndian.PutUint32(addr[8:], bound.Groups)
	if poke(n.pid, n.args[1], addr[:min(int(size), len(addr))]) != nil {
		return unix.EFAULT
	}
	binary.NativeEndian.PutUint32(room, sockaddrNLLen)
	if poke(n.pid, n.args[2], room) != nil {
		return unix.EFAULT
	}
	return 0
}

// setsockopt does what the options of level SOL_NETLINK do.
func (v *supervisor) setsockopt(s *session, n *notif) unix.Errno {
	if s.dialect != &xfrm {
		return unix.ENOPROTOOPT
	}
	arg, err := peek(n.pid, span{n.args[3], 4})
	if err != nil || !v.fd.valid(n.id) {
		return unix.EFAULT
	}
	val := binary.NativeEndian.Uint32(arg)
	group := uint32(1) << (val - 1)
	switch n.args[2] {
	case unix.NETLINK_ADD_MEMBERSHIP, unix.NETLINK_DROP_MEMBERSHIP:
		if group == 0 {
			return unix.EINVAL
		}
		return v.rebind(s, func(b *xfrmserver.Binding) {
			b.Groups &^= group
			if n.args[2] == unix.NETLINK_ADD_MEMBERSHIP {
				b.Groups |= group
			}
		})
	case unix.NETLINK_EXT_ACK:
		return v.rebind(s, func(b *xfrmserver.Binding) { b.ExtendedAcks = val != 0 })
	case unix.NETLINK_PKTINFO, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_NO_ENOBUFS,
		unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK:
		return 0 // they ask for details that are not given
	}
	return unix.ENOPROTOOPT
}

// random fills b.
func random(b []byte) { _, _ = rand.Read(b) } // never fails: it ends the process instead
