package main

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"spigot/internal/uml"
)

// transform is a row of the matrix: what protects a packet, in the kernel's
// words.
type transform struct {
	name string
	// parts are an AEAD, or a cipher and a hash, each with a key of so many bytes,
	// the salt included.
	parts []part
}

type part struct {
	kind, name string // aead, enc or auth-trunc; the kernel's name
	key        int    // bytes
	bits       int    // of the ICV; 0 for a cipher
}

// aeads, ciphers and hashes make the rows. A new algorithm is a line here.
var (
	aeads = []struct {
		name, kernel string
		keys         []int
		icvs         []int // bits
	}{
		{"aes-gcm", "rfc4106(gcm(aes))", []int{20, 28, 36}, []int{128, 96, 64}},
		{"aes-ccm", "rfc4309(ccm(aes))", []int{19, 27, 35}, []int{128, 96, 64}},
		{"aes-gmac", "rfc4543(gcm(aes))", []int{20, 28, 36}, []int{128}},
		{"chacha20-poly1305", "rfc7539esp(chacha20,poly1305)", []int{36}, []int{128}},
	}
	ciphers = []struct {
		name, kernel string
		keys         []int
	}{
		{"aes-cbc", "cbc(aes)", []int{16, 24, 32}},
		{"aes-ctr", "rfc3686(ctr(aes))", []int{20, 28, 36}},
		{"null", "ecb(cipher_null)", []int{0}},
	}
	hashes = []struct {
		name, kernel string
		key, icv     int
	}{
		{"hmac-sha2-256", "hmac(sha256)", 32, 128},
		{"hmac-sha2-384", "hmac(sha384)", 48, 192},
		{"hmac-sha2-512", "hmac(sha512)", 64, 256},
		{"hmac-sha1", "hmac(sha1)", 20, 96},
		{"aes-xcbc", "xcbc(aes)", 16, 96},
		{"aes-cmac", "cmac(aes)", 16, 96},
	}
)

// espTransforms lists all rows of ESP.
func espTransforms() (all []transform) {
	for _, a := range aeads {
		for _, key := range a.keys {
			for _, icv := range a.icvs {
				all = append(all, transform{fmt.Sprintf("%s-%d, key of %d", a.name, icv/8, key), []part{{"aead", a.kernel, key, icv}}})
			}
		}
	}
	for _, c := range ciphers {
		for _, key := range c.keys {
			for _, h := range hashes {
				name := c.name + "/" + h.name
				if len(c.keys) > 1 {
					name = fmt.Sprintf("%s, key of %d", name, key)
				}
				all = append(all, transform{name, []part{
					{"auth-trunc", h.kernel, h.key, h.icv}, {"enc", c.kernel, key, 0},
				}})
			}
		}
	}
	return all
}

// short leaves out of the rows those that say little new: with a cipher and a
// key each hash, and the other keys with one hash; of the AEADs with ICVs cut
// short, one key each.
func short(rows []transform) []transform {
	return slices.DeleteFunc(slices.Clone(rows), func(t transform) bool {
		if len(t.parts) == 1 {
			return t.parts[0].bits < 128 && t.parts[0].key > 20
		}
		hash, cipher := t.parts[0], t.parts[1]
		return hash.name != "hmac(sha256)" && cipher.key > 20
	})
}

// line is what `ip xfrm state add` says of t, with keys of its own for each seed.
func (t transform) line(seed string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed)) // never fails
	noise := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%032x", h.Sum64()))))
	var b strings.Builder
	for _, p := range t.parts {
		key := make([]byte, p.key)
		_, _ = noise.Read(key) // never fails
		text := "''"
		if p.key > 0 {
			text = "0x" + hex.EncodeToString(key)
		}
		fmt.Fprintf(&b, " %s '%s' %s", p.kind, p.name, text)
		if p.bits > 0 {
			fmt.Fprintf(&b, " %d", p.bits)
		}
	}
	return b.String()
}

// shape is how packets are wrapped, whatever protects them: columns of the
// matrix, one for each family of the inner packets.
type shape struct {
	name   string
	outer  int // index into the addresses: 0 for v4, 1 for v6
	mode   string
	encap  string // what `ip xfrm state add` says of it
	inners []int  // families
}

var shapes = []shape{
	{name: "tunnel", outer: 0, mode: "tunnel", inners: []int{0, 1}},
	{name: "tunnel", outer: 1, mode: "tunnel", inners: []int{0, 1}},
	{name: "in UDP", outer: 0, mode: "tunnel", inners: []int{0, 1}, encap: espInUDP},
	{name: "in UDP", outer: 1, mode: "tunnel", inners: []int{0, 1}, encap: espInUDP},
}

// column names a column of the table.
func (s shape) column(inner int) string {
	return fmt.Sprintf("%s %d in %d", s.name, 4+2*inner, 4+2*s.outer)
}

// espInUDP is what RFC 3948 does, from port 4500 to port 4500.
const espInUDP = " encap espinudp 4500 4500 0.0.0.0"

// Datagrams of every residue of every block, and of what fits beside the
// longest header and trailer. All in one, each one way and its like back.
var (
	probeUDP  = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 64, 255, 511, 1000, 1001, 1300}
	probeEcho = []int{0, 1, 56, 1001, 1300}
)

const probeSeconds = 20

// policies is a batch that makes one side's policies: of what src sends to dst,
// under SAs from near to far, and back.
func (s shape) policies(src, dst, near, far [2]string) string {
	var b strings.Builder
	b.WriteString("xfrm policy flush\n")
	for _, f := range s.inners {
		fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir out tmpl src %s dst %s proto esp reqid 1 mode %s\n",
			src[f], dst[f], near[s.outer], far[s.outer], s.mode)
		fmt.Fprintf(&b, "xfrm policy add src %s dst %s dir in tmpl src %s dst %s proto esp reqid 1 mode %s\n",
			dst[f], src[f], far[s.outer], near[s.outer], s.mode)
	}
	return b.String()
}

// matrixCase is one pair of SAs.
type matrixCase struct {
	transform
	shape
	esn    bool
	spi    uint32 // of what the gateway sends; the next one is the guest's
	forged bool   // the two have different keys
}

// perProbe is how many packets a probe makes an SA carry.
func perProbe() uint64 { return uint64(len(probeUDP) + len(probeEcho)) }

// perSA is how many packets an SA carries: requests of one side and answers to
// the other's, of each family.
func (c *matrixCase) perSA() uint64 { return 2 * uint64(len(c.inners)) * perProbe() }

// start is the number before the first: with ESN so that half of the packets
// lie beyond 2^32, without it so that the last one but one of all numbers is
// used. The last one would expire the SA before its counters are read.
func (c *matrixCase) start() uint64 {
	if c.esn {
		return 1<<32 - c.perSA()/2
	}
	return 1<<32 - 2 - c.perSA()
}

// states is the batch that keys the gateway, or the guest.
func (c *matrixCase) states(guest bool) string {
	var b strings.Builder
	b.WriteString("xfrm state flush\n")
	near, far := nearAddr[c.outer], farAddr[c.outer]
	for i, ends := range [][2]string{{near, far}, {far, near}} {
		spi := c.spi + uint32(i)
		fmt.Fprintf(&b, "xfrm state add src %s dst %s proto esp spi %#x reqid 1 mode %s flag af-unspec", ends[0], ends[1], spi, c.mode)
		counter := "replay-oseq"
		if inbound := guest == (i == 0); inbound {
			counter = "replay-seq"
		}
		if c.esn {
			fmt.Fprintf(&b, " flag esn replay-window 128 %s-hi %#x", counter, c.start()>>32)
		} else {
			b.WriteString(" replay-window 32")
		}
		seed := fmt.Sprint(c.name(), i, c.forged && guest)
		fmt.Fprintf(&b, " %s %#x%s%s\n", counter, uint32(c.start()), c.line(seed), c.encap)
	}
	return b.String()
}

func (c *matrixCase) name() string {
	esn := ""
	if c.esn {
		esn = "/esn"
	}
	return fmt.Sprintf("%s%s, %s in %d", c.transform.name, esn, c.shape.name, 4+2*c.outer)
}

// prepare keys both sides and notes what they have counted.
func (c *matrixCase) prepare(r *peerRig) (err error) {
	if err := r.key(c.states(false), c.states(true)); err != nil {
		return err
	}
	if r.dropped, err = r.gateway.drops(); err != nil {
		return err
	}
	r.refused, err = guestErrors(r.guest)
	return err
}

// run has both sides probe each other and holds their counters against each
// other. The verdict is an error for each inner family and side, and what is
// wrong with the case as a whole.
func (c *matrixCase) run(r *peerRig) (verdicts map[int][2]error, err error) {
	if err := c.prepare(r); err != nil {
		return nil, err
	}
	verdicts = make(map[int][2]error)
	for _, f := range c.inners {
		reports, err := c.probes(r, f, probeSeconds)
		if err != nil {
			return nil, err
		}
		var v [2]error
		for i, p := range reports {
			if p.Sent != int64(perProbe()) || p.Intact != p.Sent {
				v[i] = fmt.Errorf("asked from %s, %d of %d came back: %s",
					[2]string{hostAddr[f], innerAddr[f]}[i], p.Intact, p.Sent, strings.Join(p.Trouble, "; "))
			}
		}
		verdicts[f] = v
	}
	return verdicts, c.holdCounters(r)
}

// probes has the host and the guest send each other the datagrams.
func (c *matrixCase) probes(r *peerRig, family, seconds int) (reports [2]uml.Report, err error) {
	probe := func(i int, a *uml.Agent, from, to string) error {
		answer, err := a.Call(uml.Request{Probe: &uml.Probe{From: from, To: to, UDP: probeUDP, Echo: probeEcho, Seconds: seconds}})
		reports[i] = answer.Report
		return err
	}
	err = both(func() error { return probe(0, r.host, hostAddr[family], innerAddr[family]) },
		func() error { return probe(1, r.guest, innerAddr[family], hostAddr[family]) })
	return reports, err
}

// holdCounters holds that every packet was counted once, by both, and none
// refused.
func (c *matrixCase) holdCounters(r *peerRig) error {
	ours, err := r.gateway.traffic()
	if err != nil {
		return err
	}
	theirs, err := guestTraffic(r.guest)
	if err != nil {
		return err
	}
	for _, spi := range []uint32{c.spi, c.spi + 1} {
		if ours[spi] != c.perSA() || theirs[spi] != c.perSA() {
			return fmt.Errorf("SA %#x carried %d packets says the gateway, %d says the guest, of %d", spi, ours[spi], theirs[spi], c.perSA())
		}
	}
	drops, err := r.gateway.drops()
	if err != nil {
		return err
	}
	refused, err := guestErrors(r.guest)
	if err != nil {
		return err
	}
	if bad := slices.Concat(since(r.dropped, drops), since(r.refused, refused)); len(bad) > 0 {
		return fmt.Errorf("refused: %s", strings.Join(bad, ", "))
	}
	return nil
}

// score counts cases: a suite with or without ESN, a combination of headers, and
// who asks.
type score struct{ passed, total int }

func (s score) String() string { return fmt.Sprintf("%d/%d", s.passed, s.total) }

// A Linux kernel's IPsec stack and the gateway open what the other seals: every
// algorithm, with ESN across 2^32 and without up to its end, in every shape, to
// the last bit. SPIGOT_MATRIX=full tries every combination; else each algorithm
// meets each family of outer headers and ESN once.
func TestLinuxAgrees(t *testing.T) {
	t.Parallel()
	full := os.Getenv("SPIGOT_MATRIX") == "full"
	r := newPeerRig(t)
	rows := espTransforms()
	if !full {
		rows = short(rows)
	}
	scores := make(map[string]map[string]*score)
	spi := uint32(0x1000)
	for _, s := range shapes {
		if err := r.key(s.policies(hostAddr, innerAddr, nearAddr, farAddr), s.policies(innerAddr, hostAddr, farAddr, nearAddr)); err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			for _, esn := range []bool{false, true} {
				if !full && esn != ((i+s.outer)%2 == 0) {
					continue
				}
				c := matrixCase{transform: row, shape: s, esn: esn, spi: spi}
				spi += 2
				c.judge(r, scores)
			}
		}
		r.refuse(rows, s, spi)
		spi += 4
	}
	t.Logf("\n%s", tableOf(rows, shapes, scores))
}

// With other keys, each side refuses all that the other sends, and says why:
// the judge above can say no.
func (r *peerRig) refuse(rows []transform, s shape, spi uint32) {
	r.Helper()
	for _, row := range []transform{rows[0], rows[len(rows)-1]} {
		c := matrixCase{transform: row, shape: s, esn: true, spi: spi, forged: true}
		spi += 2
		if err := c.prepare(r); err != nil {
			r.Fatal(err)
		}
		reports, err := c.probes(r, c.inners[0], 1)
		if err != nil {
			r.Fatal(err)
		}
		drops, err := r.gateway.drops()
		if err != nil {
			r.Fatal(err)
		}
		refused, err := guestErrors(r.guest)
		if err != nil {
			r.Fatal(err)
		}
		ours, theirs := drops["auth_failed"]-r.dropped["auth_failed"], refused["XfrmInStateProtoError"]-r.refused["XfrmInStateProtoError"]
		if reports[0].Intact != 0 || reports[1].Intact != 0 || ours != perProbe() || theirs != perProbe() {
			r.Errorf("%s with two keys: %d and %d came back; the gateway refused %d, the guest %d, of %d each",
				c.name(), reports[0].Intact, reports[1].Intact, ours, theirs, perProbe())
		}
	}
}

// judge runs c and counts it.
func (c *matrixCase) judge(r *peerRig, scores map[string]map[string]*score) {
	verdicts, err := c.run(r)
	if err != nil {
		r.Errorf("%s: %v", c.name(), err)
	}
	for _, f := range c.inners {
		row := scores[c.transform.name]
		if row == nil {
			row = make(map[string]*score)
			scores[c.transform.name] = row
		}
		if row[c.column(f)] == nil {
			row[c.column(f)] = &score{}
		}
		for _, wrong := range verdicts[f] {
			row[c.column(f)].total++
			switch {
			case wrong != nil:
				r.Errorf("%s: %v", c.name(), wrong)
			case err == nil:
				row[c.column(f)].passed++
			}
		}
	}
}

// tableOf prints the scores.
func tableOf(rows []transform, shapes []shape, scores map[string]map[string]*score) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "passed/total\t")
	var columns []string
	for _, s := range shapes {
		for _, f := range s.inners {
			columns = append(columns, s.column(f))
			fmt.Fprintf(w, "%s\t", s.column(f))
		}
	}
	fmt.Fprintln(w)
	all := score{}
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t", row.name)
		for _, c := range columns {
			if s := scores[row.name][c]; s != nil {
				fmt.Fprintf(w, "%v\t", s)
				all.passed += s.passed
				all.total += s.total
			} else {
				fmt.Fprint(w, "\t")
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	return b.String() + fmt.Sprintf("all: %v", all)
}
