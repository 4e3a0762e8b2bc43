package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spigot/internal/affinity"
)

// A queueFlag is one --queue: queue Queue of Port belongs to the worker of Core.
type queueFlag struct {
	Port        string
	Queue, Core int
}

// String formats q as it is written: "red0:0@1".
func (q queueFlag) String() string { return fmt.Sprintf("%s:%d@%d", q.Port, q.Queue, q.Core) }

// parseQueue reads "PORT:QUEUE@CORE".
func parseQueue(s string) (queueFlag, error) {
	colon, sign := strings.LastIndexByte(s, ':'), strings.LastIndexByte(s, '@')
	if colon <= 0 || sign < colon {
		return queueFlag{}, fmt.Errorf("%q is not PORT:QUEUE@CORE, as in red0:0@1", s)
	}
	queue, err1 := strconv.ParseUint(s[colon+1:sign], 10, 16)
	core, err2 := strconv.ParseUint(s[sign+1:], 10, 16)
	if err1 != nil || err2 != nil {
		return queueFlag{}, fmt.Errorf("%q is not PORT:QUEUE@CORE with two numbers, as in red0:0@1", s)
	}
	return queueFlag{s[:colon], int(queue), int(core)}, nil
}

// assignQueues gives every worker its queues of every port: those that flags
// name for the port, else the port's i-th queue to worker i, round and round.
func assignQueues(p *problems, c *Config, docs []portDoc, flags []queueFlag) {
	for _, f := range flags {
		if !slices.ContainsFunc(c.Ports, func(port PortConfig) bool { return port.Name == f.Port }) {
			p.list = append(p.list, fmt.Sprintf("--queue %v: no port is named %q", f, f.Port))
		}
	}
	for i := range c.Ports {
		port := &c.Ports[i]
		part := fmt.Sprintf("ports[%d]", i)
		mine := slices.DeleteFunc(slices.Clone(flags), func(f queueFlag) bool { return f.Port != port.Name })
		if len(mine) > 0 {
			port.Queues = byFlags(p, mine, c.Cores)
		} else {
			port.Queues = inTurn(p, part, docs[i].Queues, len(c.Cores))
		}
		for w, queues := range port.Queues {
			if len(queues) == 0 {
				p.add(part+".queues", "the worker of core %d owns no queue of %s; every worker needs one of every port: "+
					"list more queues, run fewer workers, or say --queue %s:QUEUE@%d", c.Cores[w], port.Name, port.Name, c.Cores[w])
			}
		}
	}
}

// inTurn deals queues to the workers in turn; without queues, each worker has
// the queue of its number.
func inTurn(p *problems, part string, queues []int, workers int) [][]int {
	owned := make([][]int, workers)
	if len(queues) == 0 {
		for w := range owned {
			owned[w] = []int{w}
		}
		return owned
	}
	for i, queue := range queues {
		at := fmt.Sprintf("%s.queues[%d]", part, i)
		if !p.inRange(at, queue, 0, maxQueue) || workers == 0 {
			continue
		}
		if slices.Contains(queues[:i], queue) {
			p.add(at, "queue %d is there twice", queue)
			continue
		}
		owned[i%workers] = append(owned[i%workers], queue)
	}
	return owned
}

// byFlags deals one port's queues as flags say.
func byFlags(p *problems, flags []queueFlag, cores []int) [][]int {
	owned := make([][]int, len(cores))
	for i, f := range flags {
		w := slices.Index(cores, f.Core)
		if w < 0 {
			p.list = append(p.list, fmt.Sprintf("--queue %v: core %d has no worker; there are workers on %s", f, f.Core, affinity.Format(cores)))
			continue
		}
		if slices.ContainsFunc(flags[:i], func(o queueFlag) bool { return o.Queue == f.Queue }) {
			p.list = append(p.list, fmt.Sprintf("--queue %v: queue %d of %s has an owner already", f, f.Queue, f.Port))
			continue
		}
		owned[w] = append(owned[w], f.Queue)
	}
	return owned
}
