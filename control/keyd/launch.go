package keyd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLaunch is wrapped by the errors of Run and Exec.
var ErrLaunch = errors.New("keyd: launch")

// killAfter is how long a daemon may take to end after a SIGTERM.
const killAfter = 10 * time.Second

// Config says what to run, and against what.
type Config struct {
	Argv  []string // the daemon and its arguments; the first is looked up in PATH
	PFKey string   // path of spigot's PF_KEY socket
	XFRM  string   // path of spigot's netlink XFRM socket

	Stdin          io.Reader // nil: /dev/null
	Stdout, Stderr io.Writer // nil: /dev/null
	Log            *slog.Logger
	Signals        <-chan os.Signal // passed on to the daemon
	ReplyWait      time.Duration    // for spigot to answer; 0: five seconds
	// GoneWait is how long the daemon may go on when spigot has ended; 0: a second.
	GoneWait time.Duration
}

// ExitGone is what Run returns when it ended the daemon since spigot was gone:
// EX_TEMPFAIL of sysexits.h.
const ExitGone = 75

// StageCommand is the argument with which this program must call Exec with what
// follows it: Run executes the program anew.
const StageCommand = "keyd-exec"

// Run runs c.Argv and answers its system calls until it and all its
// descendants have ended, and returns the exit code of the first: 128 and the
// signal's number where it was killed. When ctx ends, the daemon gets SIGTERM
// and, ten seconds later, SIGKILL.
//
// The daemon is killed when the process of Run dies: nobody would answer it. And
// it gets SIGTERM when spigot ends, or another one has taken its place: a kernel
// does not restart, so that no daemon expects its SAs and policies to be gone.
// Run returns ExitGone then, and whoever supervises it starts it again.
func Run(ctx context.Context, c Config) (int, error) {
	if len(c.Argv) == 0 {
		return 0, fmt.Errorf("%w: say which program to run", ErrLaunch)
	}
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrLaunch, err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ReplyWait == 0 {
		c.ReplyWait = replyWait
	}
	if c.GoneWait == 0 {
		c.GoneWait = goneWait
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	ours, theirs, err := streamPair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	daemon := startLocked(ctx, &c, path, theirs)
	if daemon.err != nil {
		return 0, fmt.Errorf("%w: %w", ErrLaunch, daemon.err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go forward(c.Signals, daemon.process, ended)

	fd, err := takeListener(ours, daemon.process.Pid)
	if err != nil {
		return 0, errors.Join(err, daemon.kill())
	}
	defer unix.Close(int(fd))
	supervised := make(chan error, 1)
	serving, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		v := newSupervisor(&c, fd)
		v.end = end
		supervised <- v.run(serving)
	}()

	if err := release(ours, path); err != nil {
		code := <-daemon.code
		stop()
		return code, errors.Join(err, <-supervised)
	}
	code, err := daemon.wait(ctx, supervised, stop)
	if errors.Is(context.Cause(ctx), errRestarted) {
		code = ExitGone
	}
	return code, err
}

// daemon is the process that the stage becomes.
type daemon struct {
	process *os.Process
	code    chan int // its exit code
	err     error    // it was not started
}

// startLocked starts the stage from a thread that lives as long as it does: a
// parent's death signal is that of the thread.
func startLocked(ctx context.Context, c *Config, path string, theirs *os.File) *daemon {
	d := &daemon{code: make(chan int, 1)}
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: it ends with the goroutine
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Args = append([]string{os.Args[0], StageCommand, path}, c.Argv...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
		cmd.WaitDelay = killAfter
		d.err = errors.Join(cmd.Start(), theirs.Close())
		d.process = cmd.Process
		close(started)
		if d.err != nil {
			return
		}
		if err := cmd.Wait(); cmd.ProcessState == nil {
			c.Log.Error("wait for the daemon", "err", err)
		}
		d.code <- exitCode(cmd.ProcessState)
	}()
	<-started
	return d
}

// exitCode is what a shell makes of st.
func exitCode(st *os.ProcessState) int {
	if st == nil {
		return 1
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}

// kill ends the process, which is not a daemon yet.
func (d *daemon) kill() error {
	err := d.process.Kill()
	<-d.code
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// wait returns the exit code of the daemon when all its descendants are gone
// too, or ctx ends.
func (d *daemon) wait(ctx context.Context, supervised <-chan error, stop func()) (int, error) {
	var code int
	select {
	case code = <-d.code:
	case err := <-supervised: // it failed: the daemon's system calls fail from now on
		return <-d.code, err
	}
	select {
	case err := <-supervised:
		return code, err
	case <-ctx.Done():
		stop()
		return code, <-supervised
	}
}

// forward passes signals on to p.
func forward(signals <-chan os.Signal, p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case sig := <-signals:
			_ = p.Signal(sig) // it may be gone
		case <-ended:
			return
		}
	}
}

// streamPair makes the connection between launcher and stage.
func streamPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: socketpair: %w", ErrLaunch, err)
	}
	return os.NewFile(uintptr(fds[0]), "stage"), os.NewFile(uintptr(fds[1]), "launcher"), nil
}

// takeListener reads the number of the listener's descriptor from the stage and
// copies it out of process pid. The stage cannot send it: that would be
// notified.
func takeListener(stage *os.File, pid int) (listener, error) {
	buf := make([]byte, 512)
	n, err := stage.Read(buf)
	if err != nil {
		return -1, fmt.Errorf("%w: the stage ended early: %w", ErrLaunch, err)
	}
	number, ok := strings.CutPrefix(string(buf[:n]), stageReady)
	if !ok {
		return -1, fmt.Errorf("%w: %s", ErrLaunch, buf[:n])
	}
	fd, err := strconv.Atoi(number)
	if err != nil {
		return -1, fmt.Errorf("%w: the stage says %q: %w", ErrLaunch, buf[:n], err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: pidfd_open: %w", ErrLaunch, err)
	}
	defer unix.Close(pidfd)
	fd, err = unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: take the listener: pidfd_getfd: %w; without root, kernel.yama.ptrace_scope must be at most 1", ErrLaunch, err)
	}
	return listener(fd), nil
}

// release lets the stage execute the daemon at path, and returns when it has.
func release(stage *os.File, path string) error {
	if _, err := stage.Write([]byte{0}); err != nil {
		return fmt.Errorf("%w: the stage ended early: %w", ErrLaunch, err)
	}
	switch trouble, err := io.ReadAll(stage); {
	case err != nil:
		return fmt.Errorf("%w: the stage ended early: %w", ErrLaunch, err)
	case len(trouble) > 0:
		return fmt.Errorf("%w: execute %s: %s", ErrLaunch, path, trouble)
	}
	return nil
}
