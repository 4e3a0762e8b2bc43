package pfkey

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestString(t *testing.T) {
	add := addSA(0x1000)
	add.Soft = Lifetime{AddTime: 3000, Allocations: 7}
	add.SA2.Reqid = 9
	policy := spdUpdate()
	policy.Src.Port, policy.Src.Proto = 80, 6
	for _, row := range []struct {
		m    *Message
		want string
	}{
		{add, "ADD esp seq 100 pid 4711: SPI 0x1000 192.0.2.1 -> 192.0.2.2 mature tunnel reqid 9 aes-cbc hmac-sha2-384-192, " +
			"soft 7 packets 3000 s, hard 1073741824 bytes 3600 s"},
		{policy, "X_SPDUPDATE seq 101 pid 4711: 10.1.0.0/16[80] proto 6 -> 10.2.0.0/16, policy out ipsec priority 0 " +
			"[esp tunnel require 192.0.2.1 -> 192.0.2.2]"},
		{&Message{Type: Get, SAType: ESP, Errno: unix.ESRCH, Seq: 1, PID: 2}, "GET esp seq 1 pid 2: no such process"},
		{&Message{Type: Register, Errno: unix.ENOBUFS, Seq: 12}, "REGISTER: 12 messages lost: this reader is too slow"},
		{&Message{Type: NATNewMapping, SAType: ESP, Has: 1<<ExtSA | addresses, SA: SA{SPI: 5}, Src: host("192.0.2.2"), Dst: host("192.0.2.9"),
			NATSport: 4500, NATDport: 1024}, "X_NAT_T_NEW_MAPPING esp seq 0 pid 0: SPI 0x5 192.0.2.2 -> 192.0.2.9, port 4500 -> 1024"},
		{&Message{Type: 99, SAType: 77, Has: 1 << ExtSA, SA: SA{Enc: 250, State: 9}}, "type 99 satype 77 seq 0 pid 0: SPI 0x0 9 algorithm 250"},
	} {
		if got := row.m.String(); got != row.want {
			t.Errorf("got  %s\nwant %s", got, row.want)
		}
	}
}
