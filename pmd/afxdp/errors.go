package afxdp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The errors that Open, Attach and Steering's methods wrap.
var (
	ErrOptions      = errors.New("bad options")
	ErrNoInterface  = errors.New("no such interface")
	ErrDown         = errors.New("interface is down")
	ErrNoQueue      = errors.New("no such queue")
	ErrQueueTaken   = errors.New("another AF_XDP socket owns the queue")
	ErrMode         = errors.New("mode not available")
	ErrPermission   = errors.New("not permitted: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF")
	ErrUnsupported  = errors.New("the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)")
	ErrMemlock      = errors.New("too little memory may be locked: raise `ulimit -l`, or run with CAP_IPC_LOCK")
	ErrProgramTaken = errors.New("another XDP program is attached")
	ErrDetached     = errors.New("the XDP program is no longer attached")
	ErrClosed       = errors.New("closed")
)

// because puts the sentinel that says how to mend errno, if there is one, in
// front of it.
func because(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%w)", ErrPermission, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (%w)", ErrUnsupported, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w (%w)", ErrNoInterface, err)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%w (%w)", ErrDown, err)
	}
	return err
}
