package pfkey

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control"
)

// Every algorithm that PF_KEY has a number for, by the numbers of Linux and
// FreeBSD, and what is refused.
func TestAlgorithms(t *testing.T) {
	for i, row := range []struct {
		name      string
		enc, auth uint8
		encKey    int // bytes
		authKey   int
		errno     unix.Errno
	}{
		{"AES-128-CBC, SHA-256", 12, 5, 16, 32, 0},
		{"AES-192-CBC, SHA-384", 12, 6, 24, 48, 0},
		{"AES-256-CBC, SHA-512", 12, 7, 32, 64, 0},
		{"AES-128-CBC, XCBC", 12, 9, 16, 16, 0},
		{"AES-256-CTR, SHA-256", 13, 5, 36, 32, 0},
		{"AES-128-CCM-8", 14, 0, 19, 0, 0},
		{"AES-192-CCM-12", 15, 0, 27, 0, 0},
		{"AES-256-CCM-16", 16, 0, 35, 0, 0},
		{"AES-128-GCM-8", 18, 0, 20, 0, 0},
		{"AES-192-GCM-12", 19, 0, 28, 0, 0},
		{"AES-256-GCM-16", 20, noAuth, 36, 0, 0},
		{"AES-128-GMAC", 23, 0, 20, 0, 0},
		{"AES-192-GMAC", 23, 0, 28, 0, 0},
		{"AES-256-GMAC", 23, noAuth, 36, 0, 0},
		{"ChaCha20-Poly1305", 31, 0, 36, 0, 0},
		{"NULL, SHA-256", 11, 5, 0, 32, 0},
		{"NULL, XCBC", 11, 9, 0, 16, 0},
		{"NULL, NULL", 11, noAuth, 0, 0, unix.ENOSYS},
		{"AES-128-CBC, SHA-1, which nobody has allowed", 12, 3, 16, 20, unix.ENOSYS},
		{"AES-128-CBC, MD5", 12, 2, 16, 16, unix.ENOSYS},
		{"3DES, SHA-256", 3, 5, 24, 32, unix.ENOSYS},
		{"AES-GMAC without a salt", 23, 0, 16, 0, unix.EINVAL},
		{"AES-GMAC and SHA-256", 23, 5, 20, 32, unix.ENOSYS},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newRig(t).connect(t, 0)
			m := addSA(0x1000 + uint32(i))
			m.SA.Enc, m.SA.Auth = row.enc, row.auth
			m.EncKey, m.AuthKey = pattern(row.encKey, 1), pattern(row.authKey, 2)
			for ext, n := range map[Ext]int{ExtEncKey: row.encKey, ExtAuthKey: row.authKey} {
				if m.Has &^= 1 << ext; n > 0 {
					m.Has |= 1 << ext
				}
			}
			if row.errno != 0 {
				p.fails(m, row.errno)
				return
			}
			p.ok(m)
			got := p.ok(&Message{Type: Get, SAType: ESP, Has: 1<<ExtSA | addresses, SA: m.SA, Src: m.Src, Dst: m.Dst})
			if got.SA.Enc != row.enc || got.SA.Auth%noAuth != row.auth%noAuth || len(got.EncKey) != row.encKey || len(got.AuthKey) != row.authKey {
				t.Errorf("came back as %d and %d with keys of %d and %d bytes", got.SA.Enc, got.SA.Auth, len(got.EncKey), len(got.AuthKey))
			}
		})
	}
}

// SHA-1 is there, and told of, where the operator allows it.
func TestLegacyAlgorithms(t *testing.T) {
	m := addSA(0x1000)
	m.SA.Auth, m.AuthKey = 3, pattern(20, 2)
	tells := func(r *rig) bool {
		return slices.ContainsFunc(r.supported.auth, func(a Algorithm) bool { return a.ID == 3 }) ||
			slices.ContainsFunc(r.supported.combs, func(c Comb) bool { return c.Auth == 3 })
	}
	r := newRig(t)
	r.connect(t, 0).fails(m, unix.ENOSYS)
	if tells(r) || !strings.Contains(r.log.String(), "--allow-legacy") {
		t.Errorf("not allowed: REGISTER tells of SHA-1: %v; log: %s", tells(r), r.log.String())
	}
	r = newRigOver(t, func(c *control.Config) { c.AllowLegacy = true })
	r.connect(t, 0).ok(m)
	if !slices.ContainsFunc(r.supported.auth, func(a Algorithm) bool { return a.ID == 3 }) {
		t.Error("allowed: REGISTER does not tell of SHA-1")
	}
}

// An ACQUIRE proposes what is best first: an AEAD with a whole ICV.
func TestProposals(t *testing.T) {
	combs := newRig(t).supported.combs
	if len(combs) != 9+9+1+12+12 || combs[0].Enc != 20 || combs[0].Auth != 0 {
		t.Errorf("%d proposals, the first is %d and %d", len(combs), combs[0].Enc, combs[0].Auth)
	}
	for _, c := range combs {
		if c.Enc == 11 || c.Auth == 3 || c.Enc == 23 {
			t.Errorf("proposes %d and %d", c.Enc, c.Auth)
		}
	}
}
