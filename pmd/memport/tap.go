package memport

// Tap is the far end of a Port's cable in the hands of a test. It belongs to
// one goroutine, which need not be the port's.
type Tap struct {
	in  *cable // from the port
	out *cable // to the port
}

// NewTap returns a port and the far end of its cable, which holds up to depth
// packets, a power of two, in each direction.
func NewTap(depth int, o Options) (*Port, *Tap, error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	in, err := newCable(depth, o.Pool.Chunk())
	if err != nil {
		return nil, nil, err
	}
	out, err := newCable(depth, o.Pool.Chunk())
	if err != nil {
		return nil, nil, err
	}
	return newPort(o, out, in), &Tap{in: in, out: out}, nil
}

// Inject copies packet to the cable, to be received by the port. It says
// false, and does nothing, when the cable is full. A packet of any length
// goes, so that tests can send runts and giants.
func (t *Tap) Inject(packet []byte) bool {
	var buf [1][]byte
	if t.out.empty.Pop(buf[:]) == 0 {
		return false
	}
	buf[0] = append(buf[0][:0], packet...)
	t.out.full.Push(buf[:])
	return true
}

// Take returns copies of all packets that the port has sent since, oldest
// first, or nil.
func (t *Tap) Take() [][]byte {
	n := t.in.waiting()
	if n == 0 {
		return nil
	}
	bufs := make([][]byte, n)
	bufs = bufs[:t.in.full.Pop(bufs)]
	packets := make([][]byte, len(bufs))
	for i, b := range bufs {
		packets[i] = append([]byte(nil), b...)
	}
	t.in.empty.Push(bufs)
	return packets
}
