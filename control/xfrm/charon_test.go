package xfrm_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spigot/control"
	"spigot/control/keyd"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// peer is a gateway whose keys unmodified charon makes, in a network namespace
// of its own. There is no data path: what is tested is who tells whom what.
type peer struct {
	*gateway
	netns      string
	addr, peer string
	later      string // another address, which it gets later
	dir        string
	log        output
}

// charonConf is a configuration of charon that leaves the machine's alone.
const charonConf = `charon {
	load_modular = no
	load = random nonce aes sha1 sha2 hmac gcm kdf openssl kernel-netlink socket-default vici
	install_routes = no
	delete_rekeyed_delay = 1
	syslog { identifier = none }
	filelog { stderr { default = 1; knl = 2; flush_line = yes } }
	plugins { vici { socket = unix://%[1]s/vici } }
}
`

// swanctlConf has one connection between two addresses, and one child between
// two networks.
const swanctlConf = `connections { c {
	remote_addrs = %[2]s
	version = 2
	%[5]s
	local {
		auth = psk
		id = %[1]s
	}
	remote {
		auth = psk
		id = %[2]s
	}
	children { child {
		local_ts = %[3]s
		remote_ts = %[4]s
		start_action = trap
		%[6]s
	} }
} }
secrets { ike { secret = "for a test only" } }
`

func sh(t *testing.T, line string, args ...any) {
	t.Helper()
	line = fmt.Sprintf(line, args...)
	if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// twoCharons returns two peers that see each other.
func twoCharons(t *testing.T, conn, child string) (a, b *peer) {
	t.Helper()
	name := fmt.Sprintf("xfrm-%d-%s-", os.Getpid(), t.Name()[len("TestCharon"):])
	a = &peer{netns: name + "a", addr: "192.0.2.1", peer: "192.0.2.2", later: "192.0.2.65"}
	b = &peer{netns: name + "b", addr: "192.0.2.2", peer: "192.0.2.1", later: "192.0.2.66"}
	for _, p := range []*peer{a, b} {
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", p.netns).Run() })
		sh(t, "ip netns add %[1]s && ip -n %[1]s link set lo up", p.netns)
	}
	sh(t, "ip -n %s link add v type veth peer name v netns %s", a.netns, b.netns)
	for i, p := range []*peer{a, b} {
		sh(t, "ip -n %[1]s addr add %[2]s/24 dev v && ip -n %[1]s link set v up", p.netns, p.addr)
		p.gateway = newGateway(t, p.addr, p.later)
		p.dir = t.TempDir()
		local, remote := fmt.Sprintf("10.%d.0.0/16", i+1), fmt.Sprintf("10.%d.0.0/16", 2-i)
		p.write(t, "strongswan.conf", fmt.Sprintf(charonConf, p.dir))
		p.write(t, "swanctl.conf", fmt.Sprintf(swanctlConf, p.addr, p.peer, local, remote, conn, child))
		p.run(t)
	}
	return a, b
}

func (p *peer) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs charon until the test ends, and loads its configuration.
func (p *peer) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A /run of its own: what charon leaves there is not the machine's.
		script := "mount -t tmpfs none /run && STRONGSWAN_CONF=" + p.dir + "/strongswan.conf exec charon-systemd"
		_, err := keyd.Run(ctx, keyd.Config{
			Argv: []string{"ip", "netns", "exec", p.netns, "sh", "-c", script}, XFRM: p.path,
			Stdout: &p.log, Stderr: &p.log, Log: slog.New(slog.NewTextHandler(&p.log, nil)),
		})
		if err != nil {
			t.Errorf("charon of %s: %v", p.addr, err)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if t.Failed() {
			t.Logf("charon of %s:\n%s", p.addr, &p.log)
		}
	})
	p.await(t, "charon listens", func(*control.Keying) bool {
		_, err := os.Stat(p.dir + "/vici")
		return err == nil
	})
	p.swanctl(t, "--load-all --file "+p.dir+"/swanctl.conf")
}

func (p *peer) swanctl(t *testing.T, line string) {
	t.Helper()
	sh(t, "SWANCTL_DIR=%[1]s timeout 60 swanctl %[2]s --uri unix://%[1]s/vici", p.dir, line)
}

// await waits until the SADB and SPD of p are as see wants.
func (p *peer) await(t *testing.T, what string, see func(*control.Keying) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ok := false
		if err := p.Control().Keying(func(k *control.Keying) { ok = see(k) }); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not yet: %s", p.addr, what)
		}
	}
}

// sas returns p's SAs by direction, without larval ones.
func (p *peer) sas() (in, out []control.SA) {
	var walk *control.SADump
	_ = p.Control().Keying(func(k *control.Keying) { walk = k.DumpSAs(0) })
	var buf [16]control.SA
	for n := walk.Next(buf[:], true); n > 0; n = walk.Next(buf[:], true) {
		for _, sa := range buf[:n] {
			switch {
			case sa.State == control.Larval:
			case sa.Direction == control.Inbound:
				in = append(in, sa)
			case sa.Direction == control.Outbound:
				out = append(out, sa)
			}
		}
	}
	return in, out
}

// policy returns p's policy of that direction.
func (p *peer) policy(t *testing.T, dir spd.Dir) (found control.Policy) {
	t.Helper()
	p.await(t, "three policies", func(k *control.Keying) bool { return k.DumpPolicies().Len() == 3 })
	var walk *control.PolicyDump
	_ = p.Control().Keying(func(k *control.Keying) { walk = k.DumpPolicies() })
	var buf [3]control.Policy
	for _, q := range buf[:walk.Next(buf[:])] {
		if q.Dir == dir {
			found = q
		}
	}
	return found
}

// awaitSAs waits until p's SAs are as see wants.
func (p *peer) awaitSAs(t *testing.T, see func(in, out []control.SA) bool) (in, out []control.SA) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		in, out = p.sas()
		if see(in, out) {
			return in, out
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: SAs in %v, out %v", p.addr, in, out)
		}
	}
}

// settled waits until p has one SA a direction, other than those before.
func (p *peer) settled(t *testing.T, before ...uint32) (in, out control.SA) {
	t.Helper()
	ins, outs := p.awaitSAs(t, func(in, out []control.SA) bool {
		return len(in) == 1 && len(out) == 1 && !slices.Contains(before, in[0].SPI) && !slices.Contains(before, out[0].SPI)
	})
	return ins[0], outs[0]
}

// connect has the first packet of a to b ask for an SA, and returns the SAs and
// the outbound policy of a.
func connect(t *testing.T, a, b *peer) (aIn, aOut, bIn, bOut control.SA, policy uint32) {
	t.Helper()
	trap := a.policy(t, spd.Out)
	if trap.Action != spd.Protect || trap.Template.Dst.String() != b.addr || trap.Template.Reqid == 0 {
		t.Fatalf("trap policy %+v", trap)
	}
	src, dst := flow.V4(0x0a010005), flow.V4(0x0a020006)
	a.Acquire(trap.ID, flow.Tuple{Src: src, Dst: dst, Proto: 6, SrcPort: 1234, DstPort: 80})
	aIn, aOut = a.settled(t)
	bIn, bOut = b.settled(t)
	// What is said of SAs that charon does not yet call its own is lost on it.
	a.await(t, "charon knows its CHILD_SA", func(*control.Keying) bool { return strings.Contains(a.log.String(), " established with SPIs ") })
	for _, pair := range [][2]control.SA{{aOut, bIn}, {bOut, aIn}} {
		from, to := pair[0], pair[1]
		if from.ID() != to.ID() || from.Src != to.Src || from.Encryption != to.Encryption || len(from.EncKey) == 0 || !from.Tunnel ||
			!bytes.Equal(from.EncKey, to.EncKey) || !bytes.Equal(from.AuthKey, to.AuthKey) || from.ESN != to.ESN || from.Encap != to.Encap {
			t.Errorf("sent by %v\nreceived by %v", from, to)
		}
	}
	if bound := a.Bound(trap.ID); bound == nil || bound.SPI != aOut.SPI {
		t.Errorf("the policy has SA %v, want %v", bound, aOut.ID())
	}
	return aIn, aOut, bIn, bOut, trap.ID
}

// Unmodified charon on both sides: trap policies, an acquire for the first
// packet, SAs that fit each other, with AES-256-GCM, ESN and a large window. A
// soft lifetime makes them new ones, without a moment when there is none; the
// old ones go, and in the end all.
func TestCharon(t *testing.T) {
	t.Parallel()
	a, b := twoCharons(t, "", `esp_proposals = aes256gcm16-esn
		replay_window = 1024
		rekey_packets = 1000
		life_packets = 100000
		rand_packets = 0`)
	aIn, aOut, bIn, bOut, policy := connect(t, a, b)
	if aOut.Encryption != "aes-gcm-16" || len(aOut.EncKey) != 36 || !aOut.ESN || bIn.Window != 1024 || aOut.Soft.Packets != 1000 {
		t.Errorf("sent by %v\nreceived by %v", aOut, bIn)
	}
	a.Bound(policy).Count(1000, 64000)
	rekeyed := make(chan bool)
	unbound := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-rekeyed:
				unbound <- n
				return
			default:
				if a.Bound(policy) == nil {
					n++
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	_, newOut := a.settled(t, aIn.SPI, aOut.SPI)
	close(rekeyed)
	if n := <-unbound; n > 0 {
		t.Errorf("the policy had no SA %d times", n)
	}
	if bound := a.Bound(policy); bound == nil || bound.SPI != newOut.SPI {
		t.Errorf("after the rekeying the policy has SA %v, want %v", bound, newOut.ID())
	}
	b.settled(t, bIn.SPI, bOut.SPI)

	a.swanctl(t, "--terminate --ike c")
	for _, p := range []*peer{a, b} {
		p.await(t, "no SA, and the trap", func(k *control.Keying) bool {
			keyed, _ := k.PolicyCount()
			return k.SACount() == 0 && keyed == [3]int{1, 1, 1}
		})
	}
}

// With NAT traversal, AES-CBC and HMAC, and an address that changes: charon
// reads how far an SA is, deletes it and adds it at the new address, where the
// sequence numbers go on (MOBIKE, RFC 4555).
func TestCharonMoves(t *testing.T) {
	t.Parallel()
	a, b := twoCharons(t, "encap = yes", "esp_proposals = aes256-sha384")
	_, aOut, bIn, _, policy := connect(t, a, b)
	if aOut.Encap.Type != sad.EncapUDP || aOut.Encap.DstPort != 4500 || aOut.Integrity != "hmac-sha2-384-192" || bIn.Window != 32 {
		t.Errorf("sent by %v, wrapped as %+v", aOut, aOut.Encap)
	}
	if !a.Bound(policy).Advance(500) {
		t.Fatal("the SA has sent more than nothing")
	}
	sh(t, "ip -n %[1]s addr add %[2]s/25 dev v && ip -n %[1]s addr del %[3]s/24 dev v", a.netns, a.later, a.addr)
	for _, p := range []*peer{a, b} {
		p.awaitSAs(t, func(in, out []control.SA) bool {
			return len(in) == 1 && len(out) == 1 && (in[0].Dst.String() == a.later || in[0].Src.String() == a.later)
		})
	}
	if _, out := a.settled(t); out.Src.String() != a.later || out.SPI != aOut.SPI || out.Replay.Seq != 500 || !bytes.Equal(out.EncKey, aOut.EncKey) {
		t.Errorf("after the move: %v at %d, want %v at 500", out, out.Replay.Seq, aOut)
	}
}
