package afxdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// SteeringOptions says which program to attach and how. The zero value is a
// gateway's.
type SteeringOptions struct {
	// Mode is Auto (in the driver, else generic), Generic, or one of ZeroCopy and
	// Copy, which both need the program in the driver.
	Mode Mode

	// TestPort, if it is not 0, attaches a traffic generator's program instead of
	// the gateway's: UDP over IPv4 and IPv6 to that port goes to the sockets, all
	// else to the kernel.
	TestPort uint16

	// DropUnbound drops what should go to the socket of a queue that has none,
	// instead of giving it to the kernel.
	DropUnbound bool

	// Guard sends what is for this host in clear to the sockets, but ARP, ND, IKE
	// and what is for a group. What is to go on to the host comes back by Deliver.
	Guard bool

	// Jumbo loads the program as one for packets of several buffers
	// (BPF_F_XDP_HAS_FRAGS, Linux 5.18), without which drivers refuse it at a large
	// MTU. It reads the first buffer only, which has the headers; of a packet whose
	// headers end beyond, it makes RedirectShort, so that the worker judges it. A
	// kernel that does not know the flag gets the program without.
	Jumbo bool
}

// Steering is the XDP program on one interface, which chooses the packets that
// go to the sockets. It is held by a bpf_link: the kernel detaches it when the
// process ends, however it ends. Its methods may be called from any goroutine.
type Steering struct {
	nic  nic
	objs programs
	door *door // nil: the host is not guarded

	mu     sync.Mutex
	mode   Mode // Copy: in the driver; or Generic
	native error
	link   link.Link // nil: closed
	local  map[netip.Addr]struct{}
	groups map[netip.Prefix]uint8 // what is taken of each
	queues map[int]int            // fd by queue
}

// programs is what is loaded of the object: one of its programs, and its maps.
type programs struct {
	prog *ebpf.Program
	maps steerMaps
}

func (p *programs) Close() error { return errors.Join(p.prog.Close(), p.maps.Close()) }

// load loads the program that o asks for, with room for sockets on that many
// queues, and with the host behind d if it is guarded.
func load(o SteeringOptions, queues int, d *door) (programs, error) {
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11 charge maps to it
		return programs{}, fmt.Errorf("%w (%w)", ErrMemlock, err)
	}
	spec, err := loadSteer()
	if err != nil {
		return programs{}, err
	}
	spec.Maps[steerMapSockets].MaxEntries = uint32(max(queues, minQueues))
	if o.DropUnbound {
		if err := spec.Variables[steerVarNoSocket].Set(uint32(xdpDrop)); err != nil {
			return programs{}, err
		}
	}
	if d != nil {
		if err := spec.Variables[steerVarGuard].Set(d.number()); err != nil {
			return programs{}, err
		}
	}
	name := steerProgSteer
	if o.TestPort != 0 {
		name = steerProgGenerator
		if err := spec.Variables[steerVarTestPort].Set(bigEndian16(o.TestPort)); err != nil {
			return programs{}, err
		}
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	coll, err := newCollection(spec, name, o.Jumbo)
	if err != nil {
		return programs{}, because(err)
	}
	defer coll.Close() // of what is not detached below
	var p programs
	if err := coll.Assign(&p.maps); err != nil {
		return programs{}, err
	}
	p.prog = coll.DetachProgram(name)
	return p, nil
}

// newCollection loads spec, with the program called name for packets of several
// buffers if the kernel has them.
func newCollection(spec *ebpf.CollectionSpec, name string, jumbo bool) (*ebpf.Collection, error) {
	if jumbo {
		several := spec.Copy()
		several.Programs[name].Flags |= unix.BPF_F_XDP_HAS_FRAGS
		if coll, err := ebpf.NewCollection(several); !errors.Is(err, unix.EINVAL) {
			return coll, err
		}
	}
	return ebpf.NewCollection(spec)
}

const (
	minQueues = 64 // `ethtool -L` can add queues while we run
	xdpDrop   = 1  // XDP_DROP
)

func bigEndian16(v uint16) [2]byte { return [2]byte{byte(v >> 8), byte(v)} }

// Attach attaches the steering program to the interface called name, which
// need not be up. ErrProgramTaken says that another program is attached,
// ErrMode that the driver does not take one where o.Mode requires it to.
func Attach(name string, o SteeringOptions) (*Steering, error) {
	s, err := attach(name, o)
	if err != nil {
		return nil, fmt.Errorf("afxdp: attach to %s: %w", name, err)
	}
	return s, nil
}

func attach(name string, o SteeringOptions) (*Steering, error) {
	n, err := findNIC(name)
	if err != nil {
		return nil, err
	}
	if o.Mode > Generic {
		return nil, fmt.Errorf("%w: mode %d", ErrOptions, o.Mode)
	}
	var d *door
	if o.Guard {
		if d, err = newDoor(n); err != nil {
			return nil, err
		}
	}
	objs, err := load(o, n.queues, d)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load the XDP program: %w", err), d.close())
	}
	s := &Steering{nic: n, objs: objs, door: d, mode: Copy, local: map[netip.Addr]struct{}{}, groups: map[netip.Prefix]uint8{}, queues: map[int]int{}}
	if o.Mode != Generic {
		if s.link, err = s.attachAs(Copy); err == nil {
			return s, nil
		}
		s.native = err
	}
	if o.Mode == Generic || o.Mode == Auto && errors.Is(err, ErrMode) {
		s.mode = Generic
		if s.link, err = s.attachAs(Generic); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(err, objs.Close(), d.close())
}

// attachAs attaches the program in the driver (Copy) or generic (Generic).
func (s *Steering) attachAs(m Mode) (link.Link, error) {
	flags := link.XDPDriverMode
	if m == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: s.objs.prog, Interface: s.nic.index, Flags: flags})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("%w: see `ip link show dev %s`, and `ip link set dev %s xdp off` (%w)",
			ErrProgramTaken, s.nic.name, s.nic.name, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENODEV):
		return nil, because(err)
	case m == Generic:
		return nil, err
	}
	return nil, fmt.Errorf("%w: no XDP in the driver, or not at this MTU (%w)", ErrMode, err)
}

// Mode returns Generic if the program is attached generic, and Copy if it runs
// in the driver.
func (s *Steering) Mode() Mode { return s.mode }

// Native returns why the driver did not take the program, or nil if it did or
// was not asked.
func (s *Steering) Native() error { return s.native }

// Interface returns the name that the interface had at Attach.
func (s *Steering) Interface() string { return s.nic.name }

// Register makes the socket fd the target of packets that arrive on queue.
// Open calls it.
func (s *Steering) Register(queue, fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return fmt.Errorf("steer queue %d to its socket: %w", queue, ErrClosed)
	}
	if err := s.objs.maps.Sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("steer queue %d to its socket: %w", queue, because(err))
	}
	s.queues[queue] = fd
	return nil
}

// Unregister ends the steering of queue's packets to the socket fd. It does
// nothing if that is not the queue's socket. Socket.Close calls it.
func (s *Steering) Unregister(queue, fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, ok := s.queues[queue]; !ok || got != fd || s.link == nil {
		return nil
	}
	delete(s.queues, queue)
	if err := s.objs.maps.Sockets.Delete(uint32(queue)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("stop steering queue %d: %w", queue, err)
	}
	return nil
}

// SetLocal makes addrs this host's addresses, up to 4096 of each family. New
// ones are added before old ones are removed, so that an address in both sets
// is never missing. Zones are ignored, and IPv4-mapped addresses are IPv4.
// After an error the set may be a mixture; the next SetLocal mends it.
func (s *Steering) SetLocal(addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return fmt.Errorf("afxdp: set local addresses of %s: %w", s.nic.name, ErrClosed)
	}
	want := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() {
			return fmt.Errorf("afxdp: set local addresses of %s: %w: the zero Addr", s.nic.name, ErrOptions)
		}
		want[a.Unmap().WithZone("")] = struct{}{}
	}
	added := s.addLocal(want)
	removed := s.removeLocal(want)
	if added != nil { // now there may be room
		added = s.addLocal(want)
	}
	return errors.Join(added, removed)
}

// addLocal adds what is missing of want.
func (s *Steering) addLocal(want map[netip.Addr]struct{}) error {
	for a := range want {
		if _, ok := s.local[a]; ok {
			continue
		}
		if err := s.localMap(a).Put(a.AsSlice(), uint8(1)); err != nil {
			return fmt.Errorf("afxdp: add local address %s to %s: %w", a, s.nic.name, err)
		}
		s.local[a] = struct{}{}
	}
	return nil
}

// removeLocal removes what is not in want.
func (s *Steering) removeLocal(want map[netip.Addr]struct{}) error {
	for a := range s.local {
		if _, ok := want[a]; ok {
			continue
		}
		if err := s.localMap(a).Delete(a.AsSlice()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("afxdp: remove local address %s from %s: %w", a, s.nic.name, err)
		}
		delete(s.local, a)
	}
	return nil
}

func (s *Steering) localMap(a netip.Addr) *ebpf.Map {
	if a.Is4() {
		return s.objs.maps.Local4
	}
	return s.objs.maps.Local6
}

// Check says whether the program is still attached and still ours. The error
// wraps ErrDetached if somebody detached or replaced it, or if the interface is
// gone; the sockets receive nothing until Reattach.
func (s *Steering) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.check()
	return err
}

// check also says whether the link still holds the interface, if with another program.
func (s *Steering) check() (held bool, err error) {
	if s.link == nil {
		return false, fmt.Errorf("afxdp: check %s: %w", s.nic.name, ErrClosed)
	}
	info, err := s.link.Info()
	if err != nil {
		return false, fmt.Errorf("afxdp: check %s: %w", s.nic.name, err)
	}
	if x := info.XDP(); x == nil || x.Ifindex != uint32(s.nic.index) {
		return false, fmt.Errorf("afxdp: check %s: %w", s.nic.name, ErrDetached)
	}
	own, err := s.objs.prog.Info()
	if err != nil {
		return true, fmt.Errorf("afxdp: check %s: %w", s.nic.name, err)
	}
	if id, ok := own.ID(); ok && id != info.Program {
		return true, fmt.Errorf("afxdp: check %s: %w: program %d took its place", s.nic.name, ErrDetached, info.Program)
	}
	return true, nil
}

// Reattach attaches the program again, in the mode it was in, if Check would
// find it detached or replaced. Sockets, addresses and counters are as before.
// The error wraps ErrNoInterface if the interface is gone, and ErrProgramTaken
// if another program has its place.
func (s *Steering) Reattach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, err := s.check()
	if !errors.Is(err, ErrDetached) {
		return err
	}
	if held {
		if err := s.link.Update(s.objs.prog); err != nil {
			return fmt.Errorf("afxdp: reattach to %s: %w", s.nic.name, because(err))
		}
		return nil
	}
	if _, err := net.InterfaceByIndex(s.nic.index); err != nil {
		return fmt.Errorf("afxdp: reattach to %s: %w: index %d", s.nic.name, ErrNoInterface, s.nic.index)
	}
	l, err := s.attachAs(s.mode)
	if err != nil {
		return fmt.Errorf("afxdp: reattach to %s: %w", s.nic.name, err)
	}
	old := s.link
	s.link = l
	if err := old.Close(); err != nil {
		return fmt.Errorf("afxdp: reattach to %s: close the old link: %w", s.nic.name, err)
	}
	return nil
}

// Counters returns how many packets got which verdict since Attach.
func (s *Steering) Counters() (Verdicts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return Verdicts{}, fmt.Errorf("afxdp: counters of %s: %w", s.nic.name, ErrClosed)
	}
	vs, err := readVerdicts(s.objs.maps.Counts)
	if err != nil {
		return Verdicts{}, fmt.Errorf("afxdp: counters of %s: %w", s.nic.name, err)
	}
	return vs, nil
}

// Close detaches the program. The interface is the kernel's alone from then on.
// A second Close does nothing.
func (s *Steering) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil
	}
	err := errors.Join(s.link.Close(), s.objs.Close(), s.door.close())
	s.link = nil
	if err != nil {
		return fmt.Errorf("afxdp: detach from %s: %w", s.nic.name, err)
	}
	return nil
}
