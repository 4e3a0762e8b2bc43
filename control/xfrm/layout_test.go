package xfrm

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"pgregory.net/rapid"
)

// layouts are the structures of fixed length, and how long a C compiler makes
// them: from vishvananda/netlink, or counted in linux/xfrm.h.
var layouts = []struct {
	name string
	new  func() layout
	size int
}{
	{"xfrm_selector", func() layout { return &selector{} }, nl.SizeofXfrmSelector},
	{"xfrm_id", func() layout { return &id{} }, nl.SizeofXfrmId},
	{"xfrm_lifetime_cfg", func() layout { return &lifetimeCfg{} }, nl.SizeofXfrmLifetimeCfg},
	{"xfrm_lifetime_cur", func() layout { return &lifetimeCur{} }, nl.SizeofXfrmLifetimeCur},
	{"xfrm_usersa_info", func() layout { return &usersaInfo{} }, nl.SizeofXfrmUsersaInfo},
	{"xfrm_usersa_id", func() layout { return &usersaID{} }, nl.SizeofXfrmUsersaId},
	{"xfrm_userspi_info", func() layout { return &userSPIInfo{} }, nl.SizeofXfrmUserSpiInfo},
	{"xfrm_aevent_id", func() layout { return &aeventID{} }, 48},
	{"xfrm_userpolicy_info", func() layout { return &userpolicyInfo{} }, nl.SizeofXfrmUserpolicyInfo},
	{"xfrm_userpolicy_id", func() layout { return &userpolicyID{} }, nl.SizeofXfrmUserpolicyId},
	{"xfrm_user_acquire", func() layout { return &userAcquire{} }, 280},
	{"xfrm_user_expire", func() layout { return &userExpire{} }, nl.SizeofXfrmUserExpire},
	{"xfrm_user_polexpire", func() layout { return &userPolExpire{} }, 176},
	{"xfrm_user_mapping", func() layout { return &userMapping{} }, 64},
	{"xfrm_user_tmpl", func() layout { return &tmpl{} }, nl.SizeofXfrmUserTmpl},
	{"xfrm_encap_tmpl", func() layout { return &encap{} }, nl.SizeofXfrmEncapTmpl},
	{"xfrm_replay_state", func() layout { return &replayState{} }, nl.SizeofXfrmReplayState},
	{"xfrm_replay_state_esn", func() layout { return &replayESN{bitmap: []uint32{}} }, nl.SizeofXfrmReplayStateEsn},
	{"xfrm_algo", func() layout { return &algo{} }, nl.SizeofXfrmAlgo},
	{"xfrm_algo_auth", func() layout { return &algo{sized: true} }, nl.SizeofXfrmAlgoAuth},
	{"xfrm_address_filter", func() layout { return &addressFilter{} }, 36},
	{"xfrmu_spdinfo", func() layout { return &spdInfo{} }, 24},
	{"xfrmu_spdhinfo", func() layout { return &hashInfo{} }, 8},
	{"xfrmu_spdhthresh", func() layout { return &threshold{} }, 2},
	{"nlmsghdr", func() layout { return &header{} }, 16},
	{"nlmsgerr", func() layout { return &nlError{} }, 20},
	{"bind", func() layout { return &Binding{} }, bindLen},
}

// Each structure is as long as a compiler's, reads its own writing, and cannot
// be read from a byte less.
func TestLayouts(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			if n := len(encode(nil, l.new())); n != l.size {
				t.Fatalf("%d bytes, want %d", n, l.size)
			}
			rapid.Check(t, func(t *rapid.T) {
				raw := rapid.SliceOfN(rapid.Byte(), l.size, l.size).Draw(t, "bytes")
				switch l.new().(type) {
				case *algo:
					clear(raw[64:68]) // no key follows
				case *replayESN:
					clear(raw[:4]) // no bitmap
				}
				v, again := l.new(), l.new()
				if err := decode(raw, v); err != nil {
					t.Fatal(err)
				}
				b := encode(nil, v)
				if err := decode(b, again); err != nil || !reflect.DeepEqual(v, again) {
					t.Fatalf("%+v is read back as %+v (%v)", v, again, err)
				}
				if err := decode(raw[:l.size-1], l.new()); err == nil {
					t.Fatal("a byte less is no error")
				}
			})
		})
	}
}

// The fields stand where vishvananda/netlink has them.
func TestLayoutIsNetlinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), nl.SizeofXfrmUsersaInfo, nl.SizeofXfrmUsersaInfo).Draw(t, "SA")
		theirs := nl.DeserializeXfrmUsersaInfo(raw)
		var ours usersaInfo
		if err := decode(raw, &ours); err != nil {
			t.Fatal(err)
		}
		be := func(v uint32) uint32 { return v<<24 | v>>24 | v<<8&0xff0000 | v>>8&0xff00 }
		if ours.sel.plenDst != theirs.Sel.PrefixlenD || ours.sel.plenSrc != theirs.Sel.PrefixlenS ||
			ours.sel.family != theirs.Sel.Family || ours.sel.proto != theirs.Sel.Proto || int32(ours.sel.ifindex) != theirs.Sel.Ifindex ||
			ours.sel.dst != address(theirs.Sel.Daddr) || ours.sel.src != address(theirs.Sel.Saddr) ||
			ours.id.spi != be(theirs.Id.Spi) || ours.id.proto != theirs.Id.Proto || ours.id.dst != address(theirs.Id.Daddr) ||
			ours.src != address(theirs.Saddr) || ours.lft.hardPackets != theirs.Lft.HardPacketLimit ||
			ours.lft.softUse != theirs.Lft.SoftUseExpiresSeconds || ours.cur.used != theirs.Curlft.UseTime ||
			ours.stats[2] != theirs.Stats.IntegrityFailed || ours.seq != theirs.Seq || ours.reqid != theirs.Reqid ||
			ours.family != theirs.Family || ours.mode != theirs.Mode || ours.window != theirs.ReplayWindow || ours.flags != theirs.Flags {
			t.Fatalf("ours %+v, netlink's %+v", ours, theirs)
		}
		raw = rapid.SliceOfN(rapid.Byte(), nl.SizeofXfrmUserpolicyInfo, nl.SizeofXfrmUserpolicyInfo).Draw(t, "policy")
		policy, p := nl.DeserializeXfrmUserpolicyInfo(raw), userpolicyInfo{}
		if err := decode(raw, &p); err != nil || p.priority != policy.Priority || p.index != policy.Index || p.dir != policy.Dir ||
			p.action != policy.Action || p.flags != policy.Flags || p.share != policy.Share || p.cur.bytes != policy.Curlft.Bytes {
			t.Fatalf("ours %+v, netlink's %+v", p, policy)
		}
		raw = rapid.SliceOfN(rapid.Byte(), nl.SizeofXfrmUserTmpl, nl.SizeofXfrmUserTmpl).Draw(t, "template")
		template, u := nl.DeserializeXfrmUserTmpl(raw), tmpl{}
		if err := decode(raw, &u); err != nil || u.reqid != template.Reqid || u.mode != template.Mode || u.family != template.Family ||
			u.optional != template.Optional || u.calgos != template.Calgos || u.src != address(template.Saddr) {
			t.Fatalf("ours %+v, netlink's %+v", u, template)
		}
	})
}

// What is written is zero wherever the structure has a hole (CVE-2022-1353).
func TestHolesAreZero(t *testing.T) {
	type hole struct{ from, to int }
	for name, holes := range map[string][]hole{
		"xfrm_usersa_info":     {{45, 48}, {77, 80}, {217, 224}},
		"xfrm_userpolicy_info": {{45, 48}, {164, 168}},
		"xfrm_user_tmpl":       {{21, 24}, {26, 28}, {51, 52}},
		"xfrm_user_expire":     {{225, 232}},
	} {
		for _, l := range layouts {
			if l.name != name {
				continue
			}
			v := l.new()
			if err := decode(bytes.Repeat([]byte{0xff}, l.size), v); err != nil {
				t.Fatal(err)
			}
			b := encode(nil, v)
			for _, h := range holes {
				if !bytes.Equal(b[h.from:h.to], make([]byte, h.to-h.from)) {
					t.Errorf("%s: bytes %d to %d are % x", name, h.from, h.to, b[h.from:h.to])
				}
			}
		}
	}
}
