package asavie

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// fillRing is the offset at which the fill ring of an AF_XDP socket is mapped.
// No other kind of socket has mappings there or beyond.
const fillRing = unix.XDP_UMEM_PGOFF_FILL_RING

// mapping is a line of /proc/self/maps about a socket.
type mapping struct {
	start, end uintptr
	offset     uint64
	socket     string // "socket:[inode]", as /proc/self/fd spells it, too
}

// sweep lets one goroutine at a time unmap: a range that is free already may
// belong to somebody else. It guards the process's address space, which is as
// global as the mutex.
var sweep sync.Mutex

// unmapOrphans unmaps the rings of AF_XDP sockets of this process that have no
// descriptor any more, upon which the kernel releases them. The library leaves
// such behind.
//
// Another driver may open and close sockets meanwhile. It unmaps before it
// closes, so that its socket is never mapped without a descriptor; as looking
// takes time, a mapping counts only if it was there both before and after the
// descriptors were read.
func unmapOrphans() error {
	sweep.Lock()
	defer sweep.Unlock()
	before, err := mappings()
	if err != nil || len(before) == 0 {
		return err
	}
	open, err := sockets()
	if err != nil {
		return err
	}
	after, err := mappings()
	if err != nil {
		return err
	}
	for m := range after {
		if before[m] && !open[m.socket] {
			if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, m.start, m.end-m.start, 0); errno != 0 {
				return fmt.Errorf("asavie: unmap a ring of %s: %w", m.socket, errno)
			}
		}
	}
	return nil
}

// mappings returns the mapped rings of AF_XDP sockets.
func mappings() (map[mapping]bool, error) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("asavie: look for mapped rings: %w", err)
	}
	all := map[mapping]bool{}
	xdp := map[string]bool{} // sockets that are AF_XDP's
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var m mapping
		var perms, device, inode string
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %x %s %s %s", &m.start, &m.end, &perms, &m.offset, &device, &inode, &m.socket)
		if n == 7 && strings.HasPrefix(m.socket, "socket:[") {
			all[m] = true
			xdp[m.socket] = xdp[m.socket] || m.offset >= fillRing
		}
	}
	for m := range all {
		if !xdp[m.socket] {
			delete(all, m)
		}
	}
	return all, nil
}

// sockets returns the names of all sockets that the process has a descriptor of.
func sockets() (map[string]bool, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("asavie: look for open sockets: %w", err)
	}
	open := map[string]bool{}
	for _, e := range entries {
		if name, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(name, "socket:[") {
			open[name] = true
		}
	}
	return open, nil
}
