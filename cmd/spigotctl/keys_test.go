package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spigot/control"
	"spigot/control/kernel"
	"spigot/control/pfkey"
	"spigot/internal/epoch"
	"spigot/internal/fib"
	"spigot/internal/flow"
	"spigot/internal/tables"
	"spigot/sad"
)

// silent is a kernel that says once that 192.0.2.1 is the gateway's.
type silent struct{ updates chan *kernel.View }

func (s *silent) Updates() <-chan *kernel.View { return s.updates }
func (s *silent) Resolve(int, flow.Addr)       {}

// newKeyServer serves PF_KEY over a slow path without workers, and returns it
// and the path of the socket.
func newKeyServer(t *testing.T) (*control.Controller, string) {
	t.Helper()
	mirror := &silent{make(chan *kernel.View, 1)}
	mirror.updates <- &kernel.View{FIB: fib.Config{Local: []flow.Addr{flow.FromNetip(netip.MustParseAddr("192.0.2.1"))}}}
	c, err := control.New(control.Config{
		IPsec: new(tables.Published), FIB: new(atomic.Pointer[fib.Table]),
		Epochs: new(epoch.Domain), Mirror: mirror,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pfkey.sock")
	ln, err := control.ListenPacket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	for _, part := range []func() error{
		func() error { return c.Run(ctx) },
		func() error { return pfkey.New(pfkey.Config{Control: c}).Serve(ctx, ln) },
	} {
		parts.Go(func() {
			if err := part(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { end(); parts.Wait(); c.Close() })
	return c, path
}

// spigotctl runs a command line and returns what it says.
func spigotctl(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func TestMonitorPrintsWhatHappens(t *testing.T) {
	c, path := newKeyServer(t)
	r, w := io.Pipe()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- monitor(ctx, &keyOptions{pfkey: path, socket: new(string)}, w)
		w.Close()
	}()
	lines := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	params := control.SAParams{Params: sad.Params{
		SPI: 0x1000, Proto: 50, Tunnel: true, Src: flow.V4(0xc0000201), Dst: flow.V4(0xc0000202), Encryption: "aes-cbc", Integrity: "hmac-sha2-256-128",
		EncKey: []byte("0123456789abcdef"), AuthKey: []byte("0123456789abcdef0123456789abcdef"),
	}}
	keying := func(f func(k *control.Keying)) {
		if err := c.Keying(f); err != nil {
			t.Fatal(err)
		}
	}
	for listens := false; !listens; {
		keying(func(k *control.Keying) { k.FlushSAs(control.Origin{}, 0) })
		select {
		case <-lines:
			listens = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	keying(func(k *control.Keying) {
		if err := k.AddSA(control.Origin{PID: 7, Seq: 8}, params); err != nil {
			t.Error(err)
		}
	})
	if code, _, stderr := spigotctl("flush", "--pfkey", path); code != exitOK {
		t.Errorf("flush: %d %s", code, stderr)
	}
	for _, want := range []string{
		`ADD esp seq 8 pid 7: SPI 0x1000 192.0.2.1 -> 192.0.2.2 mature tunnel aes-cbc hmac-sha2-256-128`,
		`X_SPDFLUSH seq 1 pid \d+`,
		`FLUSH seq 2 pid \d+`,
	} {
		line := <-lines
		for strings.HasSuffix(line, "FLUSH seq 0 pid 0") {
			line = <-lines
		}
		if !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} ` + want).MatchString(line) {
			t.Errorf("monitor prints %q, want %q", line, want)
		}
	}
	keying(func(k *control.Keying) {
		if n := k.SACount(); n != 0 {
			t.Errorf("%d SAs are left", n)
		}
	})
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFlushSaysWhatIsWrong(t *testing.T) {
	_, path := newKeyServer(t)
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"flush", "sa", "--pfkey", path}, exitOK, ""},
		{[]string{"flush", "policy", "--pfkey", path}, exitOK, ""},
		{[]string{"flush", "all", "--pfkey", path}, exitUsage, `cannot flush "all": say sa, policy, or nothing`},
		{[]string{"flush", "sa", "policy", "--pfkey", path}, exitUsage, "2 things to flush"},
		{[]string{"flush", "--pfkey", path + "x"}, exitFailure, "is spigot running?"},
		{[]string{"monitor", "--pfkey", path + "x"}, exitFailure, "is spigot running?"},
		{[]string{"flush", "--socket", filepath.Join(filepath.Dir(path), "control.sock")}, exitOK, ""},
	} {
		code, _, stderr := spigotctl(row.args...)
		if code != row.code || !strings.Contains(stderr, row.want) {
			t.Errorf("%q: exit code %d, %q; want %d and %q", row.args, code, stderr, row.code, row.want)
		}
	}
}
