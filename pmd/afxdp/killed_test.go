package afxdp

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"spigot/pmd"
)

// victimEnv makes the test binary attach to the interface that it names, open
// its queue, say so and wait.
const victimEnv = "SPIGOT_AFXDP_VICTIM"

func TestMain(m *testing.M) {
	if name := os.Getenv(victimEnv); name != "" {
		if err := victim(name); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func victim(name string) error {
	st, err := Attach(name, SteeringOptions{})
	if err != nil {
		return err
	}
	mem, err := pmd.Map(256 * 2048)
	if err != nil {
		return err
	}
	pool, err := pmd.NewPool(mem, 2048)
	if err != nil {
		return err
	}
	u, err := NewUMEM(pool)
	if err != nil {
		return err
	}
	if _, err := Open(Options{Interface: name, UMEM: u, Steering: st}); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString("open\n"); err != nil {
		return err
	}
	_, err = io.ReadAll(os.Stdin)
	return err
}

// TestKilled: a process that is killed leaves neither a program on the
// interface nor a hold on its queue.
func TestKilled(t *testing.T) {
	t.Parallel()
	newNS(t)
	veth(t, "p", "far", 1)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"=p")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the victim said %q (%v)", line, err)
	}
	if x := linkByName(t, "p").Attrs().Xdp; x == nil || !x.Attached {
		t.Error("the victim's program is not attached")
	}
	if _, err := Attach("p", SteeringOptions{}); !errors.Is(err, ErrProgramTaken) {
		t.Errorf("Attach beside the victim: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("the victim ended by itself: %v", err)
	}
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		if x := linkByName(t, "p").Attrs().Xdp; x == nil || !x.Attached {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the program outlived its process")
		}
	}
	u := newUMEM(t, 256)
	st := newSteering(t, "p", SteeringOptions{})
	newSocket(t, Options{Interface: "p", UMEM: u, Steering: st, FillSize: 64})
}
