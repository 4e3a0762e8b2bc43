package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"spigot": main})
}

// What the command line says and how it exits, without a network.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", UpdateScripts: *update})
}

// The whole program between two hosts.
func TestNet(t *testing.T) {
	ctl := buildSpigotctl(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/net",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", ctl+string(os.PathListSeparator)+env.Getenv("PATH"))
			return newNetwork(env)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":     await,
			"terminate": terminate,
		},
	})
}

// buildSpigotctl builds the operator's tool and returns its folder.
func buildSpigotctl(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "spigotctl"), "spigot/cmd/spigotctl").CombinedOutput(); err != nil {
		t.Fatalf("build spigotctl: %v\n%s", err, out)
	}
	return dir
}

var networks atomic.Int32

// newNetwork makes three namespaces for one script: host $A - red0 $GW blue0 -
// host $B. They go away with the script, however it ends.
func newNetwork(env *testscript.Env) error {
	id := fmt.Sprintf("spigotr-%d-%d", os.Getpid(), networks.Add(1))
	a, gw, b := id+"-a", id+"-gw", id+"-b"
	env.Setenv("A", a)
	env.Setenv("GW", gw)
	env.Setenv("B", b)
	for _, ns := range []string{a, gw, b} {
		if err := ip("netns add " + ns); err != nil {
			return err
		}
		env.Defer(func() {
			if err := ip("netns del " + ns); err != nil {
				env.T().Log(err)
			}
		})
	}
	for _, args := range []string{
		"link add red0 netns " + gw + " type veth peer name eth0 netns " + a,
		"link add blue0 netns " + gw + " type veth peer name eth0 netns " + b,
		"-n " + a + " addr add 10.1.0.2/24 dev eth0",
		"-n " + a + " addr add fd01::2/64 dev eth0 nodad",
		"-n " + a + " link set eth0 up",
		"-n " + a + " route add default via 10.1.0.1",
		"-n " + a + " route add default via fd01::1",
		"-n " + gw + " addr add 10.1.0.1/24 dev red0",
		"-n " + gw + " addr add fd01::1/64 dev red0 nodad",
		"-n " + gw + " link set red0 up",
		"-n " + gw + " addr add 10.2.0.1/24 dev blue0",
		"-n " + gw + " addr add fd02::1/64 dev blue0 nodad",
		"-n " + gw + " link set blue0 up",
		"-n " + b + " addr add 10.2.0.2/24 dev eth0",
		"-n " + b + " addr add fd02::2/64 dev eth0 nodad",
		"-n " + b + " link set eth0 up",
		"-n " + b + " route add default via 10.2.0.1",
		"-n " + b + " route add default via fd02::1",
	} {
		if err := ip(args); err != nil {
			return err
		}
	}
	return nil
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w (the network tests need root)\n%s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// await waits until a command of the script's environment succeeds and its
// output has a text: await TEXT COMMAND...
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await TEXT COMMAND...")
	}
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ts.Exec(args[1], args[2:]...); err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
	}
	ts.Fatalf("%v: no %q in time: %v\n%s", args[1:], args[0], err, ts.ReadFile("stderr"))
}

// terminate sends SIGTERM to everything that the script runs in the background.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: terminate")
	}
	for _, cmd := range ts.BackgroundCmds() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			ts.Fatalf("terminate: %v", err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("burst: no\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want int
	}{
		{"--help", exitOK},
		{"run --help", exitOK},
		{"", exitUsage},
		{"chek", exitUsage},
		{"check extra", exitUsage},
		{"check --nothing", exitUsage},
		{"check --queue red0", exitUsage},
		{"check --port red0", exitUsage},
		{"check --workers a", exitUsage},
		{"check --config /nowhere/spigot.yaml", exitFailure},
		{"check --config " + bad, exitFailure},
		{"check --port nothing0:wire", exitFailure},
		{"run --config " + bad, exitFailure},
	} {
		var out, err bytes.Buffer
		if got := run(strings.Fields(tt.args), &out, &err); got != tt.want {
			t.Errorf("spigot %s: exit code %d, want %d; stderr: %s", tt.args, got, tt.want, &err)
		}
	}
}
