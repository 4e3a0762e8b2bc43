// Package afxdp is the native driver: ports over AF_XDP sockets in pure Go,
// and the XDP program that steers packets into them.
//
// # Parts
//
//	Steering  the XDP program on one interface; one an interface  (slow path)
//	UMEM      a worker's pool of frames as the kernel knows it    (one a worker)
//	Socket    one queue of one interface; a pmd.Port              (worker)
//
// The order of a start is: Attach on every interface, then for every worker
// pmd.Map, pmd.NewPool, NewUMEM, and Open for every queue of it. The order of
// a stop is: the worker ends, Socket.Close for its sockets, Memory.Close,
// Steering.Close.
//
//	st, err := afxdp.Attach("red0", afxdp.SteeringOptions{})
//	err = st.SetLocal(addrs)
//	mem, err := pmd.Map(16384 * 2048)
//	pool, err := pmd.NewPool(mem, 2048)
//	umem, err := afxdp.NewUMEM(pool)
//	port, err := afxdp.Open(afxdp.Options{Interface: "red0", UMEM: umem, Steering: st})
//
// # Frames
//
// A frame goes round: pool, fill ring, RX ring, worker, TX ring, completion
// ring, pool. All sockets of a UMEM share its memory, so that a frame received
// on one port is sent on another without a copy. What the kernel holds is
// written down chunk by chunk; a descriptor from a ring that names a chunk
// which that ring was not lent is counted (Stats.BadDesc) and ignored, and
// Close returns exactly what the kernel still held.
//
// # Jumbo frames
//
// A packet that is longer than a chunk comes as a chain of descriptors
// (multi-buffer, XDP_USE_SG, Linux 6.6): Rx copies it into one of the pool's jumbo
// frames, if it has any, and the chunks go home. Tx makes a chain of the chunks of a
// jumbo frame; the frame is home when all of them are. A chain is taken whole or not
// at all. What is longer than a jumbo frame, or comes when none is free, is drained,
// dropped and counted (Stats.RxGiant, Stats.JumboEmpty). Copying, a kernel sends
// chains of up to 18 buffers (MAX_SKB_FRAGS + 1), which pmd.MaxJumbo stays below; in
// zero-copy a device says how many it takes (xdp-zc-max-segs).
//
// Open asks for chains where the pool has jumbo frames. Where kernel or device refuse
// them, in each mode that may be tried, the port goes without, and Info.NoJumbo says
// why. Steering wants SteeringOptions.Jumbo then.
//
// # Bad days
//
// An interface that goes down and comes back needs no action: while it is
// down its TX ring fills up and Tx takes less, and the first Flush afterwards
// sends what waits. A deleted interface leaves a port that receives nothing
// and takes no frames once its TX ring is full; Close it. A program that
// somebody detached is seen by Steering.Check and mended by Steering.Reattach.
// Nothing here panics or blocks on what the kernel or the wire does.
//
// # What the steering program does
//
// Verdict lists the cases. On a queue without a socket, and before Open and
// after Close, what would be redirected goes to the kernel instead, or is
// dropped if SteeringOptions.DropUnbound says so: a host that forwards by
// itself (net.ipv4.ip_forward) would carry it in clear.
//
// A packet whose VLAN tag the NIC strips looks untagged to the program: switch
// that off (ethtool -K DEV rxvlan off). A virtual peer hands over packets with
// unfinished L4 checksums and joined segments: switch that off on the sending
// side (ethtool -K DEV tx off tso off gso off).
//
// # Network namespaces
//
// Open, Attach, Reattach and Queues find interfaces in the network namespace
// of the calling thread; a caller that changed its thread's namespace must have
// locked the goroutine to it. All else works from any thread.
package afxdp

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -Wall -Wextra -Werror" steer _bpf/steer.c
