package crypto

import (
	"fmt"
	"testing"
)

func TestPrintingAKeyDoesNotShowIt(t *testing.T) {
	s, err := Lookup("aes-gcm-16", "", 20)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.NewKey(make([]byte, 20), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got, want := fmt.Sprintf(verb, k), "key of "+s.String(); got != want {
			t.Errorf("%s shows %q, want %q", verb, got, want)
		}
	}
	if got := fmt.Sprint((*Key)(nil)); got != "no key" {
		t.Errorf("nil key shows %q", got)
	}
}
