package pfkey

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control"
	"spigot/internal/flow"
	"spigot/sad"
	"spigot/spd"
)

// An ACQUIRE proposes for AH what AH has: hashes, the good ones first.
func TestAcquireOfAH(t *testing.T) {
	s := newRig(t).Server
	a := &control.Acquire{Seq: 9, Policy: &control.Policy{}, Template: spd.Template{Proto: 51}, Peer: flow.V4(0xc0000202)}
	m := s.acquireMessage(a)
	if m.SAType != AH || len(m.Proposal.Combs) < 4 || m.Proposal.Combs[0].Auth != 5 {
		t.Errorf("%v proposes %+v", m.SAType, m.Proposal.Combs)
	}
	for _, c := range m.Proposal.Combs {
		if c.Enc != 0 || c.AuthMin == 0 || c.AuthMin != c.AuthMax || c.Auth == 3 {
			t.Errorf("it proposes %+v", c)
		}
	}
}

// TestEvents holds what clients are told of each kind of event. The SA and the
// policy are one's whose maker is pid 7; what nobody asked for has pid 0.
func TestEvents(t *testing.T) {
	s := newRig(t).Server
	sa := &control.SA{State: control.Mature}
	sa.Params = sad.Params{SPI: 0x1000, Proto: 50, Tunnel: true, Src: flow.V4(0xc0000202), Dst: flow.V4(0xc0000201),
		Encryption: "aes-cbc", Integrity: "hmac-sha2-384-192", Encap: sad.Encap{Type: 2, SrcPort: 4500, DstPort: 4500}}
	policy := &control.Policy{}
	policy.Policy = spd.Policy{ID: 5, Action: spd.Protect, Template: spd.Template{Proto: 50, Dst: flow.V4(0xc0000202)}}
	policy.Sel = flow.Selector{Src: net4("10.1.0.0/16").addrs(), Dst: net4("10.2.0.0/16").addrs(), SrcPort: flow.AnyPort, DstPort: flow.AnyPort}
	by := control.Origin{Client: 1, PID: 7, Seq: 8}
	const (
		saAll  = saExts | lifetimes | 1<<ExtProxy | 1<<ExtNATType | 1<<ExtNATSrcPort | 1<<ExtNATDstPort
		polAll = addresses | lifetimes | 1<<ExtPolicy
	)
	for _, row := range []struct {
		name     string
		e        control.Event
		typ      Type
		satype   SAType
		seq, pid uint32
		has      Set
		state    uint8
	}{
		{"lost", control.Event{Kind: control.EventLost, Lost: 3}, Register, 0, 3, 0, 0, 0},
		{"acquire", control.Event{Kind: control.EventAcquire, Acquire: &control.Acquire{Seq: 9, Policy: policy, Template: policy.Template, Peer: flow.V4(0xc0000202)}},
			Acquire, ESP, 9, 0, addresses | 1<<ExtPolicy | 1<<ExtProposal, 0},
		{"soft", control.Event{Kind: control.EventExpire, SA: sa}, Expire, ESP, 0, 0, saAll &^ (1 << ExtHard), StateDying},
		{"hard", control.Event{Kind: control.EventExpire, SA: sa, Hard: true}, Expire, ESP, 0, 0, saAll &^ (1 << ExtSoft), StateDead},
		{"policy expires", control.Event{Kind: control.EventPolicyExpire, Policy: policy, Hard: true}, SPDExpire, 0, 0, 0, polAll, 0},
		{"mapping", control.Event{Kind: control.EventMapping, SA: sa, Peer: flow.V4(0xc0000209), Port: 1024}, NATNewMapping, ESP, 0, 0,
			1<<ExtSA | addresses | 1<<ExtNATSrcPort | 1<<ExtNATDstPort, 0},
		{"SPI", control.Event{Kind: control.EventSPI, By: by, SA: sa}, GetSPI, ESP, 8, 7, saAll, StateMature},
		{"add", control.Event{Kind: control.EventSA, By: by, SA: sa}, Add, ESP, 8, 7, saAll, StateMature},
		{"update", control.Event{Kind: control.EventSAUpdate, By: by, SA: sa}, Update, ESP, 8, 7, saAll, StateMature},
		{"delete", control.Event{Kind: control.EventSADelete, By: by, SA: sa}, Delete, ESP, 8, 7, saAll, StateDead},
		{"flush", control.Event{Kind: control.EventSAFlush, By: by, Proto: 50}, Flush, ESP, 8, 7, 0, 0},
		{"add policy", control.Event{Kind: control.EventPolicy, By: by, Policy: policy}, SPDAdd, 0, 8, 7, polAll, 0},
		{"update policy", control.Event{Kind: control.EventPolicyUpdate, By: by, Policy: policy}, SPDUpdate, 0, 8, 7, polAll, 0},
		{"delete policy", control.Event{Kind: control.EventPolicyDelete, By: by, Policy: policy}, SPDDelete, 0, 8, 7, polAll, 0},
		{"flush policies", control.Event{Kind: control.EventPolicyFlush, By: by}, SPDFlush, 0, 8, 7, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := s.eventMessage(&row.e).Append(nil)
			m, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if m.Type != row.typ || m.SAType != row.satype || m.Seq != row.seq || m.PID != row.pid || m.Has != row.has || m.SA.State != row.state {
				t.Errorf("%v %v seq %d pid %d has %v state %d\nwant %v %v seq %d pid %d has %v state %d", m.Type, m.SAType, m.Seq, m.PID, m.Has, m.SA.State,
					row.typ, row.satype, row.seq, row.pid, row.has, row.state)
			}
			if len(b) >= MaxMessage {
				t.Errorf("%d bytes: clients read less than %d", len(b), MaxMessage)
			}
			switch row.typ {
			case NATNewMapping:
				if m.Src != host("192.0.2.2") || m.NATSport != 4500 || m.Dst != host("192.0.2.9") || m.NATDport != 1024 {
					t.Errorf("%v[%d] -> %v[%d]", m.Src, m.NATSport, m.Dst, m.NATDport)
				}
			case Register:
				if m.Errno != unix.ENOBUFS {
					t.Errorf("errno %v", m.Errno)
				}
			}
		})
	}
}

// TestPaddingIsZero: a message tells nothing of what its buffer held before
// (CVE-2022-1353).
func TestPaddingIsZero(t *testing.T) {
	for _, m := range []*Message{
		addSA(0x1000), spdUpdate(),
		{Type: Add, Has: keys | 1<<ExtSrcIdentity | 1<<ExtNATType | 1<<ExtNATSrcPort, AuthKey: pattern(20, 1), EncKey: pattern(36, 1), SrcID: Identity{Name: "west"}},
		{Type: Dump, Has: 1 << ExtFilter},
	} {
		dirty := bytes.Repeat([]byte{0xaa}, MaxMessage)
		if got, want := m.Append(dirty[:0]), m.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%v: in a used buffer\n%x\nin a new one\n%x", m.Type, got, want)
		}
	}
}
