package crypto

import "fmt"

// Format writes the name of k's suite whatever the verb and flags, so that no
// way of printing a Key, or a struct that holds one, shows key material.
func (k *Key) Format(f fmt.State, _ rune) {
	if k == nil {
		fmt.Fprint(f, "no key")
		return
	}
	fmt.Fprintf(f, "key of %v", k.suite)
}
