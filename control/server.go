package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The bounds of the operators' API: a client that is slow, or one of too many,
// waits; nobody else does.
const (
	maxClients    = 16
	readTimeout   = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 30 * time.Second
	closeTimeout  = time.Second
	maxHeaderSize = 8 << 10
)

// Serve answers the operators' API on ln until ctx ends, and returns nil then.
// It closes ln.
func (c *Controller) Serve(ctx context.Context, ln net.Listener) error {
	return c.serveHTTP(ctx, ln, c.handler(), "the operators' API")
}

// serveHTTP serves what until ctx ends.
func (c *Controller) serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, what string) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderSize,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	running := context.AfterFunc(ctx, func() {
		defer close(closed)
		late, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if s.Shutdown(late) != nil {
			_ = s.Close() // a client that does not read its answer
		}
	})
	err := s.Serve(&limited{Listener: ln, slots: make(chan struct{}, maxClients), done: make(chan struct{})})
	if !running() { // Serve returns as soon as the end begins
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s on %v: %w", what, ln.Addr(), err)
}

// handler routes the paths of api.go. Each answer is gathered in the thread of
// control, that of SAs in portions, and written outside of it.
func (c *Controller) handler() http.Handler {
	mux := http.NewServeMux()
	for path, report := range map[string]func() any{
		PathPorts:   func() any { return c.reportPorts() },
		PathWorkers: func() any { return c.reportWorkers() },
		PathPolicy:  func() any { return c.reportPolicies() },
		PathDrops:   func() any { return c.reportDrops() },
		PathRoutes:  func() any { return c.reportRoutes() },
		PathAudit:   func() any { return c.reportAudit() },
		PathStatus:  func() any { return c.reportStatus(c.clock.now()) },
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			var answer any
			c.Do(func() { answer = report() })
			c.send(w, answer)
		})
	}
	mux.HandleFunc("GET "+PathSAs, func(w http.ResponseWriter, _ *http.Request) { c.send(w, c.reportSAs()) })
	mux.Handle("GET "+PathMetrics, c.metrics())
	return mux
}

func (c *Controller) send(w http.ResponseWriter, answer any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(answer); err != nil {
		c.log.Error("encode an answer", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(body.Bytes()); err != nil {
		c.log.Debug("answer a client", "err", err)
	}
}

// limited is a listener with at most cap(slots) open connections.
type limited struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

// Accept waits for a slot, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotConn{Conn: conn, slots: l.slots}, nil
}

// Close also ends an Accept that waits for a slot.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

// Close closes the connection.
func (s *slotConn) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() { <-s.slots })
	return err
}
