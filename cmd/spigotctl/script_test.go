package main

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"spigot/control"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"spigotctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			socket := filepath.Join(env.WorkDir, "gw.sock")
			env.Setenv("SOCKET", socket)
			return serve(env, socket)
		},
	})
}

// serve answers on socket as a gateway with a little of everything would.
func serve(env *testscript.Env, socket string) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for path, answer := range answers {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(answer); err != nil {
				env.T().Log(err)
			}
		})
	}
	mux.HandleFunc("GET "+control.PathMetrics, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("spigot_sas 3\n"))
	})
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(ln) }() // ends with Close
	env.Defer(func() {
		if err := s.Close(); err != nil {
			env.T().Log(err)
		}
	})
	return nil
}

var answers = map[string]any{
	control.PathPorts: []control.PortInfo{
		{
			Name: "red0", Side: "protected", Driver: "afxdp", Mode: "zerocopy", MAC: "02:00:00:00:00:01", Up: true, Carrier: true,
			MTU: 1500, Longest: 9984, Addrs: []string{"10.1.0.1"}, Stats: control.PortStats{RxPackets: 12, TxPackets: 3456789, JumboEmpty: 2},
		},
		{
			Name: "blue0", Queue: 1, Side: "wire", Driver: "afxdp", Mode: "copy", Up: true, MTU: 9000,
			Trouble: "the XDP program is no longer attached", Stats: control.PortStats{RxDropped: 4, TxErrors: 5},
		},
		{Name: "blue1", Side: "wire", Driver: "asavie", Mode: "generic", MTU: 1500, Longest: 1792, Carrier: true,
			NoJumbo: "the driver asavie has no multi-buffer"},
		{Name: "blue2", Side: "wire", Driver: "asavie", Mode: "generic"},
		{Name: "wide0", Side: "wire", Driver: "afxdp", Mode: "copy", MTU: 1775, Longest: 1792, Up: true, Carrier: true},
		{Name: "wide1", Side: "wire", Driver: "afxdp", Mode: "copy", MTU: 1774, Longest: 1792, Up: true, Carrier: true},
	},
	control.PathWorkers: []control.WorkerInfo{
		{
			Core: 1, Crypto: "vaes512", Turns: 1000, Busy: 255, Rx: 100, Tx: 90, Dropped: 8, Punted: 2, Balanced: true,
			Stages: []control.StageInfo{
				{Stage: "rx", Cycles: 2000, Packets: 100, CyclesPerPacket: 20},
				{Stage: "classify", Cycles: 3160, Packets: 100, CyclesPerPacket: 31.6},
				{Stage: "seal"},
			},
		},
		{Core: 2, Crypto: "vaes512", Sleeps: 7},
	},
	control.PathSAs: []control.SAInfo{
		{
			Direction: "out", SPI: 0x1234, Src: "192.0.2.1", Dst: "192.0.2.2", Proto: "esp", Mode: "tunnel", Suite: "aes-gcm-16",
			Reqid: 7, ESN: true, Seq: 1 << 33, Packets: 10, Bytes: 12345, AgeSeconds: 3723.4, CPU: new(int), Name: "ipsec.conf:3",
		},
		{Direction: "in", SPI: 0xdeadbeef, Src: "2001:db8::2", Dst: "2001:db8::1", Proto: "esp", Mode: "transport", Suite: "null", Window: 64},
		{
			Direction: "out", SPI: 0x1235, Src: "192.0.2.1", Dst: "192.0.2.2", Proto: "esp", Mode: "tunnel", Suite: "aes-gcm-16",
			ForDSCP: []int{34, 46},
		},
	},
	control.PathPolicy: []control.PolicyInfo{
		{
			ID: 1, Dir: "out", Src: "10.1.0.0/16", Dst: "10.2.0.0/16", Proto: "any", SrcPort: "any", DstPort: "any", Action: "protect",
			Level:    "require",
			Template: &control.TemplateInfo{Proto: "esp", Mode: "tunnel", Src: "192.0.2.1", Dst: "192.0.2.2", Reqid: 7},
			BoundSPI: 0x1234, DSCPSPIs: []uint32{0x1235, 0x1236}, Static: true, Name: "ipsec.conf:1",
		},
		{
			ID: 3, Dir: "out", Priority: 5, Src: "10.1.0.0/16", Dst: "0.0.0.0/0", Proto: "6", SrcPort: "any", DstPort: "80-90",
			Action: "protect", Level: "use", Template: &control.TemplateInfo{Proto: "esp", Mode: "transport", Src: "any", Dst: "any"},
			PFP: []string{"src", "dst"},
		},
		{
			ID: 4, Dir: "out", Src: "10.3.0.1/32", Dst: "10.3.0.2/32", Proto: "any", SrcPort: "any", DstPort: "any", Action: "protect",
			Level: "require", Template: &control.TemplateInfo{Proto: "esp", Mode: "transport", Src: "any", Dst: "any", Reqid: 7},
			Outer:    []control.TemplateInfo{{Proto: "ah", Mode: "transport", Src: "any", Dst: "any", Reqid: 8}},
			BoundSPI: 0x1234, OuterSPIs: []uint32{0x1235},
		},
		{ID: 2, Dir: "in", Src: "::/0", Dst: "::/0", Proto: "58", SrcPort: "any", DstPort: "any", Action: "bypass"},
	},
	control.PathDrops: []control.DropInfo{
		{Reason: "runt", Text: "shorter than its headers", Workers: []uint64{0, 0}},
		{Reason: "no_policy", Text: "no SPD entry matches: the implicit discard (RFC 4301, 4.4.1)", Workers: []uint64{17, 4}, Total: 21},
	},
	control.PathRoutes: []control.RouteInfo{
		{Dst: "10.1.0.0/24", State: "ready", Port: "red0", MTU: 1500, MAC: "02:00:00:00:00:09"},
		{Dst: "10.2.0.0/16", State: "unresolved", Via: "192.0.2.2", Port: "blue0", MTU: 1400},
		{Dst: "10.1.0.1/32", State: "local"},
		{Dst: "10.9.0.0/16", State: "no_route"},
	},
	control.PathAudit: []control.AuditInfo{
		{
			Number: 3, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Reason: "auth_failed", SPI: 0x1000, Seq: 7,
			Src: "192.0.2.2", Dst: "192.0.2.1", Flow: "proto 50 192.0.2.2 -> 192.0.2.1",
		},
	},
	control.PathStatus: control.StatusInfo{
		UptimeSeconds: 61.2, Mirrored: true, Neighbours: 2, Local: 3, WaitingSAs: 1,
		Stats: control.Stats{Acquires: 9, AcquiresSent: 8, Resolves: 7, ICMPSent: 6, ICMPLimited: 5, HardExpired: 4},
	},
}
