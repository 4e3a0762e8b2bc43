package bench_test

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// progRun is the part of bpf(2)'s union bpf_attr that BPF_PROG_RUN reads.
type progRun struct {
	fd, result                uint32
	sizeIn, sizeOut           uint32
	in, out                   unsafe.Pointer
	repeat, duration          uint32
	contextIn, contextOut     uint32
	contextInAt, contextOutAt unsafe.Pointer
	flags, cpu, batch         uint32
	_                         uint32
}

const (
	liveBatch  = 64      // frames at a time, as a worker's burst
	liveRepeat = 1 << 31 // several minutes of frames
)

// runLive runs p on live copies of frame, in batches, until the calling thread
// gets a signal, or for several minutes. Program.Run is no way to do so: it
// goes on after a signal, and a call that ends by itself waits for an RCU
// grace period, 10 to 100 ms in which nothing is sent.
func runLive(p *ebpf.Program, frame []byte) error {
	a := progRun{
		fd: uint32(p.FD()), sizeIn: uint32(len(frame)), in: unsafe.Pointer(&frame[0]),
		repeat: liveRepeat, flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, batch: liveBatch,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	runtime.KeepAlive(p)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("BPF_PROG_RUN with live frames (Linux 5.18 or later): %w", errno)
	}
	return nil
}
