package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrSocket is wrapped by the errors of Listen.
var ErrSocket = errors.New("control: socket")

const dialTimeout = time.Second

// Listen opens the Unix socket at path for the user of the process alone and
// makes its folder if there is none. A socket that a dead process left is
// replaced; one that somebody answers on, or a file that is no socket, is not.
// Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) { return listen("unix", path) }

// ListenPacket is Listen for sockets that keep messages apart (SOCK_SEQPACKET):
// those of key daemons.
func ListenPacket(path string) (*net.UnixListener, error) {
	ln, err := listen("unixpacket", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

func listen(network, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("%w: make the folder of %s: %w", ErrSocket, path, err)
	}
	if err := removeStale(network, path); err != nil {
		return nil, err
	}
	ln, err := net.Listen(network, path)
	if err != nil {
		return nil, fmt.Errorf("%w: listen on %s: %w", ErrSocket, path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: close %s to others: %w", ErrSocket, path, err), ln.Close())
	}
	return ln, nil
}

// removeStale removes the socket at path if nobody listens there.
func removeStale(network, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: look at %s: %w", ErrSocket, path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: %s exists and is no socket: move it away, or choose another path", ErrSocket, path)
	}
	conn, err := net.DialTimeout(network, path, dialTimeout)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%w: another gateway answers on %s: stop it, or choose another path", ErrSocket, path)
	case errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("%w: %s is another program's socket, or of another use: choose another path", ErrSocket, path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s is there and does not say whether it is alive: %w: remove it if no gateway runs",
			ErrSocket, path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: remove the stale %s: %w", ErrSocket, path, err)
	}
	return nil
}
