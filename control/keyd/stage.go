package keyd

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// stageReady begins what the stage says when its filter is installed.
const stageReady = "listener "

// stageFD is the stage's end of the connection to the launcher.
const stageFD = 3

// noExec is the exit code of a stage that could not become the daemon.
const noExec = 126

// Exec turns this process into the daemon: args are its path and its argv. It
// installs the filter, has Run take the listener, and executes the daemon. It
// returns an exit code only if that fails; Run reports why.
//
// The filter is on this thread alone, and execve carries it over: the other
// threads of the runtime stay as they are until it ends them.
func Exec(args []string) int {
	runtime.LockOSThread()
	unix.CloseOnExec(stageFD)
	launcher := os.NewFile(stageFD, "launcher")
	if err := become(launcher, args); err != nil {
		if _, err := fmt.Fprint(launcher, err); err != nil {
			return noExec // nobody is there to hear it
		}
	}
	return noExec
}

func become(launcher *os.File, args []string) error {
	if len(args) < 2 {
		return errors.New("this command is spigotctl keyd's own")
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for a signal at the launcher's death: %w", err)
	}
	prog, err := program()
	if err != nil {
		return err
	}
	fd, err := install(prog)
	if err != nil {
		return fmt.Errorf("install the seccomp filter: %w; it takes Linux 5.14", err)
	}
	if _, err := fmt.Fprintf(launcher, "%s%d", stageReady, fd); err != nil {
		return err
	}
	var taken [1]byte
	if _, err := launcher.Read(taken[:]); err != nil {
		return fmt.Errorf("the launcher is gone: %w", err)
	}
	return unix.Exec(args[0], args[1:], os.Environ())
}
