package main

import (
	"bytes"
	"flag"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the program says into the golden files")

// What a gateway of another version, or no gateway at all, may answer.
func TestStrangeAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want string
		status             int
	}{
		{"not JSON", "hello", "understand the answer", http.StatusOK},
		{"another shape", `{"a": 1}`, "understand the answer", http.StatusOK},
		{"nothing", "", "understand the answer", http.StatusOK},
		{"too old", "404 page not found", "answers 404 Not Found to /v1/ports: 404 page not found", http.StatusNotFound},
		{"broken", "internal error", "answers 500", http.StatusInternalServerError},
	} {
		for _, format := range []string{"table", "json"} {
			if tt.name == "another shape" && format == "json" {
				continue // JSON is handed through
			}
			t.Run(tt.name+"/"+format, func(t *testing.T) {
				socket := answering(t, tt.status, tt.answer)
				var out, err bytes.Buffer
				if code := run([]string{"show", "ports", "--socket", socket, "-o", format}, &out, &err); code != exitFailure {
					t.Errorf("exit code %d, want %d", code, exitFailure)
				}
				if !strings.Contains(err.String(), tt.want) || out.Len() != 0 {
					t.Errorf("stderr %q, want %q in it; stdout %q, want none", &err, tt.want, &out)
				}
			})
		}
	}
}

// answering serves one answer to everything and returns the socket's path.
func answering(t *testing.T, status int, body string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})}
	go func() { _ = s.Serve(ln) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

func TestASocketThatNobodyServes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if code := run([]string{"show", "sa", "--socket", socket}, &out, &stderr); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if want := "nobody answers on " + socket + ": is spigot running?"; !strings.Contains(stderr.String(), want) {
		t.Errorf("stderr %q, want %q in it", &stderr, want)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args string
		want int
	}{
		{"version", exitOK},
		{"--help", exitOK},
		{"show ports --help", exitOK},
		{"", exitUsage},
		{"show", exitUsage},
		{"show nothing", exitUsage},
		{"show ports extra", exitUsage},
		{"show ports -o xml", exitUsage},
		{"show ports --nothing", exitUsage},
		{"show ports --socket /nowhere/control.sock", exitFailure},
	} {
		var out, err bytes.Buffer
		if got := run(strings.Fields(tt.args), &out, &err); got != tt.want {
			t.Errorf("spigotctl %s: exit code %d, want %d; stderr: %s", tt.args, got, tt.want, &err)
		}
	}
}
