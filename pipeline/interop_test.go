package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"spigot/crypto"
	"spigot/internal/counter"
	"spigot/sad"
)

// The judges. Both are Debian packages; their absence is a failure, because a
// gateway that agrees only with itself has shown nothing.
const (
	python        = "/usr/bin/python3" // Debian's: the packages are not in any other
	scapyPackages = "apt-get install python3-scapy python3-cryptography"
	tsharkPackage = "apt-get install tshark"
	judgeTime     = 5 * time.Minute // to end a judge that hangs
)

// The algorithms as the gateway and its judges name them; "" is one that the
// judge does not know.
var (
	interopCiphers = []struct {
		enc           string
		keys          []int // bytes, salt included
		aead          bool
		scapy, tshark string
	}{
		{"aes-gcm-16", []int{20, 28, 36}, true, "AES-GCM", "AES-GCM with 16 octet ICV [RFC4106]"},
		{"aes-gcm-12", []int{20, 28, 36}, true, "AES-GCM-12", "AES-GCM with 12 octet ICV [RFC4106]"},
		{"aes-gcm-8", []int{20, 28, 36}, true, "AES-GCM-8", "AES-GCM with 8 octet ICV [RFC4106]"},
		{"aes-gcm-16-iiv", []int{20, 28, 36}, true, "AES-GCM-IIV", ""},
		{"chacha20-poly1305", []int{36}, true, "CHACHA20-POLY1305", ""},
		{"chacha20-poly1305-iiv", []int{36}, true, "CHACHA20-POLY1305-IIV", ""},
		{"aes-ccm-16", []int{19, 27, 35}, true, "AES-CCM", ""},
		{"aes-ccm-12", []int{19, 27, 35}, true, "AES-CCM", ""},
		{"aes-ccm-8", []int{19, 27, 35}, true, "AES-CCM", ""},
		{"aes-ccm-8-iiv", []int{19, 27, 35}, true, "AES-CCM-8-IIV", ""},
		{"null-aes-gmac", []int{20, 28, 36}, true, "AES-GMAC", ""},
		{"aes-cbc", []int{16, 24, 32}, false, "AES-CBC", "AES-CBC [RFC3602]"},
		{"aes-ctr", []int{20, 28, 36}, false, "AES-CTR", "AES-CTR [RFC3686]"},
		{"null", []int{0}, false, "NULL", "NULL"},
	}
	interopHashes = []struct {
		integ         string
		key           int
		scapy, tshark string
	}{
		{"hmac-sha2-256-128", 32, "SHA2-256-128", "HMAC-SHA-256-128 [RFC4868]"},
		{"hmac-sha2-384-192", 48, "SHA2-384-192", "HMAC-SHA-384-192 [RFC4868]"},
		{"hmac-sha2-512-256", 64, "SHA2-512-256", "HMAC-SHA-512-256 [RFC4868]"},
		{"hmac-sha1-96", 20, "HMAC-SHA1-96", "HMAC-SHA-1-96 [RFC2404]"},
		{"aes-xcbc-96", 16, "AES-XCBC-96", ""},
		{"aes-cmac-96", 16, "AES-CMAC-96", ""},
	}
)

// judged is a suite with the names that the judges have for it.
type judged struct {
	tunnel
	suite                   *crypto.Suite
	aead                    bool
	scapyCrypt, scapyAuth   string
	tsharkCrypt, tsharkAuth string
}

// judgedSuites lists what the tables above make, every suite that the gateway
// has, without ESN.
func judgedSuites(t *testing.T) []judged {
	t.Helper()
	var all []judged
	add := func(s judged) {
		var err error
		if s.suite, err = crypto.Lookup(s.enc, s.integ, s.encLen); err != nil {
			t.Fatal(err)
		}
		s.spi, s.window = 0x1000+0x10*uint32(len(all)), 64
		all = append(all, s)
	}
	for _, c := range interopCiphers {
		for _, n := range c.keys {
			s := judged{tunnel: tunnel{enc: c.enc, encLen: n}, aead: c.aead, scapyCrypt: c.scapy, tsharkCrypt: c.tshark, tsharkAuth: "NULL"}
			if c.aead {
				add(s)
				continue
			}
			for _, h := range interopHashes {
				s.integ, s.authLen, s.scapyAuth, s.tsharkAuth = h.integ, h.key, h.scapy, h.tshark
				add(s)
			}
		}
	}
	have := map[*crypto.Suite]bool{}
	for _, s := range all {
		have[s.suite] = true
	}
	for _, s := range crypto.Suites() {
		if !have[s] {
			t.Errorf("no judge for %v: add it to interopCiphers or interopHashes", s)
		}
	}
	return slices.DeleteFunc(all, func(s judged) bool { return !s.judgedHere() })
}

// judgedHere leaves out of the product of ciphers, keys and hashes what has
// nothing of its own: each cipher is judged, each hash with each cipher, and all
// keys of what RFC 8221 says MUST of, and of GMAC and CCM.
func (s *judged) judgedHere() bool {
	switch s.enc {
	case "aes-gcm-16", "aes-ccm-16", "null-aes-gmac", "null", "chacha20-poly1305", "chacha20-poly1305-iiv":
		return true
	case "aes-gcm-12", "aes-ccm-12":
		return s.encLen == 27 || s.encLen == 28
	case "aes-gcm-8", "aes-ccm-8":
		return s.encLen > 32
	case "aes-gcm-16-iiv", "aes-ccm-8-iiv":
		return s.encLen <= 20
	}
	return s.integ == "hmac-sha2-256-128" || s.encLen <= 20
}

// judge is scapy, in a process of its own that serves a whole test.
type judge struct {
	requests *json.Encoder
	replies  *json.Decoder
	stop     func() string // ends the process and returns what it wrote to stderr
	sas      int
}

type request struct {
	Op       string `json:"op"`
	SPI      uint32 `json:"spi,omitempty"`
	Src      string `json:"src,omitempty"`
	Dst      string `json:"dst,omitempty"`
	Crypt    string `json:"crypt,omitempty"`
	ICV      int    `json:"icv,omitempty"` // of an AEAD
	CryptKey []byte `json:"crypt_key"`
	Auth     string `json:"auth"`
	AuthKey  []byte `json:"auth_key"`
	ESN      bool   `json:"esn"`
	Host     bool   `json:"transport"`
	AH       bool   `json:"ah"`
	SA       int    `json:"sa"`
	Seq      uint64 `json:"seq"`
	Packet   []byte `json:"packet,omitempty"`
}

type reply struct {
	Ready, Error, Refused string
	Packet                []byte
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), judgeTime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, python, "-I", "-W", "ignore", filepath.Join("testdata", "scapy_judge.py"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("scapy judges this test and does not start: %v\nDebian: %s", err, scapyPackages)
	}
	j := &judge{requests: json.NewEncoder(in), replies: json.NewDecoder(out)}
	j.stop = func() string {
		in.Close()
		_, _ = io.Copy(io.Discard, out) // until it ends or is ended
		if err := cmd.Wait(); err != nil && stderr.Len() == 0 {
			return err.Error()
		}
		return stderr.String()
	}
	t.Cleanup(func() { j.stop() })
	var hello reply
	if err := j.replies.Decode(&hello); err != nil || hello.Ready == "" {
		t.Fatalf("scapy judges this test and is not usable: %s%s\nDebian: %s", hello.Error, j.stop(), scapyPackages)
	}
	t.Logf("judge: %s", hello.Ready)
	return j
}

// ask sends r and returns the answer, which is not an error.
func (j *judge) ask(t testing.TB, r request) reply {
	t.Helper()
	if err := j.requests.Encode(r); err != nil {
		t.Fatalf("scapy is gone: %v\n%s", err, j.stop())
	}
	var a reply
	if err := j.replies.Decode(&a); err != nil {
		t.Fatalf("scapy is gone: %v\n%s", err, j.stop())
	}
	if a.Error != "" {
		t.Fatalf("scapy fails to %s with SA %d, number %d: %s\n%x", r.Op, r.SA, r.Seq, a.Error, r.Packet)
	}
	return a
}

// add gives the judge the SA of p and returns its number.
func (j *judge) add(t testing.TB, s *judged, p *sad.Params) int {
	t.Helper()
	icv := 0
	if s.aead {
		icv = s.suite.ICVLen()
	}
	j.ask(t, request{Op: "sa", SPI: p.SPI, Src: p.Src.String(), Dst: p.Dst.String(), ESN: p.ESN, Host: !p.Tunnel, AH: p.Proto == 51,
		Crypt: s.scapyCrypt, ICV: icv, CryptKey: p.EncKey, Auth: s.scapyAuth, AuthKey: p.AuthKey})
	j.sas++
	return j.sas - 1
}

// peer is gateway a with the judge in gateway b's place.
type peer struct {
	*lone
	judge    *judge
	out      *sad.Outbound
	in       *sad.Inbound
	from, to int    // the judge's SAs: from a, and to a
	seq      uint64 // the number that the judge used last
}

// newPeer makes a peer whose SAs have used their numbers up to start.
func newPeer(t *testing.T, j *judge, s *judged, start uint64) *peer {
	t.Helper()
	p := &peer{lone: newLone(t, 'a'), judge: j, seq: start}
	p.out, p.in = p.protect(s.tunnel)
	p.from, p.to = j.add(t, s, s.params(true)), j.add(t, s, s.params(false))
	for left := start; left > 0; {
		_, granted := p.out.Reserve(int(min(left, math.MaxInt)))
		left -= uint64(granted)
	}
	if start > 0 && p.in.Mark(start) != counter.None {
		t.Fatalf("the window does not move to %d", start)
	}
	return p
}

// The smallest packets: a bare IPv4 header, and an IPv6 header with one byte,
// as the gateway refuses a payload length of 0 (see wire.IPv6.Valid).
const smallest4, smallest6 = 20, 41

// innerFrame makes a frame between the hosts with an IP packet of length size:
// UDP, or "no next header" where there is no room for it.
func innerFrame(v6, toB bool, ttl byte, size int) []byte {
	src4, dst4, src6, dst6 := hostA4, hostB4, hostA6, hostB6
	if !toB {
		src4, dst4, src6, dst6 = dst4, src4, dst6, src6
	}
	const noNext = 59
	switch {
	case v6 && size == smallest6:
		f := udp6(src6, dst6, ttl, 48)[:14+size]
		f[14+5], f[14+6] = smallest6-40, noNext
		return f
	case v6:
		return udp6(src6, dst6, ttl, size)
	case size == smallest4:
		f := udp4(src4, dst4, ttl, 28)[:14+size]
		f[14+3], f[14+9] = smallest4, noNext
		return fixSum4(f)
	}
	return udp4(src4, dst4, ttl, size)
}

// wireFrame puts an Ethernet header in front of ip, on its way to gateway a.
func wireFrame(ip []byte) []byte {
	f := append(append(append(make([]byte, 0, 14+len(ip)), mac(0xa1)...), mac(2)...), 0x08, 0x00)
	if ip[0]>>4 == 6 {
		f[12], f[13] = 0x86, 0xdd
	}
	return append(f, ip...)
}

// sealed lets the gateway seal a packet and returns the outer IP packet.
func (p *peer) sealed(v6 bool, size int) []byte {
	p.t.Helper()
	wire := p.outOf(innerFrame(v6, true, 64, size))
	if wire == nil {
		p.t.Fatalf("%d bytes did not leave: %v", size, p.drops())
	}
	return wire[14:]
}

// scapySealed lets scapy seal a packet under the next number.
func (p *peer) scapySealed(v6 bool, size int) []byte {
	p.t.Helper()
	p.seq++
	return p.judge.ask(p.t, request{Op: "seal", SA: p.to, Seq: p.seq, Packet: innerFrame(v6, false, 64, size)[14:]}).Packet
}

// scapyOpens fails unless scapy opens ip, which the gateway sealed last, and finds the packet.
func (p *peer) scapyOpens(ip []byte, v6 bool, size int) {
	p.t.Helper()
	a := p.judge.ask(p.t, request{Op: "open", SA: p.from, Seq: p.out.Seq(), Packet: ip})
	if want := innerFrame(v6, true, 63, size)[14:]; !bytes.Equal(a.Packet, want) {
		p.t.Fatalf("scapy opens number %d %s\n%x\nwant\n%x", p.out.Seq(), a.Refused, a.Packet, want)
	}
}

// opens fails unless the gateway opens ip, which scapy sealed, and finds the packet.
func (p *peer) opens(ip []byte, v6 bool, size int) {
	p.t.Helper()
	got := p.into(wireFrame(ip))
	if got == nil {
		p.t.Fatalf("number %d, %d bytes from scapy did not arrive: %v", p.seq, size, p.drops())
	}
	if want := innerFrame(v6, false, 63, size)[14:]; !bytes.Equal(got[14:], want) {
		p.t.Fatalf("from scapy arrived\n%x\nwant\n%x", got[14:], want)
	}
}

// refuses fails unless the gateway drops ip because of its ICV.
func (p *peer) refuses(ip []byte, what string) {
	p.t.Helper()
	before := p.values()
	if got := p.into(wireFrame(ip)); got != nil {
		p.t.Fatalf("%s: opened as\n%x", what, got[14:])
	}
	p.onlyDrop(before, counter.AuthFailed)
	if p.t.Failed() {
		p.t.Fatalf("%s: not refused as it should be", what)
	}
}

// scapyRefuses fails unless scapy refuses ip because of its ICV.
func (p *peer) scapyRefuses(seq uint64, ip []byte, what string) {
	p.t.Helper()
	if a := p.judge.ask(p.t, request{Op: "open", SA: p.from, Seq: seq, Packet: ip}); a.Refused == "" {
		p.t.Fatalf("%s: scapy opened it as\n%x", what, a.Packet)
	}
}

// verdicts counts what came out for one suite.
type verdicts struct {
	opened, sealed   [4]int // by scapy; 4 in 4, 6 in 4, 4 in 6, 6 in 6
	flips            int    // flipped bits that the gateway refused
	scapyFlips       int    // and scapy
	opened2, sealed2 int    // numbers around and beyond 2^32
}

// What one of the two seals, the other opens: every suite, either family in
// either family, and the packet comes out byte for byte, but for its TTL.
// Neither opens a packet of which one bit was flipped.
//
// scapy leaves the high half of an extended sequence number out of a separate
// ICV (RFC 4303, section 3.3.2.1, wants it in), so ESN is judged for AEADs only.
func TestScapyAgrees(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "opened+sealed by scapy\t4 in 4\t6 in 4\t4 in 6\t6 in 6\taround and above 2^32\tflips refused by gateway\tby scapy\t")
	for _, s := range judgedSuites(t) {
		for _, s.esn = range []bool{false, true} {
			if s.esn && !s.aead {
				continue
			}
			name := s.suite.String()
			if s.esn {
				name += "/esn"
			}
			t.Run(name, func(t *testing.T) {
				var v verdicts
				s.crossBothWays(t, j, &v)
				s.flipBits(t, j, &v)
				if s.esn {
					s.passTheHalf(t, j, &v)
				}
				fmt.Fprintf(w, "%s\t", name)
				for i := range v.opened {
					fmt.Fprintf(w, "%d+%d\t", v.opened[i], v.sealed[i])
				}
				fmt.Fprintf(w, "%d+%d\t%d\t%d\t\n", v.opened2, v.sealed2, v.flips, v.scapyFlips)
			})
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
}

// crossBothWays sends a packet of each size each way. Both seal to the same length.
func (s judged) crossBothWays(t *testing.T, j *judge, v *verdicts) {
	for o, outer6 := range []bool{false, true} {
		s.outer6 = outer6
		p := newPeer(t, j, &s, 0)
		for i, inner6 := range []bool{false, true} {
			sizes := []int{smallest4, 20 + 8} // the second: UDP without payload
			if inner6 {
				sizes = []int{smallest6, 40 + 8}
			}
			largest := p.out.Geo.MaxInner(p.mtu)
			for _, size := range append(sizes, 49, 50, 51, 64, 127, 574, 1001, 1337, largest-1, largest) {
				byUs, byScapy := p.sealed(inner6, size), p.scapySealed(inner6, size)
				if len(byUs) != len(byScapy) {
					t.Errorf("%d bytes: sealed to %d, by scapy to %d", size, len(byUs), len(byScapy))
				}
				p.scapyOpens(byUs, inner6, size)
				v.opened[2*o+i]++
				p.opens(byScapy, inner6, size)
				v.sealed[2*o+i]++
			}
		}
	}
}

// scapyStride is how many bits lie between two that are flipped for scapy,
// which is slow; it meets every place in a byte.
const scapyStride = 13

// flipBits flips each bit from the sequence number to the end of the ICV. The
// packet itself opens afterwards: none of the forged ones moved the window.
func (s judged) flipBits(t *testing.T, j *judge, v *verdicts) {
	const size, seq, spiBits = 48, 3, 32 // no flip of one bit makes 3 a 0, which is no sequence number
	for _, s.outer6 = range []bool{false, true} {
		p := newPeer(t, j, &s, 0)
		p.seq = seq - 1
		esp := int(p.out.Geo.Outer)
		flip := func(ip []byte, bit int) []byte {
			f := bytes.Clone(ip)
			f[esp+bit/8] ^= 1 << (bit % 8)
			return f
		}
		byScapy, byUs := p.scapySealed(s.outer6, size), p.sealed(s.outer6, size)
		bits := 8 * (len(byUs) - esp)
		for bit := spiBits; bit < bits; bit++ {
			p.refuses(flip(byScapy, bit), fmt.Sprintf("bit %d flipped", bit))
			v.flips++
		}
		p.opens(byScapy, s.outer6, size)
		for bit := spiBits; bit < bits; bit += scapyStride {
			f := flip(byUs, bit)
			p.scapyRefuses(uint64(binary.BigEndian.Uint32(f[esp+4:])), f, fmt.Sprintf("bit %d flipped", bit))
			v.scapyFlips++
		}
		p.scapyOpens(byUs, s.outer6, size)
	}
}

// passTheHalf lets the sequence number's low half run over. Each side
// recovers or is told the high half, and refuses a packet sealed under another.
func (s judged) passTheHalf(t *testing.T, j *judge, v *verdicts) {
	const size, half = 100, 1 << 32
	for _, start := range []uint64{half - 5, 7*half + 1000, (half-1)*half - 5} {
		p := newPeer(t, j, &s, start)
		for n := start + 1; n <= start+10; n++ {
			v6 := n%2 == 0
			byUs := p.sealed(v6, size)
			if p.out.Seq() != n {
				t.Fatalf("the gateway sealed number %d, want %d", p.out.Seq(), n)
			}
			p.scapyRefuses(n-half, byUs, "opened with the half before")
			p.scapyRefuses(n+half, byUs, "opened with the half behind")
			p.scapyOpens(byUs, v6, size)
			v.opened2++

			for _, other := range []uint64{n - half, n + half} {
				p.seq = other - 1
				p.refuses(p.scapySealed(v6, size), "sealed under another half")
			}
			p.seq = n - 1
			p.opens(p.scapySealed(v6, size), v6, size)
			v.sealed2++
		}
	}
}

// tshark finds in the gateway's packets what went in, padding as RFC 4303,
// section 2.4 wants it, and that the ICV is right; and that it is wrong when
// one bit of the sequence number was flipped.
func TestTsharkDecrypts(t *testing.T) {
	t.Parallel()
	var frames [][]byte
	var want []string
	args := []string{"-n", "-r", "-", "-T", "fields", "-E", "separator=,"}
	for _, f := range []string{"esp.spi", "esp.sequence", "esp.icv_good", "esp.pad", "esp.pad_len", "esp.protocol",
		"udp.srcport", "udp.dstport", "udp.length", "udp.payload"} {
		args = append(args, "-e", f)
	}
	args = append(args, "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE")
	for _, s := range judgedSuites(t) {
		if s.tsharkCrypt == "" || s.tsharkAuth == "" {
			continue
		}
		for _, s.outer6 = range []bool{false, true} {
			a := newLone(t, 'a')
			out, _ := a.protect(s.tunnel)
			args = append(args, "-o", s.securityAssociation())
			for i, size := range []int{48, 101, 575, out.Geo.MaxInner(a.mtu)} {
				v6 := i%2 == 1
				inner := innerFrame(v6, true, 64, size)
				wire := a.outOf(inner)
				forged := bytes.Clone(wire)
				forged[14+int(out.Geo.Outer)+7] ^= 0x10
				frames = append(frames, wire, forged)
				want = append(want, s.dissected(out, i+1, 1, v6, inner[14:]), s.dissected(out, (i+1)^0x10, 0, v6, inner[14:]))
			}
		}
	}
	got := strings.Split(strings.TrimSuffix(tshark(t, args, frames), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("tshark saw %d packets, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("packet %d\n%x\ntshark: %s\n  want: %s", i+1, frames[i], got[i], want[i])
		}
	}
	t.Logf("tshark decrypted %d packets under %d SAs, half of them forged, and told them apart", len(got), len(got)/8)
}

// securityAssociation is the line of tshark's table of SAs for the SA from a to b.
func (s judged) securityAssociation() string {
	p := s.params(true)
	family := "IPv4"
	if s.outer6 {
		family = "IPv6"
	}
	hexKey := func(k []byte) string {
		if len(k) == 0 {
			return ""
		}
		return "0x" + hex.EncodeToString(k)
	}
	return fmt.Sprintf("uat:esp_sa:%q,%q,%q,\"%#x\",%q,%q,%q,%q", family, p.Src, p.Dst, p.SPI,
		s.tsharkCrypt, hexKey(p.EncKey), s.tsharkAuth, hexKey(p.AuthKey))
}

// dissected is tshark's line about the packet number seq that carries inner
// and whose ICV is right (1) or wrong (0).
func (s judged) dissected(out *sad.Outbound, seq, icv int, v6 bool, inner []byte) string {
	next, udp := 4, inner[20:]
	if v6 {
		next, udp = 41, inner[40:]
	}
	pad := "0102030405060708090a0b0c0d0e0f"[:2*out.Geo.Pad(len(inner))]
	return fmt.Sprintf("0x%08x,%d,%d,%s,%d,0x%02x,1000,2000,%d,%x", out.SPI, seq, icv, pad, len(pad)/2, next, len(udp), udp[8:])
}

// tshark runs tshark over frames, without the user's preferences, and returns
// what it prints.
func tshark(t *testing.T, args []string, frames [][]byte) string {
	t.Helper()
	// https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/: little-endian, microseconds, Ethernet.
	le := binary.LittleEndian
	file := le.AppendUint32(nil, 0xa1b2c3d4)
	file = le.AppendUint16(le.AppendUint16(file, 2), 4)
	for _, v := range []uint32{0, 0, 65535, 1} {
		file = le.AppendUint32(file, v)
	}
	for i, f := range frames {
		for _, v := range []uint32{uint32(i), 0, uint32(len(f)), uint32(len(f))} {
			file = le.AppendUint32(file, v)
		}
		file = append(file, f...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), judgeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tshark", args...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+t.TempDir(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("tshark judges this test and does not start: %v\nDebian: %s", err, tsharkPackage)
	}
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	return string(out)
}
