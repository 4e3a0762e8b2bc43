package pfkey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Conn is the client's side of a Server's socket.
type Conn struct {
	c   *net.UnixConn
	buf [MaxMessage]byte // of Receive
}

// Dial connects to the server at path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("pfkey: dial: %w", err)
	}
	return &Conn{c: c.(*net.UnixConn)}, nil
}

// Send sends m. It waits while the server does not read.
func (c *Conn) Send(m *Message) error {
	b := m.Append(make([]byte, 0, m.room()))
	defer clear(b)
	if _, err := c.c.Write(b); err != nil {
		return fmt.Errorf("pfkey: send %v: %w", m.Type, err)
	}
	return nil
}

// Receive waits for the next message: io.EOF when the server is gone. One
// goroutine at a time may call it. What it returns may be an error of the
// server's: see Message.Errno.
func (c *Conn) Receive() (*Message, error) {
	n, err := c.c.Read(c.buf[:])
	switch {
	case errors.Is(err, io.EOF) || err == nil && n == 0:
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("pfkey: receive: %w", err)
	}
	defer clear(c.buf[:n])
	m, err := Decode(c.buf[:n])
	if err != nil {
		return nil, fmt.Errorf("pfkey: receive: %w", err)
	}
	return m, nil
}

// Close ends the connection, and a Receive that waits.
func (c *Conn) Close() error { return c.c.Close() }
