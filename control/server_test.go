package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pmd"
	"spigot/sad"
	"spigot/spd"
)

// serve starts the API on a socket of its own and returns a client and the path.
func (g *gateway) serve(t *testing.T) (*http.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln) }()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return client, path
}

// get decodes the answer into v, refusing fields that v does not have.
func get(t *testing.T, client *http.Client, path string, v any) string {
	t.Helper()
	resp, err := client.Get("http://spigot" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return string(body)
}

// queue is a port of which only Info and Stats are asked.
type queue struct{ pmd.Port }

func (queue) Info() pmd.Info {
	return pmd.Info{Name: "in0", Index: 11, Queue: 3, Driver: "memport", Mode: "memory", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
		Longest: 9984, NoJumbo: "the device is old"}
}

func (queue) Stats() pmd.Stats {
	return pmd.Stats{RxPackets: 1, RxBytes: 2, TxPackets: 3, TxBytes: 4, TxDone: 5, TxErrors: 6, Kicks: 7, RxDropped: 8, FillEmpty: 9, BadDesc: 10,
		RxJumbo: 11, RxGiant: 12, JumboEmpty: 13}
}

func TestWhatOperatorsSee(t *testing.T) {
	g := newGateway(t, func(c *Config) {
		c.AllowManualAEAD = true
		c.Ports[0].Queues = []pmd.Port{queue{}}
	})
	g.see()
	tcp := protect("10.2.0.0/16", func(p *spd.Policy) {
		p.Sel.Proto, p.Sel.DstPort.Lo, p.Sel.DstPort.Hi = 6, 443, 443
		p.Sel.SrcPort.Lo = 1024
	})
	in := protect("10.1.0.0/16", func(p *spd.Policy) { p.Dir, p.Action, p.Sel.Dst = spd.In, spd.Bypass, prefix("10.1.0.0/16") })
	g.load(t, tcp, in,
		sa(300, here, peer, gcm, reqid(4), func(p *sad.Params) { p.Hard.Seconds, p.Soft.Bytes = 3600, 99 }),
		sa(301, peer, here, func(p *sad.Params) { p.Window, p.ESN = 1024, true }),
		sa(302, "203.0.113.1", "203.0.113.2"))
	g.list()[0].out.Reserve(5)
	g.list()[0].out.Count(5, 500)
	w := g.worker.Counters
	w.Rx, w.Tx, w.Turns = 12, 9, 100
	w.Drops[counter.NoSA], w.Drops[counter.Runt] = 2, 1
	w.Cycles[counter.StageSeal], w.Packets[counter.StageSeal] = 900, 9
	w.Publish()
	g.give(punt(fib.PuntTTL, udp4(t, "10.1.0.2", "10.2.0.2", 1)), time.Now())
	client, _ := g.serve(t)

	var ports []PortInfo
	get(t, client, PathPorts, &ports)
	if len(ports) != 1 {
		t.Fatalf("ports: %+v", ports)
	}
	p := ports[0]
	if p.Name != "in0" || p.Side != "protected" || p.Driver != "memport" || p.Mode != "memory" || p.Queue != 3 ||
		p.MAC != "02:00:00:00:00:01" || p.Longest != 9984 || p.NoJumbo != "the device is old" || !p.Up || !p.Carrier || p.MTU != 1500 || len(p.Addrs) != 3 ||
		p.Stats != (PortStats{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}) {
		t.Errorf("port: %+v", p)
	}

	var workers []WorkerInfo
	get(t, client, PathWorkers, &workers)
	if len(workers) != 1 || workers[0].Core != 1 || workers[0].Rx != 12 || workers[0].Dropped != 3 || !workers[0].Balanced ||
		workers[0].Drops["no_sa"] != 2 || len(workers[0].Drops) != 2 || len(workers[0].Stages) != int(counter.NumStages) ||
		workers[0].Stages[counter.StageSeal] != (StageInfo{"seal", 900, 9, 100}) {
		t.Errorf("workers: %+v", workers)
	}

	var drops []DropInfo
	get(t, client, PathDrops, &drops)
	if len(drops) != int(counter.NumReasons)-1 {
		t.Errorf("%d reasons", len(drops))
	}
	for _, d := range drops {
		want := map[string]uint64{"no_sa": 2, "runt": 1}[d.Reason]
		if d.Total != want || len(d.Workers) != 1 || d.Workers[0] != want || d.Text == "" {
			t.Errorf("drops: %+v", d)
		}
	}

	var sas []SAInfo
	body := get(t, client, PathSAs, &sas)
	if len(sas) != 3 {
		t.Fatalf("SAs: %+v", sas)
	}
	out := sas[0]
	if out.Direction != DirOut || out.SPI != 300 || out.Src != here || out.Dst != peer || out.Proto != "esp" || out.Mode != "tunnel" ||
		out.Suite != "aes-gcm-16-128" || out.Reqid != 4 || out.Seq != 5 || out.Packets != 5 || out.Bytes != 500 ||
		out.Hard != (Lifetime{Seconds: 3600}) || out.Soft != (Lifetime{Bytes: 99}) || len(out.Policies) != 1 || out.Name != "test" {
		t.Errorf("outbound SA: %+v", out)
	}
	if sas[1].Direction != DirIn || !sas[1].ESN || sas[1].Window != 1024 || sas[2].Direction != DirWaiting {
		t.Errorf("other SAs: %+v", sas[1:])
	}
	for _, key := range []string{strings.Repeat("2c", 8), strings.Repeat("LCws", 4), "44,44,44"} {
		if strings.Contains(strings.ToLower(body), strings.ToLower(key)) {
			t.Errorf("a key shows: %s", body)
		}
	}

	var policies []PolicyInfo
	get(t, client, PathPolicy, &policies)
	if len(policies) != 2 {
		t.Fatalf("policies: %+v", policies)
	}
	o := policies[0]
	if o.Dir != DirOut || o.Src != "10.1.0.0/16" || o.Dst != "10.2.0.0/16" || o.Proto != "6" || o.SrcPort != "1024-65535" ||
		o.DstPort != "443" || o.Action != "protect" || o.Level != "require" || o.BoundSPI != 300 || o.ID != out.Policies[0] ||
		o.Template == nil || *o.Template != (TemplateInfo{"esp", "tunnel", here, peer, 0}) || !o.Static {
		t.Errorf("outbound policy: %+v", o)
	}
	if i := policies[1]; i.Dir != DirIn || i.Action != "bypass" || i.Template != nil || i.Proto != "any" || i.DstPort != "any" {
		t.Errorf("inbound policy: %+v", i)
	}

	var routes []RouteInfo
	get(t, client, PathRoutes, &routes)
	found := false
	for _, r := range routes {
		found = found || r.Dst == "0.0.0.0/0" && r.Via == peer && r.Port == "out0" && r.State == fib.Unresolved.String()
	}
	if !found {
		t.Errorf("routes: %+v", routes)
	}

	var status StatusInfo
	get(t, client, PathStatus, &status)
	if !status.Mirrored || status.WaitingSAs != 1 || status.Local != 4 || status.Stats.ICMPSent != 1 {
		t.Errorf("status: %+v", status)
	}
}

func TestAnswersAreNeverNull(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Ports, c.Workers = nil, nil })
	client, _ := g.serve(t)
	for _, path := range []string{PathPorts, PathWorkers, PathSAs, PathPolicy, PathRoutes} {
		var list []json.RawMessage
		if body := get(t, client, path, &list); strings.TrimSpace(body) != "[]" {
			t.Errorf("GET %s: %s, want []", path, body)
		}
	}
}

func TestWhatIsNoQuestion(t *testing.T) {
	client, _ := newGateway(t).serve(t)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", PathSAs, http.StatusMethodNotAllowed},
		{"GET", "/v1/keys", http.StatusNotFound},
		{"GET", "/v1/sa/../../etc/passwd", http.StatusNotFound},
		{"HEAD", PathDrops, http.StatusOK},
	} {
		req, err := http.NewRequest(c.method, "http://spigot"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %s, want %d", c.method, c.path, resp.Status, c.want)
		}
	}
}

// TestIdleClientsAreBounded holds that clients that say nothing use up their
// own slots and never the controller.
func TestIdleClientsAreBounded(t *testing.T) {
	g := newGateway(t)
	client, path := g.serve(t)
	var idle []net.Conn
	for range maxClients {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		idle = append(idle, conn)
	}
	client.Timeout = 100 * time.Millisecond
	if resp, err := client.Get("http://spigot" + PathStatus); err == nil {
		resp.Body.Close()
		t.Error("one client more than there may be was served")
	}
	g.Do(func() { g.chores(time.Now()) }) // would hang
	idle[0].Close()
	client.Timeout = 5 * time.Second
	get(t, client, PathStatus, new(StatusInfo))
}

func TestTheSocketIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "control.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestListenReplacesDeadSocketsOnly(t *testing.T) {
	for _, c := range []struct {
		name  string
		there func(t *testing.T, path string)
		says  string // "": replaced
	}{
		{"nothing", func(*testing.T, string) {}, ""},
		{"a socket of a dead process", func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			ln.(*net.UnixListener).SetUnlinkOnClose(false)
			ln.Close()
		}, ""},
		{"a socket that is alive", func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}, "another gateway"},
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "control.sock")
			c.there(t, path)
			ln, err := Listen(path)
			if err == nil {
				defer ln.Close()
			}
			if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrSocket) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if c.says == "" {
				return
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("what was there is gone: %v", err)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "packet.sock")
	ln, err := ListenPacket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(path); !errors.Is(err, ErrSocket) || !strings.Contains(err.Error(), "of another use") {
		t.Errorf("a socket of another type: %v", err)
	}
	if _, err := ListenPacket(path); !errors.Is(err, ErrSocket) || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("a socket for messages that is alive: %v", err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("long", 40), "control.sock")); !errors.Is(err, ErrSocket) {
		t.Errorf("a path longer than a socket's may be: %v", err)
	}
}
