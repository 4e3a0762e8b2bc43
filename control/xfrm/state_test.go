package xfrm

import (
	"bytes"
	"encoding/hex"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"spigot/control"
	"spigot/internal/flow"
)

// unhex reads bytes that are written in lines.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A golden NEWSA as iproute2 6.1 writes it, counted by hand from linux/xfrm.h:
//
//	ip xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1001 reqid 9
//	  mode tunnel replay-window 32 aead 'rfc4106(gcm(aes))' 0x00..13 128
const goldenNewSA = `
	50010000 1000 0506 2a000000 00000000
	` + zeros56 + `
	c0000201 00000000 00000000 00000000 00001001 32 000000
	c0000202 00000000 00000000 00000000
	ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff
	0000000000000000 0000000000000000 0000000000000000 0000000000000000
	0000000000000000 0000000000000000 0000000000000000 0000000000000000
	00000000 00000000 00000000 00000000 09000000 0200 01 20 00 00000000000000
	6000 1200
	72666334313036286763 6d2861657329 29 0000000000000000000000000000000000000000000000
	000000000000000000000000000000000000000000000000
	a0000000 80000000
	000102030405060708090a0b0c0d0e0f10111213`

const zeros56 = `
	00000000000000000000000000000000 00000000000000000000000000000000
	0000000000000000 0000 00 00 00 000000 00000000 00000000`

func TestGoldenNewSA(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	all := r.ask(t, c, unhex(t, goldenNewSA))
	if len(all) != 1 || all[0].errno(t) != 0 {
		t.Fatalf("%+v", all)
	}
	r.seq = 77
	got := r.one(t, c, newMessage(nil, header{typ: msgGetSA, flags: syscall.NLM_F_REQUEST, seq: 77},
		&usersaID{dst: addr("192.0.2.1"), spi: 0x1001, family: afInet, proto: 50}).end())
	sa := nl.DeserializeXfrmUsersaInfo(got.body)
	if got.typ != msgNewSA || sa.Reqid != 9 || sa.Mode != 1 || sa.ReplayWindow != 32 || sa.Family != afInet ||
		sa.Id.Proto != 50 || sa.Lft.HardByteLimit != infinite || sa.Curlft.AddTime == 0 {
		t.Errorf("type %#x: %+v", got.typ, sa)
	}
	alg := nl.DeserializeXfrmAlgoAEAD(got.attr(t, nl.SizeofXfrmUsersaInfo, nl.XFRMA_ALG_AEAD))
	if string(alg.AlgName[:17]) != "rfc4106(gcm(aes))" || alg.AlgICVLen != 128 || alg.AlgKeyLen != 160 || alg.AlgKey[19] != 0x13 {
		t.Errorf("algorithm %+v", alg)
	}
}

// charon's way with an inbound SA: reserve the SPI, key it, ask how it does,
// delete it.
func TestCharonInboundSA(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	spi := &userSPIInfo{info: usersaInfo{
		id: id{dst: addr("192.0.2.1"), proto: 50}, src: addr("192.0.2.2"), mode: modeTunnel, family: afInet,
	}, min: 0xc0000000, max: 0xcfffffff}
	larva := r.one(t, c, r.req(msgAllocSPI, 0, spi))
	number := uint32(0)
	if larva.typ != msgNewSA {
		t.Fatalf("type %#x, errno %v", larva.typ, larva.errno(t))
	}
	var info usersaInfo
	if err := decode(larva.body, &info); err != nil {
		t.Fatal(err)
	}
	if number = info.id.spi; number < 0xc0000000 || number > 0xcfffffff {
		t.Fatalf("SPI %#x", number)
	}
	sa := inboundSA(number)
	sa.lft.softAdd, sa.lft.hardAdd = 3000, 3600
	sa.lft.hardPackets = 1000000
	r.do(t, c, 0, r.req(msgUpdSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), window(1024)))

	name := &usersaID{dst: addr("192.0.2.1"), spi: number, family: afInet, proto: 50}
	got := r.one(t, c, r.req(msgGetSA, 0, name))
	if err := decode(got.body, &info); err != nil || got.typ != msgNewSA {
		t.Fatalf("type %#x, %v", got.typ, err)
	}
	if info.lft != sa.lft || info.reqid != 7 || info.flags != sa.flags || info.window != 0 || info.mode != modeTunnel || info.src != sa.src {
		t.Errorf("%+v", info)
	}
	var alg algo
	alg.sized = true
	if err := decode(got.attr(t, usersaInfoLen, nl.XFRMA_ALG_AEAD), &alg); err != nil || !bytes.Equal(alg.key, gcm().key) {
		t.Errorf("key % x, %v", alg.key, err)
	}
	var ring replayESN
	if err := decode(got.attr(t, usersaInfoLen, nl.XFRMA_REPLAY_ESN_VAL), &ring); err != nil || ring.window != 1024 || len(ring.bitmap) != 32 {
		t.Errorf("%+v, %v", ring, err)
	}
	if info := r.ipsec.Load().SAD; info == nil {
		t.Error("nothing was published")
	}

	ae := r.one(t, c, r.req(msgGetAE, 0, &aeventID{sa: *name, flags: aeReplay}))
	if ae.typ != msgNewAE || ae.attr(t, aeventIDLen, nl.XFRMA_REPLAY_ESN_VAL) == nil || len(ae.attr(t, aeventIDLen, nl.XFRMA_LTIME_VAL)) != 32 {
		t.Errorf("type %#x: % x", ae.typ, ae.body)
	}

	r.do(t, c, 0, r.req(msgDelSA, syscall.NLM_F_ACK, name))
	r.do(t, c, syscall.ESRCH, r.req(msgDelSA, syscall.NLM_F_ACK, name))
	r.do(t, c, syscall.ESRCH, r.req(msgGetSA, 0, name))
	r.do(t, c, syscall.ESRCH, r.req(msgUpdSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), window(1024)))
}

// SHA-1 is there where the operator allows it, and its refusal is logged.
func TestLegacyAlgorithms(t *testing.T) {
	add := func(r *rig) []byte {
		sa := outboundSA(0x1000)
		sa.flags = flagAnyFamily
		return r.req(msgNewSA, syscall.NLM_F_ACK, sa,
			with(nl.XFRMA_ALG_CRYPT, &algo{name: "cbc(aes)", key: make([]byte, 16)}),
			with(nl.XFRMA_ALG_AUTH, &algo{name: "hmac(sha1)", key: make([]byte, 20)}))
	}
	r := newRig(t)
	r.do(t, r.client(t, 0), syscall.ENOSYS, add(r))
	if !strings.Contains(r.log.String(), "--allow-legacy") {
		t.Errorf("not logged: %s", r.log.String())
	}
	r = makeRigOver(t, func(c *control.Config) { c.AllowLegacy = true }, func(*Config) {}, "192.0.2.1")
	r.do(t, r.client(t, 0), 0, add(r))
}

// All suites that charon and iproute2 may ask for and crypto has, and how they
// come back.
func TestAlgorithms(t *testing.T) {
	key := func(n int) []byte { return bytes.Repeat([]byte{0x5a}, n) }
	aead := func(name string, icv uint32, n int) func(*message) {
		return with(nl.XFRMA_ALG_AEAD, &algo{name: name, sized: true, bits: icv, key: key(n)})
	}
	crypt := func(name string, n int) func(*message) {
		return with(nl.XFRMA_ALG_CRYPT, &algo{name: name, key: key(n)})
	}
	auth := func(name string, n int) func(*message) {
		return with(nl.XFRMA_ALG_AUTH, &algo{name: name, key: key(n)})
	}
	trunc := func(name string, bits uint32, n int) func(*message) {
		return with(nl.XFRMA_ALG_AUTH_TRUNC, &algo{name: name, sized: true, bits: bits, key: key(n)})
	}
	type attrs = []func(*message)
	for i, row := range []struct {
		name  string
		attrs attrs
		errno syscall.Errno
	}{
		{"AES-128-GCM", attrs{aead("rfc4106(gcm(aes))", 128, 20)}, 0},
		{"AES-192-GCM", attrs{aead("rfc4106(gcm(aes))", 128, 28)}, 0},
		{"AES-256-GCM", attrs{aead("rfc4106(gcm(aes))", 128, 36)}, 0},
		{"AES-128-GCM with an ICV of 12 bytes", attrs{aead("rfc4106(gcm(aes))", 96, 20)}, 0},
		{"AES-256-GCM with an ICV of 8 bytes", attrs{aead("rfc4106(gcm(aes))", 64, 36)}, 0},
		{"AES-128-CCM", attrs{aead("rfc4309(ccm(aes))", 128, 19)}, 0},
		{"AES-192-CCM with an ICV of 12 bytes", attrs{aead("rfc4309(ccm(aes))", 96, 27)}, 0},
		{"AES-256-CCM with an ICV of 8 bytes", attrs{aead("rfc4309(ccm(aes))", 64, 35)}, 0},
		{"AES-128-GMAC", attrs{aead("rfc4543(gcm(aes))", 128, 20)}, 0},
		{"AES-192-GMAC", attrs{aead("rfc4543(gcm(aes))", 128, 28)}, 0},
		{"AES-256-GMAC", attrs{aead("rfc4543(gcm(aes))", 128, 36)}, 0},
		{"AES-CTR, SHA-256 of 128 bits", attrs{crypt("rfc3686(ctr(aes))", 20), trunc("hmac(sha256)", 128, 32)}, 0},
		{"AES-CBC, XCBC", attrs{crypt("cbc(aes)", 16), trunc("xcbc(aes)", 96, 16)}, 0},
		{"NULL, CMAC", attrs{crypt("ecb(cipher_null)", 0), auth("cmac(aes)", 16)}, 0},
		{"AES-CBC, SHA-1, which nobody has allowed", attrs{crypt("cbc(aes)", 16), trunc("hmac(sha1)", 96, 20)}, syscall.ENOSYS},
		{"NULL alone", attrs{crypt("ecb(cipher_null)", 0)}, syscall.ENOSYS},
		{"NULL twice", attrs{crypt("ecb(cipher_null)", 0), auth("digest_null", 0)}, syscall.ENOSYS},
		{"3DES", attrs{crypt("cbc(des3_ede)", 24), auth("hmac(sha256)", 32)}, syscall.ENOSYS},
		{"MD5", attrs{crypt("cbc(aes)", 16), auth("hmac(md5)", 16)}, syscall.ENOSYS},
		{"ChaCha20-Poly1305", attrs{aead("rfc7539esp(chacha20,poly1305)", 128, 36)}, 0},
		{"AES-CBC, SHA-256 of 128 bits", attrs{crypt("cbc(aes)", 16), trunc("hmac(sha256)", 128, 32)}, 0},
		{"AES-CBC by its old name, SHA-384", attrs{crypt("aes", 24), auth("sha384", 48)}, 0},
		{"AES-CBC, SHA-512", attrs{crypt("cbc(aes)", 32), auth("hmac(sha512)", 64)}, 0},
		{"NULL, SHA-256", attrs{crypt("ecb(cipher_null)", 0), auth("hmac(sha256)", 32)}, 0},
		{"SHA-256 of 96 bits", attrs{crypt("cbc(aes)", 16), trunc("hmac(sha256)", 96, 32)}, syscall.ENOSYS},
		{"an AEAD nobody knows", attrs{aead("rfc4106(gcm(rot13))", 128, 20)}, syscall.ENOSYS},
		{"an ICV nobody sends", attrs{aead("rfc4106(gcm(aes))", 120, 20)}, syscall.ENOSYS},
		{"a cipher nobody knows", attrs{crypt("cbc(rot13)", 16), auth("hmac(sha256)", 32)}, syscall.ENOSYS},
		{"a cipher without a hash", attrs{crypt("cbc(aes)", 16)}, syscall.ENOSYS},
		{"a short key", attrs{aead("rfc4106(gcm(aes))", 128, 19)}, syscall.EINVAL},
		{"no algorithm", nil, syscall.EINVAL},
		{"a hash alone", attrs{auth("hmac(sha256)", 32)}, syscall.EINVAL},
		{"an AEAD and a hash", attrs{aead("rfc4106(gcm(aes))", 128, 20), auth("hmac(sha256)", 32)}, syscall.EINVAL},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			c := r.client(t, 0)
			sa := outboundSA(0x1000 + uint32(i))
			sa.flags = flagAnyFamily
			r.do(t, c, row.errno, r.req(msgNewSA, syscall.NLM_F_ACK, sa, row.attrs...))
			if row.errno != 0 {
				return
			}
			r.do(t, c, syscall.EEXIST, r.req(msgNewSA, syscall.NLM_F_ACK, sa, row.attrs...))
			got := r.one(t, c, r.req(msgGetSA, 0, &usersaID{dst: sa.id.dst, spi: sa.id.spi, family: afInet, proto: 50}))
			again := r.req(msgNewSA, syscall.NLM_F_ACK, sa, func(m *message) { m.b = append(m.b, got.body[usersaInfoLen:]...) })
			r.do(t, c, 0, r.req(msgFlushSA, syscall.NLM_F_ACK, new(octet)))
			r.seq--
			r.do(t, c, 0, again) // charon copies what it reads into what it adds
		})
	}
}

// What the flags say of the outer header is done, and said again.
func TestOuterHeaderFlags(t *testing.T) {
	for i, row := range []struct {
		flags uint8
		extra word
		want  string
	}{
		{0, 0, ""},
		{nl.XFRM_STATE_NOECN, 0, "ecn off"},
		{nl.XFRM_STATE_DECAP_DSCP, 0, "decapdscp copy"},
		{nl.XFRM_STATE_NOPMTUDISC, 0, "df clear"},
		{0, nl.XFRM_SA_XFLAG_DONT_ENCAP_DSCP, "dscp 0"},
		{nl.XFRM_STATE_NOECN | nl.XFRM_STATE_NOPMTUDISC, nl.XFRM_SA_XFLAG_DONT_ENCAP_DSCP, "df clear dscp 0 ecn off"},
	} {
		r := newRig(t)
		c := r.client(t, 0)
		sa := outboundSA(0x1000 + uint32(i))
		sa.flags = flagAnyFamily | row.flags
		r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), with(nl.XFRMA_SA_EXTRA_FLAGS, &row.extra)))
		id := &usersaID{dst: sa.id.dst, spi: sa.id.spi, family: afInet, proto: 50}
		var info usersaInfo
		if err := decode(r.one(t, c, r.req(msgGetSA, 0, id)).body, &info); err != nil || info.flags != sa.flags {
			t.Errorf("%q: flags %#x came back as %#x, %v", row.want, sa.flags, info.flags, err)
		}
		_ = r.ctl.Keying(func(k *control.Keying) {
			got, err := k.SA(control.SAID{SPI: sa.id.spi, Dst: flow.From4(sa.id.dst[:]), Proto: 50}, false)
			if err != nil || got.Outer.String() != row.want {
				t.Errorf("flags %#x, extra %#x: %q, want %q; %v", row.flags, row.extra, got.Outer.String(), row.want, err)
			}
		})
	}
}

// Padding to a length is done, to any length beyond an IP packet's as far as the
// path goes, and said again.
func TestPadding(t *testing.T) {
	for i, row := range []struct {
		pad  word
		want string
	}{{1400, "tfc-pad 1400"}, {65534, "tfc-pad 65534"}, {1 << 16, "tfc-pad mtu"}, {1<<32 - 1, "tfc-pad mtu"}} {
		r := newRig(t)
		c := r.client(t, 0)
		sa := outboundSA(0x1000 + uint32(i))
		sa.flags = flagAnyFamily
		r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, sa, with(nl.XFRMA_ALG_AEAD, gcm()), with(nl.XFRMA_TFCPAD, &row.pad)))
		id := &usersaID{dst: sa.id.dst, spi: sa.id.spi, family: afInet, proto: 50}
		var back word
		if err := decode(r.one(t, c, r.req(msgGetSA, 0, id)).attr(t, usersaInfoLen, nl.XFRMA_TFCPAD), &back); err != nil || back != row.pad {
			t.Errorf("%d came back as %d, %v", row.pad, back, err)
		}
		_ = r.ctl.Keying(func(k *control.Keying) {
			got, err := k.SA(control.SAID{SPI: sa.id.spi, Dst: flow.From4(sa.id.dst[:]), Proto: 50}, false)
			if err != nil || got.Outer.String() != row.want {
				t.Errorf("%d: %q, want %q; %v", row.pad, got.Outer.String(), row.want, err)
			}
		})
	}
}

// What says more than Spigot does is refused, not forgotten.
func TestRefusedSAs(t *testing.T) {
	type edit = func(*usersaInfo)
	u32 := func(typ int, v uint32) func(*message) { w := word(v); return with(typ, &w) }
	none := func(*usersaInfo) {}
	for _, row := range []struct {
		name  string
		edit  edit
		attrs []func(*message)
		errno syscall.Errno
	}{
		{"as it should be", none, nil, 0},
		{"an address family that is none", func(s *usersaInfo) { s.family = 99 }, nil, syscall.EINVAL},
		{"a selector's family that is none", func(s *usersaInfo) { s.sel.family = 99 }, nil, syscall.EINVAL},
		{"prefix of 33 bits", func(s *usersaInfo) { s.sel.family, s.sel.plenDst = afInet, 33 }, nil, syscall.EINVAL},
		{"prefix of 129 bits", func(s *usersaInfo) { s.sel.family, s.sel.plenSrc = afInet6, 129 }, nil, syscall.EINVAL},
		{"AH with an AEAD", func(s *usersaInfo) { s.id.proto = 51 }, nil, syscall.EINVAL},
		{"IPComp", func(s *usersaInfo) { s.id.proto = 108 }, nil, syscall.EPROTONOSUPPORT},
		{"TCP", func(s *usersaInfo) { s.id.proto = 6 }, nil, syscall.EINVAL},
		{"SPI 0", func(s *usersaInfo) { s.id.spi = 0 }, nil, syscall.EINVAL},
		{"SPI 255", func(s *usersaInfo) { s.id.spi = 255 }, nil, syscall.EINVAL},
		{"BEET", func(s *usersaInfo) { s.mode = 4 }, nil, syscall.EOPNOTSUPP},
		{"mode 5", func(s *usersaInfo) { s.mode = 5 }, nil, syscall.EINVAL},
		{"two windows", func(s *usersaInfo) { s.window = 32 }, nil, syscall.EINVAL},
		{"mark 0", none, []func(*message){u32(nl.XFRMA_SET_MARK, 0)}, 0},
		{"output mark", none, []func(*message){u32(nl.XFRMA_SET_MARK, 1)}, syscall.EOPNOTSUPP},
		{"interface ID", none, []func(*message){u32(nl.XFRMA_IF_ID, 42)}, syscall.EOPNOTSUPP},
		{"interface ID 0", none, []func(*message){u32(nl.XFRMA_IF_ID, 0)}, 0},
		{"padding", none, []func(*message){u32(nl.XFRMA_TFCPAD, 1400)}, 0},
		{"padding to the path", none, []func(*message){u32(nl.XFRMA_TFCPAD, 1<<32-1)}, 0},
		{"padding in transport mode", func(s *usersaInfo) { s.mode = 0 }, []func(*message){u32(nl.XFRMA_TFCPAD, 1400)}, syscall.EINVAL},
		{"padding 0", none, []func(*message){u32(nl.XFRMA_TFCPAD, 0)}, 0},
		{"mark", none, []func(*message){with(nl.XFRMA_MARK, &hashInfo{1, 0xff})}, syscall.EOPNOTSUPP},
		{"offload", none, []func(*message){with(nl.XFRMA_OFFLOAD_DEV, &hashInfo{1, 0})}, syscall.EOPNOTSUPP},
		{"security context", none, []func(*message){with(nl.XFRMA_SEC_CTX, &hashInfo{})}, syscall.EOPNOTSUPP},
		{"events after 32 packets", none, []func(*message){u32(nl.XFRMA_REPLAY_THRESH, 32)}, syscall.EOPNOTSUPP},
		{"numbers that wrap", none, []func(*message){u32(nl.XFRMA_SA_EXTRA_FLAGS, extraMayWrap)}, syscall.EOPNOTSUPP},
		{"DSCP not copied", none, []func(*message){u32(nl.XFRMA_SA_EXTRA_FLAGS, 1)}, 0},
		{"a window larger than its bitmap", none, []func(*message){with(nl.XFRMA_REPLAY_ESN_VAL, &replayESN{window: 33, bitmap: make([]uint32, 1)})}, syscall.EINVAL},
		{"ESN with window 0", none, []func(*message){with(nl.XFRMA_REPLAY_ESN_VAL, &replayESN{bitmap: []uint32{}})}, syscall.EINVAL},
		{"sent and received", none, []func(*message){with(nl.XFRMA_REPLAY_ESN_VAL, &replayESN{window: 32, bitmap: make([]uint32, 1), seq: 1, oseq: 1})}, syscall.EINVAL},
		{"the last processor", none, []func(*message){u32(attrCPU, 1023)}, 0},
		{"one processor more", none, []func(*message){u32(attrCPU, 1024)}, syscall.ERANGE},
		{"processor -1", none, []func(*message){u32(attrCPU, 1<<32-1)}, syscall.ERANGE},
		{"a processor in two bytes", none, []func(*message){func(m *message) { m.attr(attrCPU, new(pair)) }}, syscall.ERANGE},
		{"ESP in TCP", none, []func(*message){with(nl.XFRMA_ENCAP, &encap{typ: 7})}, syscall.EOPNOTSUPP},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			sa := inboundSA(0x1000)
			row.edit(sa)
			attrs := append([]func(*message){with(nl.XFRMA_ALG_AEAD, gcm()), window(32)}, row.attrs...)
			r.do(t, r.client(t, 0), row.errno, r.req(msgNewSA, syscall.NLM_F_ACK, sa, attrs...))
		})
	}
	t.Run("ESN without a window", func(t *testing.T) {
		r := newRig(t)
		r.do(t, r.client(t, 0), syscall.EINVAL, r.req(msgNewSA, syscall.NLM_F_ACK, inboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm())))
	})
}

// An SA of AH has a hash and nothing else; the flag align4 is said again, and
// means what it says over IPv4 only.
func TestAH(t *testing.T) {
	hash := &algo{name: "hmac(sha256)", sized: true, bits: 128, key: make([]byte, 32)}
	cbc := &algo{name: "cbc(aes)", key: make([]byte, 16)}
	for _, row := range []struct {
		name  string
		flags uint8
		attrs []func(*message)
		errno syscall.Errno
	}{
		{"a hash", 0, []func(*message){with(nl.XFRMA_ALG_AUTH_TRUNC, hash)}, 0},
		{"a hash without its length", 0, []func(*message){with(nl.XFRMA_ALG_AUTH, &algo{name: "hmac(sha256)", key: hash.key})}, 0},
		{"align4", flagAlign4, []func(*message){with(nl.XFRMA_ALG_AUTH_TRUNC, hash)}, 0},
		{"nothing", 0, nil, syscall.EINVAL},
		{"a cipher, too", 0, []func(*message){with(nl.XFRMA_ALG_AUTH_TRUNC, hash), with(nl.XFRMA_ALG_CRYPT, cbc)}, syscall.EINVAL},
		{"a cipher alone", 0, []func(*message){with(nl.XFRMA_ALG_CRYPT, cbc)}, syscall.EINVAL},
		{"a short key", 0, []func(*message){with(nl.XFRMA_ALG_AUTH_TRUNC, &algo{name: "hmac(sha256)", sized: true, bits: 128, key: make([]byte, 31)})}, syscall.EINVAL},
		{"in UDP", 0, []func(*message){with(nl.XFRMA_ALG_AUTH_TRUNC, hash), with(nl.XFRMA_ENCAP, &encap{typ: 2, sport: 4500, dport: 4500})}, syscall.EINVAL},
	} {
		r := newRig(t)
		c := r.client(t, 0)
		sa := outboundSA(0x1000)
		sa.id.proto, sa.flags = protoAH, flagAnyFamily|row.flags
		r.do(t, c, row.errno, r.req(msgNewSA, syscall.NLM_F_ACK, sa, row.attrs...))
		if row.errno != 0 {
			continue
		}
		got := r.one(t, c, r.req(msgGetSA, 0, &usersaID{dst: sa.id.dst, spi: sa.id.spi, family: afInet, proto: protoAH}))
		var info usersaInfo
		if err := decode(got.body, &info); err != nil || info.flags != sa.flags || info.id.proto != protoAH {
			t.Errorf("%s: %+v, %v", row.name, info, err)
		}
		back := algo{sized: true}
		if err := decode(got.attr(t, usersaInfoLen, nl.XFRMA_ALG_AUTH_TRUNC), &back); err != nil || back.name != hash.name || back.bits != 128 {
			t.Errorf("%s: %+v, %v", row.name, back, err)
		}
		_ = r.ctl.Keying(func(k *control.Keying) {
			got, err := k.SA(control.SAID{SPI: sa.id.spi, Dst: flow.From4(sa.id.dst[:]), Proto: protoAH}, false)
			if err != nil || got.Align4 != (row.flags != 0) || got.Integrity != "hmac-sha2-256-128" || got.Encryption != "" {
				t.Errorf("%s: %v, %v", row.name, got.Params, err)
			}
		})
	}
}

// A daemon that moves an SA to other addresses reads its state, deletes it and
// adds it again: the sequence numbers go on, in both directions and both forms
// of the window.
func TestSequenceNumbersMove(t *testing.T) {
	bits := func(words int, set ...uint32) []uint32 {
		b := make([]uint32, words)
		for _, n := range set {
			b[n/32] |= 1 << (n % 32)
		}
		return b
	}
	for _, row := range []struct {
		name  string
		sa    *usersaInfo
		esn   bool
		state layout
	}{
		{"sent, ESN", outboundSA(0x1000), true, &replayESN{oseq: 5, oseqHi: 1, window: 1, bitmap: []uint32{0}}},
		{"received, ESN", inboundSA(0x1000), true, &replayESN{seq: 130, seqHi: 2, window: 64, bitmap: bits(2, 0, 1, 63)}},
		{"received, a large window", inboundSA(0x1000), false, &replayESN{seq: 130, window: 128, bitmap: bits(4, 1, 0, 127, 64)}},
		{"received, an odd window", inboundSA(0x1000), false, &replayESN{seq: 9, window: 65, bitmap: bits(3, 8, 0, 2)}},
		{"received, a small window", inboundSA(0x1000), false, &replayState{seq: 40, bitmap: 0x80000003}},
		{"sent, a small window", outboundSA(0x1000), false, &replayState{oseq: 40}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			c := r.client(t, 0)
			typ := nl.XFRMA_REPLAY_ESN_VAL
			row.sa.flags = flagAnyFamily
			if row.esn {
				row.sa.flags |= flagESN
			}
			if _, plain := row.state.(*replayState); plain {
				typ, row.sa.window = nl.XFRMA_REPLAY_VAL, 32
			}
			r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, row.sa, with(nl.XFRMA_ALG_AEAD, gcm()), with(typ, row.state),
				with(nl.XFRMA_LTIME_VAL, &lifetimeCur{bytes: 1234, packets: 12})))
			name := usersaID{dst: row.sa.id.dst, spi: 0x1000, family: afInet, proto: 50}
			got := r.one(t, c, r.req(msgGetAE, 0, &aeventID{sa: name}))
			want := encode(nil, row.state)
			if b := got.attr(t, aeventIDLen, typ); !bytes.Equal(b, want) {
				t.Errorf("state % x\nwant  % x", b, want)
			}
			var cur lifetimeCur
			if err := decode(got.attr(t, aeventIDLen, nl.XFRMA_LTIME_VAL), &cur); err != nil || cur.bytes != 1234 || cur.packets != 12 {
				t.Errorf("carried %+v, %v", cur, err)
			}
		})
	}
}

// NEWAE moves the numbers on, and never back.
func TestNewAE(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, outboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(1)))
	name := &aeventID{sa: usersaID{dst: addr("192.0.2.2"), spi: 0x1000, family: afInet, proto: 50}}
	at := func(n uint32) func(*message) {
		return with(nl.XFRMA_REPLAY_ESN_VAL, &replayESN{oseq: n, window: 1, bitmap: []uint32{0}})
	}
	const replace = syscall.NLM_F_ACK | syscall.NLM_F_REPLACE
	r.do(t, c, syscall.EINVAL, r.req(msgNewAE, syscall.NLM_F_ACK, name, at(100)))
	r.do(t, c, 0, r.req(msgNewAE, replace, name, at(100)))
	r.do(t, c, syscall.EINVAL, r.req(msgNewAE, replace, name, at(99)))
	r.do(t, c, syscall.EINVAL, r.req(msgNewAE, replace, name))
	threshold := word(5)
	r.do(t, c, syscall.EOPNOTSUPP, r.req(msgNewAE, replace, name, with(nl.XFRMA_REPLAY_THRESH, &threshold)))
	name.sa.spi++
	r.do(t, c, syscall.ESRCH, r.req(msgNewAE, replace, name, at(100)))
	r.do(t, c, syscall.ESRCH, r.req(msgGetAE, 0, name))
}

// Keys go to who asks for the SA, and nowhere else: not into errors, events,
// acknowledgements or the log.
func TestKeysStayInside(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0xffff)
	c.SetExtendedAcks(true)
	add := r.req(msgNewSA, syscall.NLM_F_ACK, inboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(32))
	sas := [][]byte{
		add, add, // the second is EEXIST
		r.req(msgUpdSA, syscall.NLM_F_ACK, inboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(32)),
		r.req(msgNewSA, syscall.NLM_F_ACK, inboundSA(1), with(nl.XFRMA_ALG_AEAD, gcm()), window(32)), // EINVAL
		r.req(msgGetAE, 0, &aeventID{sa: usersaID{dst: addr("192.0.2.1"), spi: 0x1000, family: afInet, proto: 50}}),
		r.req(msgDelSA, syscall.NLM_F_ACK, &usersaID{dst: addr("192.0.2.1"), spi: 0x1000, family: afInet, proto: 50}),
	}
	for _, b := range sas {
		if err := c.Handle(b); err != nil {
			t.Fatal(err)
		}
	}
	secret := gcm().key[4:12]
	kinds := map[uint16]int{}
	events(t, c, 6+3, func(b []byte) { // the answers, and events of what worked
		kinds[split(t, b)[0].typ]++
		if bytes.Contains(b, secret) {
			t.Errorf("the key: % x", b)
		}
	})
	if kinds[msgNewSA] != 1 || kinds[msgUpdSA] != 1 || kinds[msgDelSA] != 1 || kinds[msgNewAE] != 1 || kinds[syscall.NLMSG_ERROR] != 5 {
		t.Errorf("messages by type: %v", kinds)
	}
	if log := r.log.String(); strings.Contains(log, hex.EncodeToString(secret)) || strings.Contains(log, string(secret)) {
		t.Errorf("the log has the key:\n%s", log)
	}
}

// CVE-2017-7184: a bitmap of another length than that of the SA, in a message
// that moves its sequence numbers, was written beyond its buffer. Here the
// message is refused, whatever its words claim, and the SA stays as it was.
func TestCVE20177184(t *testing.T) {
	r := newRig(t)
	c := r.client(t, 0)
	r.do(t, c, 0, r.req(msgNewSA, syscall.NLM_F_ACK, inboundSA(0x1000), with(nl.XFRMA_ALG_AEAD, gcm()), window(64)))
	id := usersaID{dst: addr("192.0.2.1"), spi: 0x1000, family: afInet, proto: 50}
	get := func() []byte {
		m := r.one(t, c, r.req(msgGetAE, 0, &aeventID{sa: id}))
		return m.body
	}
	before := get()
	for _, words := range []int{0, 1, 3, 4, 64, 128, 4096} {
		for _, size := range []uint32{0, 32, 64, 65, 96, 4096, 1 << 31, 1<<32 - 1} {
			lie := &replayESN{seq: 9, window: size, bitmap: make([]uint32, words)}
			r.do(t, c, syscall.EINVAL, r.req(msgNewAE, syscall.NLM_F_ACK|syscall.NLM_F_REPLACE, &aeventID{sa: id}, with(nl.XFRMA_REPLAY_ESN_VAL, lie)))
		}
	}
	if after := get(); !bytes.Equal(before, after) {
		t.Errorf("the SA was changed:\n%x\n%x", before, after)
	}
}
