package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spigot/control"
)

// monitor prints the audit events that happen while it runs, each once.
func TestMonitorPrintsAuditEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	event := func(n uint64) control.AuditInfo {
		return control.AuditInfo{Number: n, Time: time.Now(), Reason: "replay_seen", SPI: 0x1000, Seq: n, Src: "192.0.2.2", Dst: "192.0.2.1", Flow: "proto 50"}
	}
	asked := 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := []control.AuditInfo{event(1)} // from before
		if asked++; asked > 1 {
			list = append(list, event(2), event(3))
		}
		if r.URL.Path != control.PathAudit || json.NewEncoder(w).Encode(list) != nil {
			t.Errorf("asked for %s", r.URL.Path)
		}
	})}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	ctx, end := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan bool)
	go func() {
		monitorAudit(ctx, path, &lines{w: w})
		close(ended)
	}()
	s := bufio.NewScanner(r)
	for _, want := range []string{"2", "3"} {
		if !s.Scan() || !strings.HasSuffix(s.Text(), "AUDIT replay_seen spi 0x00001000 seq "+want+" 192.0.2.2 -> 192.0.2.1: proto 50") {
			t.Errorf("got %q, want number %s", s.Text(), want)
		}
	}
	end()
	<-ended
}
