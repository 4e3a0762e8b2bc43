package control

import (
	"testing"

	"spigot/internal/flow"
)

// Ports are shown as they are written: all, one, a range, and none to be seen.
func TestNamesOfPorts(t *testing.T) {
	for _, r := range []struct {
		ports flow.PortRange
		want  string
	}{
		{flow.AnyPort, "any"},
		{flow.OpaquePort, "opaque"},
		{flow.PortRange{Lo: 80, Hi: 80}, "80"},
		{flow.PortRange{Lo: 65535, Hi: 65535}, "65535"},
		{flow.PortRange{Lo: 80, Hi: 90}, "80-90"},
	} {
		if got := nameOfPorts(r.ports); got != r.want {
			t.Errorf("%v is shown as %q, want %q", r.ports, got, r.want)
		}
	}
}
