package keyd

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The layouts of struct iovec and struct msghdr on 64-bit machines.
const (
	iovecLen   = 16
	msghdrLen  = 56
	msgIov     = 16 // offsets in msghdr
	msgIovLen  = 24
	maxVectors = 1024 // UIO_MAXIOV
)

// span is memory of another process.
type span struct{ at, len uint64 }

// peek reads the spans of process pid, in order.
func peek(pid uint32, spans ...span) ([]byte, error) {
	var total uint64
	remote := make([]unix.RemoteIovec, 0, len(spans))
	for _, s := range spans {
		if s.len > maxMessage || total+s.len > maxMessage {
			return nil, unix.EMSGSIZE
		}
		total += s.len
		if s.len > 0 {
			remote = append(remote, unix.RemoteIovec{Base: uintptr(s.at), Len: int(s.len)})
		}
	}
	if total == 0 {
		return nil, nil
	}
	buf := make([]byte, total)
	local := []unix.Iovec{{Base: &buf[0], Len: total}}
	switch n, err := unix.ProcessVMReadv(int(pid), local, remote, 0); {
	case err != nil:
		return nil, err
	case n != len(buf):
		return nil, unix.EFAULT
	}
	return buf, nil
}

// poke writes b into the memory of process pid.
func poke(pid uint32, at uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}
	switch n, err := unix.ProcessVMWritev(int(pid), local, remote, 0); {
	case err != nil:
		return err
	case n != len(b):
		return unix.EFAULT
	}
	return nil
}

// gather reads what an array of n struct iovec at address at describes.
func gather(pid uint32, at, n uint64) ([]byte, error) {
	if n > maxVectors {
		return nil, unix.EINVAL
	}
	vectors, err := peek(pid, span{at, n * iovecLen})
	if err != nil {
		return nil, err
	}
	spans := make([]span, n)
	for i := range spans {
		v := vectors[i*iovecLen:]
		spans[i] = span{binary.NativeEndian.Uint64(v), binary.NativeEndian.Uint64(v[8:])}
	}
	return peek(pid, spans...)
}

// sent reads the message that a sendto, writev or sendmsg sends.
func sent(n *notif) ([]byte, error) {
	switch n.nr {
	case unix.SYS_SENDTO:
		return peek(n.pid, span{n.args[1], n.args[2]})
	case unix.SYS_WRITEV:
		return gather(n.pid, n.args[1], n.args[2])
	}
	hdr, err := peek(n.pid, span{n.args[1], msghdrLen})
	if err != nil {
		return nil, err
	}
	return gather(n.pid, binary.NativeEndian.Uint64(hdr[msgIov:]), binary.NativeEndian.Uint64(hdr[msgIovLen:]))
}
