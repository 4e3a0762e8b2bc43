package control

import (
	"errors"
	"fmt"
	"syscall"

	"spigot/crypto"
	"spigot/sad"
)

// Errors of Keying; wrapped with what and how to mend. Errno maps them.
var (
	ErrExists      = errors.New("control: exists already")
	ErrNotFound    = errors.New("control: no such entry")
	ErrInvalid     = errors.New("control: invalid argument")
	ErrUnsupported = errors.New("control: not supported")
	ErrLimit       = errors.New("control: too many")
	ErrStatic      = errors.New("control: belongs to the configuration")
)

// Errno returns the number by which a kernel would tell err to a key daemon,
// 0 for nil. Where the dialects differ (a policy that is not there is ESRCH
// here and ENOENT in Linux) the front end decides before it asks.
func Errno(err error) syscall.Errno {
	for _, e := range [...]struct {
		err   error
		errno syscall.Errno
	}{
		{ErrExists, syscall.EEXIST},
		{ErrNotFound, syscall.ESRCH},
		{crypto.ErrAlgorithm, syscall.ENOSYS},
		{ErrUnsupported, syscall.EPROTONOSUPPORT},
		{ErrLimit, syscall.ENOBUFS},
		{ErrStatic, syscall.EPERM},
		{ErrClosed, syscall.EPIPE},
	} {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	if err == nil {
		return 0
	}
	return syscall.EINVAL
}

// Origin names the request that changes an entry, so that a front end can tell
// the answers of its own clients from news. The zero Origin is the gateway
// itself: its configuration, or a lifetime.
type Origin struct {
	Client uint64 // from Controller.NewClient
	PID    uint32 // as the request has it
	Seq    uint32 // as the request has it
}

// Keying is the SADB and the SPD as key managers see them (RFC 2367): both
// front ends work on it. One is valid for the length of a call of
// Controller.Keying only.
//
// What it is given it copies, and what it returns is the caller's, both
// together with keys, unless a method says otherwise.
type Keying struct {
	c *Controller
}

// Keying runs f in the thread of control and returns when what f changed is in
// force for every packet that a worker takes up from then on: the time to send
// the answers. A front end handles all requests that are waiting in one call,
// since each call publishes once. f must not block and must not call the
// Controller. It is ErrClosed after Close, and f is not run.
func (c *Controller) Keying(f func(*Keying)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("key: %w", ErrClosed)
	}
	c.edit(func() { f(&Keying{c}) })
	return nil
}

// NewClient returns a number for one client of a front end, for Origin.Client.
// It is never 0 and never returned again.
func (c *Controller) NewClient() uint64 { return c.clients.Add(1) }

// refused puts an error of sad, spd or crypto under this package's sentinels.
func refused(op string, err error) error {
	kind := ErrInvalid
	switch {
	case errors.Is(err, sad.ErrExists):
		kind = ErrExists
	case errors.Is(err, sad.ErrNoSA):
		kind = ErrNotFound
	case errors.Is(err, crypto.ErrAlgorithm), errors.Is(err, sad.ErrUnsupported):
		kind = ErrUnsupported
	}
	return fmt.Errorf("%s: %w: %w", op, kind, err)
}
