// Package uml boots a Linux kernel as a process, user-mode-linux, for tests that
// want a real IPsec stack for a peer where the machine's own kernel has none. No
// virtual machine and no module is needed: Debian's packages user-mode-linux and
// busybox-static are.
//
// In the guest, and in network namespaces of the host, agents do what tests ask
// of them: run programs, send datagrams and streams, and answer those of others.
package uml

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Errors of this package.
var (
	ErrMissing = errors.New("uml: a package is missing: apt-get install -y user-mode-linux busybox-static")
	ErrGone    = errors.New("uml: the agent is gone")
	ErrSilent  = errors.New("uml: the agent does not answer")
)

// Build builds the agent into dir and returns its path. Tests run in the
// module, which is all that it needs.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "agent")
	cmd := exec.Command("go", "build", "-o", path, "spigot/internal/uml/agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // a guest has no libraries for it
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("uml: build the agent: %w\n%s", err, out)
	}
	return path, nil
}

// Agent is a running agent. It serves one caller at a time.
type Agent struct {
	cmd     *exec.Cmd
	in      *os.File
	seq     int // of the last request
	answers chan Answer
	log     *buffer
	once    sync.Once
	ended   chan struct{} // closed when the process is gone
}

// answerTime bounds the wait for an answer to a request that names no time. A guest
// is an ordinary process, and slow on a busy machine.
const answerTime = 3 * time.Minute

// bootTime bounds the wait for an agent to start, and its kernel.
const bootTime = 2 * time.Minute

// StartAgent starts the agent at path in a network namespace of the host.
func StartAgent(netns, path string) (*Agent, error) {
	return start(netns, false, path)
}

// Boot boots a guest in a network namespace, which has its files below dir, an
// empty folder; its only process is the agent at path. The guest's interface
// vec0 sends and receives what ifname does, which belongs into that namespace, and
// has that MTU.
func Boot(netns, ifname string, mtu int, dir, path string) (*Agent, error) {
	for _, file := range []string{"/usr/bin/linux.uml", "/usr/bin/busybox"} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrMissing, err)
		}
	}
	root := filepath.Join(dir, "root")
	if err := plant(root, path); err != nil {
		return nil, fmt.Errorf("uml: the guest's files: %w", err)
	}
	return start(netns, true, "linux.uml", "mem=256M",
		"rootfstype=hostfs", "rootflags="+root, "rw", "init=/init", "quiet",
		GuestEnv+"=yes", "con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:3,fd:4", "uml_dir="+dir, "umid=guest",
		fmt.Sprintf("vec0:transport=raw,ifname=%s,depth=128,gro=0,mtu=%d", ifname, mtu))
}

// plant makes the guest's files: the agent, and a way to the host's /usr.
func plant(root, agent string) error {
	for _, dir := range []string{"usr", "proc", "sys", "dev", "run", "tmp", "etc", "lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib64": "usr/lib64", "modprobe": "usr/bin/busybox",
		"lib/modules": "/usr/lib/uml/modules", "lib/x86_64-linux-gnu": "/usr/lib/x86_64-linux-gnu",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "init"), text, 0o755)
}

// start starts a program, which is to become an agent that speaks on its
// standard streams, or as a guest on its descriptors 3 and 4. The shell above it
// is the first process of a PID namespace, so that nothing outlives it, and does
// not outlive this process. The program itself cannot be: a kernel that panics
// sends itself a signal, which such a process does not get.
func start(netns string, guest bool, argv ...string) (*Agent, error) {
	cmd := exec.Command("ip", append([]string{"netns", "exec", netns, "sh", "-c", `"$@"; exit $?`, "sh"}, argv...)...)
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	a := &Agent{cmd: cmd, in: in, answers: make(chan Answer), log: &buffer{}, ended: make(chan struct{})}
	cmd.Stderr = a.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if guest {
		cmd.Stdout, cmd.ExtraFiles = a.log, []*os.File{theirIn, theirOut}
	} else {
		cmd.Stdin, cmd.Stdout = theirIn, theirOut
	}
	err = a.launch()
	_ = theirIn.Close()
	_ = theirOut.Close()
	if err != nil {
		_, _ = in.Close(), out.Close()
		return nil, fmt.Errorf("uml: start an agent: %w", err)
	}
	go a.read(out)
	if _, err := a.wait(bootTime); err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

// launch starts a's process and waits for its end in the background. The
// process is killed when the thread that started it ends, not only when all of
// this process does; so the thread is kept.
func (a *Agent) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		defer close(a.ended)
		err := a.cmd.Start()
		started <- err
		if err == nil {
			_ = a.cmd.Wait() // how it ends is seen in what it leaves
		}
	}()
	return <-started
}

// read passes on what the agent says until it ends.
func (a *Agent) read(out *os.File) {
	defer out.Close()
	defer close(a.answers)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var answer Answer
		if err := json.Unmarshal(line, &answer); err != nil {
			answer = Answer{Seq: math.MaxInt, Error: fmt.Sprintf("%v: %q", err, line)}
		}
		a.answers <- answer
	}
}

// wait waits for the answer to the last request, or for the agent to be ready.
func (a *Agent) wait(limit time.Duration) (Answer, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case answer, ok := <-a.answers:
			switch {
			case !ok:
				return answer, fmt.Errorf("%w; it left:\n%s", ErrGone, a.log)
			case answer.Seq < a.seq:
				continue // to a request that waited no longer
			case answer.Error != "":
				return answer, errors.New(answer.Error)
			}
			return answer, nil
		case <-timer.C:
			return Answer{}, fmt.Errorf("%w within %v; it said:\n%s", ErrSilent, limit, a.log)
		}
	}
}

// Call asks the agent and waits for its answer. An answer that comes too late is
// nobody's: the next call waits for its own.
func (a *Agent) Call(q Request) (Answer, error) {
	a.seq++
	q.Seq = a.seq
	line, err := json.Marshal(q)
	if err != nil {
		return Answer{}, err
	}
	if _, err := a.in.Write(append(line, '\n')); err != nil {
		return Answer{}, fmt.Errorf("%w: %w; it left:\n%s", ErrGone, err, a.log)
	}
	limit := answerTime
	if q.Probe != nil {
		limit += 2 * time.Duration(q.Probe.Seconds) * time.Second
	}
	if q.Heard != nil {
		limit += time.Duration(q.Heard.Seconds) * time.Second
	}
	if q.Send != nil {
		limit += time.Duration(q.Send.Seconds) * time.Second
	}
	return a.wait(limit)
}

// Run runs a program and returns what it writes.
func (a *Agent) Run(stdin string, argv ...string) (string, error) {
	answer, err := a.Call(Request{Exec: argv, Stdin: stdin})
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", argv, err, answer.Output)
	}
	return answer.Output, nil
}

// Close ends the agent, and with a guest all of it.
func (a *Agent) Close() error {
	var err error
	a.once.Do(func() {
		if err = a.cmd.Process.Kill(); errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		err = errors.Join(err, a.in.Close())
		for range a.answers { // what was still said
		}
		<-a.ended
	})
	return err
}

// buffer is a buffer that one may write and another read.
type buffer struct {
	sync.Mutex
	b bytes.Buffer // not embedded: its ReadFrom knows of no lock
}

// Write appends p.
func (b *buffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.b.Write(p)
}

// String returns all that was written.
func (b *buffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.b.String()
}
