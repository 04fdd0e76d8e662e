package upstream

// A TargetState says how a target is at the moment, over all of its addresses.
type TargetState struct {
	Target    string // its URL as configured
	Addresses int    // it is known to have
	InService int    // of them
	Ejected   int    // by Ejection
	Down      int    // by Health

	InFlight int // exchanges begun and not closed
	Open     int // connections, idle and in use
	Idle     int // of them
	Waiting  int // requests waiting for a connection

	Connects  uint64 // connections made so far, those of checks included
	Repeats   uint64 // requests sent again so far
	Ejections uint64 // so far
}

// State returns the state of each target in the order of the options. Counters
// of a target do not fall, also if it is taken out and put back by Update.
func (u *Upstream) State() []TargetState {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, now := u.roster.Load(), u.now()
	states := make([]TargetState, 0, len(s.specs))
	for _, spec := range s.specs {
		t := u.tally(spec.URL)
		state := TargetState{Target: spec.URL, Connects: t.connects.Load(), Repeats: t.repeats.Load(), Ejections: t.ejections.Load()}
		for _, e := range s.endpoints {
			if e.spec.URL == spec.URL {
				state.add(e, e.active.down.Load(), e.passive.out(now))
			}
		}
		states = append(states, state)
	}
	return states
}

func (s *TargetState) add(e *endpoint, down, ejected bool) {
	s.Addresses++
	switch {
	case down:
		s.Down++
	case ejected:
		s.Ejected++
	default:
		s.InService++
	}
	open, idle, waiting := e.pool.counts()
	s.InFlight += int(e.inFlight.Load())
	s.Open += open
	s.Idle += idle
	s.Waiting += waiting
}
