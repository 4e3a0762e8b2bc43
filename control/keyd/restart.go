package keyd

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// goneWait is how long a daemon may go on without spigot, and restartEvery how
// often it is looked for meanwhile.
const (
	goneWait     = time.Second
	restartEvery = 50 * time.Millisecond
)

// errRestarted is why a daemon is ended whose spigot is not there any more.
var errRestarted = errors.New("spigot has ended or was restarted")

// watch ends the daemon if the process that served s, whose connection it has
// closed, has ended. A server that is there means this one connection, and a new
// socket of the daemon would reach it.
func (v *supervisor) watch(s *session) {
	look := time.NewTicker(restartEvery)
	defer look.Stop()
	end := time.NewTimer(v.cfg.GoneWait)
	defer end.Stop()
	for told := false; ; {
		if !told && !v.served(s) {
			told = true
			v.log.Error("spigot has ended or was restarted, and with it went the daemon's SAs and policies: the daemon is ended, to be started again",
				"path", v.pathOf(s.dialect), "in", v.cfg.GoneWait)
		}
		select {
		case <-look.C:
		case <-v.stopped:
			return
		case <-end.C:
			if told {
				v.end(errRestarted)
			}
			return
		}
	}
}

// served says whether the process that served s listens still.
func (v *supervisor) served(s *session) bool {
	srv, err := net.DialTimeout("unixpacket", v.pathOf(s.dialect), v.cfg.ReplyWait)
	if err != nil {
		return false
	}
	defer srv.Close()
	return serverOf(srv) == s.server
}

// pathOf is where the server of d listens.
func (v *supervisor) pathOf(d *dialect) string {
	if d == &xfrm {
		return v.cfg.XFRM
	}
	return v.cfg.PFKey
}

// serverOf returns the process that listens at the other end of conn, 0 if that
// cannot be known.
func serverOf(conn net.Conn) (pid int32) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}
