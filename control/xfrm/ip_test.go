package xfrm_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spigot/control"
	"spigot/control/keyd"
	"spigot/control/xfrm"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keyd.StageCommand {
		os.Exit(keyd.Exec(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// gateway is a server on a socket, to run iproute2 against.
type gateway struct {
	*xfrm.Rig
	path string
}

func newGateway(t *testing.T, locals ...string) *gateway {
	t.Helper()
	g := &gateway{xfrm.NewRig(t, locals...), filepath.Join(t.TempDir(), "xfrm.sock")}
	ln, err := control.ListenPacket(g.path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, g.Server, ln)
	return g
}

func serve(t *testing.T, s *xfrm.Server, ln *net.UnixListener) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// output is what a program has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// ip runs the machine's own ip against g and returns its exit code and what it
// says.
func (g *gateway) ip(t *testing.T, line string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out output
	code := g.start(ctx, t, line, &out)
	return code, out.String()
}

// start runs ip until it ends or ctx does.
func (g *gateway) start(ctx context.Context, t *testing.T, line string, out *output) int {
	var log output
	code, err := keyd.Run(ctx, keyd.Config{
		Argv: append([]string{"ip"}, strings.Fields(line)...), XFRM: g.path, Stdout: out, Stderr: out,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Errorf("ip %s: %v\n%s", line, err, &log)
	}
	return code
}

const (
	addGCM = `xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 reqid 7 mode tunnel flag af-unspec
		aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128`
	addCBC = `xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1002 reqid 8 mode transport replay-window 32
		auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 128
		enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f limit time-soft 300 limit time-hard 400 limit packet-hard 5000`
	addESN = `xfrm state add src 2001:db8::2 dst 2001:db8::1 proto esp spi 0x1003 reqid 9 mode tunnel replay-window 64
		flag esn flag af-unspec aead rfc7539esp(chacha20,poly1305)
		0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 128`

	addAH = `xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x1001 reqid 7 mode transport flag align4 flag af-unspec
		auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 128`
	showAH = `src 192.0.2.1 dst 192.0.2.2
	proto ah spi 0x00001001 reqid 7 mode transport
	replay-window 0 flag af-unspec align4
	auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 128
	anti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000
`

	showGCM = `src 192.0.2.1 dst 192.0.2.2
	proto esp spi 0x00001001 reqid 7 mode tunnel
	replay-window 0 flag af-unspec
	aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
	anti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000
`
	showCBC = `src 192.0.2.2 dst 192.0.2.1
	proto esp spi 0x00001002 reqid 8 mode transport
	replay-window 32 
	auth-trunc hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 128
	enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f
	anti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000
	sel src 0.0.0.0/0 dst 0.0.0.0/0 
`
	showESN = `src 2001:db8::2 dst 2001:db8::1
	proto esp spi 0x00001003 reqid 9 mode tunnel
	replay-window 0 flag af-unspec esn
	aead rfc7539esp(chacha20,poly1305) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 128
	anti-replay esn context:
	 seq-hi 0x0, seq 0x0, oseq-hi 0x0, oseq 0x0
	 replay_window 64, bitmap-length 2
	 00000000 00000000 
`
	addOut  = `xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out priority 5 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel`
	addTwo  = `xfrm policy add src 10.3.0.1 dst 10.3.0.2 dir out tmpl proto esp reqid 7 mode transport tmpl proto ah reqid 8 mode transport`
	showTwo = `src 10.3.0.1/32 dst 10.3.0.2/32 
	dir out priority 0 
	tmpl src 0.0.0.0 dst 0.0.0.0
		proto esp reqid 7 mode transport
	tmpl src 0.0.0.0 dst 0.0.0.0
		proto ah reqid 8 mode transport
`
	addFwd  = `xfrm policy add src fd01::/64 dst fd02::/64 dir fwd action block`
	showOut = `src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 
	dir out priority 5 
	tmpl src 192.0.2.1 dst 192.0.2.2
		proto esp reqid 7 mode tunnel
`
	showFwd = `src fd01::/64 dst fd02::/64 
	dir fwd action block priority 0 
`
)

// The machine's own ip, unchanged, sets SAs and policies, and shows them as
// they were set.
func TestIproute2(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "192.0.2.1", "2001:db8::1")
	for _, row := range []struct {
		line string
		code int
		says string
	}{
		{addGCM, 0, ""},
		{addCBC, 0, ""},
		{addESN, 0, ""},
		{addESN, 2, "Error: add SA: control: exists already: SPI 0x1003 proto 50 -> 2001:db8::1: delete it first, or choose another SPI.\n"},
		{"xfrm state", 0, showGCM + showCBC + showESN},
		{"xfrm state list src 192.0.2.2", 0, showCBC},
		{"-6 xfrm state", 0, showESN},
		{"xfrm state count", 0, "\t SAD count 3\n"},
		{"xfrm state get dst 192.0.2.1 proto esp spi 0x1002", 0, showCBC},
		{"xfrm state get dst 192.0.2.1 proto esp spi 0x1009", 2,
			"Error: get SA: control: no such entry: SPI 0x1009 proto 50 -> 192.0.2.1: list the SAs.\n"},
		{"xfrm state allocspi src 192.0.2.2 dst 192.0.2.1 proto esp mode tunnel reqid 3 min 0x5000 max 0x5000", 0,
			"src 192.0.2.2 dst 192.0.2.1\n\tproto esp spi 0x00005000 reqid 3 mode tunnel\n\treplay-window 0 \n" +
				"\tanti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000\n"},
		{addAH, 0, ""},
		{"xfrm state get dst 192.0.2.2 proto ah spi 0x1001", 0, showAH},
		{"xfrm state delete dst 192.0.2.2 proto ah spi 0x1001", 0, ""},
		{"xfrm state add src 192.0.2.1 dst 192.0.2.2 proto comp spi 0x1001 comp deflate", 2,
			"Error: protocol 108: there are ESP (50) and AH (51).\n"},
		{"xfrm state delete dst 192.0.2.1 proto esp spi 0x1002", 0, ""},
		{"xfrm state deleteall src 192.0.2.1", 0, ""},
		{"xfrm state", 0, showESN + "src 192.0.2.2 dst 192.0.2.1\n\tproto esp spi 0x00005000 reqid 3 mode tunnel\n\treplay-window 0 \n" +
			"\tanti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000\n"},
		{"xfrm state flush", 0, ""},
		{"xfrm state", 0, ""},

		{addTwo, 0, ""},
		{"xfrm policy", 0, showTwo},
		{"xfrm policy delete src 10.3.0.1 dst 10.3.0.2 dir out", 0, ""},
		{addOut, 0, ""},
		{addFwd, 0, ""},
		{addFwd, 2, "Error: add policy: control: exists already: policy 3 has the same direction and selector: update it.\n"},
		{"xfrm policy", 0, showOut + showFwd},
		{"xfrm policy get src fd01::/64 dst fd02::/64 dir fwd", 0, showFwd},
		{"xfrm policy update src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out priority 9", 0, ""},
		{"xfrm policy list dir out", 0, "src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 \n\tdir out priority 9 \n"},
		{"xfrm policy count", 0, "\t SPD IN  0 OUT 1 FWD 1\n"},
		{"xfrm policy set hthresh4 24 16", 0, ""},
		{"xfrm policy getdefault", 0, "Default policies:\n in:  block\n fwd: block\n out: block\n"},
		{"xfrm policy delete src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out", 0, ""},
		{"xfrm policy delete src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out", 2,
			"Error: get policy: control: no such entry: none of that direction and selector: list the policies.\n"},
		{"xfrm policy deleteall", 0, ""},
		{"xfrm policy", 0, ""},
		{addFwd, 0, ""},
		{"xfrm policy flush", 0, ""},
		{"xfrm policy", 0, ""},
	} {
		if code, says := g.ip(t, row.line); code != row.code || says != row.says {
			t.Errorf("ip %s: exit code %d, want %d\n%s\nwant\n%s", row.line, code, row.code, says, row.says)
		}
	}
}

// ip -s shows lifetimes, and what was carried.
func TestIproute2Statistics(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "192.0.2.1", "2001:db8::1")
	if code, says := g.ip(t, addCBC); code != 0 {
		t.Fatal(says)
	}
	_, says := g.ip(t, "-s xfrm state")
	for _, want := range []string{
		"limit: soft (INF)(bytes), hard (INF)(bytes)", "limit: soft (INF)(packets), hard 5000(packets)",
		"expire add: soft 300(sec), hard 400(sec)", "expire use: soft 0(sec), hard 0(sec)",
		"0(bytes), 0(packets)", "add " + time.Now().Format("2006-"), "replay-window 0 replay 0 failed 0",
	} {
		if !strings.Contains(says, want) {
			t.Errorf("no %q in\n%s", want, says)
		}
	}
}

// ip xfrm monitor hears of everything, without keys.
func TestIproute2Monitor(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "192.0.2.1", "2001:db8::1")
	ctx, stop := context.WithCancel(context.Background())
	var heard output
	var monitor sync.WaitGroup
	monitor.Go(func() { g.start(ctx, t, "xfrm monitor", &heard) })
	defer monitor.Wait()
	defer stop()
	await := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(heard.String(), what); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in\n%s", what, &heard)
			}
		}
	}
	g.AwaitListener(t)
	for _, row := range []struct{ line, heard string }{
		{addGCM, "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x00001001 reqid 7 mode tunnel\n\treplay-window 0 flag af-unspec\n" +
			"\taead rfc4106(gcm(aes))  128\n"},
		{"xfrm state update src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 reqid 7 mode tunnel flag af-unspec " +
			"aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128 limit time-hard 600", "Updated src 192.0.2.1"},
		{addOut, showOut},
		{"xfrm policy update src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out priority 9", "Updated src 10.1.0.0/16"},
		{"xfrm policy delete src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out", "Deleted src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp dport 80"},
		{"xfrm policy flush", "Flushed policy"},
		{"xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001", "Deleted src 192.0.2.1 dst 192.0.2.2"},
		{"xfrm state flush proto esp", "Flushed state proto esp"},
	} {
		if code, says := g.ip(t, row.line); code != 0 {
			t.Errorf("ip %s: exit code %d: %s", row.line, code, says)
		}
		await(row.heard)
	}
	g.Ask(t)
	await("acquire proto esp \n  sel src 10.1.0.5/32 dst 10.2.0.6/32 proto tcp sport 1234 dport 80 ")
	if strings.Contains(heard.String(), "0x000102") {
		t.Errorf("a key was told:\n%s", &heard)
	}
}
