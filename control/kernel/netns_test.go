package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
)

var namespaces atomic.Int32

// newNS makes a network namespace for the duration of the test.
func newNS(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("spigotk-%d-%d", os.Getpid(), namespaces.Add(1))
	run(t, "ip netns add "+name)
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del %s: %v\n%s", name, err, out)
		}
	})
	return name
}

// newPair joins two new namespaces by a veth pair: a0 in a with 10.9.0.1/24 and
// fd09::1/64, b0 in b with 10.9.0.2/24 and fd09::2/64.
func newPair(t *testing.T) (a, b string) {
	t.Helper()
	a, b = newNS(t), newNS(t)
	run(t, "ip -n "+a+" link add a0 type veth peer name b0 netns "+b)
	for ns, cmds := range map[string][]string{
		a: {"addr add 10.9.0.1/24 dev a0", "addr add fd09::1/64 dev a0 nodad", "link set a0 up"},
		b: {"addr add 10.9.0.2/24 dev b0", "addr add fd09::2/64 dev b0 nodad", "link set b0 up"},
	} {
		for _, c := range cmds {
			run(t, "ip -n "+ns+" "+c)
		}
	}
	return a, b
}

func run(t *testing.T, cmd string) string {
	t.Helper()
	f := strings.Fields(cmd)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// within calls f on a thread that is in the namespace.
func within(t *testing.T, name string, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes the
		// namespace with it.
		runtime.LockOSThread()
		ns, err := netns.GetFromName(name)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter namespace %s: %v", name, err)
	}
}
