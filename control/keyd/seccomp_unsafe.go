package keyd

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notif is struct seccomp_notif: a system call that waits for an answer.
type notif struct {
	id    uint64
	pid   uint32 // of the thread, as this process sees it
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// resp is struct seccomp_notif_resp.
type resp struct {
	id    uint64
	val   int64
	errno int32 // negative, or 0
	flags uint32
}

// addfd is struct seccomp_notif_addfd.
type addfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// Requests of the listener that x/sys/unix does not name.
const (
	ioctlNotifIDValid = 0x40082102
	ioctlNotifAddfd   = 0x40182103
)

// install puts the filter on the calling thread, which must be locked, and
// returns the descriptor of its listener. Whatever the thread executes later
// has the filter, and so have its descendants.
func install(prog []unix.SockFilter) (int, error) {
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	set := func(flags uintptr) (int, error) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|flags, uintptr(unsafe.Pointer(&fprog)))
		runtime.KeepAlive(prog)
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
	// Killable: no signal may interrupt a call that is being answered, since the
	// daemon would repeat it.
	fd, err := set(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EACCES) { // no CAP_SYS_ADMIN
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("set no_new_privs: %w", err)
		}
		fd, err = set(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	}
	if errors.Is(err, unix.EINVAL) { // a kernel before 5.19
		fd, err = set(0)
	}
	if errors.Is(err, unix.EBUSY) {
		return -1, fmt.Errorf("this process is supervised already, and a kernel allows one supervisor: %w", err)
	}
	return fd, err
}

// receive waits for the next system call. ENOENT: its thread is gone.
func (fd listener) receive(n *notif) error {
	*n = notif{} // the kernel insists
	return fd.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
}

// send answers a system call.
func (fd listener) send(r *resp) error {
	return fd.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r))
}

// valid says whether the system call id still waits: what was read of its
// process before was its own.
func (fd listener) valid(id uint64) bool {
	return fd.ioctl(ioctlNotifIDValid, unsafe.Pointer(&id)) == nil
}

// sendFD answers the system call id with a new descriptor of src, closed on
// exec if so asked.
func (fd listener) sendFD(id uint64, src int, cloexec bool) error {
	a := addfd{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(src)}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	return fd.ioctl(ioctlNotifAddfd, unsafe.Pointer(&a))
}

func (fd listener) ioctl(req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
