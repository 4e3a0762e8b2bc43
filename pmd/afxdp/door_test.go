package afxdp

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGuard: a guarded host gets nothing in clear that the gateway has not
// judged, but what it needs to be a host at all.
func TestGuard(t *testing.T) {
	t.Parallel()
	m := newMachine(t, SteeringOptions{Guard: true}, true)
	judged := func(frame []byte) []byte {
		f := bytes.Clone(frame)
		copy(f[6:], m.door.secret[:])
		return f
	}
	for _, c := range cases {
		want, wantAction := c.want, uint32(actionPass)
		if want == PassLocal || want == PassFragment {
			want = RedirectHost
		}
		if redirects(want) {
			wantAction = actionRedirect
		}
		if action, v := m.run(t, c.packet); v != want || action != wantAction {
			t.Errorf("%s: action %d, %s; want %d, %s", c.name, action, v, wantAction, want)
		}
		if redirects(want) { // whatever it is: what comes back again goes around for ever
			want, wantAction = PassJudged, actionPass
		}
		if action, v := m.run(t, judged(c.packet)); v != want || action != wantAction {
			t.Errorf("%s, judged: action %d, %s; want %d, %s", c.name, action, v, wantAction, want)
		}
	}
	ssh := frame4(6, here4, make([]byte, 20))
	for name, frame := range map[string][]byte{
		"in a frame for a group":              group(bytes.Clone(ssh)),
		"fragment in a frame for a group":     group(frame6(44, here6, frag6(17, 1, udp(9, spi)))),
		"one bit of the secret is not enough": flip(judged(ssh), 11),
	} {
		if action, v := m.run(t, frame); v != RedirectHost || action != actionRedirect {
			t.Errorf("%s: action %d, %s", name, action, v)
		}
	}
}

func flip(frame []byte, at int) []byte {
	frame[at] ^= 1
	return frame
}

// TestDeliver: what the gateway lets pass reaches the host by the interface
// that it came by, whole, and once. It does not come back to the gateway.
func TestDeliver(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Copy, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			m := newMachine(t, SteeringOptions{Guard: true, Mode: mode}, true)
			host := packetSocket(t, "m")
			ours := func(payload int) []byte {
				frame := frame4(6, here4, bytes.Repeat([]byte{0xa5}, payload))
				copy(frame, m.nic.mac)
				return frame
			}
			quote := append([]byte{0}, ip4(50, there4, 0, 0, spi)[1:]...) // which is of no packet
			frames := [][]byte{
				ours(26), ours(64), ours(1480),
				group(frame4(17, allGroup4, udp(9, make([]byte, 18)))),
				append(append([]byte{}, m.nic.mac...), frame4(1, here4, tooBig4(quote))[6:]...),
			}
			for _, frame := range frames {
				sent := bytes.Clone(frame)
				if err := m.Deliver(frame); err != nil {
					t.Fatal(err)
				}
				got := readAll(t, host)
				if len(got) != 1 || !bytes.Equal(got[0][12:], sent[12:]) || !bytes.Equal(got[0][:6], sent[:6]) {
					t.Errorf("% x became % x", sent, got)
				}
			}
			vs, err := m.Counters()
			if err != nil {
				t.Fatal(err)
			}
			var back uint64
			for v := range vs {
				if redirects(Verdict(v)) || Verdict(v) == NoSocket {
					back += vs[v]
				}
			}
			if back != 0 || mode == Generic && vs[PassJudged] != uint64(len(frames)) {
				t.Errorf("%d frames came back to the gateway, %d passed", back, vs[PassJudged])
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if err := m.Deliver(make([]byte, 60)); !errors.Is(err, ErrClosed) {
				t.Errorf("Deliver after Close: %v", err)
			}
		})
	}
	open := newMachine(t, SteeringOptions{}, false)
	if err := open.Deliver(make([]byte, 60)); !errors.Is(err, ErrClosed) {
		t.Errorf("Deliver to a host that is not guarded: %v", err)
	}
}

// readAll reads what waits on a packet socket.
func readAll(t *testing.T, fd int) (frames [][]byte) {
	t.Helper()
	for {
		b := make([]byte, 4096)
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b[:n])
	}
}
