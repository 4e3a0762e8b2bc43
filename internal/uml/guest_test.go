package uml

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// place makes a namespace with a veth pair, vec0 - eth0, for the test.
func place(t *testing.T) string {
	t.Helper()
	ns := fmt.Sprintf("spigotu-%d", os.Getpid())
	run := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v (it needs root)\n%s", args, err, out)
		}
	}
	run("netns add " + ns)
	t.Cleanup(func() { run("netns del " + ns) })
	run("-n " + ns + " link add vec0 type veth peer name eth0")
	if out, err := exec.Command("ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run("-n " + ns + " link set lo up")
	run("-n " + ns + " link set vec0 up")
	run("-n " + ns + " link set eth0 up")
	run("-n " + ns + " addr add 192.0.2.1/24 dev eth0")
	run("-n " + ns + " addr add 2001:db8::1/64 dev eth0 nodad")
	return ns
}

// processes counts those of the guest in dir.
func processes(t *testing.T, dir string) (n int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path) // or the process is gone
		if err == nil && strings.Contains(string(line), "uml_dir="+dir) {
			n++
		}
	}
	return n
}

// A guest boots, and it and the host reach each other; its end ends all of it.
func TestGuest(t *testing.T) {
	ns := place(t)
	dir := t.TempDir()
	path, err := Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	host, err := StartAgent(ns, path)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	guest, err := Boot(ns, "vec0", 1500, dir, path)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	if _, err := guest.Run("link set vec0 up\naddr add 192.0.2.2/24 dev vec0\naddr add 2001:db8::2/64 dev vec0 nodad\n", "ip", "-batch", "-"); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		for i, a := range []*Agent{host, guest} {
			answer, err := a.Call(Request{Probe: &Probe{From: pair[i], To: pair[1-i], UDP: []int{0, 1, 1000}, Echo: []int{0, 1, 1000}, Seconds: 20}})
			if err != nil || answer.Report.Sent != 6 || answer.Report.Intact != 6 {
				t.Errorf("probe from %s: %+v, %v", pair[i], answer.Report, err)
			}
			const bytes = 1<<20 + 1
			answer, err = a.Call(Request{Send: &Send{From: pair[i], To: pair[1-i], Bytes: bytes, Seconds: 60}})
			if err != nil || answer.Report.Intact != bytes {
				t.Errorf("stream from %s: %+v, %v", pair[i], answer.Report, err)
			}
		}
	}
	// The guest's stack is not the host's: it has ESP.
	if _, err := guest.Run("", "ip", "xfrm", "state", "add", "src", "192.0.2.2", "dst", "192.0.2.1", "proto", "esp", "spi", "0x1000",
		"mode", "tunnel", "aead", "rfc4106(gcm(aes))", "0x"+strings.Repeat("5c", 20), "128"); err != nil {
		t.Error(err)
	}
	if _, err := guest.Run("", "ip", "nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a program that fails: %v, want what it says", err)
	}
	if answer, err := guest.Call(Request{Probe: &Probe{From: "192.0.2.2", To: "192.0.2.99", UDP: []int{9}, Seconds: 1}}); err != nil ||
		answer.Report.Intact != 0 || len(answer.Report.Trouble) != 1 {
		t.Errorf("a probe of nobody: %+v, %v, want trouble", answer.Report, err)
	}
	if n := processes(t, dir); n == 0 {
		t.Error("the guest has no process")
	}
	if err := guest.Close(); err != nil {
		t.Error(err)
	}
	if n := processes(t, dir); n != 0 {
		t.Errorf("%d processes outlive the guest", n)
	}
	if _, err := guest.Call(Request{Read: "/proc/version"}); !errors.Is(err, ErrGone) {
		t.Errorf("a call to a guest that is closed: %v, want %v", err, ErrGone)
	}
}

// What an agent answers to a caller that has given up is not taken for the answer
// to the next one.
func TestLateAnswers(t *testing.T) {
	ns := place(t)
	path, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := StartAgent(ns, path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for range 3 {
		a.seq++
		if _, err := fmt.Fprintf(a.in, `{"seq":%d,"exec":["echo","late"]}`+"\n", a.seq); err != nil {
			t.Fatal(err)
		}
		if out, err := a.Run("", "echo", "mine"); err != nil || out != "mine\n" {
			t.Errorf("answered %q, %v", out, err)
		}
	}
}

// A guest that cannot boot is told with what it said, and leaves nothing.
func TestGuestThatFails(t *testing.T) {
	ns := place(t)
	dir := t.TempDir()
	if _, err := Boot(ns, "vec0", 1500, dir, "/usr/bin/false"); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "init") {
		t.Errorf("got %v, want %v and the kernel's words on its init", err, ErrGone)
	}
	if _, err := StartAgent(ns, "/nowhere"); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
}
