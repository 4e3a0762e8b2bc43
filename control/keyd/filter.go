package keyd

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// The constants of the kernel's interface that x/sys/unix does not name.
const (
	solNetlink       = 270
	ipIPsecPolicy    = 16 // IP_IPSEC_POLICY
	ipXfrmPolicy     = 17
	ipv6IPsecPolicy  = 34
	ipv6XfrmPolicy   = 35
	sockaddrNLLen    = 12 // of struct sockaddr_nl; no other family has it
	x32Bit           = 0x40000000
	offNr, offArch   = 0, 4 // in struct seccomp_data
	offArgs, argSize = 16, 8
)

// auditArchs names the architectures whose system calls are known here.
var auditArchs = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// What the filter does with a system call.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	notify = unix.SECCOMP_RET_USER_NOTIF
	answer = unix.SECCOMP_RET_ERRNO // with errno 0: it seems to have worked
)

// A clause gives calls that meet all its conditions a verdict.
type clause struct {
	nr      uint32
	conds   []cond
	verdict uint32
}

// cond holds when argument arg is val. Both have 32 bits: those of an int, or
// one half of a pointer, the upper one with high.
type cond struct {
	arg  int
	high bool
	val  uint32
}

// clauses is what the filter takes out of the daemon's hands; the rest is the
// kernel's. Unrelated calls that are caught with the wanted ones (an IKE
// packet's sendmsg) are continued by the listener.
var clauses = []clause{
	{unix.SYS_SOCKET, []cond{{arg: 0, val: unix.AF_KEY}}, notify},
	{unix.SYS_SOCKET, []cond{{arg: 0, val: unix.AF_NETLINK}, {arg: 2, val: unix.NETLINK_XFRM}}, notify},
	{unix.SYS_SENDTO, []cond{{arg: 4, val: 0}, {arg: 4, high: true, val: 0}}, notify},
	{unix.SYS_SENDTO, []cond{{arg: 5, val: sockaddrNLLen}}, notify},
	{unix.SYS_SENDMSG, nil, notify},
	{unix.SYS_WRITEV, nil, notify},
	{unix.SYS_BIND, []cond{{arg: 2, val: sockaddrNLLen}}, notify},
	{unix.SYS_GETSOCKNAME, nil, notify},
	{unix.SYS_SETSOCKOPT, []cond{{arg: 1, val: solNetlink}}, notify},
	// An IKE socket's own bypass: Spigot leaves the host's IKE alone anyway.
	{unix.SYS_SETSOCKOPT, []cond{{arg: 1, val: unix.IPPROTO_IP}, {arg: 2, val: ipIPsecPolicy}}, answer},
	{unix.SYS_SETSOCKOPT, []cond{{arg: 1, val: unix.IPPROTO_IP}, {arg: 2, val: ipXfrmPolicy}}, answer},
	{unix.SYS_SETSOCKOPT, []cond{{arg: 1, val: unix.IPPROTO_IPV6}, {arg: 2, val: ipv6IPsecPolicy}}, answer},
	{unix.SYS_SETSOCKOPT, []cond{{arg: 1, val: unix.IPPROTO_IPV6}, {arg: 2, val: ipv6XfrmPolicy}}, answer},
}

// program compiles clauses for this machine.
func program() ([]unix.SockFilter, error) {
	arch, ok := auditArchs[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("%w: the system calls of %s are not known; amd64 and arm64 are", ErrLaunch, runtime.GOARCH)
	}
	p := []unix.SockFilter{
		load(offArch),
		jump(unix.BPF_JEQ, arch, 1, 0),
		ret(allow),
		load(offNr),
		jump(unix.BPF_JGE, x32Bit, 0, 1),
		ret(allow),
	}
	for _, c := range clauses {
		p = append(p, c.compile()...)
	}
	return append(p, ret(allow)), nil
}

// compile returns code that returns c's verdict, or falls out of its end.
func (c *clause) compile() []unix.SockFilter {
	left := 2*len(c.conds) + 2 // instructions that follow the load of nr
	p := []unix.SockFilter{load(offNr)}
	test := func(val uint32) {
		left--
		p = append(p, jump(unix.BPF_JEQ, val, 0, uint8(left)))
	}
	test(c.nr)
	for _, k := range c.conds {
		off := offArgs + argSize*k.arg // both architectures are little-endian
		if k.high {
			off += argSize / 2
		}
		left--
		p = append(p, load(uint32(off)))
		test(k.val)
	}
	return append(p, ret(c.verdict))
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func jump(op uint16, val uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: val, Jt: yes, Jf: no}
}

func ret(verdict uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
}
