package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// The bounds of a request: the gateway is on this machine and answers at once.
const (
	requestTimeout = 10 * time.Second
	maxAnswer      = 256 << 20 // bytes
)

// get returns the gateway's answer to path on the Unix socket.
func get(ctx context.Context, socket, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://spigot"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, explain(socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s to %s: %s", socket, resp.Status, path, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// explain says what an error of the connection means to an operator.
func explain(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s: is spigot running? If its socket is elsewhere, say --socket PATH (%w)", socket, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers on %s: is spigot running? If its socket is elsewhere, say --socket PATH (%w)", socket, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is not for you: be root, or the user that spigot runs as (%w)", socket, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer: the slow path hangs or has no core to run on (%w)", socket, err)
	}
	return fmt.Errorf("ask %s: %w", socket, err)
}
