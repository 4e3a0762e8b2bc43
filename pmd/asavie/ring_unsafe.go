package asavie

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/asavie/xdp"
)

// completions is a second view of a socket's completion ring: the library
// takes entries off it and does not tell what they were.
type completions struct {
	entries  []uint64       // in the kernel's memory; gone after the socket's Close
	consumer *atomic.Uint32 // written by the library's Complete
}

// at returns entry i, from 0, of those that the next Complete takes.
func (c *completions) at(i int) uint64 {
	return c.entries[(c.consumer.Load()+uint32(i))&uint32(len(c.entries)-1)]
}

// completionsOf finds the ring in the library's Socket, whose fields are not
// exported. go.mod pins the library; another version might have other fields.
func completionsOf(xsk *xdp.Socket) (completions, error) {
	ring := reflect.ValueOf(xsk).Elem().FieldByName("completionRing")
	if ring.IsValid() {
		entries, consumer := ring.FieldByName("Descs"), ring.FieldByName("Consumer")
		if entries.IsValid() && consumer.IsValid() &&
			entries.Type() == reflect.TypeFor[[]uint64]() && consumer.Type() == reflect.TypeFor[*uint32]() {
			return completions{
				entries:  unsafe.Slice((*uint64)(entries.UnsafePointer()), entries.Len()),
				consumer: (*atomic.Uint32)(consumer.UnsafePointer()),
			}, nil
		}
	}
	return completions{}, fmt.Errorf("%w: the library is not version 0.3.3, its Socket has no completion ring", ErrUnsupported)
}
