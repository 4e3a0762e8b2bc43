// Package pmd is the contract between the pipeline and the drivers that move
// frames: Port, Frame and Pool.
//
// # Ownership
//
// Every frame of a Pool is at each moment owned by exactly one of: the pool,
// a fill ring, the worker, a TX ring, a completion ring. Nobody touches the
// bytes of a frame that it does not own. A Pool and the Ports that use it
// belong to one worker goroutine; none of their methods but Info and Stats
// may be called from another one while the worker runs.
package pmd

import "net"

// Frame is a packet in a Pool: the bytes [Off, Off+Len) of the chunk, or of the
// jumbo frame, that starts at Base. It is a value; copying it does not copy ownership.
type Frame struct {
	Base uint32 // the chunk's first byte in Pool.Mem, a multiple of the chunk size
	Off  uint16 // the packet's first byte in the chunk
	Len  uint16 // the packet's length in bytes
}

// Headroom is how many bytes every received frame has free in front of the
// packet: XDP_PACKET_HEADROOM. Drivers deliver frames with Off >= Headroom.
const Headroom = 256

// Port is one queue of one network interface. All frames that go in or come
// out belong to the Pool that the port was opened with.
type Port interface {
	// Rx stores up to len(fs) received frames in fs and returns how many.
	// The caller owns them from here on. It never blocks.
	Rx(fs []Frame) int

	// Tx queues frames and returns how many it took: fs[:n] belong to the port,
	// the rest stay the caller's. It never blocks and sends nothing before Flush.
	Tx(fs []Frame) int

	// Flush ends a turn: what Tx queued is handed to the device, sent frames
	// return to the pool, and receive buffers are refilled from it.
	Flush()

	// FD returns a descriptor that poll(2) reports readable when Rx would
	// return frames, or -1 when the port has none.
	FD() int

	// Info describes the port. Any goroutine may call it.
	Info() Info

	// Stats returns the port's counters as of its last Flush. Any goroutine may
	// call it.
	Stats() Stats

	// Close gives every frame that the port holds back to the pool and
	// releases the queue. The worker must have stopped using the port.
	Close() error
}

// Info describes a port as it was opened.
type Info struct {
	Name    string           // interface name
	Index   int              // the kernel's interface index, 0 if it has none
	Queue   int              // queue of the interface
	Driver  string           // "afxdp", "asavie", "memport"
	Mode    string           // "zerocopy", "copy", "generic", "memory"
	MAC     net.HardwareAddr // the interface's address
	Hugetlb bool             // frames lie on huge pages
	Longest int              // bytes of the longest frame that Rx delivers
	NoJumbo string           // why the port carries no jumbo frames, though the pool has some; else ""
}

// Stats counts what a port did since it was opened.
type Stats struct {
	RxPackets, RxBytes uint64 // handed out by Rx
	TxPackets, TxBytes uint64 // taken by Tx
	TxDone             uint64 // completed by the device
	TxErrors           uint64 // sends the device refused (ENETDOWN, ENXIO, EINVAL, ENOBUFS)
	Kicks              uint64 // system calls that woke the device
	RxDropped          uint64 // lost by the kernel: malformed, or no room in the ring
	FillEmpty          uint64 // received packets for which the fill ring had no frame
	BadDesc            uint64 // ring entries that named a frame the port did not lend
	RxJumbo            uint64 // of RxPackets: came in several buffers and lie in a jumbo frame
	RxGiant            uint64 // dropped: came in several buffers and fit no frame, or end wrong
	JumboEmpty         uint64 // dropped: came in several buffers when no jumbo frame was free
}
