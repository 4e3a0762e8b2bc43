package fib

import (
	"net"
	"testing"
)

func TestGroupMAC(t *testing.T) {
	for group, want := range map[string]string{
		"224.0.1.1":       "01:00:5e:00:01:01",
		"239.129.2.3":     "01:00:5e:01:02:03", // 32 groups share an address
		"239.255.255.255": "01:00:5e:7f:ff:ff",
		"ff15::1":         "33:33:00:00:00:01",
		"ff1e::a1b2:c3d4": "33:33:a1:b2:c3:d4",
	} {
		a := addr(group)
		if mac := GroupMAC(&a); net.HardwareAddr(mac[:]).String() != want {
			t.Errorf("%s: %x, want %s", group, mac, want)
		}
	}
}
