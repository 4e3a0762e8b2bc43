package pipeline_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"spigot/internal/counter"
	"spigot/internal/fib"
	"spigot/pipeline"
	"spigot/sad"
	"spigot/spd"
)

// split cuts an IPv4 frame into fragments of up to 1480 bytes, for gateway b.
func split(frame []byte, id uint16) (pieces [][]byte) {
	body := frame[34:]
	for at := 0; at < len(body); at += 1480 {
		n := min(1480, len(body)-at)
		f := append(append([]byte{}, frame[:34]...), body[at:at+n]...)
		binary.BigEndian.PutUint16(f[14+2:], uint16(20+n))
		binary.BigEndian.PutUint16(f[14+4:], id)
		v := uint16(at / 8)
		if at+n < len(body) {
			v |= 0x2000
		}
		binary.BigEndian.PutUint16(f[14+6:], v)
		copy(f, mac(0xa1))
		pieces = append(pieces, fixSum4(f))
	}
	return pieces
}

// What is longer than a frame is opened all the same. It leaves in fragments, or
// is answered, or is small inside (RFC 4303, section 2.7).
func TestDatagramsLongerThanAFrame(t *testing.T) {
	small := udp4(hostA4, hostB4, 64, 100)
	for _, r := range []struct {
		name  string
		inner []byte // Ethernet header in front
		tfc   int
		told  int // MTU of an answer
		drop  counter.Reason
		red   int
	}{
		{"IPv4", clearDF(udp4(hostA4, hostB4, 64, 5000)), 0, 0, 0, 1500},
		{"nearly 64 KB", clearDF(udp4(hostA4, hostB4, 64, 65000)), 0, 0, 0, 1500},
		{"IPv4 with DF", udp4(hostA4, hostB4, 64, 5000), 0, 1500, 0, 1500},
		{"IPv6", udp6(hostA6, hostB6, 64, 5000), 0, 1500, 0, 1500},
		{"small, and padded", small, 4000, 0, 0, 1500},
		{"for a link that is wider than frames", udp4(hostA4, hostB4, 64, 5000), 0, 0, counter.NoRoom, 9000},
	} {
		a, b := newLone(t, 'a'), newLone(t, 'b')
		out, _ := a.protect(aes128gcm)
		b.protect(aes128gcm)
		b.setMTUs(r.red, 1500)
		next := byte(4)
		if r.inner[12] == 0x86 {
			next = 41
		}
		text := append(append([]byte{}, r.inner[14:]...), make([]byte, r.tfc)...)
		before := b.values()
		var got [][]byte
		for _, f := range split(forge(out.Key, out.SPI, mustReserve(t, out), text, nil, next), 7) {
			got = append(got, b.all(b.wire, b.host, f)...)
		}
		var p [1]fib.Punt
		switch told := b.cfg.Punts.Pop(p[:]); {
		case r.drop != 0:
			b.onlyDrop(before, r.drop)
		case r.told != 0:
			if told != 1 || p[0].Kind != fib.PuntTooBig || int(p[0].MTU) != r.told || !p[0].Secured || len(got) != 0 {
				t.Errorf("%s: told %d times, MTU %d: %v", r.name, told, p[0].MTU, b.drops())
			}
		case r.tfc != 0:
			if len(got) != 1 || !arrivesHere(got[0], r.inner) {
				t.Errorf("%s: arrived %x: %v", r.name, got, b.drops())
			}
		case len(got) == 0:
			t.Errorf("%s: %v", r.name, b.drops())
		default:
			if whole := joined(t, got, 1500); !arrivesHere(whole, r.inner) {
				t.Errorf("%s: arrived as %d bytes in %d fragments", r.name, len(whole)-14, len(got))
			}
		}
	}
}

// arrivesHere says whether got is sent, one hop on.
func arrivesHere(got, sent []byte) bool {
	sent = append([]byte{}, sent...)
	sent[14+8]++
	return arrives(got, fixSum4(sent))
}

// Of those that come at once, as many are opened as there are buffers.
func TestManyGiantsAtOnce(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.protect(aes128gcm)
	inner := clearDF(udp4(hostA4, hostB4, 64, 3000))[14:]
	const buffers = pipeline.MaxBurst / 2
	b.cfg.Burst = pipeline.MaxBurst
	var err error
	if b.w, err = pipeline.New(b.cfg); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		var last [][]byte
		for k := range uint16(buffers + 1) {
			pieces := split(forge(out.Key, out.SPI, mustReserve(t, out), inner, nil, 4), uint16(round)*100+k)
			for _, f := range pieces[:len(pieces)-1] {
				b.all(b.wire, b.host, f)
			}
			last = append(last, pieces[len(pieces)-1])
		}
		for _, f := range last {
			b.wire.Inject(f)
		}
		before := b.values()
		b.w.Turn()
		if got := b.host.Take(); len(got) != buffers*3 {
			t.Errorf("%d fragments: %v", len(got), b.drops())
		}
		if v := b.values(); v.Drops[counter.Giant]-before.Drops[counter.Giant] != 3 || v.Waiting != 0 {
			t.Errorf("%d wait: %v", v.Waiting, b.drops())
		}
	}
}

// A giant that comes before its SA's keys cannot wait: it lies in no frame.
func TestGiantThatIsTooEarly(t *testing.T) {
	a, b := newLone(t, 'a'), newLone(t, 'b')
	out, _ := a.protect(aes128gcm)
	b.db.Expect(out.SPI, out.Dst, 50)
	inner := clearDF(udp4(hostA4, hostB4, 64, 3000))[14:]
	before := b.values()
	for _, f := range split(forge(out.Key, out.SPI, mustReserve(t, out), inner, nil, 4), 7) {
		b.all(b.wire, b.host, f)
	}
	b.onlyDrop(before, counter.UnknownSPI)
}

// What turns back to the wire under another SA, and is beyond 64 KB once sealed,
// is dropped: no length field can say it.
func TestTooLongOnceSealed(t *testing.T) {
	b := newLone(t, 'b')
	src := netip.MustParsePrefix("10.9.0.0/16")
	in, err := sad.NewInbound(aes128gcm.params(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.AddInbound(in); err != nil {
		t.Fatal(err)
	}
	next := tunnel{spi: 0x2000, enc: "aes-cbc", encLen: 16, integ: "hmac-sha2-512-256", authLen: 64, window: 64, outer6: true, udp: true}
	out, _ := b.pair(next)
	b.addPolicy(spd.Policy{Dir: spd.In, Sel: selector(src, netA4), Action: spd.Protect, Template: naming(&in.SA)})
	id := b.addPolicy(spd.Policy{Dir: spd.Out, Sel: selector(src, netA4), Action: spd.Protect, Template: naming(&out.SA)})
	if err := b.db.Bind(id, out); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		size   int
		leaves bool
	}{{60002, true}, {65478, false}} {
		inner := clearDF(udp4(netip.MustParseAddr("10.9.0.1"), hostA4, 64, row.size))
		var got [][]byte
		before := b.values()
		for _, f := range split(forge(in.Key, in.SPI, uint32(row.size), inner[14:], nil, 4), 7) {
			got = append(got, b.all(b.wire, b.wire, f)...)
		}
		if len(got) > 0 != row.leaves {
			t.Errorf("%d bytes left in %d fragments: %v", row.size, len(got), b.drops())
		}
		if !row.leaves {
			b.onlyDrop(before, counter.NoRoom)
		}
	}
}
