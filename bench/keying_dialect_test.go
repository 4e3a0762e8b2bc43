package bench_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/control/pfkey"
	"spigot/control/xfrm"
	"spigot/internal/flow"
	"spigot/internal/wire"
	"spigot/sad"
	"spigot/spd"
)

// keyedSA is the i-th SA of a key daemon, to a peer of its own.
func keyedSA(i int) *sad.Params {
	p := suites()[0].params()
	p.SPI, p.Dst, p.Reqid = 1<<20+uint32(i), flow.V4(198<<24|18<<16+uint32(i)), 1<<16+uint32(i)
	return p
}

// keyedPolicy is the i-th policy of a key daemon. The i-th SA serves it, and no
// packet of the benchmark matches it.
func keyedPolicy(i int) *spd.Policy {
	sa, dst := keyedSA(i), flow.V4(10<<24|128<<16+uint32(i))
	return &spd.Policy{
		Dir: spd.Out, Action: spd.Protect,
		Sel: flow.Selector{Src: net4("10.1.0.0/16"), Dst: flow.AddrRange{Lo: dst, Hi: dst},
			SrcPort: flow.AnyPort, DstPort: flow.AnyPort},
		Template: spd.Template{Proto: wire.ProtoESP, Src: sa.Src, Dst: sa.Dst, Reqid: sa.Reqid},
	}
}

// dialect is a client of a front end: how it says things, and asks.
type dialect interface {
	addSA(*sad.Params) []byte
	deleteSA(*sad.Params) []byte
	addPolicy(*spd.Policy) []byte
	deletePolicy(*spd.Policy) []byte
	flush() [][]byte
	// ask hands requests in and takes the answers, each of which must say
	// success.
	ask(requests [][]byte) error
}

var dialects = []struct {
	name    string
	connect func(testing.TB, *control.Controller) dialect
	dial    func(b testing.TB, dir string) *keyDaemon
}{{"xfrm", newXFRM, dialXFRM}, {"pfkey", newPFKEY, dialPFKEY}}

// pfkeyClient speaks PF_KEY.
type pfkeyClient struct {
	testing.TB
	*pfkey.Client
}

func newPFKEY(b testing.TB, ctl *control.Controller) dialect {
	c, err := pfkey.New(pfkey.Config{Control: ctl}).Connect(0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return pfkeyClient{b, c}
}

// say returns m with another type and, of its extensions, those in has.
func (c pfkeyClient) say(m *pfkey.Message, err error, typ pfkey.Type, has pfkey.Set) []byte {
	if err != nil {
		c.Fatal(err)
	}
	m.Type = typ
	m.Has &= has
	return m.Append(nil)
}

func (c pfkeyClient) addSA(p *sad.Params) []byte {
	m, err := pfkey.AddOf(p)
	return c.say(m, err, pfkey.Add, ^pfkey.Set(0))
}

func (c pfkeyClient) deleteSA(p *sad.Params) []byte {
	m, err := pfkey.AddOf(p)
	return c.say(m, err, pfkey.Delete, pfkey.SetOf(pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtDst))
}

func (c pfkeyClient) addPolicy(p *spd.Policy) []byte {
	m, err := pfkey.SPDAddOf(p)
	return c.say(m, err, pfkey.SPDAdd, ^pfkey.Set(0))
}

func (c pfkeyClient) deletePolicy(p *spd.Policy) []byte {
	m, err := pfkey.SPDAddOf(p)
	return c.say(m, err, pfkey.SPDDelete, ^pfkey.Set(0))
}

func (c pfkeyClient) flush() [][]byte {
	return [][]byte{
		c.say(&pfkey.Message{SAType: pfkey.ESP}, nil, pfkey.Flush, 0),
		c.say(&pfkey.Message{}, nil, pfkey.SPDFlush, 0),
	}
}

func (c pfkeyClient) ask(requests [][]byte) (err error) {
	if errno := c.Handle(requests...); errno != 0 {
		return errno
	}
	n := 0
	c.Deliver(func(answer []byte) bool {
		n++
		if errno := syscall.Errno(answer[2]); errno != 0 {
			err = fmt.Errorf("answer %d, of type %v: %w", n, pfkey.Type(answer[1]), errno)
		}
		return true
	})
	if err == nil && n != len(requests) {
		err = fmt.Errorf("%d answers to %d requests", n, len(requests))
	}
	return err
}

// xfrmClient speaks netlink XFRM.
type xfrmClient struct{ *xfrm.Client }

func newXFRM(b testing.TB, ctl *control.Controller) dialect {
	s := xfrm.New(xfrm.Config{Control: ctl})
	b.Cleanup(s.Close)
	c := s.NewClient(true)
	b.Cleanup(c.Close)
	c.SetPort(4711)
	return xfrmClient{c}
}

// say returns a request to be acknowledged.
func (xfrmClient) say(typ int, parts ...nl.NetlinkRequestData) []byte {
	r := nl.NewNetlinkRequest(typ, syscall.NLM_F_ACK)
	for _, p := range parts {
		r.AddData(p)
	}
	return r.Serialize()
}

func xfrmAddr(a flow.Addr) (x nl.XfrmAddress) {
	copy(x[:], a.Netip().AsSlice())
	return x
}

func xfrmSelector(s *flow.Selector) nl.XfrmSelector {
	return nl.XfrmSelector{
		Saddr: xfrmAddr(s.Src.Lo), PrefixlenS: 16, Daddr: xfrmAddr(s.Dst.Lo), PrefixlenD: 32, Family: syscall.AF_INET,
	}
}

// noLimits are lifetimes without an end.
var noLimits = nl.XfrmLifetimeCfg{
	SoftByteLimit: nl.XFRM_INF, HardByteLimit: nl.XFRM_INF, SoftPacketLimit: nl.XFRM_INF, HardPacketLimit: nl.XFRM_INF,
}

const (
	xfrmTunnel = 1 // XFRM_MODE_TUNNEL
	xfrmOut    = 1 // XFRM_POLICY_OUT
)

func (c xfrmClient) addSA(p *sad.Params) []byte {
	aead := &nl.XfrmAlgoAEAD{AlgKeyLen: uint32(8 * len(p.EncKey)), AlgICVLen: 128, AlgKey: p.EncKey}
	copy(aead.AlgName[:], "rfc4106(gcm(aes))")
	return c.say(nl.XFRM_MSG_NEWSA, &nl.XfrmUsersaInfo{
		Id:    nl.XfrmId{Daddr: xfrmAddr(p.Dst), Spi: nl.Swap32(p.SPI), Proto: p.Proto},
		Saddr: xfrmAddr(p.Src), Lft: noLimits, Reqid: p.Reqid, Family: syscall.AF_INET, Mode: xfrmTunnel, ReplayWindow: 32,
	}, nl.NewRtAttr(nl.XFRMA_ALG_AEAD, aead.Serialize()))
}

func (c xfrmClient) deleteSA(p *sad.Params) []byte {
	return c.say(nl.XFRM_MSG_DELSA, &nl.XfrmUsersaId{
		Daddr: xfrmAddr(p.Dst), Spi: nl.Swap32(p.SPI), Proto: p.Proto, Family: syscall.AF_INET,
	})
}

func (c xfrmClient) addPolicy(p *spd.Policy) []byte {
	all := ^uint32(0)
	t := &nl.XfrmUserTmpl{
		XfrmId: nl.XfrmId{Daddr: xfrmAddr(p.Template.Dst), Proto: p.Template.Proto}, Saddr: xfrmAddr(p.Template.Src),
		Family: syscall.AF_INET, Reqid: p.Template.Reqid, Mode: xfrmTunnel, Aalgos: all, Ealgos: all, Calgos: all,
	}
	return c.say(nl.XFRM_MSG_NEWPOLICY, &nl.XfrmUserpolicyInfo{Sel: xfrmSelector(&p.Sel), Lft: noLimits, Dir: xfrmOut},
		nl.NewRtAttr(nl.XFRMA_TMPL, bytes.Clone(t.Serialize())))
}

func (c xfrmClient) deletePolicy(p *spd.Policy) []byte {
	return c.say(nl.XFRM_MSG_DELPOLICY, &nl.XfrmUserpolicyId{Sel: xfrmSelector(&p.Sel), Dir: xfrmOut})
}

func (c xfrmClient) flush() [][]byte {
	return [][]byte{c.say(nl.XFRM_MSG_FLUSHSA, &nl.XfrmUsersaFlush{}), c.say(nl.XFRM_MSG_FLUSHPOLICY)}
}

func (c xfrmClient) ask(requests [][]byte) error {
	if err := c.Handle(requests...); err != nil {
		return err
	}
	for i := range requests {
		answer := c.Next()
		if len(answer) < 20 || binary.NativeEndian.Uint16(answer[4:]) != syscall.NLMSG_ERROR {
			return fmt.Errorf("answer %d is no acknowledgement: % x", i, answer)
		}
		if errno := -int32(binary.NativeEndian.Uint32(answer[16:])); errno != 0 {
			return fmt.Errorf("answer %d: %w", i, syscall.Errno(errno))
		}
	}
	return nil
}
