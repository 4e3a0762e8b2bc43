package control

import "slices"

// Atomic runs f, and undoes what f did if f fails: nothing of it is ever in
// force, and nobody hears of it. f may add SAs and add or update policies, and
// must change nothing else, since a key that is gone does not come back.
func (k *Keying) Atomic(f func() error) error {
	c := k.c
	told := len(c.news)
	c.undo = []func(){}
	err := f()
	steps := c.undo
	c.undo = nil
	if err == nil {
		return nil
	}
	for _, step := range slices.Backward(steps) {
		step()
	}
	clear(c.news[told:])
	c.news = c.news[:told]
	return err
}

// undoable notes how a step of Atomic is undone.
func (c *Controller) undoable(step func()) {
	if c.undo != nil {
		c.undo = append(c.undo, step)
	}
}
