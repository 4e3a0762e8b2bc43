package pfkey

import (
	"golang.org/x/sys/unix"

	"spigot/control"
)

// handlers act, by message type; nil: a client does not send it. A handler
// answers with c.reply, or returns an error, which becomes the answer.
var handlers = [maxType + 1]func(*Client, *control.Keying, *Message) error{
	GetSPI:     (*Client).getSPI,
	Update:     (*Client).update,
	Add:        (*Client).add,
	Delete:     (*Client).delete,
	Get:        (*Client).get,
	Acquire:    (*Client).acquire,
	Register:   (*Client).register,
	Flush:      (*Client).flushSAs,
	Dump:       (*Client).dumpSAs,
	Promisc:    (*Client).setPromisc,
	SPDUpdate:  (*Client).spdUpdate,
	SPDAdd:     (*Client).spdAdd,
	SPDDelete:  (*Client).spdDelete,
	SPDGet:     (*Client).spdGet,
	SPDDump:    (*Client).spdDump,
	SPDFlush:   (*Client).spdFlush,
	SPDSetIdx:  (*Client).spdAdd,
	SPDDelete2: (*Client).spdDelete2,
}

// headerErrno says why b is not even answered, 0 if it is.
func headerErrno(b []byte) unix.Errno {
	if len(b) > MaxMessage {
		return unix.EMSGSIZE
	}
	var m Message
	if err := m.decodeHeader(b); err != nil {
		return errnoOf(err)
	}
	if b[6]|b[7] != 0 && !m.More { // reserved: only Linux's own messages have something else there
		return unix.EINVAL
	}
	return 0
}

// handle handles one message.
func (c *Client) handle(k *control.Keying, b []byte) unix.Errno {
	if errno := headerErrno(b); errno != 0 {
		c.spoil(errno)
		return errno
	}
	switch {
	case native.Uint16(b[6:]) == more:
		c.hold(b)
		return 0
	case c.held != nil:
		c.together(k, b)
		return 0
	}
	m, err := Decode(b)
	defer m.Wipe()
	if err == nil {
		err = c.act(k, m)
	}
	if err != nil {
		c.answerError(b, err)
	}
	return 0
}

// answerError answers the message b, which has a header, with err.
func (c *Client) answerError(b []byte, err error) {
	m := new(Message)
	_ = m.decodeHeader(b) // it was judged before
	answer := m.header()
	if answer.Errno = errnoOf(err); isControl(err) {
		answer.Errno = control.Errno(err)
	}
	c.s.log.Debug("PF_KEY request refused", "type", m.Type, "pid", m.PID, "seq", m.Seq, "err", err)
	c.reply(answer)
}

func (c *Client) act(k *control.Keying, m *Message) error {
	f := handlers[m.Type]
	if f == nil {
		return errorf(unix.EOPNOTSUPP, "%v is not for clients to send, or not there", m.Type)
	}
	if err := m.check(); err != nil {
		return err
	}
	return f(c, k, m)
}

// isControl says whether package control has to say what err is.
func isControl(err error) bool {
	_, own := err.(*Error)
	return !own
}

// reply queues an answer, whose keys are wiped once it is encoded.
func (c *Client) reply(m *Message) { c.replies = append(c.replies, m) }

// origin names the request to others.
func (c *Client) origin(m *Message) control.Origin {
	return control.Origin{Client: c.id, PID: m.PID, Seq: m.Seq}
}

// register has the client hear of acquires and expiries of an SA type, and
// tells which algorithms there are. As in Linux, each socket does so once.
func (c *Client) register(_ *control.Keying, m *Message) error {
	switch {
	case m.SAType > maxSAType:
		return errorf(errInvalid, "SA type %d", m.SAType)
	case c.registered[m.SAType]:
		return errorf(unix.EEXIST, "registered for %v before", m.SAType)
	case m.SAType != Unspec:
		c.registered[m.SAType] = true
		c.interest = true
	}
	answer := m.header()
	answer.Has = SetOf(ExtSupportedAuth, ExtSupportedEnc)
	answer.AuthAlgs, answer.EncAlgs = c.s.supported.auth, c.s.supported.enc
	c.reply(answer)
	return nil
}

// setPromisc has the client hear of everything, or no more. It never hears of
// keys.
func (c *Client) setPromisc(_ *control.Keying, m *Message) error {
	if m.SAType > 1 {
		return errorf(errInvalid, "X_PROMISC with SA type %d: 0 is off, 1 on", m.SAType)
	}
	c.promisc = m.SAType == 1
	c.interest = true
	c.reply(m.header())
	return nil
}

// acquire hears that a daemon has given up (RFC 2367, section 3.1.6): an error
// with the seq of the ACQUIRE. There is no answer, as in Linux.
func (c *Client) acquire(k *control.Keying, m *Message) error {
	if m.Has != 0 {
		return errorf(unix.EOPNOTSUPP, "ACQUIRE from a client: only one with an error alone is acted on")
	}
	if m.Seq != 0 && m.Errno != 0 {
		k.FailAcquire(m.Seq)
	}
	return nil
}
