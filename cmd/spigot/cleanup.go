package main

import (
	"errors"
	"fmt"
)

// cleanup undoes what was done, the last first.
type cleanup struct{ steps []step }

type step struct {
	name string
	undo func() error
}

// add notes how to undo something; name says what undo does.
func (c *cleanup) add(name string, undo func() error) {
	c.steps = append(c.steps, step{name, undo})
}

// run undoes everything, whatever fails, and returns all errors. A second run
// does nothing.
func (c *cleanup) run() error {
	var errs []error
	for i := len(c.steps) - 1; i >= 0; i-- {
		if err := c.steps[i].undo(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.steps[i].name, err))
		}
	}
	c.steps = nil
	return errors.Join(errs...)
}
