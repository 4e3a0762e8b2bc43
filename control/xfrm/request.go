package xfrm

import (
	"errors"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/spd"
)

// exchange is what datagrams of a client lead to.
type exchange struct {
	c       *Client
	out     [][]byte // datagrams to be sent
	dumping bool     // a dump is under way, or begun
	begun   dump     // to go on when the client reads
	joins   *uint32  // the groups of a bind
}

// request is one message of a client while it is served.
type request struct {
	header
	*exchange
	body  []byte // the structure, and the attributes behind it
	attrs attrs
}

// origin names r to the SADB and SPD.
func (r *request) origin() control.Origin {
	return control.Origin{Client: r.c.id, PID: r.port, Seq: r.seq}
}

// answer is the header of an answer to r. A client that says which port it has
// believes it, and ignores answers to another.
func (r *request) answer(typ uint16) header {
	h := header{typ: typ, seq: r.seq, port: r.port}
	if h.port == 0 {
		h.port = r.c.Port()
	}
	return h
}

// reply queues a datagram.
func (r *request) reply(b []byte) { r.out = append(r.out, b) }

// service is what serves one type of message.
type service struct {
	size   int // of the structure
	serve  func(*request, *control.Keying) error
	dump   func(*request, *control.Keying) (dump, error)
	tuning bool // the attributes are of another set
}

// serviceOf returns the service of a type. One that has no serve is refused.
func serviceOf(typ uint16) service {
	switch typ {
	case msgNewSA, msgUpdSA:
		return service{size: usersaInfoLen, serve: (*request).newSA}
	case msgDelSA:
		return service{size: usersaIDLen, serve: (*request).delSA}
	case msgGetSA:
		return service{size: usersaIDLen, serve: (*request).getSA, dump: (*request).dumpSAs}
	case msgNewPolicy, msgUpdPolicy:
		return service{size: userpolicyInfoLen, serve: (*request).newPolicy}
	case msgDelPolicy:
		return service{size: userpolicyIDLen, serve: (*request).namedPolicy}
	case msgGetPolicy:
		return service{size: userpolicyIDLen, serve: (*request).namedPolicy, dump: (*request).dumpPolicies}
	case msgAllocSPI:
		return service{size: userSPIInfoLen, serve: (*request).allocSPI}
	case msgFlushSA:
		return service{size: usersaFlushLen, serve: (*request).flushSA}
	case msgFlushPolicy:
		return service{serve: (*request).flushPolicy}
	case msgNewAE:
		return service{size: aeventIDLen, serve: (*request).newAE}
	case msgGetAE:
		return service{size: aeventIDLen, serve: (*request).getAE}
	case msgGetSADInfo:
		return service{size: 4, serve: (*request).getSADInfo}
	case msgGetSPDInfo:
		return service{size: 4, serve: (*request).getSPDInfo, tuning: true}
	case msgNewSPDInfo:
		return service{size: 4, serve: (*request).newSPDInfo, tuning: true}
	case msgGetDefault:
		return service{size: 3, serve: (*request).getDefault}
	case msgSetDefault:
		return service{size: 3, serve: (*request).setDefault}
	case msgMigrate:
		return service{size: userpolicyIDLen, serve: (*request).migrate}
	case msgAcquire:
		return service{size: userAcquireLen, serve: (*request).injected}
	case msgExpire:
		return service{size: userExpireLen, serve: (*request).injected}
	case msgPolExpire:
		return service{size: userPolExpireLen, serve: (*request).injected}
	}
	return service{}
}

// serve serves the messages in a datagram, in order. As in a kernel, what is no
// message ends the datagram without a word.
func (x *exchange) serve(k *control.Keying, b []byte) {
	for len(b) >= headerLen {
		r := request{exchange: x}
		_ = decode(b, &r.header) // it is long enough
		if r.length < headerLen || uint64(r.length) > uint64(len(b)) {
			return
		}
		n := int(r.length)
		r.body = b[headerLen:n:n]
		dump, err := r.handle(k)
		switch {
		case dump != nil:
			x.begun, x.dumping = dump, true
		case err != nil || r.flags&syscall.NLM_F_ACK != 0:
			r.reply(r.ack(err))
		}
		b = b[min(align(n), len(b)):]
	}
}

// handle serves r. A request for a dump is answered when the client reads.
func (r *request) handle(k *control.Keying) (dump, error) {
	switch {
	case r.flags&syscall.NLM_F_REQUEST == 0:
		return nil, nil
	case r.typ == msgBind:
		return nil, r.bind()
	case r.typ < syscall.NLMSG_MIN_TYPE:
		return nil, nil
	case !r.c.privileged:
		return nil, refuse(syscall.EPERM, "XFRM is for the gateway's user and root")
	}
	s := serviceOf(r.typ)
	if s.dump != nil && r.flags&syscall.NLM_F_DUMP != 0 {
		if r.dumping {
			return nil, refuse(syscall.EBUSY, "a dump is under way: read it to its end first")
		}
		return s.dump(r, k)
	}
	return nil, r.perform(&s, k)
}

// perform serves a request that is no dump.
func (r *request) perform(s *service, k *control.Keying) error {
	switch {
	case s.serve == nil:
		return refuse(eINVAL, "message type %#x is no request", r.typ)
	case len(r.body) < s.size:
		return refuse(eINVAL, "message type %#x of %d bytes, which needs %d", r.typ, len(r.body), s.size)
	}
	if !s.tuning {
		if err := r.parse(s.size); err != nil {
			return err
		}
	}
	return s.serve(r, k)
}

// parse reads the attributes behind a structure of size bytes, and refuses those
// that would change what the request is about.
func (r *request) parse(size int) (err error) {
	if r.attrs, err = parseAttrs(r.body[min(align(size), len(r.body)):]); err != nil {
		return err
	}
	for _, x := range []struct {
		typ  int
		what string
	}{
		{nl.XFRMA_MARK, "mark"}, {nl.XFRMA_SET_MARK, "output mark"}, {nl.XFRMA_IF_ID, "interface ID"},
		{nl.XFRMA_REPLAY_THRESH, "events after so many packets"}, {nl.XFRMA_ETIMER_THRESH, "events after so much time"},
	} {
		if b := r.attrs[x.typ]; b != nil && anySet(b) {
			return refuse(eOPNOTSUPP, "%s: there is none; leave it out", x.what)
		}
	}
	for _, x := range []struct {
		typ  int
		what string
	}{
		{nl.XFRMA_OFFLOAD_DEV, "offload to a device"}, {nl.XFRMA_SEC_CTX, "security context"}, {nl.XFRMA_COADDR, "care-of address"},
	} {
		if r.attrs[x.typ] != nil {
			return refuse(eOPNOTSUPP, "%s: there is none; leave it out", x.what)
		}
	}
	if b := r.attrs[nl.XFRMA_POLICY_TYPE]; b != nil && b[0] != 0 {
		return refuse(eINVAL, "policy type %d: there is the main one, 0", b[0])
	}
	return nil
}

func anySet(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return true
		}
	}
	return false
}

// ack is NLMSG_ERROR: the number of err, or 0, and the header of r. The rest of
// r may hold keys and is not quoted.
func (r *request) ack(err error) []byte {
	h := r.answer(syscall.NLMSG_ERROR)
	h.flags = flagCapped
	errno := errnoOf(err)
	if err == nil || !r.c.extendedAcks() {
		return newMessage(nil, h, &nlError{negative(errno), r.header}).end()
	}
	h.flags |= flagAckTLVs
	m := newMessage(nil, h, &nlError{negative(errno), r.header})
	what := text(err.Error())
	m.attr(1, &what) // NLMSGERR_ATTR_MSG
	return m.end()
}

// errnoOf returns the number for err, 0 for nil.
func errnoOf(err error) syscall.Errno {
	var r *refusal
	if errors.As(err, &r) {
		return r.errno
	}
	if errors.Is(err, syscall.EINVAL) {
		return syscall.EINVAL // the codec's
	}
	return control.Errno(err)
}

// negative is how errors are told.
func negative(errno syscall.Errno) uint32 { return -uint32(errno) }

// flushPolicy serves FLUSHPOLICY. That there was none is no error.
func (r *request) flushPolicy(k *control.Keying) error {
	k.FlushPolicies(r.origin())
	return nil
}

// newAE serves NEWAE: it moves the sequence numbers of an SA on.
func (r *request) newAE(k *control.Keying) error {
	var u aeventID
	if err := decode(r.body, &u); err != nil {
		return err
	}
	name, err := u.sa.named(&r.attrs)
	plain, ring := r.attrs[nl.XFRMA_REPLAY_VAL], r.attrs[nl.XFRMA_REPLAY_ESN_VAL]
	switch {
	case err != nil:
		return err
	case r.flags&syscall.NLM_F_REPLACE == 0:
		return refuse(eINVAL, "a new state that replaces nothing: set NLM_F_REPLACE")
	case plain == nil && ring == nil:
		if r.attrs[nl.XFRMA_LTIME_VAL] != nil {
			return refuse(eOPNOTSUPP, "what an SA in use has carried: only its sequence numbers can be moved on")
		}
		return refuse(eINVAL, "no replay state: say where the sequence numbers are")
	}
	s, err := replayAttr(plain, ring)
	if err != nil {
		return err
	}
	if err := fitsWindow(k, name, ring); err != nil {
		return err
	}
	return k.SetReplay(r.origin(), name, s.Seq)
}

// fitsWindow refuses a replay state ring of another geometry than that of the SA:
// it is about some other (CVE-2017-7184).
func fitsWindow(k *control.Keying, name control.SAID, ring []byte) error {
	sa, err := k.SA(name, false)
	if err != nil || ring == nil {
		return err
	}
	var s replayESN
	if err := decode(ring, &s); err != nil {
		return err
	}
	window := uint32(min(sa.Window, maxBitmap*32))
	if words := int(window+31) / 32; s.window != window || len(s.bitmap) != words {
		return refuse(eINVAL, "replay window of %d packets in %d words for an SA that has %d in %d: ask for its state first",
			s.window, len(s.bitmap), window, words)
	}
	return nil
}

// getSADInfo serves GETSADINFO: how many SAs there are.
func (r *request) getSADInfo(k *control.Keying) error {
	var flags word
	if err := decode(r.body, &flags); err != nil {
		return err
	}
	m := newMessage(nil, r.answer(msgNewSADInfo), &flags)
	count := word(k.SACount())
	m.attr(1, &count)                        // XFRMA_SAD_CNT
	m.attr(2, &hashInfo{count: 1, limit: 1}) // XFRMA_SAD_HINFO: it is no hash of the kernel's kind
	r.reply(m.end())
	return nil
}

// The attributes of SPD information, which are a set of their own.
const (
	spdCounts     = 1
	spdHash       = 2
	spdThreshold4 = 3
	spdThreshold6 = 4
)

// getSPDInfo serves GETSPDINFO: how many policies there are.
func (r *request) getSPDInfo(k *control.Keying) error {
	var flags word
	if err := decode(r.body, &flags); err != nil {
		return err
	}
	keyed, _ := k.PolicyCount() // those of the configuration are listed, not counted
	m := newMessage(nil, r.answer(msgNewSPDInfo), &flags)
	m.attr(spdCounts, &spdInfo{uint32(keyed[spd.In]), uint32(keyed[spd.Out]), uint32(keyed[control.Fwd])})
	m.attr(spdHash, &hashInfo{count: 1, limit: 1})
	for i, typ := range []int{spdThreshold4, spdThreshold6} {
		v := r.c.s.thresholds[i].Load()
		m.attr(typ, &threshold{local: uint8(v >> 8), remote: uint8(v)})
	}
	r.reply(m.end())
	return nil
}

// newSPDInfo serves NEWSPDINFO, which tunes a hash that Spigot does without. It
// is kept and returned.
func (r *request) newSPDInfo(*control.Keying) error {
	var got [2]*threshold
	err := eachAttr(r.body[4:], func(typ int, v []byte) error {
		i := typ - spdThreshold4
		if i < 0 || i > 1 {
			return nil
		}
		got[i] = &threshold{}
		if decode(v, got[i]) != nil {
			return refuse(syscall.ERANGE, "threshold of %d bytes, which needs 2", len(v))
		}
		if most := [2]uint8{32, 128}[i]; got[i].local > most || got[i].remote > most {
			return refuse(eINVAL, "threshold of %d and %d bits: at most %d", got[i].local, got[i].remote, most)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, t := range got {
		if t != nil {
			r.c.s.thresholds[i].Store(uint32(t.local)<<8 | uint32(t.remote))
		}
	}
	return nil
}

// policyDefault is struct xfrm_userpolicy_default: what happens to traffic that
// no policy is for.
type policyDefault struct{ in, fwd, out uint8 }

func (p *policyDefault) wire(w *wire) {
	w.u8(&p.in)
	w.u8(&p.fwd)
	w.u8(&p.out)
}

const defaultBlock = 1 // 0: as it is; 2: accept

// getDefault serves GETDEFAULT: it is discarded (RFC 4301, section 4.4.1).
func (r *request) getDefault(*control.Keying) error {
	r.reply(newMessage(nil, r.answer(msgGetDefault), &policyDefault{defaultBlock, defaultBlock, defaultBlock}).end())
	return nil
}

// setDefault serves SETDEFAULT, which may only ask for what is.
func (r *request) setDefault(*control.Keying) error {
	var p policyDefault
	if err := decode(r.body, &p); err != nil {
		return err
	}
	if max(p.in, p.fwd, p.out) > defaultBlock {
		return refuse(eOPNOTSUPP, "traffic without a policy is discarded: add a policy that allows it, of a low priority")
	}
	return nil
}

// migrate refuses MIGRATE, as a kernel that was built without it.
func (r *request) migrate(*control.Keying) error {
	return refuse(syscall.ENOPROTOOPT, "MIGRATE is not there: delete the SA and add another")
}

// injected refuses what a kernel lets clients pretend: events.
func (r *request) injected(*control.Keying) error {
	return refuse(eOPNOTSUPP, "message type %#x comes from the gateway only", r.typ)
}
