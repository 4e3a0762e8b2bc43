package afxdp

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// door is how frames that the gateway has judged get into the kernel as if the
// interface had received them just now: a program that passes everything is run
// on them (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
//
// Where the steering program is attached generic, it meets such a frame again,
// and knows it by its source address, which nobody else can guess.
type door struct {
	nic    nic
	pass   *ebpf.Program
	secret [6]byte
}

const (
	xdpPass    = 2      // XDP_PASS
	liveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
)

// newDoor makes the door of n.
func newDoor(n nic) (*door, error) {
	d := &door{nic: n}
	_, _ = rand.Read(d.secret[:])           // never fails: it ends the process instead
	d.secret[0] = d.secret[0]&^1 | 2 | 0x40 // one host's, locally administered, and never all zero
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		return nil, fmt.Errorf("load the program that passes frames to the host: %w", because(err))
	}
	d.pass = pass
	return d, nil
}

// number is the secret as the steering program compares it.
func (d *door) number() (n uint64) {
	for _, b := range d.secret {
		n = n<<8 | uint64(b)
	}
	return n
}

func (d *door) close() error {
	if d == nil {
		return nil
	}
	return d.pass.Close()
}

// xdpMD is struct xdp_md of linux/bpf.h. The kernel wants the packet's bounds
// as offsets.
type xdpMD struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// Deliver gives the kernel frame, an Ethernet frame for this host, as if the
// interface had received it; its source address may be overwritten. The error
// wraps ErrClosed if the host is not guarded, or not any more.
func (s *Steering) Deliver(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.door
	if d == nil || s.link == nil {
		return fmt.Errorf("afxdp: deliver to the host by %s: %w", s.nic.name, ErrClosed)
	}
	if s.mode == Generic {
		copy(frame[6:], d.secret[:])
	}
	_, err := d.pass.Run(&ebpf.RunOptions{
		Data:      frame,
		Context:   xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(d.nic.index)},
		Repeat:    1,
		BatchSize: 1,
		Flags:     liveFrames,
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("afxdp: deliver to the host by %s: the kernel does not take it: it must be Linux 5.18 or later (%w)",
			s.nic.name, err)
	}
	return fmt.Errorf("afxdp: deliver to the host by %s: %w", s.nic.name, because(err))
}
