package xfrm

import "syscall"

// msgBind is no message of netlink's: on the Unix socket it stands for bind(2)
// and setsockopt(2) of a netlink socket. It is of the types that netlink keeps
// for itself and that a kernel acknowledges without a look.
const msgBind = 0x0f

// bindLen is the length of a bind.
const bindLen = 12

// Binding is what a netlink socket is told by bind(2) and setsockopt(2) rather
// than by messages.
type Binding struct {
	Port   uint32 // nl_pid: the port ID of answers whose request names none
	Groups uint32 // nl_groups, and what NETLINK_ADD_MEMBERSHIP adds: group n is bit n-1
	// ExtendedAcks is NETLINK_EXT_ACK.
	ExtendedAcks bool
}

func (b *Binding) wire(w *wire) {
	w.u32(&b.Port)
	w.u32(&b.Groups)
	flags := uint32(flagOf(b.ExtendedAcks))
	w.u32(&flags)
	b.ExtendedAcks = flags != 0
}

// Message is the datagram that binds a client of the server's Unix socket. It
// replaces an earlier one, and is not answered.
func (b Binding) Message() []byte {
	return newMessage(nil, header{typ: msgBind, flags: syscall.NLM_F_REQUEST}, &b).end()
}

// bind serves a Binding.
func (r *request) bind() error {
	if len(r.body) < bindLen {
		return refuse(eINVAL, "bind of %d bytes, which needs %d", len(r.body), bindLen)
	}
	var b Binding
	if err := decode(r.body, &b); err != nil {
		return err
	}
	r.c.SetPort(b.Port)
	r.c.SetExtendedAcks(b.ExtendedAcks)
	r.joins = &b.Groups
	return nil
}
