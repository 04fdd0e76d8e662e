package upstream

// A waiter is an exchange's place in the queue for a connection.
type waiter struct {
	granted     chan grant    // gets one, if it is not removed
	interrupted chan struct{} // gets one if the exchange is aborted
}

// A grant is a connection, or the place to make one, or the news that there
// will be neither.
type grant struct {
	conn   *conn
	closed bool
}

// interrupt ends the wait. One is enough.
func (w *waiter) interrupt() {
	select {
	case w.interrupted <- struct{}{}:
	default:
	}
}

// waiters is a queue: first come, first served. Its zero value is empty. The
// pool's lock guards it.
type waiters struct{ queue []*waiter }

func (q *waiters) len() int { return len(q.queue) }

func (q *waiters) join() *waiter {
	w := &waiter{granted: make(chan grant, 1), interrupted: make(chan struct{}, 1)}
	q.queue = append(q.queue, w)
	return w
}

// next removes and returns the first, nil if there is none.
func (q *waiters) next() *waiter {
	if len(q.queue) == 0 {
		return nil
	}
	w := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	return w
}

// remove reports whether w was still waiting.
func (q *waiters) remove(w *waiter) bool {
	for i, other := range q.queue {
		if other == w {
			q.queue = append(q.queue[:i], q.queue[i+1:]...)
			return true
		}
	}
	return false
}
