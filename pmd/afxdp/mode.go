package afxdp

import "fmt"

// Mode is how frames get from the device to the socket.
type Mode uint8

// The modes. Auto takes the fastest that the device has.
const (
	Auto     Mode = iota
	ZeroCopy      // the device reads and writes the UMEM; the program is native
	Copy          // the kernel copies; the program runs in the driver (native)
	Generic       // the kernel copies; the program runs on socket buffers, on any device
)

var modeNames = [...]string{Auto: "auto", ZeroCopy: "zerocopy", Copy: "copy", Generic: "generic"}

// String returns m's name as ParseMode reads it and pmd.Info shows it.
func (m Mode) String() string {
	if int(m) >= len(modeNames) {
		return "unknown"
	}
	return modeNames[m]
}

// ParseMode reads "auto", "zerocopy", "copy" or "generic"; "" is Auto.
func ParseMode(s string) (Mode, error) {
	if s == "" {
		return Auto, nil
	}
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return Auto, fmt.Errorf("afxdp: %w: mode %q is none of auto, zerocopy, copy, generic", ErrOptions, s)
}
